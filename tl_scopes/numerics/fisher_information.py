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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.eigensolver import RitzPairs, Search, davidson, in_step, is_near, lanczos
from tl_scopes.numerics.precision import compute_dtype, to_float64
from tl_scopes.numerics.unembedding import CHUNK, RowSquares, pass_bytes, times, transpose_times

DENSE_COST = 2e9
"""Multiply-adds (``d_vocab·d_model²``) up to which the dense matrix is built: about a tenth of a second."""
FEW_TOKENS = 2048
"""In the restricted problem that starts and preconditions the iterative solver."""
TOGETHER = 28
"""Distributions whose products share a pass over W, at most: more would save little and hold a vocabulary each."""
VECTORS = 128
"""Vectors that several of them ask for together, at most: each is a vocabulary, too."""


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
        images: ``[rank, d_model]``, ``F u_i``.
    """

    values: Float[Tensor, " rank"]
    vectors: Float[Tensor, "rank d_model"]
    trace: float
    residual: Float[Tensor, " rank"]
    next_value: float
    products: int
    images: Float[Tensor, "rank d_model"]


class FisherInformation:
    """F at one read position, as an operator on ``[d_model]`` vectors.

    Args:
        W: ``[d_vocab, d_model]`` unembedding rows, in any dtype; half precision is raised chunk by chunk.
        logits: ``[d_vocab]`` float32 or float64, as the model returns them (capped, scaled); all is computed in their
            dtype.
        slope: ``[d_vocab]`` derivative of the returned logits by ``W y + b``, in any dtype, or None where it is 1.
        row_squares: ``‖w_i‖²``.

    Raises:
        ValueError: the distribution is one-hot to the precision at hand, so that F underflows to 0.
    """

    def __init__(
        self,
        W: Float[Tensor, "d_vocab d_model"],
        logits: Float[Tensor, " d_vocab"],
        slope: Float[Tensor, " d_vocab"] | None,
        row_squares: RowSquares,
    ) -> None:
        self.W, self.slope, self.row_squares, self.dtype = W, slope, row_squares, logits.dtype
        self.top = int(logits.argmax())
        # In float64: a float32 difference of logits of size 30 is off by 2e-6, and so would be the tail.
        log_odds = to_float64(logits) - to_float64(logits[self.top])
        log_odds[self.top] = -torch.inf
        log_tail = torch.logsumexp(log_odds, 0)
        self.exact_tail = log_odds.sub_(torch.log1p(log_tail.exp())).exp_()
        self.tail = self.exact_tail.to(logits)
        self.tail_mass = float(self.exact_tail.sum())
        self.top_row = self._rows(slice(self.top, self.top + 1))[0]
        if self.tail_mass < torch.finfo(self.dtype).tiny * 1e4:
            raise ValueError(
                f"the next-token distribution is one-hot to {self.dtype} precision (mass off the top token "
                f"{self.tail_mass:.1e}): its Fisher information is 0 and has no leading direction. Explain "
                "the token's logit with semantic_scope, or load the model in float64"
            )

    @property
    def d_model(self) -> int:
        """Width of the final hidden state."""
        return int(self.W.shape[1])

    def zeros(self, *shape: int) -> Tensor:
        """Zeros in the computing dtype, where W is."""
        return torch.zeros(*shape, dtype=self.dtype, device=self.W.device)

    def _rows(self, at: slice | Tensor) -> Float[Tensor, "rows d_model"]:
        """Rows of A in the computing dtype."""
        rows = self.W[at].to(self.dtype)
        return rows if self.slope is None else rows * self.slope[at, None]

    def _centred_chunks_float64(self) -> Iterator[tuple[Tensor, Float[Tensor, "rows d_model"]]]:
        """Rows of A less the top token's row in float64, chunk by chunk of the vocabulary, each with its probabilities."""
        top = self._wide_rows(slice(self.top, self.top + 1))
        for start in range(0, self.W.shape[0], CHUNK):
            at = slice(start, start + CHUNK)
            yield self.exact_tail[at], self._wide_rows(at) - top

    def _wide_rows(self, at: slice) -> Float[Tensor, "rows d_model"]:
        """Rows of A in float64."""
        rows = to_float64(self.W[at])
        return rows if self.slope is None else rows * to_float64(self.slope[at])[:, None]

    def _sloped(self, x: Float[Tensor, "*n d_vocab"]) -> Float[Tensor, "*n d_vocab"]:
        """``x`` times the slope."""
        return x if self.slope is None else x * self.slope

    def product(self, a: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
        """``F a``: two passes over W."""
        return products([self], a[None])[0]

    def _weigh(self, Wa: Float[Tensor, " d_vocab"]) -> None:
        """In its place ``r_i = p_i (c_i − c̄)`` with ``c_i = (a_i − a_top)·a``."""
        self._slope(Wa)
        Wa -= Wa[self.top].clone()
        Wa -= torch.dot(self.exact_tail, to_float64(Wa)).to(Wa)
        Wa *= self.tail

    def _slope(self, x: Float[Tensor, "*n d_vocab"]) -> None:
        """In its place ``x`` times the slope."""
        if self.slope is not None:
            x *= self.slope

    @cached_property
    def _tail_sum(self) -> Float[Tensor, " d_model"]:
        """``Σ_tail p_i a_i`` in float64: one pass over W."""
        return transpose_times(self.W, self._sloped(self.tail)[None])[0]

    def top_gradient(self) -> Float[Tensor, " d_model"]:
        """``∂ log p_top / ∂y = a_top − μ = −Σ_tail p_i (a_i − a_top)``."""
        return (self.exact_tail.sum() * to_float64(self.top_row) - self._tail_sum).to(self.tail)

    def trace(self) -> float:
        """``tr F = Σ_i p_i ‖a_i − a_top‖² − ‖Σ_i p_i (a_i − a_top)‖²``, with the squares expanded: one pass over W."""
        tail, top = self.exact_tail, to_float64(self.top_row)
        squares = self.row_squares.read()
        squares = squares if self.slope is None else squares * to_float64(self.slope).square()
        sums = self._tail_sum
        mass = tail.sum()
        second_moment = torch.dot(tail, squares) - 2 * torch.dot(top, sums) + mass * top.square().sum()
        return float(second_moment - (sums - mass * top).square().sum())

    def dense(self) -> Float[Tensor, "d_model d_model"]:
        """F itself in float64: ``d_vocab·d_model²`` multiply-adds."""
        F = to_float64(self.zeros(self.d_model, self.d_model))
        mean = to_float64(self.zeros(self.d_model))
        for p, rows in self._centred_chunks_float64():
            F += einsum(p, rows, rows, "rows, rows i, rows j -> i j")
            mean += p @ rows
            del rows  # before the next are made
        return F - torch.outer(mean, mean)

    def gaussian_probes(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d_model"]:
        """``v = Σ_i √p_i ξ_i (a_i − μ)`` with ``ξ ~ N(0, I)``: ``E[v vᵀ] = F``. One pass over W for all n.

        Centred at the top row: ``v = Σ_tail √p_i ξ_i (a_i − a_top) − μ' Σ_i √p_i ξ_i``, ``μ' = Σ_tail p_i (a_i − a_top)``.
        """
        weighted = torch.randn(n, len(self.tail), generator=generator, dtype=self.dtype).to(self.tail)
        of_top = to_float64(weighted[:, self.top].clone())
        weighted *= self.tail.sqrt()
        off_top = torch.stack([to_float64(row).sum() for row in weighted])
        total = off_top + of_top * math.sqrt(1 - self.tail_mass)
        top = to_float64(self.top_row)
        mean = self._tail_sum - self.exact_tail.sum() * top
        self._slope(weighted)
        sums = transpose_times(self.W, weighted)
        return (sums - torch.outer(off_top, top) - torch.outer(total, mean)).to(self.tail)

    def moves(self, u: Float[Tensor, " d_model"]) -> Float[Tensor, " d_vocab"]:
        """``∂p/∂y · u = p∘(A u − pᵀA u)``: how a unit step along u changes every probability, to first order."""
        c = self._sloped(times(self.W, u[None])[0])
        c = c - c[self.top]
        mean = torch.dot(self.tail, c)
        change = self.tail * (c - mean)
        change[self.top] = -(1 - self.tail_mass) * mean
        return change

    def all_eigenpairs(self, full: bool = False) -> Eigenpairs:
        """Every eigenpair above the numerical rank of F (``full``: the rest too), from the dense matrix."""
        pairs = self.dense_eigenpairs(self.d_model)
        if full:
            return pairs
        floor = float(pairs.values[0]) * self.d_model * torch.finfo(torch.float64).eps
        keep = pairs.values > floor
        return replace(
            pairs,
            values=pairs.values[keep],
            vectors=pairs.vectors[keep],
            residual=pairs.residual[keep],
            images=pairs.images[keep],
        )

    def eigenpairs(self, rank: int, tol: float) -> Eigenpairs:
        """As :func:`leading_eigenpairs`, of this one."""
        return leading_eigenpairs([self], rank, tol)[0]

    def _search(self, rank: int, tol: float) -> tuple[Search, RitzPairs]:
        """The search for the leading eigenpairs, and those of F restricted to a few tokens."""
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(self.d_model, generator=generator, dtype=torch.float64).to(self.tail)
        size = min(self.W.shape[0], max(FEW_TOKENS, 4 * rank))
        restricted = lanczos(self._restricted(size), start, min(self.d_model, 16 + 3 * rank))
        return davidson(
            restricted, rank, tol, self.tail, generator, rounding=lambda values: self._rounding(values, self.dtype)
        ), restricted

    def _found(self, found: RitzPairs, restricted: RitzPairs, rank: int) -> Eigenpairs:
        """What a search found, with what rounding hides."""
        following = found.next_value
        if len(restricted.values) > rank and (following is None or is_near(restricted, found)):
            larger = min(
                1.0, float(found.values[0] / restricted.values[0])
            )  # of few samples, as far as they are not near
            following = max(following or 0.0, min(larger * float(restricted.values[rank]), float(found.values[-1])))
        return Eigenpairs(
            values=found.values.clamp_min(0).to(self.tail),
            vectors=found.vectors.to(self.tail),
            trace=self.trace(),
            residual=self._with_rounding(found.residual, found.values, self.dtype),
            next_value=following or 0.0,
            products=found.products,
            images=found.images.to(self.tail),
        )

    def _with_rounding(self, residual: Tensor, values: Tensor, dtype: torch.dtype) -> Float[Tensor, " rank"]:
        """Measured residuals and what rounding in ``dtype`` hides from the measurement."""
        return ((residual + self._rounding(values, dtype)) * (1 + 1e-6)).to(self.tail)

    def _rounding(self, values: Tensor, dtype: torch.dtype) -> Float[Tensor, " rank"]:
        """Relative rounding of a product with F at eigenvectors of ``values``.

        The largest part that does not average out is that of ``Σ_i r_i`` times the top row in :meth:`product`, with
        ``Σ_i |r_i| ≤ sqrt(mass·λ)`` for an eigenvector. The rest grows as the root of the number of terms.
        """
        growth = max(8.0, math.sqrt(len(self.tail)) / 8)
        floor = max(float(values[0]) * torch.finfo(dtype).eps, torch.finfo(self.dtype).tiny)
        offset = float(self.top_row.norm()) * (self.tail_mass / values.clamp_min(floor)).sqrt()
        return growth * torch.finfo(dtype).eps * (1 + offset)

    def _restricted(self, size: int) -> Callable[[Tensor], Tensor]:
        """Products with F restricted to the ``size`` tokens of :meth:`_standing_for_all`: small, and close."""
        chosen, p = self._standing_for_all(size)
        centred = self._rows(chosen) - self.top_row
        mean = p @ centred

        def product(a: Tensor) -> Tensor:
            return (p * (centred @ a)) @ centred - torch.dot(mean, a) * mean

        return product

    def _standing_for_all(self, size: int) -> tuple[Tensor, Float[Tensor, " size"]]:
        """The most probable tokens, and as many others at equal steps of probability, each with a share of all that is left.

        A trained model's tail is long: without the others, what is left out would be most of the first residual.
        """
        drawn = size // 2 if size < len(self.tail) else 0
        most = self.exact_tail.topk(size - drawn)
        so_far = self.exact_tail.index_fill(0, most.indices, 0).cumsum_(0)
        share = so_far[-1] / max(drawn, 1)
        steps = (torch.arange(drawn).to(so_far) + 0.5) * share
        others = torch.searchsorted(so_far, steps).clamp_max(len(so_far) - 1)
        return torch.cat([most.indices, others]), torch.cat([most.values, share.expand(drawn)]).to(self.tail)

    def dense_eigenpairs(self, rank: int) -> Eigenpairs:
        """The ``rank`` leading eigenpairs of the dense matrix, in float64."""
        F = self.dense()
        values, vectors = torch.linalg.eigh(F)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1).T
        following = float(values[rank]) if rank < len(values) else 0.0
        values, vectors = values[:rank].to(self.tail), vectors[:rank].to(self.tail)
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        images = to_float64(vectors) @ F
        floor = torch.finfo(self.dtype).tiny
        residual = (images - to_float64(values)[:, None] * to_float64(vectors)).norm(dim=1) / to_float64(
            values
        ).clamp_min(floor)
        residual = self._with_rounding(residual, to_float64(values), torch.float64)
        return Eigenpairs(values, vectors, float(F.trace()), residual, following, 0, images.to(self.tail))


def fisher_bytes(W: Float[Tensor, "d_vocab d_model"]) -> int:
    """What one F holds: the tail's probabilities in float64 and in the computing dtype."""
    size = compute_dtype(W.dtype).itemsize
    return len(W) * (8 + (size if size < 8 else 0))


def dense_bytes(W: Float[Tensor, "d_vocab d_model"]) -> int:
    """What building one F takes: a chunk of rows in float64 twice, and the matrix."""
    d_vocab, d_model = W.shape
    return 8 * d_model * (2 * min(CHUNK, d_vocab) + 4 * d_model)


def search_bytes(W: Float[Tensor, "d_vocab d_model"], fishers: int, rank: int) -> int:
    """What :func:`leading_eigenpairs` of so many F takes at the worst moment, with what they hold."""
    (d_vocab, d_model), size = W.shape, compute_dtype(W.dtype).itemsize
    held = fishers * fisher_bytes(W)
    if builds_dense(W):
        return held + dense_bytes(W)
    vectors = _vectors(fishers, rank)
    starting = 16 * d_vocab + 2 * max(FEW_TOKENS, 4 * rank) * d_model * size
    rows = (vectors + fishers) * d_vocab * size
    look = 24 * d_vocab
    return held + max(starting, rows + max(look, pass_bytes(W, vectors + 1)))


def _vectors(searches: int, rank: int) -> int:
    """In a pass over W at most: what searches begin with, one more than the wanted ones if these are several.

    Where eigenvalues are close, as of a flat distribution, they begin with more, in another pass.
    """
    return searches * (rank + (rank > 1))


def builds_dense(W: Float[Tensor, "d_vocab d_model"]) -> bool:
    """Does building F cost less than a search?"""
    return W.shape[0] * W.shape[1] ** 2 <= DENSE_COST


def leading_eigenpairs(fishers: Sequence[FisherInformation], rank: int, tol: float) -> list[Eigenpairs]:
    """The ``rank`` leading eigenpairs of each F, with relative residuals at most ``tol``; all over one W.

    Builds F where that costs less than :data:`DENSE_COST`, else :func:`~tl_scopes.numerics.eigensolver.davidson` on products
    with F, started and preconditioned by F restricted to a few tokens that stand for all. The searches of several
    distributions run side by side: what they ask of W is one matrix product instead of as many passes over it. Nothing would
    be gained by starting one from another's eigenvectors: neighbouring positions have other directions
    (``benchmarks/warm_starts.py``).
    """
    W = fishers[0].W
    if builds_dense(W):
        return [fisher.dense_eigenpairs(rank) for fisher in fishers]
    searches, restricted = zip(*[fisher._search(rank, tol) for fisher in fishers], strict=True)
    most = _vectors(len(fishers), rank)

    def images(numbers: list[int], a: Tensor) -> Tensor:
        return torch.cat(
            [products([fishers[i] for i in numbers[n : n + most]], a[n : n + most]) for n in range(0, len(a), most)]
        )

    found = in_step(searches, images)
    return [fisher._found(f, r, rank) for fisher, f, r in zip(fishers, found, restricted, strict=True)]


def products(fishers: Sequence[FisherInformation], a: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """``F_n a_n = Σ_i p_i (c_i − c̄) (a_i − a_top)`` with ``c_i = (a_i − a_top)·a_n``: two passes over W for all of them.

    What must be asked of W besides is taken along: by the first pass the probe of :class:`RowSquares`, by the second the sums
    of the tails that are not known yet.
    """
    fresh = [fisher for fisher in dict.fromkeys(fishers) if "_tail_sum" not in fisher.__dict__]
    rows = fishers[0].row_squares.taken_along(a, room=len(fresh))
    tops = []
    for fisher, row in zip(fishers, rows, strict=False):
        fisher._weigh(row)
        tops.append(to_float64(row).sum() * to_float64(fisher.top_row))
        fisher._slope(row)
    for fisher, row in zip(fresh, rows[len(a) :], strict=True):
        row.copy_(fisher.tail)
        fisher._slope(row)
    images = transpose_times(fishers[0].W, rows)
    for fisher, tail_sum in zip(fresh, images[len(a) :], strict=True):
        fisher.__dict__["_tail_sum"] = tail_sum
    return (images[: len(a)] - torch.stack(tops)).to(a)
