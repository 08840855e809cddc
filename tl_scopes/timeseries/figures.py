"""The paper's figures 4 and 9 to 13 with matplotlib: a series with its influence, beside it the predicted distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_scopes.results.written import minus
from tl_scopes.timeseries.encoding import FIRST, LAST
from tl_scopes.timeseries.result import Forecast
from tl_scopes.timeseries.rolling import RollingForecast
from tl_scopes.views.canvas.colours import COLOURS, FULL, RED
from tl_scopes.views.rendering import plot
from tl_scopes.views.wording import number


@plot.register(Forecast)
def forecast_figure(forecast: Forecast, methods: Sequence[str] | None = None, *, notes: bool = True) -> Any:
    """A row per scope: the series coloured by influence with bars under it; beside it the predicted distribution."""
    from tl_scopes.views.canvas.figures import Figure

    chosen = forecast.methods if methods is None else tuple(methods)
    rows = len(chosen)
    figure = Figure(figsize=(10.5, 3.1 * rows), dpi=150, layout="constrained")
    grid = figure.add_gridspec(2 * rows, 2, width_ratios=[4, 1], height_ratios=[3, 1] * rows)
    first = None
    for r, method in enumerate(chosen):
        series = figure.add_subplot(grid[2 * r, 0], sharex=first)
        first = first or series
        bars = figure.add_subplot(grid[2 * r + 1, 0], sharex=first)
        distribution = figure.add_subplot(grid[2 * r, 1], sharey=series)
        _series(series, bars, forecast, method)
        _distribution(distribution, forecast, legend=r == 0)
        _read_out(figure, forecast, method, (series, bars, distribution))
        bars.tick_params(labelbottom=r == rows - 1)
        if r == rows - 1:
            bars.set_xlabel("which number (the first is 0)")
            bars.locator_params(axis="x", integer=True)
            distribution.set_xlabel("probability")
    figure.put_notes(forecast.notes if notes else ())
    return figure


def _series(axes: Any, bars: Any, forecast: Forecast, method: str) -> None:
    """One scope: the line with its numbers coloured by influence, and influence as bars below."""
    frame, influence = forecast.to_frame(), forecast.influence_by(method).double().numpy()
    top = influence.max() or 1.0
    axes.plot(frame["index"], frame.number, color="#999999", linewidth=0.8, zorder=1)
    axes.scatter(
        frame["index"], frame.number, c=influence, cmap="Blues", vmin=-0.05 * top, vmax=top, s=16, linewidths=0.4,
        edgecolors="#444444", zorder=2,
    )  # fmt: skip
    truth = _truth(forecast)
    if truth is not None:
        axes.plot(len(frame), truth[0], truth[1], mfc="none", mec=RED, markersize=6)
    axes.set_ylabel("number")
    shares = forecast.shares(method)
    axes.set_title(
        f"{method.replace('_', ' ').capitalize()} Scope  (commas {shares['delimiters']:.0%}, BOS {shares['other']:.0%} of "
        "all influence, left out)",
        fontsize=9,
        loc="left",
    )
    axes.tick_params(labelbottom=False)
    bars.bar(frame["index"], influence, width=0.75, color=FULL)
    bars.set_ylabel("influence", fontsize=8)
    bars.tick_params(labelsize=7)
    for each in (axes, bars):
        each.spines[["top", "right"]].set_visible(False)


def _truth(forecast: Forecast) -> tuple[int, str, str] | None:
    """Where the true next number is drawn, its mark, and its words; beyond the scale an arrow at the scale's end."""
    if forecast.truth is None:
        return None
    if forecast.truth_number is not None:
        return forecast.truth_number, "o", f"{forecast.truth_number}"
    place = forecast.encoded.would_be(forecast.truth)
    says = minus(f"{place:.0f}, off the scale")
    return (LAST, "^", says) if place > LAST else (FIRST, "v", says)


