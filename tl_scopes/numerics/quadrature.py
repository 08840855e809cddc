"""Nodes and weights for integrals along a path from a baseline: two rules, on [0, 0.05] and [0.05, 1].

Gauss–Legendre nodes crowd at both ends of an interval, as polynomials need it. A trained model's g(α) is about equally
rough everywhere, and rougher towards 0: on [0.05, 1] the nodes are therefore carried to even spacing by Hale and
Trefethen's map of degree 17, and then to α = e^u − 0.3. Equal accuracy takes a third fewer nodes
(``benchmarks/ig_cost.py``).
"""

from __future__ import annotations

from math import comb

import numpy as np

NEAR_ZERO = 0.05
"""End of the part of the path that has a rule of its own."""
NEAR_SHARE = 0.4
"""Share of the nodes on it: there the gradient changes fastest."""
FEWEST_CARRIED = 16
"""Nodes from which the carried rule integrates its own map exactly to rounding; below, plain Gauss–Legendre."""
CARRY_DEGREE = 17
CARRY_SHIFT = 0.3


def gauss_legendre(n: int, low: float, high: float) -> tuple[list[float], list[float]]:
    """Nodes and weights of the n-point rule on [low, high]; exact for polynomials of degree 2n − 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    half = (high - low) / 2
    return (low + half * (nodes + 1)).tolist(), (half * weights).tolist()


def carried_rule(n: int, low: float, high: float) -> tuple[list[float], list[float]]:
    """Nodes and weights on [low, high] with the nodes spread evenly and then towards 0; low above −0.3.

    Reference: Hale and Trefethen 2008, *New quadrature formulas from conformal maps*, SIAM J. Numer. Anal. 46(2).
    """
    if n < FEWEST_CARRIED:
        return gauss_legendre(n, low, high)
    z, weights = np.polynomial.legendre.leggauss(n)
    powers = np.arange(1, CARRY_DEGREE + 1, 2)
    arcsine = np.array([comb(p - 1, p // 2) / (2 ** (p - 1) * p) for p in powers.tolist()])
    arcsine /= arcsine.sum()  # the Taylor polynomial of arcsin, scaled to end at ±1
    spread, slope = (arcsine * z[:, None] ** powers).sum(1), (arcsine * powers * z[:, None] ** (powers - 1)).sum(1)
    start, half = np.log(low + CARRY_SHIFT), np.log((high + CARRY_SHIFT) / (low + CARRY_SHIFT)) / 2
    shifted = np.exp(start + half * (spread + 1))
    return (shifted - CARRY_SHIFT).tolist(), (half * weights * slope * shifted).tolist()


def split_rule(n_steps: int) -> tuple[list[float], list[float], int]:
    """Nodes and weights on [0, 1], and how many of the first belong to [0, NEAR_ZERO]."""
    near = max(1, round(NEAR_SHARE * n_steps))
    first, last = gauss_legendre(near, 0.0, NEAR_ZERO), carried_rule(n_steps - near, NEAR_ZERO, 1.0)
    return first[0] + last[0], first[1] + last[1], near
