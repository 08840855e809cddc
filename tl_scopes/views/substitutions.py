"""Substitutions: measured against predicted change, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_scopes.views.canvas.page import View
from tl_scopes.views.canvas.scatter import Point, Scatter, figure, view
from tl_scopes.views.wording import number, visible

if TYPE_CHECKING:
    from tl_scopes.results.substitutions import Substitutions


def of_substitutions(result: Substitutions) -> Scatter:
    """The swaps of one token."""
    frame = result.to_frame()
    points = tuple(Point(row.predicted, row.measured, visible(row.token), "") for row in frame.itertuples())
    rows = tuple(
        (visible(r.token), *(number(v) for v in (r.predicted, r.measured, r.delta_logit, r.delta_log_prob)))
        for r in frame.itertuples()
    )
    return Scatter(
        f"Another token in place of {visible(result.token)!r}: change of {visible(result.scalar)}",
        result.unit,
        f"Spearman {result.spearman:.2f} over {len(frame)} swaps",
        points,
        ("token", "predicted", "measured", "Δlogit", "Δlog p"),
        rows,
    )


def substitutions_figure(result: Substitutions) -> Any:
    """Scatter of the swaps."""
    return figure(of_substitutions(result))


def substitutions_view(result: Substitutions) -> View:
    """The same as an interactive view, with the table."""
    return view(of_substitutions(result), lambda: str(result))
