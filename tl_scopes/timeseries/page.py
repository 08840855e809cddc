"""A forecast as a page: the series with influence under it, beside it the predicted distribution on the same axis.

The picture is that of :mod:`tl_scopes.timeseries.figures`; pointing at a number or a bar reads it out. Buttons between scopes
are radio buttons, which need no script.
"""

from __future__ import annotations

from html import escape

from tl_scopes.results.written import minus
from tl_scopes.timeseries.encoding import FIRST, LAST
from tl_scopes.timeseries.figures import forecast_figure, rolling_figure
from tl_scopes.timeseries.result import Forecast
from tl_scopes.timeseries.rolling import RollingForecast
from tl_scopes.views.canvas.page import View, heading, noted, switch
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import text, view
from tl_scopes.views.wording import number


@view.register(Forecast)
def forecast_view(result: Forecast) -> View:
    """One forecast, a button for each scope."""
    names = {method: f"{method.replace('_', ' ').capitalize()} Scope" for method in result.methods}
    title = f"Which earlier numbers a forecast rests on: {', '.join(names.values())}"
    label = "series, influence of each number, and predicted distribution"
    panels = [
        forecast_figure(result, (method,), notes=False).chart(f"{name}: {label}") for method, name in names.items()
    ]
    form = panels[0] if len(panels) == 1 else switch(names.values(), panels, css="tls-series", label="scope")
    lines = "".join(f'<p class="tls-small">{escape(line)}</p>' for line in _lines(result))
    body = f'<div class="tls">{heading(title)}{form}{lines}{noted(result.notes)}</div>'
    return View(title, body, lambda: str(result))


def _lines(result: Forecast) -> list[str]:
    """Forecast, truth and the check of Proposition 1, a sentence each."""
    prediction, units = result.prediction, result.prediction.in_units_of(result.encoded)
    low, high = prediction.interval
    lines = [
        f"Forecast: {prediction.mean:.1f} ± {prediction.spread:.1f}, {prediction.level:.0%} of it within {low} … {high} "
        f"(in the series' units {units['mean']:.4g} ± {units['spread']:.3g}, {units['low']:.4g} … {units['high']:.4g}); "
        f"{prediction.mass:.1%} of the probability is on numbers."
    ]
    if result.truth is not None and result.truth_number is not None:
        score = prediction.log_score(result.truth_number)
        truth = f"{result.truth_number} ({result.truth:.4g})"
        lines.append(f"Truth: {truth}, log-probability among the numbers {score:.2f} nats.")
    elif result.truth is not None:
        place = result.encoded.would_be(result.truth)
        lines.append(f"Truth: {result.truth:.4g}, which would be {place:.0f}: outside {FIRST} … {LAST}.")
    check = result.gaussian
    if check is not None:
        words = f"Proposition 1: b = {check.b:.3g}, R² = {check.r_squared:.3f}"
        if check.b > 0:
            words += f", μ = {check.mu:.1f}, 1/(2βb) = {check.fitted_variance:.3g} against s² = {check.variance:.3g}"
        else:
            words += ", so the logits have no peak"
        if check.cosine is not None and check.norm_ratio is not None:
            words += f"; −∇log β against ∇log s²: cosine {check.cosine:.2f}, length ratio {check.norm_ratio:.2g}"
        lines.append(words + ".")
    return list(map(minus, lines))


@text.register(Forecast)
def forecast_text(result: Forecast) -> str:
    """The same for a terminal: the strongest numbers of each scope, forecast, check, notes."""
    out = []
    for method in result.methods:
        influence = result.influence_by(method)
        strongest = influence.argsort(descending=True, stable=True)[:5].tolist()
        shares = result.shares(method)
        found = ", ".join(f"{result.encoded.numbers[i]} (number {i}) {number(float(influence[i]))}" for i in strongest)
        out.append(f"{method}: {found}; commas {shares['delimiters']:.0%}, BOS {shares['other']:.0%} of all influence")
    return "\n".join([*out, *_lines(result), *(f"Note: {note}" for note in result.notes)])


@view.register(RollingForecast)
def rolling_view(result: RollingForecast) -> View:
    """The figure and a row per forecast."""
    title = f"Every forecast of a series, and which earlier numbers each rests on: {result.matrix.method}"
    errors = ", ".join(f"{name} {value:.2f}" for name, value in result.mean_errors().items())
    body = (
        f'<div class="tls">{heading(title)}{rolling_figure(result, notes=False).chart(title)}'
        f'<p class="tls-small">Mean absolute error in numbers: {errors}.</p>{noted(result.notes)}'
        f"{table(result.to_frame())}</div>"
    )
    return View(title, body, lambda: str(result))


@text.register(RollingForecast)
def rolling_text(result: RollingForecast) -> str:
    """A line per forecast, and how good they are."""
    table = result.to_frame().to_string(index=False, float_format=lambda v: minus(f"{v:.2f}"), na_rep="–")
    return "\n".join([table, repr(result), *(f"Note: {note}" for note in result.notes)])
