"""Proposition 1 checked on one forecast: is β the forecast's inverse variance?

Legend: ``n`` a number, ``z(n)`` its logit, ``β = ‖y‖₂``, ``ẑ = z/β``; ``q`` the predicted distribution over numbers with
variance ``s²``; ``g_t = ∂/∂x_t`` at the tokens of the numbers.

    ẑ(n) ≈ −b (n − μ)² + c      then  σ² = 1/(2βb), and β is the inverse variance up to the factor 2b

The fit alone does not warrant reading the Temperature Scope as influence on the spread, because b depends on the input
too: ``∇ log s² = −∇ log β − ∇ log b``. The two gradients are therefore compared themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tl_scopes.numerics.arguments import public_call
from tl_scopes.numerics.values import vector
from tl_scopes.results.written import minus

LEAST_R2 = 0.9
"""Share of ẑ's variance under q that a Gaussian forecast's parabola explains."""
MOST_FACTOR = 2.0
"""Factor by which 1/(2βb) may miss s², and by which the gradients' lengths may differ."""
LEAST_COSINE = 0.7
"""Below it, more than half of the squared gradient of log s² does not come from β."""
LEAST_NUMBERS = 3.0
"""Effective numbers ``1/Σ q²`` under the peak: a parabola through fewer fits anything."""


@dataclass(frozen=True)
class GaussianCheck:
    """Is this forecast Gaussian, and does β move its variance?

    Attributes:
        beta: ``‖y‖₂``.
        b: curvature of ẑ per squared number; at most 0 where there is no peak.
        mu: number at the parabola's top; the forecast's mean where it has none (``b ≤ 0``).
        c: ẑ there.
        r_squared: of the fit, weighted by q; NaN where ẑ has no spread.
        variance: ``s²`` of q, in squared numbers.
        effective_numbers: ``1/Σ q²``, how many numbers share the probability.
        cosine: between ``−∇ log β`` and ``∇ log s²`` over the tokens of all numbers; None where not computed.
        norm_ratio: ``‖∇ log β‖ / ‖∇ log s²‖`` over the same; None where not computed.
    """

    beta: float
    b: float
    mu: float
    c: float
    r_squared: float
    variance: float
    effective_numbers: float
    cosine: float | None = None
    norm_ratio: float | None = None

    @property
    def fitted_variance(self) -> float:
        """``σ² = 1/(2βb)``; infinite where ``b ≤ 0``."""
        return 1 / (2 * self.beta * self.b) if self.b > 0 and self.beta > 0 else math.inf

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the Temperature Scope is not to be read as influence on this forecast's spread; empty where it may be."""
        found = []
        if self.effective_numbers < LEAST_NUMBERS:
            found.append(
                f"the forecast stands on {self.effective_numbers:.1f} numbers, too few to tell a Gaussian from anything"
            )
        if not self.b > 0:
            found.append("the logits have no peak (b ≤ 0)")
        elif not self.r_squared >= LEAST_R2:
            found.append(f"the forecast is not Gaussian (R² = {self.r_squared:.2f}, below {LEAST_R2})")
        elif not 1 / MOST_FACTOR <= self.fitted_variance / max(self.variance, 1e-300) <= MOST_FACTOR:
            found.append(f"1/(2βb) = {self.fitted_variance:.3g} is not the variance s² = {self.variance:.3g}")
        if self.cosine is not None and not self.cosine >= LEAST_COSINE:
            found.append(
                f"−∇log β and ∇log s² point apart (cosine {self.cosine:.2f}, below {LEAST_COSINE}): the input moves the "
                "spread by other ways than β"
            )
        elif self.norm_ratio is not None and not 1 / MOST_FACTOR <= self.norm_ratio <= MOST_FACTOR:
            found.append(f"∇log β is {self.norm_ratio:.2g} times as long as ∇log s²")
        return tuple(map(minus, found))

    @property
    def warranted(self) -> bool:
        """May the Temperature Scope be read as influence on the forecast's variance?"""
        return not self.warnings

    def probabilities(self, numbers: Float[ndarray, " m"]) -> Float[ndarray, " m"]:
        """The fitted Gaussian over these numbers, normalised; NaN where there is no peak."""
        if not self.b > 0:
            return np.full(len(numbers), np.nan)
        exponent = -((np.asarray(numbers, dtype=np.float64) - self.mu) ** 2) / (2 * self.fitted_variance)
        weights = np.exp(exponent - exponent.max())
        return np.asarray(weights / weights.sum())


