"""Substitutions: measured against predicted change, token by token."""

from __future__ import annotations

from typing import Any

from tl_scopes.results.substitutions import Substitutions
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.page import View
from tl_scopes.views.canvas.scatter import Point, Scatter, scatter_figure, scatter_view
from tl_scopes.views.canvas.table import seen
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import linearised, notes_of_prediction, number, visible


def of_substitutions(result: Substitutions) -> Scatter:
    """The swaps of one token."""
    frame = result.to_frame()
    points = tuple(
        Point(row.predicted, row.measured, visible(row.token), row.flag, row.flag) for row in frame.itertuples()
    )
    names = {"delta_logit": "Δlogit", "delta_log_prob": "Δlog p"}
    return Scatter(
        f"Another token in place of {visible(result.token)!r}: change of {visible(result.scalar)}"
        + linearised(result.attribution.details),
        result.unit,
        minus(f"{result.reading}; Spearman {result.spearman:.2f}"),
        points,
        frame.drop(columns="id").rename(columns=names),
        notes_of_prediction(result.attribution),
    )


@plot.register(Substitutions)
def substitutions_figure(result: Substitutions) -> Any:
    """Measured against predicted, with the identity line."""
    return scatter_figure(of_substitutions(result))


@view.register(Substitutions)
def substitutions_view(result: Substitutions) -> View:
    """The same with the table."""
    return scatter_view(of_substitutions(result), lambda: str(result))


@text.register(Substitutions)
def substitutions_text(result: Substitutions) -> str:
    """What was replaced, and the table."""
    table = seen(result.to_frame()).to_string(index=False, float_format=number)
    head = f"in place of {result.token!r} at {result.pos}: change of {result.scalar} ({result.unit})"
    head += linearised(result.attribution.details)
    return "\n".join([head, table, result.reading, *notes_of_prediction(result.attribution)])
