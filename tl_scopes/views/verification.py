"""Verification: measured against predicted change of single removals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tl_scopes.views.canvas.page import View
from tl_scopes.views.canvas.scatter import Point, Scatter, figure, view
from tl_scopes.views.wording import number, visible

if TYPE_CHECKING:
    from tl_scopes.results.verification import Verification


def of_verification(result: Verification) -> Scatter:
    """The removals of a verification."""
    frame = result.to_frame()
    points = tuple(
        Point(row.predicted, row.measured, visible(row.token), "joint" if row.n > 1 else row.flag, row.flag)
        for row in frame.itertuples()
    )
    rows = tuple(
        (
            "" if math.isnan(row.score) else str(row.pos),
            visible(row.token),
            "" if math.isnan(row.score) else number(row.score),
            *(number(v) for v in (row.predicted, row.measured, row.delta_logit, row.delta_log_prob)),
            row.flag,
        )
        for row in frame.itertuples()
    )
    moved = result.ablation if result.step == 1 else f"{result.step:g} of the way to {result.ablation}"
    return Scatter(
        f"Removing tokens ({moved}): change of {visible(result.scalar)}",
        result.unit,
        str(result.linearity),
        points,
        ("pos", "token", "score", "predicted", "measured", "Δlogit", "Δlog p", "flag"),
        rows,
    )


def verification_figure(result: Verification) -> Any:
    """Scatter of the removals."""
    return figure(of_verification(result))


def verification_view(result: Verification) -> View:
    """The same as an interactive view, with the table."""
    return view(of_verification(result), lambda: str(result))