@public_call
def gaussian_check(
    numbers: Float[ndarray, " m"],
    logits: Float[ndarray, " m"],
    beta: float,
    *,
    cosine: float | None = None,
    norm_ratio: float | None = None,
) -> GaussianCheck:
    """Fit ``ẑ(n) = −b (n − μ)² + c`` by least squares weighted by q: near the peak, where the probability is.

    Args:
        numbers: at least three different ones.
        logits: the model's logit of each.
        beta: ``‖y‖₂``, positive.
        cosine, norm_ratio: of :func:`compared_gradients`.

    Returns:
        :class:`GaussianCheck`; exact where the logits are a parabola.

    Raises:
        ValueError: fewer than three numbers, other lengths, ``beta`` not positive.

    >>> n = np.arange(10.0, 100.0)
    >>> check = gaussian_check(n, 20 * (5 - 0.001 * (n - 40) ** 2), 20.0)
    >>> round(check.b, 9), round(check.mu, 6), round(check.fitted_variance, 6)
    (0.001, 40.0, 25.0)

    Reference: paper Proposition 1, eq. 7 (section A.5).
    """
    n, z = vector("numbers", numbers), vector("logits", logits)
    if n.shape != z.shape or len(np.unique(n)) < 3:
        raise ValueError(f"(logits=...): expected one for each of at least 3 numbers; got {n.shape}, {z.shape}")
    if cosine is not None and not -1 <= cosine <= 1:
        raise ValueError(f"(cosine={cosine}): expected a number between -1 and 1")
    if beta <= 0:
        raise ValueError(f"(beta={beta}): expected ‖y‖₂ > 0")
    return fitted(n, z, beta, cosine, norm_ratio)


_LEAST_LOG_WEIGHT = -600.0
"""Below it a weight is taken for that: three numbers at least must have one whose square is a number."""


def fitted(
    n: Float[ndarray, " m"], z: Float[ndarray, " m"], beta: float, cosine: float | None, norm_ratio: float | None
) -> GaussianCheck:
    """:func:`gaussian_check` of a model's own numbers, whose gradients may have no angle (NaN)."""
    q = np.exp(z - z.max())
    q /= q.sum()
    mean = float(q @ n)
    variance = float(q @ (n - mean) ** 2)
    zhat = z / beta
    unit = max(math.sqrt(variance), float(np.diff(np.unique(n)).min()))
    t = (n - mean) / unit
    c0, c1, c2 = _parabola(t, zhat, z - z.max())
    residual = zhat - (c0 + c1 * t + c2 * t * t)
    total = float(q @ (zhat - q @ zhat) ** 2)
    peaked = c2 < 0
    return GaussianCheck(
        beta=float(beta),
        b=float(-c2 / unit**2),
        mu=float(mean - unit * c1 / (2 * c2)) if peaked else mean,
        c=float(c0 - c1 * c1 / (4 * c2)) if peaked else float(c0),
        r_squared=1 - float(q @ residual**2) / total if total > 0 else math.nan,
        variance=variance,
        effective_numbers=float(1 / (q @ q)),
        cosine=cosine,
        norm_ratio=norm_ratio,
    )


def _parabola(t: Float[ndarray, " m"], z: Float[ndarray, " m"], log_weights: Float[ndarray, " m"]) -> tuple[float, ...]:
    """``c_0 + c_1 t + c_2 t²`` by weighted least squares; by rows in order of weight, of which the last ones may be tiny.

    A distribution on one number alone has the whole parabola in weights that a singular value decomposition takes for 0.
    """
    from scipy.linalg import qr, solve_triangular

    weight = np.exp(np.maximum(log_weights, _LEAST_LOG_WEIGHT) / 2)
    order = np.argsort(-weight, kind="stable")
    rows = (weight[:, None] * np.stack([np.ones_like(t), t, t * t, z], axis=1))[order]
    Q, R, columns = qr(rows[:, :3], mode="economic", pivoting=True)
    found = np.empty(3)
    found[columns] = solve_triangular(R, Q.T @ rows[:, 3])
    return tuple(found.tolist())


def compared_gradients(
    of_beta: Float[Tensor, "pos d_model"],
    of_variance: Float[Tensor, "pos d_model"],
    beta: float,
    variance: float,
    positions: list[int],
) -> tuple[float, float]:
    """Cosine of ``−∇ log β`` and ``∇ log s²`` over some tokens, and ``‖∇ log β‖ / ‖∇ log s²‖``; NaN where one is 0."""
    first = -of_beta[positions].double().flatten() / beta
    second = of_variance[positions].double().flatten() / variance
    lengths = float(first.norm()), float(second.norm())
    if not (lengths[0] > 0 and lengths[1] > 0):
        return math.nan, math.nan
    return float(first @ second) / (lengths[0] * lengths[1]), lengths[0] / lengths[1]
