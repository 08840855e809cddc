"""Several rows of scores on the same tokens as one heat map: each a share of its highest score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tl_scopes.results.attribution import Attribution
from tl_scopes.views.canvas.heatmap import HeatMap
from tl_scopes.views.wording import entry


def share_map(
    rows: Mapping[str, Attribution | Tensor],
    title: str,
    *,
    columns: Sequence[str] | None = None,
    row_name: str = "",
) -> HeatMap:
    """Rows that have different units, or none, below each other: ``score_t / max_t score_t`` of each.

    Args:
        rows: name and attribution of each row, or its values ``[pos]``, at least one of them positive. Special tokens have no
            colour, and no part in the highest score, where all rows are attributions.
        title: one line.
        columns: text of each token; None takes it from the attributions, "…" where they have different ones.
        row_name: what a row is (``"target"``).

    Returns:
        A :class:`HeatMap` for :func:`heatmap` and :func:`heatmap_figure`.

    Raises:
        TypeError: no mapping of names to attributions or tensors.
        ValueError: no rows, rows that are no ``[pos]`` of one length, a row without a positive value or with one that is not
            finite, values without ``columns``, or special tokens alone.
    """
    if not isinstance(rows, Mapping) or not all(isinstance(row, Attribution | Tensor) for row in rows.values()):
        raise TypeError(f"(rows=...): expected {{name: attribution or tensor}}, got {_kinds(rows)}")
    shown = {name: r.without("special") if isinstance(r, Attribution) else r for name, r in rows.items()}
    values = {name: r.scores if isinstance(r, Attribution) else r for name, r in shown.items()}
    texts = [r.str_tokens for r in shown.values() if isinstance(r, Attribution)]
    if (
        not rows
        or len({v.shape for v in values.values()}) > 1
        or any(v.ndim != 1 or not len(v) for v in values.values())
    ):
        raise ValueError(
            f"(rows=...): expected rows of one length, got { ({n: tuple(v.shape) for n, v in values.items()}) }"
        )
    if columns is None and not texts:
        raise ValueError(
            "(columns=None): no row is an attribution, so say what the tokens are: columns=attr.str_tokens"
        )
    hidden = [r.hidden if isinstance(r, Attribution) else frozenset() for r in shown.values()]
    left_out: frozenset[int] = frozenset.intersection(*hidden)
    kept = [i for i in range(len(next(iter(values.values())))) if i not in left_out]
    if not kept:
        raise ValueError("(rows=...): all tokens are special, so there is nothing to be shown")
    if endless := [name for name, v in values.items() if not bool(v[kept].isfinite().all())]:
        raise ValueError(f"(rows=...): {endless} have values that are not finite")
    highest = {name: float(v[kept].max()) for name, v in values.items()}
    if empty := [name for name, top in highest.items() if not top > 0]:
        raise ValueError(f"(rows=...): {empty} have no positive value to be a share of")
    if columns is None:
        columns = ["…" if len(set(column)) > 1 else column[0] for column in zip(*texts, strict=True)]
    kinds = {entry(r.details) for r in shown.values() if isinstance(r, Attribution)}
    return HeatMap(
        values=torch.stack([(v / highest[name]).to(torch.float32) for name, v in values.items()]),
        rows=tuple(rows),
        columns=tuple(columns),
        title=title,
        unit="share of the row's highest score",
        row_name=row_name,
        column_name=kinds.pop() if len(kinds) == 1 else "token",
        hidden=left_out,
        scale="linear",
    )


def _kinds(rows: object) -> str:
    """What was given in place of rows."""
    if not isinstance(rows, Mapping):
        return type(rows).__name__
    return f"a mapping to {', '.join(sorted({type(row).__name__ for row in rows.values()}))}"
