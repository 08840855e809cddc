"""Series to forecast: the paper's dynamical systems, and any column of a CSV file.

    logistic map    x ← r x (1 − x)
    Lorenz          ẋ = σ(y − x),  ẏ = x(ρ − z) − y,  ż = xy − βz; the x coordinate is the series
    with drift      the same series plus a constant slope
    Brownian        dX = μ dt + σ dW
    geometric       dS = μ S dt + σ S dW
    periodic        one cycle repeated, with or without noise (the control: its causes are known)

Randomness comes from ``seed`` alone, a number or a :class:`numpy.random.Generator`; the global state is never used.
Where a starting value is not given it is drawn from ``seed``.
"""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tl_scopes.numerics import arguments
from tl_scopes.numerics.arguments import integer, public_call

Seed = arguments.Seed | np.random.Generator
Series = Float[ndarray, " n"]

TRANSIENT = 300
"""Lorenz steps dropped at the start: three time units, after which the orbit is near the attractor."""


@public_call
def logistic_map(length: int, *, r: float = 3.8, x0: float | None = None, burn_in: int = 0, seed: Seed = 0) -> Series:
    """Logistic map ``x_{t+1} = r x_t (1 − x_t)``.

    Args:
        length: number of values; the first is ``x0`` itself unless there is a burn-in.
        r: growth parameter in [0, 4]; the paper's 3.8 is chaotic.
        x0: start in [0, 1]; None draws it from 0.1 … 0.9.
        burn_in: steps dropped at the start.
        seed: of the start.

    Returns:
        ``[length]`` float64 in [0, 1].

    Raises:
        ValueError: a length, ``r`` or ``x0`` out of range, where the map would leave [0, 1].

    >>> logistic_map(3, r=4.0, x0=0.75).tolist()
    [0.75, 0.75, 0.75]

    Reference: paper section A.3, figure 9.
    """
    _require_length(length, burn_in=burn_in)
    if not 0 <= r <= 4:
        raise ValueError(f"(r={r}): r must be in [0, 4], outside of which x leaves [0, 1]")
    x = float(np.random.default_rng(seed).uniform(0.1, 0.9)) if x0 is None else float(x0)
    if not 0 <= x <= 1:
        raise ValueError(f"(x0={x0}): x0 must be in [0, 1]")
    values = []
    for step in range(burn_in + length):
        if step >= burn_in:
            values.append(x)
        x = r * x * (1 - x)
    return np.array(values)


@public_call
def lorenz(
    length: int,
    *,
    x0: float | None = None,
    y0: float = 1.0,
    z0: float = 25.0,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    dt: float = 0.01,
    every: int = 3,
    burn_in: int = TRANSIENT,
    solver: Literal["euler", "scipy"] = "euler",
    coordinate: Literal["x", "y", "z"] = "x",
    seed: Seed = 0,
) -> Series:
    """One coordinate of the Lorenz system.

    ``ẋ = σ(y − x)``, ``ẏ = x(ρ − z) − y``, ``ż = xy − βz``.

    Args:
        length: number of values kept.
        x0: start of x; None draws it from −10 … 10. The paper varies it and fixes the other two.
        y0, z0: starts of y and z.
        sigma, rho, beta: the paper's values are chaotic.
        dt: step of the scheme.
        every: steps between kept values; 3 steps of 0.01 give about 25 values per turn round a lobe.
        burn_in: steps dropped at the start.
        solver: ``"euler"``, the paper's first-order explicit scheme, whose orbit leaves the true one after a few time
            units; ``"scipy"``, ``solve_ivp`` with DOP853 at a relative tolerance of 1e-10, at the same times.
        coordinate: which of the three.
        seed: of the start.

    Returns:
        ``[length]`` float64.

    Raises:
        ValueError: an argument out of range; the explicit scheme overflowed (a smaller ``dt`` helps).

    >>> lorenz(100, seed=1).shape
    (100,)

    Reference: paper section A.3, figures 4 and 10.
    """
    _require_length(length, burn_in=burn_in)
    if every < 1 or dt <= 0:
        raise ValueError(f"(dt={dt}, every={every}): expected a positive step and a positive number of steps")
    x = float(np.random.default_rng(seed).uniform(-10, 10)) if x0 is None else float(x0)
    kept = burn_in + every * np.arange(length)

    def slope(_: Any, s: Any) -> tuple[Any, Any, Any]:
        return sigma * (s[1] - s[0]), s[0] * (rho - s[2]) - s[1], s[0] * s[1] - beta * s[2]

    start = (x, float(y0), float(z0))
    if solver == "euler":
        path = [start]
        for _ in range(int(kept[-1])):
            here = path[-1]
            dx, dy, dz = slope(0.0, here)
            path.append((here[0] + dt * dx, here[1] + dt * dy, here[2] + dt * dz))
        states = np.array(path)[kept]
    else:
        from scipy.integrate import solve_ivp

        end = max(float(kept[-1]) * dt, dt)
        solved = solve_ivp(slope, (0.0, end), start, "DOP853", t_eval=kept * dt, rtol=1e-10, atol=1e-10)
        states = solved.y.T
    if not np.isfinite(states).all():
        raise ValueError(f"(dt={dt}): the explicit scheme overflowed; take a smaller dt")
    return np.asarray(states[:, "xyz".index(coordinate)], dtype=np.float64)


