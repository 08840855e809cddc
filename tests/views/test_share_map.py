"""Invariant: a map of shares has each row's scores over that row's highest visible score, whatever the rows are."""

from __future__ import annotations

import pytest
import torch

import tl_scopes as tls
from tl_scopes.views import heatmap, share_map

pytestmark = pytest.mark.one_lens


def test_each_row_is_a_share_of_its_own_highest_visible_score(demo_model) -> None:
    found = tls.scopes(demo_model, "German: der Hund sieht die Katze. English: the", target=" dog")
    one = share_map(found, "three scopes")
    assert one.rows == tuple(found) and one.columns == tuple(found["semantic"].str_tokens)
    for row, attribution in zip(one.values, found.values(), strict=True):
        seen = [i for i in range(len(attribution)) if i not in attribution.special]
        torch.testing.assert_close(row, attribution.scores / attribution.scores[seen].max())
    assert one.hidden == found["semantic"].special
    assert "three scopes" in heatmap(one).html()


def test_rows_of_values_need_names_of_tokens_and_texts_that_differ_are_dots(demo_model) -> None:
    texts = [tls.gradient_norm(demo_model, f"German: der {w} sieht die Katze. English: the") for w in ("Hund", "Vogel")]
    one = share_map({"dog": texts[0], "bird": texts[1]}, "two texts")
    assert [c for a, c in zip(texts[0].str_tokens, one.columns, strict=True) if a != c] == ["…"]
    values = share_map({"a": torch.tensor([1.0, 4.0])}, "values", columns=["x", "y"])
    assert values.values.tolist() == [[0.25, 1.0]] and not values.hidden


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({}, "rows of one length"),
        ({"a": torch.ones(2), "b": torch.ones(3)}, "rows of one length"),
        ({"a": torch.zeros(2)}, "no positive value"),
        ({"a": torch.ones(2)}, "say what the tokens are"),
        ({"a": torch.tensor(1.0)}, r"rows of one length, got \{'a': \(\)\}"),
        ({"a": torch.ones(0)}, r"rows of one length, got \{'a': \(0,\)\}"),
        ({"a": torch.tensor([1.0, torch.inf])}, r"\['a'\] have values that are not finite"),
        ({"a": torch.tensor([1.0, torch.nan])}, r"\['a'\] have values that are not finite"),
    ],
)
def test_what_makes_no_map_is_refused(rows: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        share_map(rows, "title", **({} if "say" in said else {"columns": ["x", "y"]}))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("rows", "said"), [([torch.ones(2)], "got list"), ({"a": [1.0]}, "got a mapping to list")])
def test_what_is_no_mapping_to_rows_is_refused(rows: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        share_map(rows, "title", columns=["x", "y"])


def test_a_text_of_special_tokens_has_no_map(demo_model) -> None:
    bos = tls.gradient_norm(demo_model, torch.tensor([demo_model.tokenizer.bos_token_id]))
    with pytest.raises(ValueError, match="special"):
        share_map({"a": bos}, "title")
