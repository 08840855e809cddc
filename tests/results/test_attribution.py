"""Invariant: an Attribution is frozen, one score per token, and survives saving bit for bit; views never write."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import every_result
import pytest
import torch

import tl_scopes as tls
from tl_scopes import Attribution, PositionalBaseline
from tl_scopes.results.words import group_words


def make(**changes: object) -> Attribution:
    """Five tokens, BOS first, two with the same text, read at position 3."""
    values: dict[str, object] = {
        "scores": torch.tensor([4.0, 0.1, 3.0, 0.1 + 0.2, 0.0]),
        "tokens": torch.tensor([0, 7, 8, 7, 9]),
        "str_tokens": ["<bos>", " the", " dog", " the", " cat"],
        "pos": 3,
        "method": "semantic",
        "target": 0,
        "target_str": "<bos>",
        "top_predictions": [(" a", 0.5), (" b", 0.25)],
        "details": {"logit": 1.5},
        "notes": ("a note",),
        "special": frozenset({0}),
    }
    return Attribution(**(values | changes))  # type: ignore[arg-type]


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().pos = 2  # type: ignore[misc]


def test_top_ranks_by_score_then_position_and_skips_what_is_hidden_or_after_pos() -> None:
    assert [t.pos for t in make().top(10)] == [0, 2, 3, 1]
    assert [t.pos for t in make().without("special").top(2)] == [2, 3]
    tied = make(scores=torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
    assert [t.pos for t in tied.top(4)] == [0, 1, 2, 3]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", [every_result.single, every_result.layers, every_result.heads, every_result.chain])
def test_how_many_are_the_top_is_none_or_more(make: Any) -> None:
    result = make()
    for top in (result.top, getattr(result, "top_heads", result.top)):
        assert (len(top(0)), len(top(2))) == (0, 2)
        with pytest.raises(ValueError, match=r"top\w*\(k=-1\): expected an integer of at least 0"):
            top(-1)


def test_layers_without_the_hook_of_each_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hooks: 0 entries for 3 of layer"):
        dataclasses.replace(every_result.layers(), hooks=())


@pytest.mark.usefixtures("unchecked")
def test_without_hides_positions_and_keeps_every_score() -> None:
    masked = make().without("special").without([-3])
    assert masked.hidden == {0, 2}
    assert torch.equal(masked.scores, make().scores)
    with pytest.raises(ValueError, match=r"^Attribution\.without\(tokens=\[.*\]\): .* outside a prompt of 5 tokens"):
        make().without([5])
    with pytest.raises(ValueError, match="expected 'special'"):
        make().without("sink")  # type: ignore[arg-type]


def test_normalized_details_are_on_the_scale_of_the_scores(demo_model: Any) -> None:
    attr = tls.input_x_gradient(demo_model, "German: der Hund", pos=[2, 3, 4], combine="norm", n_probes=2)
    shares = attr.normalized()
    total = shares.details["normalized_by"]
    for name in ("interval", "row_scores"):
        torch.testing.assert_close(torch.tensor(shares.details[name]) * total, torch.tensor(attr.details[name]))
    one = tls.input_x_gradient(demo_model, "German: der Hund").normalized()
    torch.testing.assert_close(torch.tensor(one.details["signed"]), one.signed[: one.pos + 1])


def test_normalized_shares_sum_to_one_over_the_shown_tokens() -> None:
    shares = make().without("special").normalized()
    assert math.isclose(float(shares.scores[[1, 2, 3]].sum()), 1.0, rel_tol=1e-6)
    assert torch.equal(make().scores, torch.tensor([4.0, 0.1, 3.0, 0.1 + 0.2, 0.0]))
    with pytest.raises(ValueError, match=r"^Attribution\.normalized: all .* no share to give"):
        make(scores=torch.zeros(5)).normalized()


def test_over_a_baseline_is_the_share_over_the_share_of_the_position(tmp_path) -> None:
    attr = make().without("special")
    share = torch.tensor([0.4, 0.1, 0.2, 0.3])
    over = PositionalBaseline(share, 0 * share, attr.method, 8).corrected(attr)
    wanted = attr.scores[:4] / attr.scores[:4].sum() / share
    torch.testing.assert_close(over.scores, torch.cat([wanted, torch.zeros(1)]))
    assert (over.hidden, over.stderr, over.details["over_baseline"]) == (attr.hidden, None, 8)
    assert "times the mean share of its position" in str(over)
    assert Attribution.load(over.save(tmp_path / "a.json")).scores.equal(over.scores)
    with pytest.raises(ValueError, match="read at position 2"):
        PositionalBaseline(share[:3], share[:3], attr.method, 8).corrected(attr)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saving_loses_nothing(tmp_path, dtype: torch.dtype) -> None:
    scores = torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=dtype) / 3
    gradient = torch.rand(5, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)
    before = make(scores=scores, stderr=scores / 7, gradient=gradient).without([1])
    after = Attribution.load(before.save(tmp_path / "a.json"))
    for field in dataclasses.fields(Attribution):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if isinstance(old, torch.Tensor):
            assert new.dtype == old.dtype
            assert torch.equal(new, old), field.name
        else:
            assert new == old, field.name
    assert after.target == 0


def test_what_was_not_saved_by_us_is_refused(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"not written by Attribution\.save"):
        Attribution.load(path)
    for content in (b"nonsense", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a JSON file"):
            Attribution.load(path)
    path.write_text('{"format": "tl_scopes.Attribution", "format_version": 1, "dtype": "float32"}')
    with pytest.raises(ValueError, match=r"not as Attribution\.save writes it \(scores: is missing\)"):
        Attribution.load(path)
    payload = json.loads(make().save(path).read_text())
    path.write_text(json.dumps(payload | {"format_version": 99}))
    with pytest.raises(ValueError, match="upgrade tl_scopes"):
        Attribution.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(4)}, r"tokens: shape \[5\] does not fit \[pos=4 \(scores\)\]"),
        ({"pos": 5}, "outside 0..4"),
        ({"scores": torch.full((5,), math.nan)}, "NaN or infinity"),
        ({"special": frozenset({9})}, "special: 9 outside 0..4"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_inconsistent_results_cannot_be_made(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_the_frame_has_one_row_per_token() -> None:
    frame = make().without("special").to_frame()
    assert frame["score"].tolist() == make().scores.tolist()
    assert frame["shown"].tolist() == [False, True, True, True, False]
    assert frame["str_token"].tolist() == make().str_tokens


def test_printing_shows_tokens_target_and_notes_as_plain_text_in_a_file() -> None:
    text = str(make(str_tokens=["<bos>", " the", "\n", "[red]", " cat"]).without("special"))
    assert "⏎" in text
    assert "[red]" in text, "token text must never be read as markup"
    assert "a note" in text
    assert "\x1b" not in text
    assert "Attribution(semantic, 5 tokens" in repr(make())


# -- words -------------------------------------------------------------------------------------------------


def test_a_words_score_is_the_joint_change_of_its_tokens() -> None:
    attr = make(
        str_tokens=["<bos>", " un", "believ", "able", "!"],
        scores=torch.tensor([4.0, 3.0, 4.0, 12.0, 0.0]),
        stderr=torch.ones(5),
    ).without("special")
    words = attr.by_word()
    assert words.str_tokens == ["<bos>", " unbelievable", "!"]
    assert words.scores.tolist() == [4.0, 13.0, 0.0], "sqrt(9 + 16 + 144)"
    assert (words.pos, words.special, words.hidden) == (1, {0}, {0})
    assert words.details["words"] == [[0], [1, 2, 3], [4]]
    assert words.tokens.tolist() == [0, 7, 9]
    assert words.stderr is not None
    assert words.stderr.tolist() == pytest.approx([1.0, (3 + 4 + 12) / 13, 1.0]), "at most, whatever the correlation"
    assert words.details["logit"] == 1.5
    assert words.by_word() is words
    assert attr.scores.tolist() == [4.0, 3.0, 4.0, 12.0, 0.0]


def test_words_that_cannot_be_told_apart_are_said_so() -> None:
    glued = make(str_tokens=["<bos>", "the", "dog", "runs", "off"]).by_word()
    assert any("carry no white space" in note for note in glued.notes)
    assert not any("carry no white space" in note for note in make().by_word().notes)


def test_total_information_of_a_word_is_a_plain_sum() -> None:
    words = make(method="total_information", str_tokens=["<bos>", " a", "b", "c", "!"]).by_word()
    assert words.scores.tolist() == pytest.approx([4.0, 0.1 + 3.0 + 0.3, 0.0])
    assert words.details["word_score"] == "sum"


def test_words_survive_saving(tmp_path) -> None:
    before = make(text="the dog", offsets=((0, 0), (0, 3), (4, 5), (5, 6), (6, 7)))
    after = Attribution.load(before.save(tmp_path / "a.json"))
    assert (after.text, after.offsets) == (before.text, before.offsets)
    assert after.by_word().str_tokens == ["<bos>", "the", " dog"]
    words = before.by_word()
    assert Attribution.load(words.save(tmp_path / "b.json")).details == words.details
    with pytest.raises(ValueError, match="offsets: 1 entries for 5 of pos"):
        make(text="the dog", offsets=((0, 3),))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([" well", "-", "known"], [" well", "-", "known"]),
        ([" don", "'t"], [" don't"]),
        ([" don", "'", "t", " 'x", "'"], [" don't", " 'x", "'"]),
        (["29", ",", "30"], ["29", ",", "30"]),
        (["a", " ", "🦊", " ", "\n"], ["a", " 🦊", " ", "\n"]),
        (["x", "\n", "\n", "y"], ["x", "\n", "\n", "y"]),
        ([" caf", "\ufffd", "\ufffd", "s"], [" caf\ufffd\ufffds"]),
        (["\ufffd", "\ufffd", " fox"], ["\ufffd\ufffd", " fox"]),
        (["👩", "\u200d", "👧"], ["👩\u200d👧"]),
        (["👍", "🏽", "🦊"], ["👍🏽", "🦊"]),
        (["שלו", "ם"], ["שלום"]),
        (["東", "京"], ["東", "京"]),
        (["", "a", ""], ["", "a", ""]),
    ],
)
def test_words_end_at_spaces_and_punctuation_and_never_inside_a_character(tokens: list[str], words: list[str]) -> None:
    grouped = group_words(tokens, frozenset())
    assert [w.text for w in grouped] == words
    assert [p for w in grouped for p in w.positions] == list(range(len(tokens)))


FLAG_OF_A_REGION = "🏴\U000e0067\U000e0062\U000e007f"


@pytest.mark.parametrize(
    "character", ["🇩🇪", "👩\u200d👩\u200d👧", "👍🏽", FLAG_OF_A_REGION, "e\u0301", "क्ष", "❤\ufe0f"]
)
def test_a_character_is_never_split_whatever_its_code_points(character: str) -> None:
    text = f"a {character}🇫🇷 b"
    cuts = [0, 1, *range(2, 2 + len(character)), *range(2 + len(character), len(text)), len(text)]
    offsets = list(itertools.pairwise(cuts))
    pieces = [text[start:end] for start, end in offsets]
    for given in ((pieces, frozenset()), (pieces, frozenset(), text, offsets)):
        words = [w.text.strip() for w in group_words(*given)]
        assert words == ["a", character, "🇫🇷", "b"]


def test_special_tokens_are_words_of_their_own() -> None:
    assert [w.positions for w in group_words(["a", "b", "c"], frozenset({1}))] == [(0,), (1,), (2,)]


def test_with_offsets_the_text_is_read_and_pieces_of_one_character_stay_together() -> None:
    pieces = ["<s>", "\ufffd", "\ufffd", "fox", "es", "\ufffd", "\ufffd", "."]
    offsets = [(0, 0), (0, 1), (0, 1), (2, 5), (5, 7), (8, 9), (8, 9), (9, 10)]
    words = group_words(pieces, frozenset({0}), "🦊 foxes 🐶.", offsets)
    assert [w.text for w in words] == ["<s>", "🦊", " foxes", " 🐶", "."]
    assert [w.positions for w in words] == [(0,), (1, 2), (3, 4), (5, 6), (7,)]


def test_it_shows_itself_as_html() -> None:
    assert make().html().startswith("<!doctype html>")
    assert "log scale" in make().html(scale="log")
    assert "tls-tokens" in make()._repr_html_()


def test_ids_of_the_predictions_are_those_of_their_texts(demo_model) -> None:
    import tl_scopes as tls

    prompt = "German: der Hund sieht die Katze. English: the"
    for attr in (tls.semantic_scope(demo_model, prompt), tls.leave_one_out(demo_model, prompt)):
        texts = [demo_model.tokenizer.decode([i]) for i in attr.top_tokens]
        assert texts == [text for text, _ in attr.top_predictions]


def test_the_targets_rank_is_its_place_among_the_predictions(demo_model) -> None:
    import tl_scopes as tls

    prompt = "German: der Hund sieht die Katze. English: the"
    top = tls.semantic_scope(demo_model, prompt).top_tokens
    for place in (0, 2, 5):
        for scope in (tls.semantic_scope, tls.gradient_norm):
            assert scope(demo_model, prompt, target=top[place]).details["target_rank"] == place + 1


@pytest.mark.parametrize("field", ["scores", "tokens", "dtype", "top_predictions", "special"])
@pytest.mark.parametrize("value", ["gone", 5, {"a": 1}])
def test_a_file_with_a_broken_field_is_a_value_error(field, value, demo_model, tmp_path) -> None:
    import tl_scopes as tls

    path = tls.semantic_scope(demo_model, "German: der Hund").save(tmp_path / "a.json")
    raw = json.loads(path.read_text())
    if value == "gone":
        del raw[field]
    else:
        raw[field] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="Attribution"):
        Attribution.load(path)
