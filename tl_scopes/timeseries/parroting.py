"""Two readings of an influence profile: does it follow earlier motifs, does it fade with distance?

Legend: ``v_1 … v_n`` the numbers the model saw, ``a_i`` their influence on the forecast of ``v_{n+1}``; ``D`` the
embedding dimension.

**Context parroting**: a forecaster that looks up the best-matching earlier motif and continues it. In delay embedding
the motif ending at j is ``e_j = (v_{j−D+1} … v_j)``, its distance to the present one is ``d_j = ‖e_j − e_n‖``, and the
parroted forecast is ``v_{j*+1}`` at the nearest j*. If influence follows motifs, the mean of ``a`` over a motif and its
successor (numbers j−D+1 … j+1) rises as ``d_j`` falls. Both also change with j itself (influence by recency, distance
because close times are alike), so the correlation is a partial one: ranks, with the rank of j regressed out. Neighbouring
motifs overlap, so that plain shuffling would call anything significant: the control shifts the influence profile
circularly against the distances, which keeps the dependence within each.

**Recency**: rank correlation of influence with the distance n − i, and the exponent k of ``a ∝ distance^(−k)``.

Reference: Zhang and Gilpin (2025), *Context parroting*; paper section 4.3 and figures 4 and 12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from tl_scopes.numerics.arguments import integer, public_call
from tl_scopes.numerics.statistics import spearman
from tl_scopes.numerics.values import vector
from tl_scopes.results.written import minus

FEWEST = 8
"""Motifs below which a rank correlation says nothing."""


@dataclass(frozen=True, eq=False)
class ParrotingTest:
    """Influence against the match of earlier motifs.

    Attributes:
        dimension: numbers in a motif.
        ends: index of the last number of each motif compared.
        distance: ``d_j`` of each.
        influence: mean influence over each motif and its successor.
        correlation: partial Spearman of ``−distance`` with ``influence`` given the motif's place; positive where
            influence follows motifs.
        control: the same under every other circular shift of the influence.
        p_value: share of shifts (the true one counted in) with a correlation at least as high; its floor is
            ``1/(len(control) + 1)``.
        nearest: index of the last number of the best match.
        parroted: the number after it: what a parrot would forecast.
        percentile: share of the other motifs with a lower influence than the best match's, ties half; 0.5 by chance.
    """

    dimension: int
    ends: Int[ndarray, " motif"]
    distance: Float[ndarray, " motif"]
    influence: Float[ndarray, " motif"]
    correlation: float
    control: Float[ndarray, " shift"]
    p_value: float
    nearest: int
    parroted: float
    percentile: float

    def __repr__(self) -> str:
        return minus(
            f"ParrotingTest(correlation {self.correlation:+.2f}, control {float(np.mean(self.control)):+.2f} "
            f"(p = {self.p_value:.3g}), best match ends at {self.nearest}, percentile {self.percentile:.0%})"
        )


@dataclass(frozen=True, eq=False)
class RecencyProfile:
    """Influence by distance from the forecast.

    Attributes:
        distance: 1 for the last number, 2 for the one before it, …
        influence: of the number at that distance.
        correlation: Spearman of influence with distance; negative where influence fades.
        exponent: k of ``influence ∝ distance^(−k)`` by least squares of the logarithms, over numbers with influence.
        half: the fewest last numbers that hold half of the influence.
    """

    distance: Int[ndarray, " number"]
    influence: Float[ndarray, " number"]
    correlation: float
    exponent: float
    half: int

    def __repr__(self) -> str:
        return minus(
            f"RecencyProfile(correlation with distance {self.correlation:+.2f}, exponent {self.exponent:.2f}, "
            f"half of the influence on the last {self.half} of {len(self.distance)})"
        )


@public_call
def parroting_test(numbers: Any, influence: Any, *, dimension: int = 4, skip: int = 1) -> ParrotingTest:
    """Does influence lie on the earlier motifs that match the present one best?

    Args:
        numbers: what the model saw, in time order.
        influence: of each, non-negative.
        dimension: numbers in a motif.
        skip: first numbers left out: influence piles up on the first tokens whatever they are.

    Returns:
        :class:`ParrotingTest`. No motif overlaps the present one, nor does its successor.

    Raises:
        ValueError: different lengths; values that are not finite; too few motifs.

    >>> numbers = np.array([20, 50, 80, 35] * 8 + [20, 50, 80, 35, 20])
    >>> test = parroting_test(numbers, 1.0 + (numbers == 50))
    >>> test.parroted, test.ends[test.distance == 0].tolist()[:2]
    (50.0, [4, 8])

    Reference: Zhang and Gilpin (2025); paper section 4.3.
    """
    from scipy.stats import percentileofscore, rankdata

    v, a = vector("numbers", numbers), vector("influence", influence)
    if len(v) != len(a):
        raise ValueError(f"(influence=...): {len(v)} numbers but {len(a)} influences")
    integer("dimension", dimension, least=1)
    integer("skip", skip, least=0)
    motifs = max(len(v) - 2 * dimension - skip, 0)
    if motifs < FEWEST:
        raise ValueError(
            f"(dimension={dimension}): {len(v)} numbers have {motifs} motifs before the present one; "
            f"at least {FEWEST} are needed. Take a longer series or a lower dimension"
        )
    ends = np.arange(skip + dimension - 1, len(v) - dimension - 1)
    offsets = np.arange(1 - dimension, 1)
    distance = np.linalg.norm(v[ends[:, None] + offsets] - v[len(v) - 1 + offsets], axis=1)
    along = a[ends[:, None] + np.arange(1 - dimension, 2)].mean(axis=1)
    match, follow = (_without(rankdata(values), rankdata(ends)) for values in (-distance, along))
    every = np.arange(len(ends))
    norm = float(np.linalg.norm(match) * np.linalg.norm(follow))
    shifted = follow[every[None] - every[:, None]] @ match  # row s: influence shifted circularly by s
    correlation, *control = (shifted / norm if norm > 1e-9 * len(ends) else 0.0 * shifted).tolist()
    best = int(np.flatnonzero(distance == distance.min())[-1])
    return ParrotingTest(
        dimension=dimension,
        ends=ends,
        distance=distance,
        influence=along,
        correlation=correlation,
        control=np.array(control),
        p_value=(1 + sum(c >= correlation - 1e-12 for c in control)) / (1 + len(control)),
        nearest=int(ends[best]),
        parroted=float(v[ends[best] + 1]),
        percentile=float(percentileofscore(np.delete(along, best), along[best], kind="mean")) / 100,
    )


@public_call
def recency_profile(influence: Any, *, skip: int = 1) -> RecencyProfile:
    """Does influence fade with distance from the forecast?

    Args:
        influence: of each number, in time order, non-negative.
        skip: first numbers left out: influence piles up on the first tokens whatever they are.

    Returns:
        :class:`RecencyProfile`.

    Raises:
        ValueError: values that are not finite, or fewer than three of them.

    >>> recency_profile(1.0 / np.arange(20, 0, -1)).correlation
    -1.0

    Reference: paper section 4.3, figures 4 (b) and 12.
    """
    a = vector("influence", influence)
    integer("skip", skip, least=0)
    if len(a) - skip < 3:
        raise ValueError(f"(skip={skip}): {len(a)} numbers leave fewer than 3")
    a = a[skip:][::-1]
    distance = np.arange(1, len(a) + 1)
    positive = a > 0
    exponent = math.nan
    if positive.sum() > 1:
        exponent = -float(np.polyfit(np.log(distance[positive]), np.log(a[positive]), 1)[0])
    return RecencyProfile(
        distance=distance,
        influence=a,
        correlation=spearman(a, distance.astype(np.float64)),
        exponent=exponent,
        half=int(np.searchsorted(np.cumsum(a), 0.5 * a.sum()) + 1),
    )


def _without(values: Float[ndarray, " n"], nuisance: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Residual of a least-squares line in the nuisance."""
    x, y = nuisance - nuisance.mean(), values - values.mean()
    return np.asarray(y - x * float(x @ y) / float(x @ x))