@public_call
def lorenz_with_drift(
    length: int,
    *,
    drift: float = 0.3,
    x0: float | None = None,
    y0: float = 1.0,
    z0: float = 25.0,
    dt: float = 0.01,
    every: int = 3,
    burn_in: int = TRANSIENT,
    solver: Literal["euler", "scipy"] = "euler",
    seed: Seed = 0,
) -> Series:
    """The Lorenz x coordinate with a uniform drift: ``x_i + drift·i``, so that early values fall out of range.

    Args:
        drift: added per kept value; the default adds about one width of the attractor in 120 values.
        length, x0, y0, z0, dt, every, burn_in, solver, seed: as in :func:`lorenz`.

    Returns:
        ``[length]`` float64.

    Raises:
        ValueError: as :func:`lorenz`; a drift that is not finite.

    >>> (lorenz_with_drift(5, drift=2.0) - lorenz(5)).round(9).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]

    Reference: paper section A.3, figure 11.
    """
    series = lorenz(length, x0=x0, y0=y0, z0=z0, dt=dt, every=every, burn_in=burn_in, solver=solver, seed=seed)
    return np.asarray(series + drift * np.arange(length))


@public_call
def brownian_motion(
    length: int, *, mu: float = 0.0, sigma: float = 1.0, dt: float = 1.0, x0: float = 0.0, seed: Seed = 0
) -> Series:
    """Brownian motion with drift, ``dX = μ dt + σ dW``, at equal times.

    Increments are exact: independent normal, mean ``mu·dt``, variance ``sigma²·dt``.

    Args:
        length: number of values; the first is ``x0``.
        mu, sigma: drift and diffusion; the paper's are 0 and 1.
        dt: time between values.
        x0: start.
        seed: of the increments.

    Returns:
        ``[length]`` float64.

    Raises:
        ValueError: a length, ``sigma`` or ``dt`` out of range.

    >>> brownian_motion(4, mu=2.0, sigma=0.0).tolist()
    [0.0, 2.0, 4.0, 6.0]

    Reference: paper eq. 12, figures 4 and 12.
    """
    _require_length(length)
    _require_diffusion(sigma, dt)
    noise = np.random.default_rng(seed).standard_normal(length - 1)
    return x0 + np.concatenate([[0.0], np.cumsum(mu * dt + sigma * math.sqrt(dt) * noise)])


@public_call
def geometric_brownian_motion(
    length: int, *, mu: float = 0.0, sigma: float = 0.1, dt: float = 1.0, x0: float = 1.0, seed: Seed = 0
) -> Series:
    """Geometric Brownian motion, ``dS = μ S dt + σ S dW``, by its solution ``S_0 exp((μ − σ²/2) t + σ W_t)``.

    Args:
        length: number of values; the first is ``x0``.
        mu, sigma: relative drift and diffusion.
        dt: time between values.
        x0: start, positive.
        seed: of the increments; the same as in :func:`brownian_motion`.

    Returns:
        ``[length]`` float64, positive.

    Raises:
        ValueError: a length, ``sigma``, ``dt`` or ``x0`` out of range.

    >>> geometric_brownian_motion(3, mu=np.log(2), sigma=0.0).round(9).tolist()
    [1.0, 2.0, 4.0]

    Reference: paper section 4.3 (named there beside Brownian motion).
    """
    _require_length(length)
    _require_diffusion(sigma, dt)
    if not x0 > 0:
        raise ValueError(f"(x0={x0}): expected a positive start")
    logs = brownian_motion(length, mu=mu - sigma**2 / 2, sigma=sigma, dt=dt, seed=seed)
    return np.asarray(x0 * np.exp(logs))


