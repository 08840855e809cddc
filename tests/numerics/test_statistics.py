"""Planted differences are found, null pairs are not, and both at the promised rates.

Simulated AOPC per prompt: a passage effect that all methods share, and noise of each method by itself. Rates are over
400 seeded runs; a true rate of 5 % is measured within ±2.2 points with 95 % probability.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats

from tl_scopes.numerics.statistics import (
    DRAWS,
    LEAST_PROMPTS,
    Values,
    holm,
    paired_bootstrap,
    paired_shares,
    spearman,
    standard_error,
)
from tl_scopes.results.aopc import AOPCTable
from tl_scopes.results.pairs import all_pairs
from tl_scopes.results.written import minus

pytestmark = pytest.mark.one_lens

RUNS = 400


def flagged(effect: float, n: int, heavy: bool = False) -> float:
    """Share of runs in which two methods `effect` standard deviations of the difference apart are told apart."""
    rng = np.random.default_rng(1)
    found = 0
    for run in range(RUNS):
        passage = rng.exponential(2.0, n)
        noise = rng.standard_t(5, (2, n)) / math.sqrt(5 / 3) if heavy else rng.standard_normal((2, n))
        first, second = passage + noise / math.sqrt(2)
        comparison = paired_bootstrap(first + effect, second, seed=run, draws=1000)
        found += comparison.low > 0 or comparison.high < 0
    return found / RUNS


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 50, 200])
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "t5"])
def test_null_pairs_are_flagged_at_most_7_percent_of_the_time(n: int, heavy: bool) -> None:
    assert flagged(0.0, n, heavy) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "n"), [(0.7, 20), (0.45, 50), (0.22, 200)])
def test_planted_differences_are_found_with_80_percent_power(effect: float, n: int) -> None:
    assert flagged(effect, n) >= 0.8


def told_apart(rates: Sequence[float], n: int, shared: float = 0.5, runs: int = RUNS) -> Values:
    """Share of runs in which each pair of methods, right on such shares of prompts, has p_holm below 5 %."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(runs):
        prompt, own = rng.random(n), rng.random((len(rates), n))
        same = rng.random((len(rates), n)) < shared  # a prompt that is hard for one is hard for the others
        right = np.where(same, prompt, own) < np.array(rates)[:, None]
        values = {str(i): row.astype(float) for i, row in enumerate(right)}
        found.append(all_pairs(values, paired_shares).p_holm.to_numpy() < 0.05)
    return np.array(found)


@pytest.mark.parametrize("n", [30, 100, 200])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_methods_right_on_the_same_share_are_told_apart_at_most_7_percent_of_the_time(rate: float, n: int) -> None:
    assert told_apart([rate, rate], n).mean() <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 200])
def test_of_many_equal_methods_any_two_are_told_apart_at_most_7_percent_of_the_time(n: int) -> None:
    assert told_apart([0.6] * 6, n, runs=200).any(axis=1).mean() <= 0.07


@pytest.mark.parametrize(("gap", "n"), [(0.4, 30), (0.2, 100), (0.14, 200)])
def test_planted_differences_of_shares_are_found_with_80_percent_power(gap: float, n: int) -> None:
    assert told_apart([0.6 + gap / 2, 0.6 - gap / 2], n).mean() >= 0.8


def test_intervals_of_shares_hold_the_planted_difference() -> None:
    rng, covered = np.random.default_rng(4), 0
    for _ in range(RUNS):
        right = rng.random((2, 60)) < np.array([[0.95], [0.7]])
        comparison = paired_shares(*right.astype(float))
        covered += comparison.low <= 0.25 <= comparison.high
    assert covered / RUNS >= 0.93


def test_shares_by_hand() -> None:
    comparison = paired_shares([1.0] * 38 + [0.0] * 2, [0.0] * 40)
    assert comparison.difference == 0.95
    assert 0.8 < comparison.low < 0.95 < comparison.high <= 1
    assert comparison.p == pytest.approx(0.5**38)
    assert paired_shares([1.0, 0.0] * 15, [1.0, 0.0] * 15).p == 1
    assert paired_shares([1.0] * 5 + [0.0] * 20, [0.0] * 24 + [1.0]).p == pytest.approx(2 * 7 / 64 - 6 / 64)
    with pytest.raises(ValueError, match="^0 or 1 per prompt from each method"):
        paired_shares([0.5], [1.0])


