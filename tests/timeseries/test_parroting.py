"""Invariant: the parroting test finds influence on matching motifs and nothing else.

Its control keeps the dependence within each profile, so noise, smooth noise and plain recency are significant at 5 % in
about 5 % of series.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from tl_scopes import timeseries as ts

pytestmark = pytest.mark.one_lens


@lru_cache
def numbers(n: int, seed: int) -> np.ndarray:
    return ts.encode(ts.lorenz(n, seed=seed)).numbers.astype(float)


def test_distances_are_those_of_the_definition() -> None:
    v, a = numbers(40, 0), np.random.default_rng(0).uniform(size=40)
    test = ts.parroting_test(v, a, dimension=3, skip=2)
    assert test.ends.tolist() == list(range(4, 36)), "no motif or successor overlaps the last three numbers"
    for i, j in enumerate(test.ends):
        assert test.distance[i] == pytest.approx(sum((v[j - k] - v[39 - k]) ** 2 for k in range(3)) ** 0.5)
        assert test.influence[i] == pytest.approx(a[j - 2 : j + 2].mean())
    best = max(j for j, d in zip(test.ends, test.distance, strict=True) if d == min(test.distance))
    assert test.nearest == best
    assert test.parroted == v[best + 1]


def test_a_periodic_series_is_parroted_by_its_last_period() -> None:
    v = ts.periodic(50, period=6, seed=3)
    test = ts.parroting_test(v, np.ones(50))
    assert test.parroted == v[50 % 6]
    assert test.nearest == 49 - 6
    assert (test.distance[(49 - test.ends) % 6 == 0] == 0).all()
    assert test.correlation == 0.0, "equal influence everywhere says nothing"
    assert test.percentile == 0.5


def test_influence_on_matching_motifs_is_found() -> None:
    found = []
    for seed in range(20):
        v = numbers(100, seed)
        ends = np.arange(100)
        d = np.array(
            [np.linalg.norm(v[max(j - 3, 0) : j + 1] - v[96:][-len(v[max(j - 3, 0) : j + 1]) :]) for j in ends]
        )
        found.append(ts.parroting_test(v, np.exp(-d / 20) + 0.5 / (100 - ends)))
    assert np.mean([t.correlation for t in found]) > 0.5
    assert np.mean([t.p_value <= 0.05 for t in found]) > 0.8
    assert np.mean([t.percentile for t in found]) > 0.9


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("noise", "recency", "recency and noise")]


@pytest.mark.parametrize("kind", ["smooth noise", *SLOW])
def test_influence_that_ignores_motifs_is_not_found(kind: str) -> None:
    rng, tests = np.random.default_rng(1), []
    for seed in range(100):
        noise = rng.exponential(size=90)
        fade = 1 / np.arange(90, 0, -1)
        profile = {
            "noise": noise,
            "smooth noise": np.convolve(noise, np.ones(6), "same"),
            "recency": fade,
            "recency and noise": fade * noise,
        }[kind]
        tests.append(ts.parroting_test(numbers(90, seed), profile))
    hits = np.mean([t.p_value <= 0.05 for t in tests])
    assert hits <= 0.11, "0.05 and three standard errors of 0.022"
    assert abs(np.mean([t.correlation for t in tests])) < 0.1


def test_the_recency_profile_of_a_power_law() -> None:
    profile = ts.recency_profile(np.arange(40, 0, -1.0) ** -1.5)
    assert profile.exponent == pytest.approx(1.5)
    assert profile.correlation == pytest.approx(-1.0)
    assert profile.distance.tolist() == list(range(1, 40)), "the first number is left out"
    shares = np.cumsum(profile.influence) / profile.influence.sum()
    assert shares[profile.half - 1] >= 0.5 > (shares[profile.half - 2] if profile.half > 1 else 0)
    assert ts.recency_profile(np.arange(1.0, 41.0)[::-1]).correlation == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ts.parroting_test(np.ones(9), np.ones(8)), "9 numbers but 8 influences"),
        (lambda: ts.parroting_test(np.ones(12), np.ones(12)), "at least 8 are needed"),
        (lambda: ts.parroting_test(np.ones(30), np.ones(30), dimension=0), "expected a positive integer"),
        (lambda: ts.parroting_test(np.ones(30), np.full(30, np.nan)), "holds NaN or infinity"),
        (lambda: ts.recency_profile(np.ones(3)), "fewer than 3"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
