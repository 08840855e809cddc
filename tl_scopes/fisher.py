r"""Fisher information of the next-token distribution at the final hidden state, without forming it.

Legend: ``y`` ``[d_model]`` final hidden state; ``z`` ``[d_vocab]`` logits; ``p = softmax(z)``;
``A = ∂z/∂y = diag(slope)·W`` ``[d_vocab, d_model]`` with rows ``a_i`` (``slope`` is 1 except under a logit
soft cap or scale). The Fisher information matrix (paper eq. 5) is

    F = Aᵀ (diag p − p pᵀ) A        [d_model, d_model], nats per squared unit of y

and ``KL(p(y) ‖ p(y+δ)) = ½ δᵀ F δ + o(‖δ‖²)``.

``F`` is the covariance of the rows under p, so it does not change when one vector is subtracted from all of
them. Everything here subtracts the row of the most probable token, takes the tail's probabilities from their
log-sum-exp, and never forms ``1 − p_top`` by subtraction: in float32 the plain formula is useless from
``p_top = 0.9999`` on, this one keeps about 1e-6.

Reference: *Jacobian Scopes* (arXiv 2601.16407), eq. 5, 6 and appendix A.8. Differs from the released code,
which builds F in full and takes its singular value decomposition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from einops import einsum, reduce
from jaxtyping import Float
from torch import Tensor

DENSE_COST = 2e9
"""Multiply-adds (``d_vocab·d_model²``) up to which the dense matrix is built: about a tenth of a second."""
_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Leading eigenpairs of F with what is known of their error.

    Attributes:
        values: ``[rank]``, descending, nats per squared unit of y.
        vectors: ``[rank, d_model]``, unit norm; the sign of each is arbitrary.
        trace: ``tr F``.
        residual: ``[rank]``, ``‖F u_i − λ_i u_i‖ / λ_i`` measured on the returned pairs.
        next_value: estimate of ``λ_{rank+1}`` (0 at full rank).
        products: products with F that were spent; 0 when F was built.
    """

    values: Float[Tensor, " rank"]
    vectors: Float[Tensor, "rank d_model"]
    trace: float
    residual: Float[Tensor, " rank"]
    next_value: float
    products: int


