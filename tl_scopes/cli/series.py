"""The command ``series``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from tl_scopes.cli.support import quiet, working


class System(str, Enum):
    """Series that can be generated."""

    lorenz = "lorenz"
    lorenz_with_drift = "lorenz-with-drift"
    logistic_map = "logistic"
    brownian_motion = "brownian"
    geometric_brownian_motion = "geometric-brownian"
    periodic = "periodic"


class Scope(str, Enum):
    """Scopes of a forecast."""

    temperature = "temperature"
    semantic = "semantic"
    fisher = "fisher"
    moment_mean = "moment_mean"
    moment_variance = "moment_variance"


def series(
    system: Annotated[System, typer.Option(help="Which series to generate.")] = System.lorenz,
    csv: Annotated[Path | None, typer.Option(help="Take the series from this CSV file instead.")] = None,
    column: Annotated[str | None, typer.Option(help="Its column; default: the only numeric one.")] = None,
    length: Annotated[
        int | None, typer.Option(help="Numbers the model sees; default: 100, or all of a CSV column but the last.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the generated series.")] = 0,
    scope: Annotated[list[Scope] | None, typer.Option(help="Scope; repeat to compare. Default: temperature.")] = None,
    model: Annotated[str, typer.Option(help="'demo', a Hub name, or a local Hugging Face folder.")] = "demo",
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    rolling: Annotated[bool, typer.Option(help="Explain every forecast of the series, not only the last.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write an interactive page here; works offline.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here; - for stdout.")] = None,
) -> None:
    """Forecast the next value of a series, and show which earlier values the forecast rests on.

    The value after the --length numbers is the truth; the model does not see it.
    """

    quiet()
    to_stdout = str(json_file) == "-"
    for file in (plot, html, None if to_stdout else json_file):
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"series: {file}: there is no folder {file.parent}")
    if length is not None and length < 2:
        raise ValueError(f"series: --length {length}: a forecast needs at least 2 numbers")
    if csv is None and column is not None:
        raise ValueError("series: --column names a column of a --csv file; give both")
    methods = tuple(s.value for s in scope or [Scope.temperature])
    if rolling and (html is not None or json_file is not None or len(methods) > 1):
        raise ValueError("series: --rolling takes one --scope and writes --plot only")
    with working("loading torch and TransformerLens"):
        import tl_scopes as tls
        from tl_scopes import timeseries

    values = _values(timeseries, system, csv, column, length, seed)
    with working(f"loading {model}"):
        lens = tls.load_model(model, kind=kind, device=device)  # type: ignore[arg-type]
    if rolling:
        found = timeseries.rolling_forecast(lens, timeseries.encode(values), method=methods[0])  # type: ignore[arg-type]
        print(found)
        if plot is not None:
            found.plot().savefig(plot)
        return
    result = timeseries.forecast_scope(lens, values[:-1], truth=values[-1], methods=methods)  # type: ignore[arg-type]
    assert isinstance(result, timeseries.Forecast)
    if plot is not None:
        result.plot().savefig(plot)
    if html is not None:
        html.write_text(result.html(), encoding="utf-8")
    if json_file is not None and not to_stdout:
        result.save(json_file)
    if to_stdout:
        import json

        print(json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False))
        return
    print(result)


def _values(
    timeseries: Any, system: System, csv: Path | None, column: str | None, length: int | None, seed: int
) -> Any:
    """What the model sees and, as the last value, the truth."""
    if csv is None:
        make = getattr(timeseries, system.name)
        return make((100 if length is None else length) + 1, seed=seed)
    values = timeseries.read_column(csv, column)
    if len(values) < 3:
        raise ValueError(f"series: --csv {csv}: {len(values)} values; a forecast and its truth need at least 3")
    if length is None:
        return values
    if length + 1 > len(values):
        raise ValueError(f"series: --length {length}: {csv} has {len(values)} values, at most {len(values) - 1} to see")
    return values[: length + 1]
