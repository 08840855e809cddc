"""Leading eigenpairs of a symmetric positive semidefinite operator that is expensive to apply.

:func:`lanczos` on a cheap nearby operator gives a start and a preconditioner, :func:`davidson` (generalised Davidson with
Rayleigh-Ritz in the span of all directions tried) corrects them with exact products. Each returned pair has a measured
relative residual ``‖A u − λ u‖/λ``, so its error is known, not assumed: A has an eigenvalue within ``residual·λ`` of λ.

A search asks for its products by yielding the directions, all of a round together, so that :func:`in_step` can run the
searches of several operators side by side and have what they ask for computed at once.

Reference: Davidson (1975), J. Comput. Phys. 17, 87; Saad, *Numerical Methods for Large Eigenvalue Problems*, ch. 6, 8.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.precision import to_float64

Operator = Callable[[Tensor], Tensor]
CLOSE = 0.8
"""Eigenvalues of the nearby operator from this share of the last wanted one on may change places with it."""
MOST_CLOSE = 4
NEAR = 0.9
"""An operator whose leading eigenvalue is this share of the nearby one's, or less, is not near it: the nearby one was made of
few samples of a flat spectrum, whose eigenvalues spread, and its eigenvectors lead nowhere."""
PATIENCE, STALLED = 4, 0.8
"""Residuals below rounding that are more than this share of what they were so many rounds ago are noise. Those of a flat
spectrum fall slowly, but they fall."""


@dataclass(frozen=True, eq=False)
class RitzPairs:
    """Approximate eigenpairs, float64, descending.

    Attributes:
        values: ``[n]``.
        vectors: ``[n, d]`` orthonormal.
        images: ``[n, d]`` the operator applied to them.
        residual: ``[n]`` relative residuals with the operator they were found with.
        next_value: estimate of the eigenvalue after the last, None where there is none.
        products: products with the operator.
    """

    values: Float[Tensor, " n"]
    vectors: Float[Tensor, "n d"]
    images: Float[Tensor, "n d"]
    residual: Float[Tensor, " n"]
    next_value: float | None
    products: int

    def remainder(self, i: int) -> Float[Tensor, " d"]:
        """``A u − λ u`` of the i-th pair."""
        return self.images[i] - self.values[i] * self.vectors[i]


def lanczos(operator: Operator, start: Float[Tensor, " d"], steps: int) -> RitzPairs:
    """All Ritz pairs of a Krylov space of at most ``steps`` dimensions, with full reorthogonalisation."""
    basis = [start / start.norm()]
    images: list[Tensor] = []
    while True:
        images.append(operator(basis[-1]))
        if len(basis) == steps:
            break
        q = _orthogonal_to(images[-1], basis)
        if float(q.norm()) <= 1e-6 * float(images[-1].norm()):
            break  # the space is invariant: nothing new in it
        basis.append(q / q.norm())
    return _rayleigh_ritz(to_float64(torch.stack(basis)), to_float64(torch.stack(images)), len(basis))


Search = Generator[Tensor, Tensor, RitzPairs]
"""Yields directions ``[n, d]``, is sent their images, returns what it found."""


def in_step(searches: Sequence[Search], images: Callable[[list[int], Tensor], Tensor]) -> list[RitzPairs]:
    """Run searches side by side: ``images(numbers, directions)`` answers all that they ask for, number by direction."""
    found: dict[int, RitzPairs] = {}
    asked = {i: next(search) for i, search in enumerate(searches)}
    while asked:
        answers = images([i for i, rows in asked.items() for _ in rows], torch.cat(list(asked.values())))
        further = {}
        for i, answer in zip(asked, torch.split(answers, [len(rows) for rows in asked.values()]), strict=True):
            try:
                further[i] = searches[i].send(answer)
            except StopIteration as end:
                found[i] = end.value
        asked = further
    return [found[i] for i in range(len(searches))]


def is_near(nearby: RitzPairs, found: RitzPairs) -> bool:
    """Does the nearby operator tell of the one whose pairs were found?"""
    return float(found.values[0]) > NEAR * float(nearby.values[0])


def davidson(
    nearby: RitzPairs,
    rank: int,
    tol: float,
    like: Tensor,
    generator: torch.Generator,
    *,
    rounding: Callable[[Tensor], Tensor],
) -> Search:
    """Searches the ``rank`` leading eigenpairs of an operator to relative residual ``tol``.

    1. Start from the leading pairs of the nearby operator, and from those so close that they may change places.
    2. Rayleigh-Ritz in the span of all directions tried; stop when ``rank`` residuals are at most ``tol``.
    3. For each pair that is not there yet, solve ``(A' − θ) δ = −r`` with the nearby operator A' (diagonal in its own
       Ritz vectors, 0 beside them), and add δ to the span. One exact product each, in dtype and on the device of ``like``.
       Where A' turned out not to be near (:func:`is_near`), add r itself, which makes the span a Krylov space.

    Ends at the tolerance, or when the span is the whole space, or when rounding lets nothing new in: ``rounding`` of
    eigenvalues is what it hides from their measured relative residuals, which are to be below ``tol`` with it (as far as the
    dtype allows); residuals below it that fall no more in :data:`PATIENCE` rounds are all noise.
    """
    d = nearby.vectors.shape[1]
    basis: list[Tensor] = []
    images: list[Tensor] = []
    close = int((nearby.values[rank:] > CLOSE * nearby.values[:rank][-1]).sum())
    new = list(nearby.vectors[: rank + max(min(close, MOST_CLOSE), int(rank > 1))])
    noise: list[float] = []
    while True:
        known = len(images)
        for direction in new:
            size = float(direction.norm())
            q = _orthogonal_to(to_float64(direction), basis)
            if len(basis) < d and float(q.norm()) > 1e-10 * size > 0 and _is_new(q / q.norm(), basis):
                # Rounded before use, so that the image is that of the very vector in the basis.
                basis.append(to_float64((q / q.norm()).to(like)))
        if len(basis) > known:
            images += to_float64((yield torch.stack(basis[known:]).to(like)))
        found = _rayleigh_ritz(torch.stack(basis), torch.stack(images), rank)
        hidden = float(rounding(found.values).max())
        aim = max(0.95 * tol - hidden, min(0.9 * tol, 16 * torch.finfo(like.dtype).eps))
        wanting = [i for i in range(min(rank, len(found.values))) if found.residual[i] > aim]
        if (not wanting and len(found.values) == rank) or len(basis) in (known, d):
            return found
        # over the leading eigenvalue, as rounding is
        worst = float((found.residual * found.values)[wanting].max() / found.values[0]) if wanting else torch.inf
        noise = [*noise, worst] if len(found.values) == rank and worst <= hidden else []
        if len(noise) > PATIENCE and noise[-1] > STALLED * noise[-1 - PATIENCE]:
            return found
        near = is_near(nearby, found)
        new = [_correction(nearby, found, i) if near else found.remainder(i) for i in wanting]
        if len(found.values) < rank:
            draw = torch.randn(rank - len(found.values), d, generator=generator, dtype=torch.float64)
            new += list(draw.to(basis[0]))


def _correction(nearby: RitzPairs, found: RitzPairs, i: int) -> Float[Tensor, " d"]:
    """``δ = −(A' − θ)⁻¹ r`` for the i-th pair, with A' diagonal in its Ritz vectors and 0 beside them."""
    theta, U = found.values[i], nearby.vectors
    r = found.remainder(i)
    inside = U @ r
    gap = nearby.values - theta
    least = 1e-3 * theta
    gap = torch.where(gap.abs() < least, torch.where(gap < 0, -least, least), gap)
    return (r - inside @ U) / theta - (inside / gap) @ U


def _rayleigh_ritz(Q: Float[Tensor, "n d"], AQ: Float[Tensor, "n d"], rank: int) -> RitzPairs:
    """The best ``rank`` pairs in the span of the rows of Q (orthonormal up to rounding)."""
    overlap, projected = Q @ Q.T, Q @ AQ.T
    # Rows were rounded to the working dtype: orthonormal to about its eps, so the small problem is a generalised one.
    inverse_root = torch.linalg.inv(torch.linalg.cholesky(overlap))
    ritz, mix = torch.linalg.eigh(inverse_root @ ((projected + projected.T) / 2) @ inverse_root.T)
    mix = (inverse_root.T @ mix).flip(1).T
    ritz = ritz.flip(0)
    kept = min(rank, len(ritz))
    vectors, images = mix[:kept] @ Q, mix[:kept] @ AQ
    # Relative to the value itself, or to the rounding of the leading one where the value is below that.
    scale = ritz[:kept].clamp_min(max(float(ritz[0]) * 1e-16, torch.finfo(torch.float64).tiny))
    residual = (images - ritz[:kept, None] * vectors).norm(dim=1) / scale
    following = float(ritz[kept]) if len(ritz) > kept else None
    return RitzPairs(ritz[:kept], vectors, images, residual, following, len(Q))


def _is_new(q: Float[Tensor, " d"], basis: list[Tensor]) -> bool:
    """Does a unit vector point out of the span? What rounding of the basis left over of another one does not."""
    return float(_orthogonal_to(q, basis).norm()) > 0.5


def _orthogonal_to(q: Float[Tensor, " d"], basis: list[Tensor]) -> Float[Tensor, " d"]:
    """``q`` less its projection on the basis, twice (once loses orthogonality in floating point)."""
    if not basis:
        return q
    Q = torch.stack(basis)
    for _ in range(2):
        q = q - (Q @ q) @ Q
    return q
