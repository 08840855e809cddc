"""Verification: measured against predicted change of single removals."""

from __future__ import annotations

from html import escape
from typing import Any

from tl_scopes.results.verification import Verification
from tl_scopes.views.canvas.page import View
from tl_scopes.views.canvas.scatter import Point, Scatter, scatter_figure, scatter_view
from tl_scopes.views.canvas.table import seen
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import linearised, notes_of_prediction, number, visible


def of_verification(result: Verification) -> Scatter:
    """The removals of a verification."""
    frame = result.to_frame()
    points = tuple(
        Point(row.predicted, row.measured, visible(row.token), "joint" if row.n > 1 else row.flag, row.flag)
        for row in frame.itertuples()
    )
    names = {"delta_logit": "Δlogit", "delta_log_prob": "Δlog p"}
    return Scatter(
        f"Removing tokens ({_moved(result)}): change of {visible(result.scalar)}"
        + linearised(result.attribution.details),
        result.unit,
        str(result.linearity),
        points,
        frame.drop(columns=["fraction", "n"]).rename(columns=names),
        notes_of_prediction(result.attribution),
    )


@plot.register(Verification)
def verification_figure(result: Verification) -> Any:
    """Measured against predicted, with the identity line; flagged removals are marked."""
    return scatter_figure(of_verification(result))


@view.register(Verification)
def verification_view(result: Verification) -> View:
    """The verdict, and how far the model is linear here."""
    linear = scatter_view(of_verification(result), lambda: str(result))
    if result.verdict is None:
        return linear
    reading = f'<p class="tls-small">How far the model is linear here: {escape(result.linearity.reading)}.</p>'
    reading = f'<div class="tls">{reading}</div>'
    return View(linear.title, view(result.verdict).body + reading + linear.body, linear.plain)


@text.register(Verification)
def verification_text(result: Verification) -> str:
    """The verdict; what was removed, the table, and how well the prediction describes it."""
    columns = ["pos", "token", "score", "predicted", "measured", "delta_logit", "delta_log_prob", "flag"]
    frame = seen(result.to_frame()[columns]).astype({"pos": str}).replace({"pos": {"<NA>": ""}})
    table = frame.to_string(index=False, float_format=number, na_rep="")
    verdict = "" if result.verdict is None else f"{result.verdict}\n\n"
    return (
        f"{verdict}How far the model is linear here: {result.linearity.reading}.\n"
        f"{result.scalar} ({result.unit}), tokens replaced: {_moved(result)}"
        f"{linearised(result.attribution.details)}\n{table}\n"
        + "\n".join([str(result.linearity), *notes_of_prediction(result.attribution)])
    )


def _moved(result: Verification) -> str:
    return result.ablation if result.step == 1 else f"{result.step:g} of the way to {result.ablation}"
