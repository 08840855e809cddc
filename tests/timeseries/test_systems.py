"""Invariant: the generators are what their formulas say, by closed forms and by an independent solver.

Tolerances: the explicit Euler scheme is of first order, so halving the step halves the error; DOP853 at 1e-10 agrees with
LSODA to 1e-6 over the two time units asked for (chaos multiplies errors by about e^0.9 per unit).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import odeint

from tl_scopes import timeseries as ts

pytestmark = pytest.mark.one_lens


def test_logistic_map_at_four_is_the_squared_sine() -> None:
    angle = 0.7
    x = ts.logistic_map(24, r=4.0, x0=float(np.sin(angle) ** 2))
    exact = np.sin(2.0 ** np.arange(24) * angle) ** 2
    assert np.abs(x - exact).max() < 1e-7, "the map doubles an angle; rounding doubles too: 2^24 · 1e-16"


def test_logistic_map_converges_to_its_fixed_point_below_three() -> None:
    assert ts.logistic_map(1, r=2.5, burn_in=200, seed=3)[0] == pytest.approx(1 - 1 / 2.5, rel=1e-12)


def test_chaos_separates_neighbours_and_the_burn_in_only_drops() -> None:
    a, b = ts.logistic_map(80, x0=0.3), ts.logistic_map(80, x0=0.3 + 1e-9)
    assert abs(a[5] - b[5]) < 1e-6
    assert np.abs(a[60:] - b[60:]).max() > 0.1
    assert ts.logistic_map(70, x0=0.3, burn_in=10).tolist() == a[10:].tolist()


def reference_lorenz(times: Any, start: tuple[float, float, float]) -> Any:
    def slope(s: Any, _: float) -> list[float]:
        x, y, z = s
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    return odeint(slope, start, times, rtol=1e-11, atol=1e-11)


def test_scipy_lorenz_is_the_orbit_of_another_solver() -> None:
    for i, coordinate in enumerate("xyz"):
        ours = ts.lorenz(68, x0=1.0, solver="scipy", burn_in=0, coordinate=coordinate)  # type: ignore[arg-type]
        reference = reference_lorenz(0.03 * np.arange(68), (1.0, 1.0, 25.0))[:, i]
        assert np.abs(ours - reference).max() < 1e-6


def test_the_first_order_scheme_converges_with_order_one() -> None:
    def error(dt: float) -> float:
        steps = round(0.2 / dt)
        ours = ts.lorenz(2, x0=1.0, dt=dt, every=steps, burn_in=0)[1]
        return abs(float(ours) - float(reference_lorenz([0.0, 0.2], (1.0, 1.0, 25.0))[1, 0]))

    orders = [np.log2(error(dt) / error(dt / 2)) for dt in (1e-3, 5e-4)]
    assert np.allclose(orders, 1.0, atol=0.1), orders


def test_on_the_z_axis_lorenz_is_an_exponential() -> None:
    options: dict[str, Any] = dict(x0=0.0, y0=0.0, z0=9.0, burn_in=0, every=1, dt=0.01, coordinate="z")
    steps = np.arange(50)
    assert np.allclose(ts.lorenz(50, **options), 9 * (1 - 0.01 * 8 / 3) ** steps, rtol=1e-12)
    assert np.allclose(ts.lorenz(50, solver="scipy", **options), 9 * np.exp(-8 / 3 * 0.01 * steps), rtol=1e-8)


@pytest.mark.parametrize("solver", ["euler", "scipy"])
def test_the_lobes_are_fixed_points(solver: Any) -> None:
    c = float(np.sqrt(8 / 3 * 27))
    x = ts.lorenz(20, x0=c, y0=c, z0=27.0, burn_in=0, solver=solver)
    assert np.abs(x - c).max() < 1e-9


def test_a_drift_adds_a_line_and_lorenz_visits_both_lobes() -> None:
    x = ts.lorenz(300, seed=4)
    assert x.min() < -8
    assert x.max() > 8
    assert np.allclose(ts.lorenz_with_drift(300, drift=0.5, seed=4) - x, 0.5 * np.arange(300), atol=1e-12)


def test_brownian_increments_have_the_stated_moments_and_are_independent() -> None:
    n, mu, sigma, dt = 40_000, 0.3, 2.0, 0.25
    steps = np.diff(ts.brownian_motion(n + 1, mu=mu, sigma=sigma, dt=dt, x0=5.0, seed=11))
    error = sigma * np.sqrt(dt / n)
    assert abs(steps.mean() - mu * dt) < 4 * error
    assert abs(steps.var() / (sigma**2 * dt) - 1) < 4 * np.sqrt(2 / n)
    z = (steps - steps.mean()) / steps.std()
    assert abs((z[1:] * z[:-1]).mean()) < 4 / np.sqrt(n)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n), "normal"
    assert ts.brownian_motion(5, mu=mu, sigma=0.0, x0=1.0).tolist() == pytest.approx([1.0, 1.3, 1.6, 1.9, 2.2])


def test_geometric_motion_is_the_solution_driven_by_the_same_noise() -> None:
    mu, sigma, dt = 0.1, 0.4, 0.5
    s = ts.geometric_brownian_motion(200, mu=mu, sigma=sigma, dt=dt, x0=3.0, seed=5)
    w = ts.brownian_motion(200, sigma=1.0, dt=dt, seed=5)
    t = dt * np.arange(200)
    assert np.allclose(np.log(s / 3.0), (mu - sigma**2 / 2) * t + sigma * w, atol=1e-12)


def test_the_mean_of_geometric_motion_grows_with_mu() -> None:
    rng = np.random.default_rng(0)
    ends = np.array([ts.geometric_brownian_motion(5, mu=0.2, sigma=0.5, seed=rng)[-1] for _ in range(600)])
    assert abs(ends.mean() - np.exp(0.8)) < 4 * ends.std() / np.sqrt(len(ends))


def test_periodic_repeats_exactly_and_noise_has_its_size() -> None:
    x = ts.periodic(50, period=7, seed=2)
    assert (x[7:] == x[:-7]).all()
    assert len(set(x[:7])) == 7
    noise = ts.periodic(7000, period=7, noise=0.5, seed=2) - np.resize(x[:7], 7000)
    assert abs(noise.std() / 0.5 - 1) < 0.05


SYSTEMS = (
    ts.logistic_map,
    ts.lorenz,
    ts.lorenz_with_drift,
    ts.brownian_motion,
    ts.geometric_brownian_motion,
    ts.periodic,
)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.__name__)
def test_a_seed_names_a_series_and_a_generator_continues(system: Any) -> None:
    assert (system(12, seed=3) == system(12, seed=np.random.default_rng(3))).all()
    assert (system(12, seed=3) != system(12, seed=4)).any()
    rng = np.random.default_rng(3)
    assert (system(12, seed=rng) != system(12, seed=rng)).any()
    assert system(1).shape == (1,)
    assert system(12).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ts.logistic_map(0), r"logistic_map\(length=0\)"),
        (lambda: ts.logistic_map(5, r=4.1), r"r must be in \[0, 4\]"),
        (lambda: ts.logistic_map(5, x0=1.5), r"x0 must be in \[0, 1\]"),
        (lambda: ts.lorenz(5, burn_in=-1), r"burn_in=-1\): expected an integer of at least 0"),
        (lambda: ts.lorenz(5, every=0), "positive number of steps"),
        (lambda: ts.lorenz(200, x0=1.0, dt=0.2), "overflowed; take a smaller dt"),
        (lambda: ts.lorenz_with_drift(5, drift=float("nan")), "expected a finite number"),
        (lambda: ts.brownian_motion(5, sigma=-1.0), "sigma of 0 or more"),
        (lambda: ts.geometric_brownian_motion(5, x0=0.0), "positive start"),
        (lambda: ts.periodic(5, period=1), "2 … 71 values per cycle"),
        (lambda: ts.periodic(5, noise=-0.1), "standard deviation of 0 or more"),
    ],
)
def test_a_parameter_out_of_range_is_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize(("option", "value"), [("solver", "magic"), ("coordinate", "w")])
def test_an_unknown_option_is_refused(unchecked: None, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"lorenz\({option}='{value}'\): expected"):
        ts.lorenz(5, **{option: value})


# -- CSV ---------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "t.csv"
    file.write_text("day,price,volume\nmon,10,5\ntue,12.5,\nwed,11,7\n", encoding="utf-8")
    return file


def test_a_column_by_name_by_number_and_alone(table: Path, tmp_path: Path) -> None:
    assert ts.read_column(table, "price").tolist() == [10.0, 12.5, 11.0]
    assert ts.read_column(str(table), 1).tolist() == [10.0, 12.5, 11.0]
    alone = tmp_path / "one.csv"
    alone.write_text("day,price\na,1\nb,2\n", encoding="utf-8")
    assert ts.read_column(alone).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ("volume", "'nan' in line 3 is not a finite number"),
        ("day", "'mon' in line 2 is not a finite number"),
        ("cost", r"no such column; the file has \['day', 'price', 'volume'\]"),
        (3, "the file has 3 columns"),
        (None, "2 numeric columns; name one of"),
    ],
)
def test_a_wrong_column_is_refused(table: Path, column: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ts.read_column(table, column)


def test_a_comma_at_the_end_of_rows_shifts_no_column(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2,\n3,4,\n", encoding="utf-8")
    assert ts.read_column(file, "a").tolist() == [1.0, 3.0]
    file.write_text("a,b\n1,2\n3,4,9\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3 has 3 entries for 2 columns"):
        ts.read_column(file, "a")
    file.write_text("a,b\n1,2\n\n,4\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'nan' in line 4 is not a finite number"):
        ts.read_column(file, "a")


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        ts.read_column(tmp_path / "no.csv")
    empty = tmp_path / "e.csv"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="not a CSV file"):
        ts.read_column(empty)