def test_holm_counts_all_comparisons() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.001]) == pytest.approx([0.9, 0.002])
    found = holm([math.nan, 0.02])
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(0.04)


def test_pairing_removes_what_the_prompts_share() -> None:
    rng = np.random.default_rng(0)
    passage = 10 * rng.standard_normal(100)
    first, second = passage, passage + 0.1 + 0.1 * rng.standard_normal(100)
    assert abs(first.mean() - second.mean()) < standard_error(first), "hidden in the unpaired errors"
    comparison = paired_bootstrap(first, second)
    assert not comparison.indistinguishable
    assert comparison.low < -0.1 < comparison.high < 0
    assert comparison.p < 0.01


def test_interval_is_the_t_interval_for_normal_differences() -> None:
    d = np.random.default_rng(3).standard_normal(400)
    comparison = paired_bootstrap(d, np.zeros(400), draws=20000)
    half = 1.966 * standard_error(d)
    assert comparison.high - comparison.difference == pytest.approx(half, rel=0.05)
    assert comparison.difference == pytest.approx(d.mean())


@pytest.mark.parametrize("n", [1, 2, 7, LEAST_PROMPTS - 1])
def test_of_too_few_prompts_nothing_is_said(n: int) -> None:
    first = np.arange(float(n))
    for second in (first, first + 5, first + np.random.default_rng(0).standard_normal(n)):
        assert paired_bootstrap(first, second).indistinguishable is None


def test_identical_prompts_cannot_be_told_apart() -> None:
    same = [1.0] * LEAST_PROMPTS
    assert paired_bootstrap(same, same).indistinguishable is True
    assert math.isnan(standard_error([1.0]))


def test_seed_gives_the_same_interval() -> None:
    d = np.random.default_rng(0).standard_normal(30)
    assert paired_bootstrap(d, 0 * d, seed=4) == paired_bootstrap(d, 0 * d, seed=4)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_unpaired_numbers_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="^one number per prompt from each method"):
        paired_bootstrap(first, second)


