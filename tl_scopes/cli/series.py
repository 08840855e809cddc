"""The command ``series``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import default_methods, library, load_model, require_names


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
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Forecast the next value of a series, and show which earlier values the forecast rests on.

    The value after the --length numbers is the truth; the model does not see it. With --rolling it is one of the numbers
    that are forecast, and numbers are written on a scale that is fitted on all of them.
    """
    if csv is not None and data is None and _is_a_series(csv):
        print(
            f"tl-scopes series: --csv {csv} is read, as before --data was there; from now on: --data", file=sys.stderr
        )
        data, csv = csv, None
    files = Files(html=html, plot=plot, csv=csv, json=json)
    if csv is not None and data is not None and csv.exists() and csv.samefile(data):
        raise ValueError(f"--csv {csv}: this is the file of --data; the table needs another")
    if data is None and column is not None:
        raise ValueError("--column names a column of a --data file; give both")
    if rolling and len(method or ()) > 1:
        raise ValueError("--rolling takes one --method")
    tls = library()
    from tl_scopes.timeseries.forecast import METHODS
    from tl_scopes.timeseries.rolling import FIRST_FORECAST, RollingMethod

    timeseries = tls.timeseries
    methods = tuple(method or default_methods(timeseries.forecast_scope))
    require_names(methods, get_args(RollingMethod) if rolling else METHODS)
    values = _values(timeseries, system, data, column, length, seed)
    if rolling and len(values) <= FIRST_FORECAST:
        raise ValueError(
            f"--rolling forecasts the numbers after the first {FIRST_FORECAST}, and these are {len(values)}; give a longer "
            "series"
        )
    lens = load_model(model, kind, device)
    if rolling:
        files.answer(timeseries.rolling_forecast(lens, timeseries.encode(values), method=methods[0]))
    else:
        files.answer(timeseries.forecast_scope(lens, values[:-1], truth=values[-1], methods=methods))


def _is_a_series(file: Path) -> bool:
    """A file that is there and is no table of this command: what ``--csv`` read before it wrote one."""
    if not file.is_file():
        return False
    with file.open("rb") as lines:
        return not lines.readline().startswith((b"index,pos,value,number", b"index,number,mean,spread"))


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