def _read_out(figure: Any, forecast: Forecast, method: str, panels: tuple[Any, Any, Any]) -> None:
    """What a page says of each number, of the truth, and of each bar of the distribution."""
    series, bars, distribution = panels
    frame, influence = forecast.to_frame(), forecast.influence_by(method).tolist()
    total, truth = sum(influence) or 1.0, _truth(forecast)
    for row, score in zip(frame.itertuples(index=False), influence, strict=True):
        says = minus(
            f"number {row.index} (token {row.pos}): {row.number}, value {row.value:.4g}; influence {number(score)}, "
            f"{score / total:.1%} of all numbers'"
        )
        figure.say(series, says, (row.index - 0.5, row.index + 0.5), None, to=bars)
    if truth is not None:
        figure.say(series, f"the true next number: {truth[2]}", float(len(frame)), float(truth[0]))
    for row in forecast.distribution_frame().itertuples():
        known = " (the true next number)" if row.number == forecast.truth_number else ""
        says = f"{row.number}: probability {row.probability:.2%}{known}"
        figure.say(distribution, says, None, (row.number - 0.5, row.number + 0.5))


def _distribution(axes: Any, forecast: Forecast, *, legend: bool) -> None:
    """Probabilities over numbers in numerical order on the series' own axis, the truth red."""
    frame, prediction = forecast.distribution_frame(), forecast.prediction
    colours = [RED if n == forecast.truth_number else COLOURS[0] for n in frame.number]
    axes.barh(frame.number, frame.probability, height=0.85, color=colours)
    if frame.gaussian.notna().any():
        axes.plot(frame.gaussian, frame.number, color="#444444", linewidth=0.9, label="Gaussian fit")
    axes.axhline(prediction.mean, color=COLOURS[1], linewidth=1, linestyle="--", label=f"mean {prediction.mean:.1f}")
    low, high = prediction.interval
    axes.axhspan(
        low - 0.5,
        high + 0.5,
        color=COLOURS[1],
        alpha=0.16,
        linewidth=0,
        zorder=0,
        label=f"{prediction.level:.0%} interval",
    )
    truth = _truth(forecast)
    if truth is not None:
        axes.plot([], [], "s" if truth[1] == "o" else truth[1], color=RED, label=f"truth {truth[2]}")
        axes.annotate("◂", (axes.get_xlim()[1], truth[0]), color=RED, va="center", fontsize=9)
    axes.tick_params(labelleft=False, labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


@plot.register(RollingForecast)
def rolling_figure(rolling: RollingForecast, *, notes: bool = True) -> Any:
    """Above: the series with the predicted mean and interval; below: influence, a row per forecast, rows normalised."""
    from matplotlib.ticker import MaxNLocator

    from tl_scopes.views.canvas.figures import Figure

    frame = rolling.to_frame()
    figure = Figure(figsize=(8.5, 8), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.4])
    n = len(rolling.encoded)
    above.fill_between(
        frame["index"], frame.low, frame.high, color=COLOURS[1], alpha=0.25, linewidth=0, label="interval"
    )
    above.plot(frame["index"], frame["mean"], color=COLOURS[1], linewidth=1.2, label="predicted mean")
    above.plot(
        range(n), rolling.encoded.numbers, color="#333333", linewidth=0.9, marker=".", markersize=3, label="series"
    )
    above.legend(frameon=False, fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    above.set_ylabel("number")
    above.spines[["top", "right"]].set_visible(False)
    rows = rolling.influence.double().numpy()
    rows = rows / np.maximum(rows.max(axis=1, keepdims=True), 1e-300)
    shown = np.where(np.arange(n)[None] < rolling.first + np.arange(len(rolling))[:, None], rows, np.nan)
    extent = (-0.5, n - 0.5, rolling.first + len(rolling) - 0.5, rolling.first - 0.5)
    below.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto", extent=extent, interpolation="nearest")
    below.set_xlim(-0.5, n + 0.5)  # the last forecast is of the number after the series
    for axis in (below.xaxis, below.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    below.set_xlabel("number that influences")
    below.set_ylabel("number that is forecast")
    below.set_title(f"{rolling.matrix.method}: influence, each row divided by its highest", fontsize=9)
    figure.put_notes(rolling.notes if notes else ())
    return figure
