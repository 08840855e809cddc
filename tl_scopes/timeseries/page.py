"""A forecast as a page: the series with influence under it, beside it the predicted distribution on the same axis.

The picture is SVG made here, complete without scripts; the page's script only reads out the number under the pointer.
Buttons between scopes are radio buttons, which need no script.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.wording import number

if TYPE_CHECKING:
    from tl_scopes.timeseries.result import Forecast

_WIDTH, _TALL, _BARS, _SIDE = 760.0, 230.0, 60.0, 200.0
_LEFT, _TOP, _GAP = 34.0, 8.0, 14.0
_LOW, _HIGH = 8, 101


def forecast(result: Forecast) -> View:
    """One forecast, a button for each scope."""
    names = {method: f"{method.replace('_', ' ').capitalize()} Scope" for method in result.methods}
    title = f"Which earlier numbers a forecast rests on: {', '.join(names.values())}"
    buttons = "".join(
        f'<label><input type="radio" name="method" value="{i}"{" checked" if i == 0 else ""}>{escape(name)}</label>'
        for i, name in enumerate(names.values())
    )
    rules = "".join(
        f".tls-series:has(.tls-switch > label:nth-of-type({i}) > :checked) > section:not(:nth-of-type({i}))"
        "{display:none}"
        for i in range(1, len(names) + 1)
    )
    switch = f'<div class="tls-switch" role="radiogroup" aria-label="scope">{buttons}</div>' if len(names) > 1 else ""
    panels = "".join(f"<section>{_panel(result, method, name)}</section>" for method, name in names.items())
    notes = "".join(f'<p class="tls-note">{escape(note)}</p>' for note in result.notes)
    body = (
        f'<div class="tls">{heading(title)}<form class="tls-series" method="dialog"><style>{rules}</style>{switch}{panels}'
        f"</form>{_summary(result)}{notes}</div>"
    )
    return View(title, body, lambda: forecast_text(result))


def _y(value: float | int) -> float:
    return _TOP + _TALL * (_HIGH - value) / (_HIGH - _LOW)


def _panel(result: Forecast, method: str, name: str) -> str:
    """One scope: the chart and the line that reads it out."""
    shares = result.shares(method)
    rest = (
        f"{name}. Commas carry {shares['delimiters']:.0%} and BOS {shares['other']:.0%} of all influence; they are left "
        "out. Point at a number for its value, or walk them by the arrow keys."
    )
    total = _LEFT + _WIDTH + 20 + _SIDE + 12
    height = _TOP + _TALL + _GAP + _BARS + 18
    return (
        f'<svg class="tls-chart" tabindex="0" viewBox="0 0 {total:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(name)}: series, influence of each '
        f'number, and predicted distribution">{_axis()}{_chart(result, method)}{_distribution(result)}</svg>'
        f'<p class="tls-small tls-read" aria-live="polite">{escape(rest)}</p>'
    )


def _axis() -> str:
    """The scale of numbers, shared by series and distribution."""
    lines = "".join(
        f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH + 20 + _SIDE}" y1="{_y(n):.1f}" y2="{_y(n):.1f}" class="tls-grid"/>'
        f'<text x="{_LEFT - 6}" y="{_y(n) + 4:.1f}" text-anchor="end">{n}</text>'
        for n in range(20, 100, 20)
    )
    return f'<g class="tls-axis">{lines}</g>'


def _chart(result: Forecast, method: str) -> str:
    """The series, its numbers filled by influence, bars under it, and the true next number as a red ring."""
    numbers = result.encoded.numbers.tolist()
    values = result.encoded.series.tolist()
    influence = result.influence_by(method).tolist()
    places = [p[0] for p in result.places.numbers]
    step = _WIDTH / (len(numbers) + 1)
    top = max(influence) or 1.0
    total = sum(influence) or 1.0
    foot = _TOP + _TALL + _GAP + _BARS
    x = [_LEFT + step * (i + 0.5) for i in range(len(numbers))]
    line = " ".join(f"{a:.1f},{_y(n):.1f}" for a, n in zip(x, numbers, strict=True))
    parts = [f'<polyline points="{line}" class="tls-line"/>']
    for i, (a, n, score) in enumerate(zip(x, numbers, influence, strict=True)):
        share, bar = score / top, _BARS * score / top
        tip = escape(
            f"number {i} (token {places[i]}): {n}, value {values[i]:.4g}; influence {number(score)}, "
            f"{score / total:.1%} of all numbers'"
        )
        parts.append(
            f'<g data-tip="{tip}"><title>{tip}</title>'
            f'<rect x="{a - step / 2:.1f}" y="{_TOP}" width="{step:.1f}" height="{foot - _TOP}" class="tls-hit"/>'
            f'<rect x="{a - 0.4 * step:.1f}" y="{foot - bar:.1f}" width="{0.8 * step:.1f}" height="{bar:.1f}" '
            f'class="tls-fill"/><circle cx="{a:.1f}" cy="{_y(n):.1f}" r="{min(4.0, 0.48 * step):.1f}" class="tls-dot" '
            f'fill-opacity="{0.06 + 0.94 * share:.2f}"/></g>'
        )
    if result.truth_number is not None:
        a, n = _LEFT + step * (len(numbers) + 0.5), result.truth_number
        tip = f"the true next number: {n}"
        parts.append(
            f'<g data-tip="{tip}"><title>{tip}</title><circle cx="{a:.1f}" cy="{_y(n):.1f}" r="5" class="tls-truth"/></g>'
        )
    parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{foot}" y2="{foot}" class="tls-base"/>')
    labels = [0, len(numbers) // 2, len(numbers) - 1]
    parts += [
        f'<text x="{x[i]:.1f}" y="{foot + 14}" text-anchor="middle">{places[i]}</text>' for i in sorted({*labels})
    ]
    parts.append(f'<text x="{_LEFT + _WIDTH + 20}" y="{foot + 14}">token position</text>')
    return "".join(parts)


def _distribution(result: Forecast) -> str:
    """Probabilities in numerical order on the axis of the series; the truth red, mean and interval marked."""
    prediction, frame = result.prediction, result.distribution_frame()
    left = _LEFT + _WIDTH + 20
    top = max(frame.probability.max(), frame.gaussian.max() if frame.gaussian.notna().any() else 0.0, 1e-12)
    thick = 0.85 * _TALL / (_HIGH - _LOW)
    low, high = prediction.interval
    parts = [
        f'<rect x="{left}" y="{_y(high + 0.5):.1f}" width="{_SIDE}" height="{_y(low - 0.5) - _y(high + 0.5):.1f}" '
        'class="tls-band"/>'
    ]
    for n, p in zip(frame.number.tolist(), frame.probability.tolist(), strict=True):
        truth = n == result.truth_number
        tip = f"{n}: probability {p:.2%}{' (the true next number)' if truth else ''}"
        width = _SIDE * p / top
        parts.append(
            f'<g data-tip="{tip}"><title>{tip}</title>'
            f'<rect x="{left}" y="{_y(n) - thick / 2:.1f}" width="{_SIDE}" height="{thick / 0.85:.1f}" class="tls-hit"/>'
            f'<rect x="{left}" y="{_y(n) - thick / 2:.1f}" width="{width:.1f}" height="{thick:.1f}" '
            f'class="{"tls-true" if truth else "tls-fill"}"/></g>'
        )
    if frame.gaussian.notna().any():
        points = " ".join(
            f"{left + _SIDE * g / top:.1f},{_y(n):.1f}" for n, g in zip(frame.number, frame.gaussian, strict=True)
        )
        parts.append(f'<polyline points="{points}" class="tls-line tls-fit"/>')
    mean = _y(prediction.mean)
    parts.append(f'<line x1="{left}" x2="{left + _SIDE}" y1="{mean:.1f}" y2="{mean:.1f}" class="tls-mean"/>')
    if result.truth_number is not None:
        y = _y(result.truth_number)
        parts.append(f'<path d="M{left + _SIDE + 8:.1f},{y - 4:.1f} l-8,4 l8,4 z" class="tls-true"/>')
    foot = _TOP + _TALL + _GAP
    parts.append(
        f'<text x="{left + _SIDE + 8}" y="{foot + 4}" text-anchor="end">predicted distribution, highest '
        f"{frame.probability.max():.1%}</text>"
    )
    return "".join(parts)


def _summary(result: Forecast) -> str:
    """The forecast in words."""
    return "".join(f'<p class="tls-small">{escape(line)}</p>' for line in _lines(result))


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
        lines.append(f"Truth: {result.truth_number} ({result.truth:.4g}), log-probability {score:.2f} nats.")
    check = result.gaussian
    if check is not None:
        text = (
            f"Proposition 1: b = {check.b:.3g}, μ = {check.mu:.1f}, R² = {check.r_squared:.3f}, "
            f"1/(2βb) = {check.fitted_variance:.3g} against s² = {check.variance:.3g}"
        )
        if check.cosine is not None and check.norm_ratio is not None:
            text += f"; −∇log β against ∇log s²: cosine {check.cosine:.2f}, length ratio {check.norm_ratio:.2g}"
        lines.append(text + ".")
    return lines


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
