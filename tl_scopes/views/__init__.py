"""Pictures of results; they read results and nothing else.

    tokens      one attribution as coloured tokens (what a notebook shows)
    compare     several methods on one text, a button for each
    figure      the paper's layout: tokens left, top predicted words right
    matrix      all targets of a text: hover one, its sources light up
    influence   layer or head influence
    heatmap     layer × token, layer × head, ...: a :class:`HeatMap` of numbers, hover a cell
    forecast    a series with each number's influence, beside it the predicted distribution
    stack       several views on one page

Each gives a :class:`View`: ``.html()``, ``.save(path)``, ``.show()``; notebooks show it by itself.
"""

from __future__ import annotations

from tl_scopes.timeseries.page import forecast
from tl_scopes.views.attribution import compare, figure, tokens
from tl_scopes.views.canvas.heatmap import HeatMap, heatmap, heatmap_figure
from tl_scopes.views.canvas.page import View, stack
from tl_scopes.views.influence import influence, influence_figure, influence_maps
from tl_scopes.views.matrix import matrix

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
    "stack",
    "tokens",
]