def test_spearman_by_hand() -> None:
    assert spearman([1.0, 2.0, 3.0], [10.0, 20.0, 15.0]) == pytest.approx(0.5)
    assert spearman([1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 2.0, 3.0]) == pytest.approx(1)
    assert spearman([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert spearman([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(math.sqrt(3) / 2)


@pytest.mark.parametrize("flat", [[1.0, 1.0, 1.0], [1.0], []])
def test_what_orders_nothing_has_no_rank_correlation_and_warns_of_nothing(flat: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", scipy.stats.ConstantInputWarning)
        assert math.isnan(spearman(flat, flat))
        assert math.isnan(spearman(flat, np.arange(float(len(flat)))))


def table(deltas: dict[str, np.ndarray]) -> AOPCTable:
    n = len(next(iter(deltas.values())))
    records = [
        {"deltas": {m: d[i].tolist() for m, d in deltas.items()}, "top": i % 2, "truth": 0, "n": 9} for i in range(n)
    ]
    return AOPCTable(tuple(records), {}, tuple(deltas), (0.1, 0.2), {}, n)


def test_table_marks_what_cannot_be_told_from_the_best() -> None:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((80, 1))
    result = table(
        {
            "best": shared - 3 + 0.1 * rng.standard_normal((80, 2)),
            "twin": shared - 2.99 + 0.1 * rng.standard_normal((80, 2)),
            "worse": shared - 1 + 0.1 * rng.standard_normal((80, 2)),
        }
    )
    frame = result.to_frame().set_index("method")
    assert frame.indistinguishable_from_best.to_dict() == {"best": True, "twin": True, "worse": False}
    pairs = result.comparisons().set_index(["first", "second"]).indistinguishable
    assert pairs.to_dict() == {("best", "twin"): True, ("best", "worse"): False, ("twin", "worse"): False}
    assert len(result.where(top_is_truth=True).records) == 40
    assert "cannot be told" in str(result)
    assert result.plot() is not None


def seven_prompts() -> AOPCTable:
    rng = np.random.default_rng(0)
    return table({"semantic": rng.standard_normal((7, 2)) - 1, "random": rng.standard_normal((7, 2)) - 0.8})


@pytest.mark.parametrize("words", [str, AOPCTable.html], ids=["text", "page"])
def test_a_table_of_seven_prompts_shows_intervals_and_no_verdict(words: Any) -> None:
    shown = words(seven_prompts())
    assert "cannot be told from the best" not in shown
    assert not re.search(r"(semantic|random) =|<bdi>=</bdi>|\] +=$", shown, re.MULTILINE)
    assert "7 prompts are too few to say which methods can be told apart (from 20 on)" in shown
    frame = seven_prompts().to_frame().set_index("method")
    row = frame.loc["random"]
    assert minus(f"{row.difference:.3f} [{row.low:.3f}, {row.high:.3f}]") in shown
    assert row.low < row.difference < row.high


def test_the_frames_of_seven_prompts_leave_the_verdict_out() -> None:
    frame = seven_prompts().to_frame()
    assert frame.indistinguishable_from_best.isna().all()
    assert seven_prompts().comparisons().indistinguishable.isna().all()


def test_aopc_by_fisher_rank_is_paired_with_the_lowest_rank() -> None:
    rng = np.random.default_rng(0)
    shared = 10 * rng.standard_normal((60, 1))
    gains = {"fisher@16": -0.3, "fisher": 0.0, "random": 5.0, "fisher@4": -0.2}
    result = table({m: shared + gain + 0.01 * rng.standard_normal((60, 2)) for m, gain in gains.items()})
    frame = result.by_rank()
    assert frame["rank"].tolist() == [1, 4, 16]
    for rank, method in ((1, "fisher"), (4, "fisher@4"), (16, "fisher@16")):
        row = frame[frame["rank"] == rank].iloc[0]
        assert row.aopc == result[method].mean
        assert row["sem"] == result[method].sem
        difference = result[method].per_prompt - result["fisher"].per_prompt
        assert row.difference == pytest.approx(difference.mean(), abs=1e-12)
        assert row.difference_sem == pytest.approx(difference.std(ddof=1) / math.sqrt(60), abs=1e-12)
    assert frame.difference_sem.iloc[-1] < frame["sem"].iloc[-1] / 50
    axes, paired = result.plot_ranks().axes
    assert [line.get_label() for line in axes.get_lines() if line.get_linestyle() == "--"] == ["random"]
    (bars,) = axes.containers
    assert bars.lines[0].get_xdata().tolist() == [1, 4, 16]
    assert bars.lines[0].get_ydata().tolist() == frame.aopc.tolist()
    ends = [segment[1, 1] - segment[0, 1] for segment in bars.lines[2][0].get_segments()]
    assert ends == pytest.approx((2 * frame["sem"]).tolist())
    assert paired.containers[0].lines[0].get_ydata().tolist() == frame.difference.tolist()
    with pytest.raises(ValueError, match="^AOPCTable.by_rank: no 'fisher' or 'fisher@<rank>'"):
        table({"random": np.repeat(shared, 2, axis=1)}).by_rank()
    with pytest.raises(ValueError, match=r"^AOPCTable\.compare\(level=2\.0\): expected a number between 0 and 1"):
        result.compare("fisher", "random", level=2)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_differences_without_spread_are_no_certainty_of_few_prompts(n: int) -> None:
    comparison = paired_bootstrap([1.5] * n, [1.0] * n)
    assert comparison.p == max(2.0 ** (1 - n), 1 / (DRAWS + 1))
    assert (math.isinf(comparison.low), math.isinf(comparison.high)) == (n < 4, n < 4)
    assert comparison.indistinguishable is (False if n == 30 else None)
    assert paired_bootstrap([1.0] * n, [1.0] * n).p == 1


def test_so_few_prompts_that_samples_repeat_one_give_no_ends() -> None:
    comparison = paired_bootstrap([0.0, 0.1, 0.5], [0.0, 0.05, 0.1])
    assert (comparison.low, comparison.high) == (-math.inf, math.inf)
    assert comparison.indistinguishable is None
