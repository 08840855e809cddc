"""Invariant: exact, carried and looked at stand side by side on one scale, with the same tokens drawn; shares are said."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import every_result
import pytest
import torch
from samples import attribution

from tl_scopes.results.split import Split
from tl_scopes.views.canvas.heatmap import HeatMap, compared
from tl_scopes.views.split import head_maps, layer_maps, split_sentences, token_maps

pytestmark = pytest.mark.one_lens
N = 70


def long() -> Split:
    """Of 70 tokens: what is carried stands at the end of the text, what is looked at in the middle."""
    attr = attribution(["<bos>", *(f" t{p}" for p in range(1, N))], pos=N - 1).without("special")
    generator = torch.Generator().manual_seed(0)
    carried, looked = 0.1 * torch.rand(2, N, generator=generator)
    carried[-10:] += 3.0
    looked[20:30] += 1.0
    exact = (carried.square() + looked.square()).sqrt()
    scores = torch.stack([exact, carried, looked])
    layers = scores[:, None] * torch.tensor([1.0, 0.5, 0.2])[:, None]
    layers[2, -1] = 0
    heads = torch.randn(3, 2, 4, N, generator=generator)
    parts = (replace(attr, scores=row) for row in scores)
    return Split(*parts, layers, ("a", "b", "c"), scores - 0.5, heads, (0, 1))


def test_maps_beside_each_other_have_one_scale_and_the_same_tokens() -> None:
    result = long()
    for maps in (layer_maps(result), head_maps(result)):
        assert len({one.colour_scale for one in maps}) == 1
        assert len({tuple(one.drawn) for one in maps}) == 1
    layers = layer_maps(result)
    assert len(layers[0].drawn) < N
    assert {*range(21, 30), *range(N - 10, N)} <= set(layers[2].drawn), "strong in one of them"
    assert layers[1].colour_scale.high == pytest.approx(3.1, abs=0.1)
    (tokens, signed) = token_maps(result)
    assert tokens.rows == signed.rows == ("exact", "carried", "looked")
    assert signed.signed and not tokens.signed
    assert torch.equal(tokens.values[2], result.difference.scores)


def test_compared_maps_are_scaled_by_the_strongest_at_each_place(unchecked: None) -> None:
    names = (("a", "b"), ("x", "y"))
    one, other = (
        HeatMap(v, *names, title="", scale="linear", signed=True) for v in (torch.eye(2), -4 * torch.eye(2).flip(0))
    )
    first, second = compared([one, other])
    assert first.shares == [[0.25, 0.0], [0.0, 0.25]]
    assert second.shares == [[0.0, -1.0], [-1.0, 0.0]]
    by_row = compared([replace(one, per_row=True), replace(other, per_row=True)])
    assert by_row[0].shares == [[0.25, 0.0], [0.0, 0.25]]
    with pytest.raises(ValueError, match="do not fit 2 rows"):
        replace(one, beside=(torch.zeros(3, 2),))


def test_shares_lengths_and_signed_sums_are_said() -> None:
    result = long()
    shares, signed = split_sentences(result)
    exact, carried, looked = (part.scores[1:].double() for part in result.parts.values())
    whole = float(exact.square().sum())
    share = float(carried.square().sum()) / whole  # at right angles here
    assert f"{share:.1%} is carried through values and {1 - share:.1%} goes through where the model looks." in shares
    assert f"{float(carried.norm() / exact.norm()):.3g} and {float(looked.norm() / exact.norm()):.3g} times" in shares
    assert "against each other" not in shares
    sums = [float(row[1:].double().sum()) for row in result.signed]
    found = [float(n) for n in re.findall(r"\d+\.\d+|\d+", signed)]
    assert found == pytest.approx([abs(s) for s in sums], rel=1e-2)


def test_parts_that_oppose_each_other_are_said_to() -> None:
    result = long()
    longer = replace(result, frozen=replace(result.frozen, scores=result.exact.scores * 2))
    longer = replace(longer, difference=replace(result.difference, scores=result.exact.scores))
    assert longer.share_carried == pytest.approx(2.0)
    assert "200.0% is carried" in split_sentences(longer)[0]
    assert "−100.0% goes" in split_sentences(longer)[0]
    assert "The two work against each other." in str(longer)


def test_of_no_influence_there_is_no_share() -> None:
    nothing = replace(long().exact, scores=torch.zeros(N))
    result = replace(long(), exact=nothing, frozen=nothing, difference=nothing)
    assert result.share_carried != result.share_carried
    assert "there is no share to give" in str(result)
    assert result.html()


def test_parts_of_other_prompts_are_refused() -> None:
    result = long()
    with pytest.raises(ValueError, match="Split: frozen: of other tokens"):
        replace(result, frozen=replace(result.frozen, pos=3))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_the_width_and_has_all_maps(look: Any, width: int) -> None:
    page = look(long().html())
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    maps = page.locator(".tls-map")
    assert maps.count() == 2 + 3 + 3
    boxes = [maps.nth(i).bounding_box() for i in range(5, 8)]
    abreast = len({round(box["y"]) for box in boxes}) == 1
    assert abreast == (width == 1280), "heads stand beside each other where there is room"
    page.get_by_text("looked", exact=True).first.click()


def test_every_result_has_one_of_it() -> None:
    result = every_result.split()
    assert result.by_head["difference"].scores.shape == result.heads[2].shape
    assert set(result.to_frame().columns) >= {"exact", "frozen", "difference", "signed_frozen", "shown"}
