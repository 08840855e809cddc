"""Invariant: a matrix by word is the tokens' matrix joined: squares (or sums) are kept, a word is no source of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import matrix

import tl_scopes as tls
from tl_scopes.results.matrix import AttributionMatrix

pytestmark = pytest.mark.one_lens
TOKENS = ["<bos>", " un", "believ", "able", " story", "!"]
WORDS = ["<bos>", " unbelievable", " story", "!"]


def tokens(**changes: object) -> AttributionMatrix:
    scores = torch.tril(torch.rand(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    return matrix(TOKENS, **{"scores": scores, "details": {}} | changes).without("special")


def test_rows_and_columns_join_by_the_root_of_squares() -> None:
    before = tokens()
    after = before.by_word()
    assert after.str_tokens == WORDS and after.target_strs == (*WORDS[1:], " end")
    assert after.positions == (0, 1, 2, 3) and after.top_target_flagged
    assert after.targets == (None, 4, 5, 7), "one token, one id"
    groups, rows = [[0], [1, 2, 3], [4], [5]], [[0, 1, 2], [3], [4], [5]]
    assert (after.details["words"], after.details["rows"]) == (groups, rows)
    for i, joined in enumerate(rows):
        for w, group in enumerate(groups):
            whole = float(before.scores[joined][:, group].square().sum().sqrt())
            own = w == i + 1
            assert float(after.scores[i, w]) == pytest.approx(0.0 if own else whole, rel=1e-12)
            assert not own or after.details["self"][i] == pytest.approx(whole, rel=1e-12)
    squares = after.scores.square().sum() + sum(s * s for s in after.details["self"])
    assert float(squares) == pytest.approx(float(before.scores.square().sum()), rel=1e-12), "squares are kept"
    assert after.by_word() is after
    assert after.special == after.hidden == {0}


def test_additive_scores_are_summed() -> None:
    before = tokens(method="total_information")
    after = before.by_word()
    assert float(after.scores.sum()) + sum(after.details["self"]) == pytest.approx(
        float(before.scores.sum()), rel=1e-12
    )
    assert after.details["word_score"] == "sum"


def test_fisher_rows_are_weighted_by_the_eigenvalue_that_divided_them() -> None:
    values = [1.0, 4.0, 0.25, 2.0, 3.0, 5.0]
    before = tokens(method="fisher", details={"first_eigenvalue": values})
    after = before.by_word()
    weights = torch.tensor(values[:3], dtype=torch.float64)
    whole = ((weights[:, None] * before.scores[:3].square()).sum(0) / weights.sum()).sqrt()
    assert float(after.scores[0, 0]) == pytest.approx(float(whole[0]), rel=1e-12)
    assert torch.allclose(after.scores[1, [0, 1]], before.by_word().scores[1, [0, 1]])
    assert after.row(0).details["first_eigenvalue"] == values[:3]
    assert after.details["words"] == after.row(0).details["words"], (
        "as many words as rows, and none is taken for a row's"
    )


def test_words_alone_on_their_line_stay_what_they_are() -> None:
    before = matrix(["<bos>", " a", " b", " c"])
    after = before.by_word()
    assert torch.equal(after.scores, before.scores)
    assert (after.positions, after.targets, after.target_strs) == (before.positions, before.targets, before.target_strs)


def test_rows_of_the_first_word_are_left_out_and_said() -> None:
    after = matrix([" un", "believ", " c"], special=frozenset()).by_word()
    assert after.target_strs == (" c", " end") and after.positions == (0, 1)
    assert any("first word" in note for note in after.notes)
    assert len(matrix([" un", "believ"], scores=torch.ones(1, 2).tril(), positions=(0,), targets=(1,),
                      target_strs=("believ",), special=frozenset()).by_word()) == 0  # fmt: skip


def test_some_positions_in_any_order_are_joined_by_target() -> None:
    some = tokens()
    some = replace(
        some, scores=some.scores[[3, 2, 0]], positions=(3, 2, 0), targets=(4, 3, 1), target_strs=(" story", "able", " un"),
        top_target_flagged=False,
    )  # fmt: skip
    after = some.by_word()
    assert (after.positions, after.target_strs, after.details["rows"]) == (
        (1, 0),
        (" story", " unbelievable"),
        [[0], [2, 1]],
    )


def test_words_are_saved_and_shown(tmp_path: Path) -> None:
    words = tokens(top_predictions=tuple([(f" w{i}", 0.5)] for i in range(6))).by_word()
    back = AttributionMatrix.load(words.save(tmp_path / "words.json"))
    assert torch.equal(back.scores, words.scores) and back.scores.dtype == torch.float64
    assert back.to_dict() == words.to_dict() and back.by_word() is back
    assert back.row(0).top_predictions == [(" w0", 0.5)]
    assert " unbelievable" in str(back) and "unbelievable" in back.html()
    back.plot().draw_without_rendering()


def test_borders_of_words_are_read_in_the_prompt_where_it_is_known(tmp_path: Path) -> None:
    glued = matrix(["<bos>", "the", "dog", "s"], text="the dogs", offsets=((0, 0), (0, 3), (4, 7), (7, 8)))
    assert glued.by_word().str_tokens == ["<bos>", "the", " dogs"]
    back = AttributionMatrix.load(glued.save(tmp_path / "m.json"))
    assert (back.text, back.offsets) == (glued.text, glued.offsets)
    assert glued.row(2).by_word().str_tokens == ["<bos>", "the", " dogs"]


def test_a_row_by_word_is_the_row_by_word_where_its_target_is_one_token(demo_model) -> None:
    whole = tls.attribution_matrix(demo_model, "German: der Hund sieht die Katze. English: the dog")
    words = whole.by_word()
    assert [words.str_tokens[p + 1] for p in words.positions[:-1]] == list(words.target_strs[:-1])
    for i, joined in enumerate(words.details["rows"]):
        if len(joined) == 1:
            alone = whole.row(joined[0]).by_word().scores.clone()
            alone[words.positions[i] + 1 :] = 0
            assert torch.allclose(words.scores[i], alone)
