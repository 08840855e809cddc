"""Statistics over prompts: errors of means, paired comparisons, rank agreement.

A prompt is the unit: whatever was measured on it (fractions, tokens) is first reduced to one number, and only
numbers of different prompts count as repeated measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float64]
DRAWS = 4000
LEAST_PROMPTS = 20
"""Prompts below which two methods are neither told apart nor called alike: with 20, a difference of about 0.7 standard
deviations of the paired differences is found in four of five runs; with 7, only one of 1.3."""


def standard_error(values: Sequence[float] | Values) -> float:
    """Standard error of the mean, ``std(ddof=1)/√n`` (:func:`scipy.stats.sem`); NaN for fewer than two values."""
    from scipy.stats import sem

    return float(sem(values)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Comparison:
    """Paired difference of two methods over the same prompts.

    Attributes:
        difference: mean of first − second.
        low: lower end of the interval.
        high: upper end.
        p: two-sided p-value.
        level: of the interval, e.g. 0.95.
        n: prompts.
    """

    difference: float
    low: float
    high: float
    p: float
    level: float
    n: int

    @property
    def indistinguishable(self) -> bool | None:
        """Does the interval hold 0? None below 20 prompts: they are too few to say so, the interval says how few."""
        return None if self.n < LEAST_PROMPTS else not (self.low > 0 or self.high < 0)


def paired_shares(
    first: Sequence[float] | Values, second: Sequence[float] | Values, *, level: float = 0.95
) -> Comparison:
    """Do two methods succeed on different shares of the same prompts? Each number is 0 or 1.

    Only the prompts on which one succeeds and the other fails tell: b and c of them. p is McNemar's, exact, at its middle
    (mid-p), and the interval Agresti and Min's, ``(b − c)/(n + 2) ± q sqrt(b + c + 1 − (b − c)²/(n + 2))/(n + 2)``. The
    studentised bootstrap has no ends here where one method nearly always succeeds and the other hardly ever: too many of its
    samples have no spread.

    Args:
        first: 0 or 1 per prompt.
        second: the other method's on the same prompts, in the same order.
        level: of the interval.

    Returns:
        A :class:`Comparison`.

    Raises:
        ValueError: different lengths, no values, a value that is neither 0 nor 1.

    Reference: Fagerland et al. 2013, BMC Medical Research Methodology 13; Agresti and Min 2005, Statistics in Medicine 24.

    >>> paired_shares([1.0] * 38 + [0.0] * 2, [0.0] * 40).indistinguishable
    False
    """
    from scipy.stats import binom, norm

    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not np.isin([a, b], (0, 1)).all():
        raise ValueError(f"0 or 1 per prompt from each method; got {a.shape} and {b.shape}")
    n, wins, losses = len(a), int((a > b).sum()), int((a < b).sum())
    fewer, told = min(wins, losses), wins + losses
    p = min(1.0, 2 * float(binom.cdf(fewer, told, 0.5))) - float(binom.pmf(fewer, told, 0.5)) / (1 + (wins == losses))
    centre, size = (wins - losses) / (n + 2), n + 2
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(told + 1 - (wins - losses) ** 2 / size) / size
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Comparison((wins - losses) / n, low, high, p if told else 1.0, level, n)


UNBOUNDED = 1e300
"""``|t*|`` of a sample without spread: a quantile between it and another is of that size too."""


def paired_bootstrap(
    first: Sequence[float] | Values,
    second: Sequence[float] | Values,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Do two methods differ on the same prompts? Studentised bootstrap of the mean paired difference.

    With ``d_i = first_i − second_i``: prompts are drawn with replacement, ``t* = (mean* − mean)/se*``, and the interval
    is ``mean ± q·se`` with q the level's quantile of ``|t*|``. Unlike the percentile interval it keeps its level from
    about ten prompts on, because it accounts for the error of the standard error itself.

    Args:
        first: one number per prompt.
        second: the other method's numbers on the same prompts, in the same order.
        level: of the interval.
        draws: bootstrap samples.
        seed: of the draws; the global RNG is not used.

    Returns:
        A :class:`Comparison`; with fewer than two prompts everything but the difference is NaN, and where the samples are
        so few that many are one prompt over and over, the interval has no ends (±∞). Differences that are all the same
        have no spread to draw from: their p is that of as many signs, ``2^(1 − n)``.

    Raises:
        ValueError: different lengths, no values, a level outside (0, 1).

    >>> first = [0.3 * i for i in range(24)]
    >>> paired_bootstrap(first, [v - 1 + 0.1 * (i % 3) for i, v in enumerate(first)]).indistinguishable
    False
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"one number per prompt from each method; got {a.shape} and {b.shape}")
    if not 0 < level < 1:
        raise ValueError(f"(level={level!r}): expected a number between 0 and 1")
    d, n = a - b, len(a)
    mean, se = float(d.mean()), standard_error(d)
    if n < 2:
        return Comparison(mean, math.nan, math.nan, math.nan, level, n)
    if se <= 1e-12 * abs(mean) or se == 0:
        half = math.inf if mean and n ** (1 - n) > 1 - level else 0.0  # as of samples that are one prompt over and over
        p = max(2.0 ** (1 - n), 1 / (1 + draws)) if mean else 1.0
        return Comparison(mean, mean - half, mean + half, p, level, n)
    t = _t_statistics(d, mean, draws, seed)
    quantile = float(np.quantile(t, level))
    half = quantile * se if quantile < math.sqrt(UNBOUNDED) else math.inf
    p = (1 + int((t >= abs(mean) / se).sum())) / (1 + draws)
    return Comparison(mean, mean - half, mean + half, float(p), level, n)


def _t_statistics(d: Values, mean: float, draws: int, seed: int) -> Values:
    """``|t*|`` of the bootstrap samples, in blocks of bounded memory; of a sample without spread it is UNBOUNDED."""
    rng, n, rounding = np.random.default_rng(seed), len(d), 1e-12 * float(np.abs(d).max())
    block = max(1, 2_000_000 // n)
    out = []
    for first in range(0, draws, block):
        sample = d[rng.integers(n, size=(min(block, draws - first), n))]
        se = sample.std(axis=1, ddof=1) / math.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(sample.mean(axis=1) - mean) / se
        out.append(np.where(se > rounding, t, UNBOUNDED))
    return np.concatenate(out)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values for several comparisons together: below a level for any true null with at most that probability.

    ``max_{j ≤ i} min(1, (m − j) p_(j))`` over the m values in rising order, j from 0; NaN stays and counts as a comparison.

    Reference: Holm 1979, Scandinavian Journal of Statistics 6.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    found, highest = [math.nan] * len(p_values), 0.0
    for j, (p, i) in enumerate(order):
        found[i] = highest = max(highest, min(1.0, (len(p_values) - j) * p))
    return found


def interval_of_mean_square(squares: Float[Tensor, "draws ..."], level: float) -> tuple[Tensor, Tensor]:
    """Interval of the mean of squared random projections, for each of several; the draws come first.

    Taken as ``θ χ²_d / d`` with d from the draws' own mean and variance, ``d = 2 mean²/var`` (Satterthwaite's): exact where
    all gradients that are projected are parallel (d = 1), and the normal interval where many directions add (d large).
    """
    from scipy.stats import chi2

    n, mean = len(squares), squares.mean(dim=0)
    variance = squares.var(dim=0) if n > 1 else torch.full_like(mean, math.inf)
    freedom = n * 2 * mean.square() / variance.clamp_min(torch.finfo(mean.dtype).tiny)
    degrees = freedom.clamp(1e-3, 1e12).numpy()
    with np.errstate(divide="ignore"):  # no upper end from draws that are nearly all 0
        ends = [
            torch.from_numpy(np.asarray(degrees / chi2.ppf((1 + s * level) / 2, degrees))).to(mean) for s in (1, -1)
        ]
    low, high = (torch.where(mean > 0, mean * end, mean) for end in ends)
    return low, high


def spearman(first: Sequence[float] | Values, second: Sequence[float] | Values) -> float:
    """Spearman's rank correlation, ties at their mean rank (:func:`scipy.stats.spearmanr`).

    NaN where one side has no spread (a single value, or equal ones): it orders nothing, so there is nothing to agree on.
    """
    from scipy.stats import spearmanr

    if min(len(np.unique(first)), len(np.unique(second))) < 2:
        return math.nan
    return float(spearmanr(first, second).statistic)


def rank_interval(correlation: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of Spearman's rank correlation over ``n`` pairs: ``tanh(atanh ρ ± q √((1 + ρ²/2)/(n − 3)))``.

    NaN for fewer than five pairs or no correlation.

    Reference: Bonett and Wright 2000, Psychometrika 65.

    >>> low, high = rank_interval(0.71, 30)
    >>> round(low, 2), round(high, 2)
    (0.43, 0.86)
    """
    from scipy.stats import norm

    if n < 5 or not math.isfinite(correlation):
        return math.nan, math.nan
    centre = math.atanh(min(max(correlation, -1 + 1e-12), 1 - 1e-12))
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return math.tanh(centre - half), math.tanh(centre + half)
