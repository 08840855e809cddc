"""Invariant: maps by layer and head show what is there: BOS left out, the embedding at the bottom, no row white unless 0."""

from __future__ import annotations

import every_result
import pytest
import torch
from samples import attribution

import tl_scopes as tls
from tl_scopes import views
from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.views.canvas.heatmap import HeatMap
from tl_scopes.views.influence import influence_lines, influence_maps
from tl_scopes.views.patching import cells_map
from tl_scopes.views.sinks import sink_maps
from tl_scopes.views.terminal import DARK_BELOW, style_of

pytestmark = pytest.mark.one_lens
N = 70


def layers(**changes: object) -> LayerInfluence:
    """Of 70 tokens, with influence growing by layer, and BOS at 4,300 in the middle of the model."""
    attr = attribution(["<bos>", *(f" t{p}" for p in range(1, N))], pos=N - 1).without("special")
    scores = torch.linspace(0.5, 1.0, N).repeat(6, 1) * torch.tensor([0.4, 4.0, 9.0, 20.0, 60.0, 90.0])[:, None]
    scores[3, 0] = 4300.0
    return LayerInfluence(scores, attr, tuple("abcdef"), scores, 1.0, relative=True)


def heads() -> HeadInfluence:
    """As of a real model: in the last layer only the explained position has influence, and more than all others."""
    generator = torch.Generator().manual_seed(0)
    scores = 0.02 * torch.randn(3, 2, N, generator=generator)
    scores[-1] = 0.0
    scores[-1, :, -1] = torch.tensor([2.4, -1.2])
    scores[:, :, 0] = 50.0
    return HeadInfluence(scores, layers().attribution)


def test_the_embedding_is_at_the_bottom_of_every_map_of_layers() -> None:
    maps: list[HeatMap] = [*influence_maps(layers()), *influence_maps(heads())[:1], cells_map(every_result.patch())]
    maps += sink_maps(every_result.sinks())
    for one in maps:
        assert one.row_name == "layer"
        numbers = [int(row.split("_")[0]) if row[0].isdigit() else len(one.rows) for row in one.rows]
        assert numbers == sorted(numbers, reverse=True), one.title
    cells = every_result.patch()
    order = sorted(range(len(cells.positions)), key=lambda i: cells.positions[i])
    assert torch.equal(cells_map(cells).values[-1], cells.recovered(cells.cells)[0, order]), "values go with their rows"


def test_row_0_of_relative_layers_can_be_read() -> None:
    (one,) = influence_maps(layers())
    assert min(abs(share) for share in one.shares[-1][1:]) > 0.05
    assert one.colour_scale.high == pytest.approx(90.0), "BOS is left out, and out of the scale"
    (by_row,) = influence_maps(layers(), per_row=True)
    assert all(max(abs(s) for s in row[1:]) == 1 for row in by_row.shares)


def test_head_maps_are_not_blank_and_show_the_explained_position() -> None:
    by_head, by_token = influence_maps(heads())
    assert by_head.colour_scale.high == pytest.approx(2.4), "BOS is left out, and out of the scale"
    coloured = [[abs(row[c]) for c in by_token.drawn] for row in by_token.shares]
    assert by_token.drawn[-1] == N - 1 == by_token.explained
    assert sum(share > 0.05 for row in coloured for share in row) > len(by_token.drawn)


def test_below_zero_a_terminal_has_the_orange_that_it_has_elsewhere() -> None:
    line = influence_lines(heads()).renderables[1].columns[1]._cells[0]  # of the last layer
    above, below = (span.style for pair in line.pairs for span in pair.spans if span.style != "dim")
    assert (above, below) == (style_of(1.0), style_of(influence_maps(heads())[0].shares[0][1]))
    assert below.bgcolor.triplet.red > below.bgcolor.triplet.green > below.bgcolor.triplet.blue
    assert style_of(-1.0).bgcolor.triplet == DARK_BELOW


@pytest.mark.slow
@pytest.mark.parametrize("make", [layers, heads])
def test_one_scale_per_row_is_drawn_on_request(make) -> None:
    result = make()
    assert "rows cannot be compared" in result.html(per_row=True)
    assert "rows cannot be compared" not in result.html()
    assert result.plot(per_row=True).axes[-1].get_ylabel().startswith("share of the")
    assert result.view(per_row=True).html() == views.view(result, per_row=True).html()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("make", [layers, heads])
def test_pages_fit_the_width_and_open_with_the_explained_column_in_sight(look, make, width: int) -> None:
    page = look(make().html())
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    end = page.locator(".tls-map tfoot .tls-end")
    box = end.bounding_box()
    assert end.text_content() == f" t{N - 1}" and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_bos_is_left_out_from_the_start_and_shown_on_request(demo_model) -> None:
    prompt = "German: der Hund sieht die Katze. English: the"
    for result in (tls.layer_influence(demo_model, prompt), tls.head_influence(demo_model, prompt)):
        assert 0 not in result.shown and result.attribution.special == {0}
        assert 0 in result.without("nothing").shown
    matrix = tls.attribution_matrix(demo_model, prompt, positions=[-1])
    assert matrix.hidden == {0} and matrix.without("nothing").hidden == frozenset()
    assert tls.semantic_scope(demo_model, prompt).hidden == frozenset()
