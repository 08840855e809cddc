"""Pictures of results; they read results and nothing else.

    view        any result as a :class:`View`: ``.html()``, ``.save(path)``, ``.show()``; notebooks show it by itself
    plot        any result as a matplotlib figure
    text        any result as text

    tokens      one attribution as coloured tokens (what a notebook shows)
    compare     several methods on one text, a button for each
    figure      the paper's layout: tokens left, top predicted words right
    matrix      all targets of a text: hover one, its sources light up
    influence   layer or head influence
    heatmap     layer × token, layer × head, ...: a :class:`HeatMap` of numbers, hover a cell
    share_map   a heat map of several attributions below each other, for it
    forecast    a series with each number's influence, beside it the predicted distribution
    stack       several views on one page

All but ``plot``, ``text`` and ``share_map`` give a :class:`View`. What each result looks like is registered in the
file of its name.
"""

from __future__ import annotations

from tl_scopes.results.base import Displayable
from tl_scopes.views import (  # noqa: F401  # for what they register
    chain,
    chain_page,
    chain_verification,
    coloured_figure,
    generation,
    gold,
    ig_path,
    model_report,
    patching,
    run,
    sinks,
    spectrum,
    split,
    substitutions,
    verdict,
    verification,
)
from tl_scopes.views.aopc import rank_figure
from tl_scopes.views.attribution import compare, figure, tokens
from tl_scopes.views.canvas.heatmap import HeatMap, heatmap
from tl_scopes.views.canvas.heatmap_figure import heatmap_figure
from tl_scopes.views.canvas.page import View, stack
from tl_scopes.views.influence import influence, influence_figure, influence_maps
from tl_scopes.views.matrix import matrix
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.share_map import share_map

__all__ = [
    "HeatMap",
    "View",
    "compare",
    "figure",
    "forecast",
    "heatmap",
    "heatmap_figure",
    "influence",
    "influence_figure",
    "influence_maps",
    "matrix",
    "plot",
    "rank_figure",
    "share_map",
    "stack",
    "text",
    "tokens",
    "view",
]


def forecast(result: Displayable) -> View:
    """A :class:`tl_scopes.timeseries.Forecast`: a button for each scope."""
    return view(result)
