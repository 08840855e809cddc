"""Layer and head influence as heat maps, with the scope itself under them."""

from __future__ import annotations

from typing import Any

import torch

from tl_scopes.inside import HeadInfluence, LayerInfluence
from tl_scopes.views.coloured import tokens
from tl_scopes.views.heatmap import HeatMap, heatmap, heatmap_figure
from tl_scopes.views.page import View, stack
from tl_scopes.views.wording import title, unit

MOST_HEADS = 12
"""Heads that the head × token map shows."""


def influence(result: LayerInfluence | HeadInfluence) -> View:
    """The maps, and the scope's own coloured tokens."""
    return stack(heatmap(influence_maps(result)), tokens(result.attribution))


def influence_figure(result: LayerInfluence | HeadInfluence) -> Any:
    """The maps as a matplotlib figure."""
    return heatmap_figure(influence_maps(result))


def influence_maps(result: LayerInfluence | HeadInfluence) -> list[HeatMap]:
    """Layer × token; or layer × head, and head × token of the strongest heads. The last layer is on top."""
    if isinstance(result, LayerInfluence):
        return [_layers(result)]
    return [_heads(result), _heads_by_token(result)]


def _layers(result: LayerInfluence) -> HeatMap:
    columns = range(result.pos + 1)
    by = "relative change of the residual stream" if result.relative else "unit of the residual stream"
    return HeatMap(
        values=result.scores[:, list(columns)].flip(0),
        rows=result.layers[::-1],
        columns=tuple(result.str_tokens[p] for p in columns),
        title=_title(result, "layer"),
        unit=f"{_measure(result)} per {by}",
        row_name="layer",
        column_name="token",
        hidden=frozenset(p for p in columns if p in result.attribution.hidden),
        marked=frozenset({result.pos}),
        notes=() if result.relative else ("Raw rows are not comparable across depth; relative=True makes them so.",),
    )


def _heads(result: HeadInfluence) -> HeatMap:
    table = result.by_head()
    signed = result.signed
    return HeatMap(
        values=table.flip(0),
        rows=tuple(str(layer) for layer in reversed(range(len(table)))),
        columns=tuple(str(head) for head in range(table.shape[1])),
        title=_title(result, "head"),
        unit=_head_unit(result) + (", sum over positions" if signed else ", over positions"),
        row_name="layer",
        column_name="head",
        signed=signed,
    )


def _heads_by_token(result: HeadInfluence) -> HeatMap:
    chosen = sorted(result.top_heads(MOST_HEADS), key=lambda t: (-t.layer, t.head))
    columns = range(result.pos + 1)
    rows = [result.scores[t.layer, t.head, list(columns)] for t in chosen]
    return HeatMap(
        values=torch.stack(rows),
        rows=tuple(f"{t.layer}.{t.head}" for t in chosen),
        columns=tuple(result.str_tokens[p] for p in columns),
        title=f"The {len(chosen)} strongest heads, by query position",
        unit=_head_unit(result),
        row_name="head",
        column_name="query token",
        signed=result.signed,
        hidden=frozenset(p for p in columns if p in result.attribution.hidden),
        marked=frozenset({result.pos}),
    )


def _title(result: LayerInfluence | HeadInfluence, by: str) -> str:
    """Which scope, by what, of what."""
    name = title(result.attribution).split(":")[0]
    target = "" if result.target_str is None else f": {result.target_str!r}"
    return f"{name} by {by}{target}"


def _measure(result: LayerInfluence | HeadInfluence) -> str:
    """What the scope's scalar is measured in."""
    return unit(result.attribution).split(" per ")[0]


def _head_unit(result: HeadInfluence) -> str:
    return _measure(result) if result.signed else f"{_measure(result)} per unit of hook_z"