class FisherInformation:
    """F at one read position, as an operator on ``[d_model]`` vectors.

    Args:
        W: ``[d_vocab, d_model]`` unembedding rows, float32 or float64.
        logits: ``[d_vocab]`` in the same dtype, as the model returns them (capped, scaled).
        slope: ``[d_vocab]`` derivative of the returned logits by ``W y + b``, or None where it is 1.

    Raises:
        ValueError: the distribution is one-hot to the precision at hand, so that F underflows to 0.
    """

    def __init__(
        self,
        W: Float[Tensor, "d_vocab d_model"],
        logits: Float[Tensor, " d_vocab"],
        slope: Float[Tensor, " d_vocab"] | None = None,
    ) -> None:
        self.W, self.slope = W, slope
        self.top = int(logits.argmax())
        log_odds = logits - logits[self.top]
        log_odds[self.top] = -torch.inf
        log_tail = torch.logsumexp(log_odds, 0)
        self.tail = torch.exp(log_odds - torch.log1p(log_tail.exp()))
        self.tail_mass = float(self.tail.sum())
        self.top_row = self._rows(slice(self.top, self.top + 1))[0]
        if self.tail_mass < torch.finfo(W.dtype).tiny * 1e4:
            raise ValueError(
                f"the next-token distribution is one-hot to {W.dtype} precision (mass off the top token "
                f"{self.tail_mass:.1e}): its Fisher information is 0 and has no leading direction. Explain "
                "the token's logit with semantic_scope, or load the model in float64"
            )

    @property
    def d_model(self) -> int:
        """Width of the final hidden state."""
        return int(self.W.shape[1])

    def _rows(self, at: slice) -> Float[Tensor, "rows d_model"]:
        """Rows of A."""
        rows = self.W[at]
        return rows if self.slope is None else rows * self.slope[at, None]

    def _centred_chunks(self) -> Iterator[tuple[slice, Float[Tensor, "rows d_model"]]]:
        """Rows of A less the top token's row, chunk by chunk of the vocabulary."""
        for start in range(0, self.W.shape[0], _CHUNK):
            at = slice(start, start + _CHUNK)
            yield at, self._rows(at) - self.top_row

    def product(self, a: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
        """``F a = Σ_i p_i (c_i − c̄) (a_i − a_top)`` with ``c_i = (a_i − a_top)·a``: two passes over W."""
        c = self.W @ a
        if self.slope is not None:
            c = c * self.slope
        c = c - c[self.top]
        r = self.tail * (c - torch.dot(self.tail, c))
        moved = r if self.slope is None else r * self.slope
        return moved @ self.W - r.sum() * self.top_row

    def trace(self) -> float:
        """``tr F = Σ_i p_i ‖a_i − a_top‖² − ‖Σ_i p_i (a_i − a_top)‖²``."""
        second = 0.0
        mean = torch.zeros(self.d_model, dtype=torch.float64, device=self.W.device)
        for at, centred in self._centred_chunks():
            norms = reduce(centred.square(), "rows d_model -> rows", "sum")
            second += float(torch.dot(self.tail[at].double(), norms.double()))
            mean += (self.tail[at] @ centred).double()
        return second - float(mean.square().sum())

    def dense(self) -> Float[Tensor, "d_model d_model"]:
        """F itself in float64: ``d_vocab·d_model²`` multiply-adds."""
        F = torch.zeros(self.d_model, self.d_model, dtype=torch.float64, device=self.W.device)
        mean = torch.zeros(self.d_model, dtype=torch.float64, device=self.W.device)
        for at, centred in self._centred_chunks():
            rows, p = centred.double(), self.tail[at].double()
            F += einsum(p, rows, rows, "rows, rows i, rows j -> i j")
            mean += p @ rows
        return F - torch.outer(mean, mean)

    def gaussian_probes(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d_model"]:
        """``v = Σ_i √p_i ξ_i (a_i − μ)`` with ``ξ ~ N(0, I)``: ``E[v vᵀ] = F``. One pass over W for all n.

        Centred at the top row, ``v = Σ_tail √p_i ξ_i (a_i − a_top) − μ' Σ_i √p_i ξ_i`` with ``μ' = Σ_tail p_i (a_i − a_top)``.
        """
        draws = torch.randn(n, len(self.tail), generator=generator, dtype=torch.float64).to(self.W)
        weighted = draws * self.tail.sqrt()
        total = weighted.sum(dim=1) + draws[:, self.top] * math.sqrt(1 - self.tail_mass)
        V = self.W.new_zeros(n, self.d_model)
        mean = self.W.new_zeros(self.d_model)
        for at, centred in self._centred_chunks():
            V += weighted[:, at] @ centred
            mean += self.tail[at] @ centred
        return V - total[:, None] * mean

    def all_eigenpairs(self) -> Eigenpairs:
        """Every eigenpair above the numerical rank of F, from the dense matrix."""
        pairs = self._dense_eigenpairs(self.d_model)
        floor = float(pairs.values[0]) * self.d_model * torch.finfo(torch.float64).eps
        keep = pairs.values > floor
        return replace(pairs, values=pairs.values[keep], vectors=pairs.vectors[keep], residual=pairs.residual[keep])

    def eigenpairs(self, rank: int, tol: float) -> Eigenpairs:
        """The ``rank`` leading eigenpairs, each with relative residual at most ``tol``.

        Builds F where that costs less than :data:`DENSE_COST`, else runs Lanczos on products with F.
        """
        if self.W.shape[0] * self.d_model**2 <= DENSE_COST:
            return self._dense_eigenpairs(rank)
        return self._lanczos(rank, tol)

    def _dense_eigenpairs(self, rank: int) -> Eigenpairs:
        F = self.dense()
        values, vectors = torch.linalg.eigh(F)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1).T
        return self._certified(values[:rank], vectors[:rank], values[rank : rank + 1], F, 0)

    def _certified(
        self,
        values: Float[Tensor, " rank"],
        vectors: Float[Tensor, "rank d_model"],
        following: Float[Tensor, " n"],
        F: Float[Tensor, "d_model d_model"] | None,
        products: int,
    ) -> Eigenpairs:
        """Round to the working dtype, then measure the residual of exactly what is returned."""
        values, vectors = values.to(self.W.dtype), vectors.to(self.W.dtype)
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        if F is None:
            images = torch.stack([self.product(u) for u in vectors])
        else:
            images = (vectors.double() @ F).to(self.W.dtype)
        floor = torch.finfo(values.dtype).tiny
        residual = (images - values[:, None] * vectors).norm(dim=1) / values.clamp_min(floor)
        return Eigenpairs(
            values=values,
            vectors=vectors,
            trace=self.trace() if F is None else float(F.trace()),
            residual=residual,
            next_value=float(following[0]) if len(following) else 0.0,
            products=products,
        )

    def _lanczos(self, rank: int, tol: float) -> Eigenpairs:
        """Lanczos with full reorthogonalisation; ends at the tolerance or at the full Krylov space."""
        d = self.d_model
        generator = torch.Generator().manual_seed(0)
        basis: list[Tensor] = []
        images: list[Tensor] = []
        q = self._fresh_direction(basis, generator)
        while True:
            basis.append(q)
            image = self.product(q)
            images.append(image)
            Q, FQ = torch.stack(basis).double(), torch.stack(images).double()
            n = len(basis)
            if n >= min(rank + 2, d) and (n % 4 == 0 or n == d or rank == 1):
                ritz, mix = torch.linalg.eigh(Q @ FQ.T)
                ritz, mix = ritz.flip(0), mix.flip(1)[:, :rank].T
                vectors = mix @ Q
                residual = (mix @ FQ - ritz[:rank, None] * vectors).norm(dim=1)
                if n == d or bool((residual <= 0.5 * tol * ritz[:rank].abs()).all()):
                    return self._certified(ritz[:rank], vectors, ritz[rank : rank + 1], None, n + rank)
            q = self._orthogonal_to(image, basis)
            if float(q.norm()) <= 1e-6 * float(image.norm()) + torch.finfo(q.dtype).tiny:
                q = self._fresh_direction(basis, generator)
            q = q / q.norm()

    def _fresh_direction(self, basis: list[Tensor], generator: torch.Generator) -> Float[Tensor, " d_model"]:
        """A random unit vector orthogonal to the basis, from a generator of our own."""
        draw = torch.randn(self.d_model, generator=generator, dtype=torch.float64)
        q = self._orthogonal_to(draw.to(self.W), basis)
        unit: Tensor = q / q.norm()
        return unit

    @staticmethod
    def _orthogonal_to(q: Tensor, basis: list[Tensor]) -> Float[Tensor, " d_model"]:
        """``q`` less its projection on the basis, twice (once loses orthogonality in floating point)."""
        if not basis:
            return q
        Q = torch.stack(basis)
        for _ in range(2):
            q = q - (Q @ q) @ Q
        return q