@public_call
def periodic(length: int, *, period: int = 8, noise: float = 0.0, seed: Seed = 0) -> Series:
    """One cycle of distinct values repeated, with normal noise if any: the series whose next value has known causes.

    Args:
        length: number of values.
        period: values per cycle, drawn without repetition from 0 … 70.
        noise: standard deviation of what is added to each value.
        seed: of the cycle and the noise.

    Returns:
        ``[length]`` float64; with ``noise=0`` it repeats exactly.

    Raises:
        ValueError: a length, period or noise out of range.

    >>> series = periodic(20, period=5)
    >>> bool((series[5:] == series[:-5]).all())
    True

    Reference: this package; a control with a known answer.
    """
    _require_length(length)
    if not 2 <= period <= 71:
        raise ValueError(f"(period={period}): expected 2 … 71 values per cycle")
    if not noise >= 0:
        raise ValueError(f"(noise={noise}): expected a standard deviation of 0 or more")
    rng = np.random.default_rng(seed)
    cycle = rng.choice(71, size=period, replace=False).astype(np.float64)
    return cycle[np.arange(length) % period] + noise * rng.standard_normal(length)


@public_call
def read_column(path: str | Path, column: str | int | None = None) -> Series:
    """A numeric column of a CSV file as a series.

    Args:
        path: the file; its first line names the columns.
        column: name, or number from 0; None where the file has a single numeric column.

    Returns:
        ``[rows]`` float64.

    Raises:
        ValueError: no such file or column; several numeric columns and none named; an entry that is no finite number.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "series.csv"
    >>> _ = file.write_text("day,price\\nmon,10\\ntue,12.5\\n")
    >>> read_column(file, "price").tolist()
    [10.0, 12.5]
    """
    import pandas as pd

    given = f"({str(path)!r})" if column is None else f"({str(path)!r}, column={column!r})"
    if not Path(path).is_file():
        raise ValueError(f"{given}: there is no such file")
    try:
        lines = _lines(Path(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of commas at the ends of rows
            frame = pd.read_csv(path, index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{given}: not a CSV file ({error})") from error
    names = [str(name) for name in frame.columns]
    if column is None:
        numeric = [i for i, name in enumerate(frame.columns) if pd.api.types.is_numeric_dtype(frame[name])]
        if not numeric:
            raise ValueError(
                f"{given}: none of its columns {names} is numeric: each has an entry that is no number; fill or drop those"
            )
        if len(numeric) > 1:
            raise ValueError(f"{given}: {len(numeric)} numeric columns; name one of {[names[i] for i in numeric]}")
        index = numeric[0]
    elif isinstance(column, int) and not isinstance(column, bool):
        if not 0 <= column < len(names):
            raise ValueError(f"{given}: the file has {len(names)} columns, 0 … {len(names) - 1}: {names}")
        index = column
    elif str(column) in names:
        index = names.index(str(column))
    else:
        raise ValueError(f"{given}: there is no such column; the file has {names}")
    values = pd.to_numeric(frame.iloc[:, index], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        entry = frame.iloc[int(bad[0]), index]
        line = lines[int(bad[0])] if len(lines) == len(frame) else int(bad[0]) + 2
        raise ValueError(f"{given}: {str(entry)!r} in line {line} is not a finite number; fill or drop it")
    return np.asarray(values)


def _lines(path: Path) -> list[int]:
    """The line that each row begins on, but for blank ones; refuses a row with entries that no column has a name for."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows, lines, begin, width = csv.reader(file), [], 1, -1
        for row in rows:
            if row and width < 0:
                width = len(row)
            elif row:
                lines.append(begin)
                if any(entry.strip() for entry in row[width:]):
                    raise csv.Error(f"line {begin} has {len(row)} entries for {width} columns")
            begin = rows.line_num + 1
    return lines


def _require_length(length: int, *, burn_in: int = 0) -> None:
    """Refuse lengths and burn-ins that make no series."""
    integer("length", length, least=1)
    integer("burn_in", burn_in, least=0)


def _require_diffusion(sigma: float, dt: float) -> None:
    """Refuse a diffusion or a time step that is none."""
    if sigma < 0 or dt <= 0:
        raise ValueError(f"(sigma={sigma}, dt={dt}): expected sigma of 0 or more and dt above 0")
