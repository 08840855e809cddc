"""Invariant: units partition the tokens and keep squares (or sums), whatever the text, the tokenizer and the unit; words
joined into larger units are the tokens joined into them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import attribution, matrix
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import tl_scopes as tls
from tl_scopes import Attribution
from tl_scopes.model.prompts import spread_bytes
from tl_scopes.model.units import Unit
from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.results.units import Entries, grouping, members

pytestmark = pytest.mark.one_lens
KINDS = ("word", "sentence", "line", "paragraph")
LATIN = (
    "Dr. Smith met Mr. J. R. Jones at 5 p.m. in Washington. They spoke, e.g. about U.S. policy.\r\n"
    "It cost $3.50! Really?\r\n\r\n"
    'He said: "Stop. Do not go." Then he left. (See Fig. 3.) "It works!" she cried.\n\n\n- one\n- two'
)
MIXED = (
    "😀 Hello there. 👩\u200d👩\u200d👧 Next one!  مرحبا بالعالم. كيف حالك؟\r\n"
    "私は猫です。名前はまだ無い。「はい。」と言った。今天天气很好！好吗？\n\nשלום עולם. נעים."
)


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def byte_level() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [LATIN], trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    )
    return core


def sentence_piece() -> Tokenizer:
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_of = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", *bytes_of], unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator([LATIN], trainer)
    pieces = [(piece, score) for piece, score in json.loads(core.to_str())["model"]["vocab"]]
    core.model = models.Unigram(pieces, unk_id=0, byte_fallback=True)
    return core


def word_piece() -> Tokenizer:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.train_from_iterator(
        [LATIN, MIXED], trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    )
    return core


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "sentence piece": sentence_piece,
    "word piece": word_piece,
}


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    return {name: make() for name, make in TOKENIZERS.items()}


def of_text(text: str, core: Tokenizer, seed: int = 0, **changes: Any) -> Attribution:
    """An attribution of a text with random scores, a BOS in front."""
    encoding = core.encode(text, add_special_tokens=False)
    pieces = [core.decode([i]) or "?" for i in encoding.ids]
    n = len(pieces) + 1
    scores = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores[n - 1] = 0.0
    values: dict[str, Any] = {
        "scores": scores,
        "details": {},
        "text": text,
        "offsets": ((0, 0), *spread_bytes(text, encoding.offsets)),
        "pos": n - 2,
    }
    return attribution(["<bos>", *pieces], **(values | changes))


def texts(attr: Attribution) -> list[str]:
    return [t.strip() for t in attr.str_tokens[1:]]


# -- where units end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOKENIZERS)
def test_sentences_end_after_their_mark_and_not_after_abbreviations_or_in_quotes(name: str, made: Any) -> None:
    attr = of_text(LATIN, made[name])
    assert texts(attr.by_unit("sentence")) == [
        "Dr. Smith met Mr. J. R. Jones at 5 p.m. in Washington.",
        "They spoke, e.g. about U.S. policy.",
        "It cost $3.50!",
        "Really?",
        'He said: "Stop. Do not go."',
        "Then he left.",
        '(See Fig. 3.) "It works!" she cried.',
        "- one",
        "- two",
    ]
    assert [t.splitlines() for t in texts(attr.by_unit("paragraph"))] == [
        LATIN.splitlines()[:2], LATIN.splitlines()[3:4], ["- one", "- two"],
    ]  # fmt: skip
    assert texts(attr.by_unit("line")) == [line for line in LATIN.splitlines() if line]


@pytest.mark.parametrize("name", ["byte-level", "sentence piece"])
def test_emoji_right_to_left_and_ideographic_text_is_cut_at_its_own_marks(name: str, made: Any) -> None:
    attr = of_text(MIXED, made[name])
    assert texts(attr.by_unit("sentence")) == [
        "😀 Hello there.", "👩\u200d👩\u200d👧 Next one!", "مرحبا بالعالم.", "كيف حالك؟", "私は猫です。", "名前はまだ無い。",
        "「はい。」", "と言った。", "今天天气很好！", "好吗？", "שלום עולם.", "נעים.",
    ]  # fmt: skip
    assert len(attr.by_unit("paragraph")) == 3 and len(attr.by_unit("line")) == 4


def test_the_language_knows_its_own_abbreviations(made: Any) -> None:
    attr = of_text("Er kam z. B. am Montag. Dann ging er bzw. Sie gingen.", made["byte-level"])
    assert texts(attr.by_unit("sentence", language="de"))[0] == "Er kam z. B. am Montag."


def test_named_characters_are_units_and_so_is_each_stretch_between(made: Any) -> None:
    attr = of_text("The cat sat. The dog ran. End", made["byte-level"])
    named = attr.by_unit({"dog": (13, 25), "cat": (0, 12)})
    assert named.str_tokens == ["<bos>", "cat", "dog", " End"]
    assert named.details["names"] == ["", "cat", "dog", "rest"] and named.details["unit"] == "span"
    again = attr.by_unit([("cat", "The cat sat."), ("dog", "The dog ran.")])
    assert torch.equal(again.scores, named.scores)
    assert named.to_frame()["name"].tolist() == named.details["names"]
    shares = named.without("special").shares()
    squares = named.scores[1:].square()
    assert list(shares) == ["cat", "dog", "rest"] and sum(shares.values()) == pytest.approx(1.0)
    assert shares["dog"] == pytest.approx(float(squares[1] / squares.sum()))
    with pytest.raises(
        ValueError, match=r"^Attribution\.shares: the units of this attribution, by sentence, have no names"
    ):
        attr.by_unit("sentence").shares()


def test_a_token_across_a_border_is_in_the_unit_of_its_first_visible_character() -> None:
    text = "One. Two\n\nThree"
    pieces, offsets = ["On", "e. T", "wo\n", "\nThree"], ((0, 2), (2, 6), (6, 9), (9, 15))
    attr = attribution(pieces, text=text, offsets=offsets, special=frozenset(), pos=2)
    assert members(attr.by_unit("paragraph").details) == [[0, 1, 2], [3]]
    assert members(attr.by_unit({"two": (5, 8)}).details) == [[0], [1, 2], [3]], "what is named gets what it touches"


def test_white_space_across_a_border_ends_what_stands_before_it() -> None:
    attr = attribution(["if", ":", "\n  ", "go"], special=frozenset(), pos=3, details={})
    assert attr.by_unit("line").str_tokens == attr.by_word().by_unit("line").str_tokens == ["if:\n  ", "go"]


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({"a": (3, 3)}, r"units=\{'a': \(3, 3\)\}\): expected 0 <= start < end <= 9"),
        ({"a": (0, 99)}, "expected 0 <= start < end <= 9"),
        ({"a": (0, 5), "b": (4, 9)}, "'a' and 'b' overlap"),
        ([("a", "no")], "'a', 'no', is not in the text"),
        ([("a", "a")], "is 2 times in the text"),
        ({"a": (3, 4)}, "'a', ' ', holds no token"),
        ({}, "name at least one"),
        ("turn", r"the turns of this prompt are not known.*\[\{'role'"),
    ],
)
def test_units_that_cannot_be_are_refused(units: Any, said: str) -> None:
    attr = attribution(
        ["the", "cat", "a"], text="the cat a", offsets=((0, 3), (4, 7), (8, 9)), special=frozenset(), pos=2
    )
    with pytest.raises(ValueError, match=rf"Attribution\.by_unit\(.*{said}"):
        attr.by_unit(units)


def test_larger_units_are_not_cut_into_smaller_ones(made: Any) -> None:
    attr = of_text(LATIN, made["byte-level"])
    for units in ("word", "line", {"half": (4, 8)}):
        with pytest.raises(ValueError, match="call by_unit on the result by token"):
            attr.by_unit("paragraph").by_unit(units)
    same = attr.by_unit("sentence")
    assert same.by_unit("sentence") is same


# -- turns -------------------------------------------------------------------------------------------------


def chat() -> Attribution:
    text = "[sys]Be brief.[/][usr]Hi! Why?[/][bot]"
    cuts = [0, 5, 8, 13, 14, 17, 22, 24, 25, 29, 30, 33, 38]
    offsets = tuple(itertools.pairwise(cuts))
    pieces = [text[a:b] for a, b in offsets]
    return attribution(
        pieces, text=text, offsets=offsets, scores=torch.arange(1.0, 13), details={}, pos=11,
        special=frozenset(i for i, p in enumerate(pieces) if "[" in p),
        units=(Unit("system", 5, 14), Unit("user", 22, 30)),
    )  # fmt: skip


def test_turns_are_units_and_each_stretch_of_the_template_is_one() -> None:
    turns = chat().by_unit("turn")
    assert turns.details["names"] == ["template", "system", "template", "user", "template"]
    assert turns.str_tokens == ["[sys]", "Be brief.", "[/][usr]", "Hi! Why?", "[/][bot]"]
    assert set(chat().without("special").by_unit("turn").shares()) == {"system", "user"}
    assert chat().by_word().by_unit("turn").scores.tolist() == turns.scores.tolist()
    assert Attribution.from_dict(chat().to_dict()).units == chat().units


def test_smaller_units_of_a_chat_do_not_cross_turns_and_leave_the_template_whole() -> None:
    assert chat().by_unit("sentence").str_tokens == ["[sys]", "Be brief.", "[/][usr]", "Hi!", " Why?", "[/][bot]"]
    assert chat().by_unit("sentence").by_unit("turn").scores.tolist() == chat().by_unit("turn").scores.tolist()
    plain = replace(chat(), special=frozenset(), text="user" + "name", offsets=((0, 4), (4, 8)), units=(Unit("user", 4, 8),),
                    str_tokens=["user", "name"], scores=torch.ones(2), tokens=torch.arange(2), pos=1)  # fmt: skip
    assert plain.by_word().str_tokens == ["user", "name"], "a word ends where a turn does"


def test_left_out_tokens_are_units_apart() -> None:
    hidden = chat().without([2])
    turns = hidden.by_unit("turn")
    assert members(turns.details)[:3] == [[0], [2], [1, 3]] and turns.hidden == {1}
    assert float(turns.scores[2]) == pytest.approx((2**2 + 4**2) ** 0.5), "a unit's score is of its shown tokens"


# -- what is kept ------------------------------------------------------------------------------------------


PIECES = st.sampled_from(
    ["Dr", ". ", " The", " cat", "!", "\n", "\n\n", "\r\n", "\n  ", "。", "東", "😀", " ", "'", '"', "?", "א"]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(PIECES, min_size=1, max_size=24), st.data())
def test_units_partition_the_tokens_and_keep_squares_and_sums(pieces: list[str], data: Any) -> None:
    n = len(pieces)
    special = data.draw(st.frozensets(st.integers(0, n - 1), max_size=2))
    hidden = data.draw(st.frozensets(st.integers(0, n - 1), max_size=3))
    method = data.draw(st.sampled_from(["semantic", "total_information"]))
    attr = attribution(
        pieces, scores=values(n, seed=n), stderr=values(n, seed=1), method=method,
        special=special, hidden=hidden, pos=data.draw(st.integers(0, n - 1)), details={"signed": list(range(n))},
    )  # fmt: skip
    start = len("".join(pieces[: data.draw(st.integers(0, n - 1))]))
    for units in (*KINDS, {"own": (start, sum(map(len, pieces)))}):
        after = attr.by_unit(units)
        groups = members(after.details)
        assert groups is not None and sorted(p for g in groups for p in g) == list(range(n))
        power = 1 if method == "total_information" else 2
        assert float(after.scores.pow(power).sum()) == pytest.approx(float(attr.scores.pow(power).sum()))
        assert sum(after.details["signed"]) == pytest.approx(sum(range(n)))
        assert attr.pos in groups[after.pos]
        kept = {p for i in after.shown for p in groups[i]} | {p for i in after.hidden for p in groups[i]}
        assert set(range(attr.pos + 1)) <= kept, "nothing before the explained position is lost"
        if units in KINDS:
            words = attr.by_word().by_unit(units)
            assert words.str_tokens == after.str_tokens and members(words.details) == groups
            assert torch.allclose(words.scores, after.scores)
            assert (words.pos, words.hidden, words.special) == (after.pos, after.hidden, after.special)


def test_signed_scores_of_a_unit_are_added() -> None:
    tokens = attribution([" a", " b", "c", "."], scores=values(4), signed=torch.tensor([1.0, -2.0, 0.5, 0.25]))
    joined = tokens.by_word()
    assert joined.signed is not None
    expected = [float(tokens.signed[list(unit)].sum()) for unit in members(joined.details)]
    assert joined.signed.tolist() == pytest.approx(expected)
    assert len(joined) < len(tokens)


def test_the_error_of_a_unit_is_at_most_that_of_wholly_correlated_tokens() -> None:
    generator = torch.Generator().manual_seed(3)
    base, noise = torch.rand(3, generator=generator, dtype=torch.float64) + 1, 1e-3
    draws = base + noise * torch.randn(4000, 1, generator=generator, dtype=torch.float64) * torch.tensor(
        [1.0, 2.0, 0.5]
    )
    attr = attribution([" a", "b", "c"], scores=base, stderr=draws.std(0), special=frozenset(), pos=2, details={})
    for method, whole in (("semantic", draws.square().sum(1).sqrt()), ("total_information", draws.sum(1))):
        after = replace(attr, method=method).by_word()
        assert after.stderr is not None and float(after.stderr) == pytest.approx(float(whole.std()), rel=1e-2)


def test_units_are_saved_shown_and_left_out_as_tokens_are(tmp_path: Path, made: Any) -> None:
    attr = of_text(LATIN, made["byte-level"], stderr=None)
    for units in ("sentence", {"first": (0, 40)}):
        after = attr.without("special").by_unit(units)
        back = Attribution.load(after.save(tmp_path / "units.json"))
        assert back.to_dict() == after.to_dict() and torch.equal(back.scores, after.scores)
        assert back.without([1]).hidden == {0, 1}
        assert after.str_tokens[1].strip() in str(after) and "tls-tokens" in after.html()
        assert len(after.to_frame()) == len(after)
        after.plot().draw_without_rendering()


def test_row_scores_are_joined_too() -> None:
    rows = [[3.0, 4.0, 1.0], [0.0, 2.0, 2.0]]
    attr = attribution([" a", "b", " c"], special=frozenset(), pos=2, details={"row_scores": rows})
    assert attr.by_word().details["row_scores"] == [[5.0, 1.0], [2.0, 2.0]]


# -- matrices and maps -------------------------------------------------------------------------------------


TOKENS = ["<bos>", "One", " two", ".", " Three", " four", "!", " Five"]


def rows(**changes: Any) -> AttributionMatrix:
    n = len(TOKENS)
    scores = torch.tril(torch.rand(n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    return matrix(TOKENS, **{"scores": scores, "details": {}} | changes).without("special")


@pytest.mark.parametrize("method", ["semantic", "total_information", "fisher"])
def test_a_matrix_by_sentence_is_its_words_by_sentence_and_keeps_everything(method: str) -> None:
    details = {"first_eigenvalue": [1.0 + i for i in range(len(TOKENS))]} if method == "fisher" else {}
    before = rows(method=method, details=details)
    after, words = before.by_unit("sentence"), before.by_word().by_unit("sentence")
    assert after.str_tokens == ["<bos>", "One two.", " Three four!", " Five"] == words.str_tokens
    assert torch.allclose(after.scores, words.scores) and after.positions == words.positions == (0, 1, 2, 3)
    assert after.details["self"] == pytest.approx(words.details["self"])
    assert after.details["rows"] == words.details["rows"] == [[0, 1, 2], [3, 4, 5], [6], [7]]
    assert after.target_strs == words.target_strs == (*after.str_tokens[1:], " end")
    if method != "fisher":
        power = 1 if method == "total_information" else 2
        kept = float(after.scores.pow(power).sum()) + sum(s**power for s in after.details["self"])
        assert kept == pytest.approx(float(before.scores.pow(power).sum()))


def test_rows_or_columns_alone_keep_everything_in_place() -> None:
    before = rows()
    joined = before.by_unit("sentence", axis="rows")
    assert joined.scores.shape == (4, 8) and joined.positions == (2, 5, 6, 7) and joined.str_tokens == TOKENS
    assert torch.allclose(joined.scores[1], before.scores[3:6].square().sum(0).sqrt())
    assert joined.target_strs == ("One two.", " Three four!", " Five", " end")
    across = before.by_unit("sentence", axis="columns")
    assert across.scores.shape == (8, 4) and across.positions == (0, 1, 1, 1, 2, 2, 2, 3)
    assert torch.allclose(across.scores[:, 1], before.scores[:, 1:4].square().sum(1).sqrt())
    for part in (joined, across):
        assert float(part.scores.square().sum()) == pytest.approx(float(before.scores.square().sum()))
        assert "One two." in str(part) and "tls-map" in part.html()
        part.plot().draw_without_rendering()
        assert AttributionMatrix.from_dict(part.to_dict()).to_dict() == part.to_dict()
        with pytest.raises(ValueError, match="are joined already"):
            part.by_unit("sentence")
    assert across.row(6).str_tokens == after_texts(before) and joined.row(0).pos == 2


def after_texts(before: AttributionMatrix) -> list[str]:
    return before.by_unit("sentence").str_tokens


def test_maps_of_layers_and_heads_have_a_column_for_each_unit() -> None:
    attr = attribution(TOKENS, scores=values(8), pos=7, details={})
    scores = values(3, 8)
    layers = LayerInfluence(scores=scores, attribution=attr, hooks=("a", "b", "c"), residual_norms=scores + 1)
    after = layers.by_unit("sentence")
    assert after.scores.shape == (3, 4) and after.str_tokens == attr.by_unit("sentence").str_tokens
    assert torch.allclose(after.scores[:, 1], scores[:, 1:4].square().sum(1).sqrt())
    assert after.residual_norms is not None and after.residual_norms.shape == (3, 4)
    assert "One two." in str(after) and len(after.to_frame()) == 12 and after.by_unit("sentence") is after
    signed = values(2, 2, 8) - 0.2
    heads = HeadInfluence(scores=signed, attribution=attr).by_unit("sentence")
    assert torch.allclose(heads.scores[..., 1], signed[..., 1:4].sum(-1)), "signed numbers add"
    assert torch.allclose(heads.without("nothing").by_head(), signed.sum(-1))


def test_tokens_without_characters_are_units_of_their_own() -> None:
    found = grouping(
        Entries(["", "Yes.", "", " So"], offsets=((0, 0), (0, 4), (4, 4), (4, 7)), text="Yes. So"), "sentence"
    )
    assert found is not None and found.positions == [(0,), (1,), (2,), (3,)]


def test_special_tokens_inside_a_text_are_units_of_their_own(made: Any) -> None:
    core = byte_level()
    core.add_special_tokens([AddedToken("<|end|>", special=True)])
    text = "One two.<|end|> Three."
    ids = core.encode(text, add_special_tokens=False)
    at = ids.tokens.index("<|end|>") + 1
    attr = of_text(text, core, special=frozenset({0, at}))
    assert texts(attr.by_unit("sentence")) == ["One two.", "<|end|>", "Three."]


def test_no_unit_holds_tokens_of_prompt_and_answer(demo_model: Any) -> None:
    prompt, answer = "German: der Hund sieht die Katze. English: the", " dog sees the cat. The"
    found = tls.semantic_scope(demo_model, prompt, target=answer)
    for kind in ("word", "sentence", "line", "paragraph"):
        units = found.by_unit(kind)
        members = units.details.get("units", units.details.get("words"))
        own = {p for i in units.answer for p in members[i]}
        assert own == set(found.answer), kind
        assert units.scores.square().sum() == pytest.approx(float(found.scores.square().sum()), rel=1e-5)
    assert found.by_unit("sentence").str_tokens[-2:] == [" dog sees the cat.", " The"]
    words = found.by_unit("word").by_unit("sentence")
    assert words.str_tokens == found.by_unit("sentence").str_tokens


@pytest.mark.parametrize("relative", [False, True])
def test_maps_of_an_answer_join_columns_as_the_answers_scores_do(demo_model: Any, relative: bool) -> None:
    prompt, answer = "German: der Hund sieht die Katze. English: the", " dog sees the cat."
    layers = tls.layer_influence(demo_model, prompt, target=answer, relative=relative)
    units = layers.by_unit("sentence")
    scope = layers.attribution.by_unit("sentence")
    assert units.str_tokens == scope.str_tokens
    assert units.attribution.answer == scope.answer, "no column holds tokens of prompt and answer"
    assert torch.allclose(units.scores.square().sum(1), layers.scores.square().sum(1))
    if not relative:
        assert torch.allclose(units.scores[0], scope.scores, rtol=1e-5)
    heads = tls.head_influence(demo_model, prompt, target=answer)
    assert torch.allclose(heads.by_unit("sentence").scores.sum(-1), heads.scores.sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", ["rows", "columns", "both"])
def test_a_models_matrix_keeps_its_squares_on_each_axis(demo_model: Any, axis: Any) -> None:
    before = tls.attribution_matrix(demo_model, "The dog ran. It saw a cat. The cat sat.").without("nothing")
    after = before.by_unit("sentence", axis=axis)
    kept = float(after.scores.square().sum()) + sum(own**2 for own in after.details.get("self", ()))
    assert kept == pytest.approx(float(before.scores.square().sum()), rel=1e-5)
    shrunk = [a < b for a, b in zip(after.scores.shape, before.scores.shape, strict=True)]
    assert shrunk == [axis in ("rows", "both"), axis in ("columns", "both")]


@pytest.mark.one_lens
@pytest.mark.parametrize("asked", [{"pos": 5}, {"pos": [3, 5]}, {"target": " dog sees"}], ids=str)
@pytest.mark.parametrize("method", [tls.input_x_gradient, tls.integrated_gradients])
def test_signed_scores_before_the_end_of_a_text_are_added_to_units(demo_model: Any, method: Any, asked: Any) -> None:
    attr = method(demo_model, "German: der Hund sieht die Katze. English: the", **asked)
    words = attr.by_word()
    for position, own in enumerate(words.details["words"]):
        assert float(words.signed[position]) == pytest.approx(float(attr.signed[own].sum()), abs=1e-6)
    assert words.details["signed"] == pytest.approx(words.signed.tolist(), abs=1e-6)
    assert len(attr.by_unit("sentence").details["signed"]) == len(attr.by_unit("sentences"))


@pytest.mark.one_lens
@pytest.mark.parametrize("name", ["word", "sentence", "line", "paragraph"])
def test_the_plural_of_a_unit_is_the_same_units(demo_model: Any, name: Any) -> None:
    text = "The dog sees the cat. It runs.\n\nThe cat sleeps"
    attr = tls.semantic_scope(demo_model, text)
    assert attr.by_unit(f"{name}s").str_tokens == attr.by_unit(name).str_tokens
    said = tls.generate(demo_model, "German: der Hund sieht die Katze. English: the", 4)
    one, several = (tls.chain(demo_model, said, units=u) for u in (name, f"{name}s"))
    assert (one.unit, one.steps) == (several.unit, several.steps)


def test_what_only_tokens_have_is_not_there_by_unit(demo_model: Any) -> None:
    text = "German: der Hund sieht die Katze. English: the"
    removed = tls.leave_one_out(demo_model, text)
    probed = tls.semantic_scope(demo_model, text, pos=range(2, 9), combine="norm", n_probes=3)
    for attr, names in ((removed, {"delta_logit", "delta_log_prob"}), (probed, {"interval"})):
        assert names <= attr.details.keys()
        for joined in (attr.by_word(), attr.by_unit("sentence")):
            assert not names & joined.details.keys()


def test_a_row_of_joined_rows_is_refused_and_says_that_it_is_joined(demo_model: Any) -> None:
    text = "The dog sees the cat in the garden. The cat sees the dog."
    for axis in ("rows", "both"):
        matrix = tls.attribution_matrix(demo_model, text).by_unit("sentence", axis=axis)
        row = matrix.row(-1 if matrix.target_strs[-1] and len(matrix.details["rows"][-1]) > 1 else -2)
        assert row.details["together"] == len(row.details["rows"]) > 1
        printed = " ".join(str(row).split())
        assert "each by itself" in printed
        assert "root of the summed squares" in printed
        for call in (tls.verify, tls.verdict):
            with pytest.raises(ValueError, match="sentence"):
                call(demo_model, row)
        if axis == "rows":
            assert not row.top_predictions, "those of its first token were read elsewhere"


def test_units_know_how_many_predictions_are_explained(demo_model: Any) -> None:
    text = "The dog sees the cat in the garden. The cat sees the dog."
    for joined in (tls.fisher_scope(demo_model, text, pos=range(8, 12)).by_word(),
                   tls.fisher_scope(demo_model, text, pos=range(8, 12)).by_word().by_unit("sentence")):  # fmt: skip
        printed = " ".join(str(joined).split())
        assert "in 4 predictions together" in printed
        assert "over 4 predictions" in printed
    span = str(tls.semantic_scope(demo_model, text, pos=range(8, 12)).by_word()).split("\n")
    assert "→" not in "".join(line for line in span if "garden" in line)


def test_notes_of_single_rows_stay_with_them(demo_model: Any) -> None:
    series = "12,34,56,12,34,56,12,34,56,12,"
    matrix = tls.attribution_matrix(demo_model, series, method="moment")
    for i in (2, len(matrix) - 1):
        alone = tls.moment_scope(demo_model, series, pos=matrix.positions[i])
        assert set(matrix.row(i).notes) == set(alone.notes)
    few = next(note for row in matrix.details["notes"] for note in row)
    assert f"of {len(matrix)} rows)" in matrix.html()
    assert few.split()[1] in matrix.html()
    assert isinstance(matrix.by_unit("word").row(0).notes, tuple)
