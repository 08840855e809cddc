"""The command ``series``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tl_scopes.cli import options
from tl_scopes.cli.support import Files, default_methods, library, load_model, require_names


def series(
    system: options.GeneratedSystem = options.System.lorenz,
    data: options.SeriesFile = None,
    column: options.Column = None,
    length: options.Length = None,
    seed: options.Seed = 0,
    method: options.ForecastMethods = None,
    rolling: options.Rolling = False,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    json: options.Json = None,
    csv: options.OldSeriesFile = None,
) -> None:
    """Forecast the next value of a series, and show which earlier values the forecast rests on.

    The value after the --length numbers is the truth; the model does not see it.
    """
    files = Files(html=html, plot=plot, json=json)
    if csv is not None:
        if data is not None:
            raise ValueError("--csv is the old name of --data; give one of them")
        print("tl-scopes series: --csv is now --data; --csv will go", file=sys.stderr)
        data = csv
    if data is None and column is not None:
        raise ValueError("--column names a column of a --data file; give both")
    if rolling and len(method or ()) > 1:
        raise ValueError("--rolling takes one --method")
    tls = library()
    from tl_scopes.timeseries.forecast import METHODS

    timeseries = tls.timeseries
    methods = tuple(method or default_methods(timeseries.forecast_scope))
    require_names(methods, METHODS)
    values = _values(timeseries, system, data, column, length, seed)
    lens = load_model(model, kind, device)
    if rolling:
        files.answer(timeseries.rolling_forecast(lens, timeseries.encode(values), method=methods[0]))
    else:
        files.answer(timeseries.forecast_scope(lens, values[:-1], truth=values[-1], methods=methods))


def _values(
    timeseries: Any, system: options.System, data: Path | None, column: str | None, length: int | None, seed: int
) -> Any:
    """What the model sees and, as the last value, the truth."""
    if data is None:
        make = getattr(timeseries, system.name)
        return make((100 if length is None else length) + 1, seed=seed)
    values = timeseries.read_column(data, column)
    if len(values) < 3:
        raise ValueError(f"{data}: {len(values)} values; a forecast and its truth need at least 3")
    if length is None:
        return values
    if length + 1 > len(values):
        raise ValueError(f"--length {length}: {data} has {len(values)} values, at most {len(values) - 1} to see")
    return values[: length + 1]
