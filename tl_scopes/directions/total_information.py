"""Total information: the trace of the Fisher information pulled back to each token, three ways.

Legend: ``F`` Fisher information at the final hidden state (:mod:`tl_scopes.numerics.fisher_information`) with eigenpairs
``λ_i, u_i``; ``J_t = ∂y/∂x_t``; ``F_t = J_tᵀ F J_t``. The quantity is

    tr F_t = Σ_i λ_i ‖u_iᵀ J_t‖²

and ``ε²/(2 d_model) · tr F_t`` is the expected KL divergence, in nats, under an isotropic perturbation of ``x_t`` of norm
ε (paper eq. 16). It does not change when the final norm is folded into the unembedding or the unembedding is centred.

* ``exact``: all eigenpairs above the numerical rank.
* ``low_rank``: the leading ``rank`` eigenpairs (paper eq. 18), biased downwards; the explained share says how much of
  ``tr F`` they hold, which is not the same as of ``tr F_t``.
* ``sampled``: a leading part of F exactly, the rest by Gaussian probes. With ``v = Σ_i √p_i ξ_i (a_i − μ)``,
  ``ξ ~ N(0, I)``, ``E[v vᵀ] = F``. For any orthonormal U, ``L = F U (Uᵀ F U)⁻¹ Uᵀ F`` is the part that U accounts for
  (Nyström's approximation, the leading eigenpairs where U are eigenvectors), and ``v − F U (Uᵀ F U)⁻¹ Uᵀ v`` has the
  covariance ``F − L``. So the mean of ``‖vᵀ J_t‖²`` over probes is unbiased, with a standard error per token, however far
  U is from eigenvectors; by a residual ρ of U, L loses O(ρ²) of its share to the probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import Combine, ReadOut, Rows, Scalar, Scored, divergence
from tl_scopes.directions.fisher import at_once, leading
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import ModelState
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.fisher_information import Eigenpairs, FisherInformation, dense_bytes, fisher_bytes, search_bytes
from tl_scopes.numerics.precision import compute_dtype, to_float64
from tl_scopes.numerics.unembedding import cast_bytes

MIN_PROBES = 16
"""Probes before a stopping rule may act: fewer make the standard error itself unreliable."""
CONFIDENCE = 0.95
NEGLIGIBLE = 0.01
"""Tokens below this share of the highest score do not hold up the stopping rule."""
SAMPLED_TOL = 0.1
"""Relative residual of U for ``sampled``: it costs the standard error a hundredth, and no bias."""
RTOL = 0.05
"""Relative standard error at which sampling stops."""


@dataclass(frozen=True)
class TotalInformation:
    """``tr F_t`` by one of the three methods."""

    combines: ClassVar[tuple[Combine, ...]] = ("sum",)
    how: Literal["sampled", "exact", "low_rank"]
    rank: int
    n_samples: int
    rtol: float | None
    seed: int
    method: str = "total_information"

    @property
    def fewest(self) -> int:
        """More than one wherever a trace is estimated, or summed whole."""
        return self.rank if self.how == "low_rank" else 2

    def held(self, reads: int, W_U: Tensor) -> int:
        """One F for each position where probes go on being drawn, with a search for some, or the probes of one."""
        W, size = W_U.T, compute_dtype(W_U.dtype).itemsize
        group = at_once(reads, max(self.rank, 1))
        search = search_bytes(W, group, self.rank) if self.rank else fisher_bytes(W)
        if self.how == "low_rank":
            return search
        others = reads * fisher_bytes(W)
        if self.how == "exact":
            return others + dense_bytes(W)
        probes = self._first * size * len(W) + cast_bytes(W)
        return max(others - group * fisher_bytes(W) * (self.rank > 0) + search, others + probes)

    @property
    def _first(self) -> int:
        """Probes that are drawn before any is looked at."""
        return min(self.n_samples, MIN_PROBES) if self.rtol is not None else self.n_samples

    def check(self, state: ModelState) -> None:
        """Valid on every model, processed or not; refuse numbers that make no sense."""
        least = 1 if self.how == "low_rank" else 0
        if not least <= self.rank <= state.cfg.d_model:
            raise ValueError(f"(rank={self.rank}): rank must be in {least}..d_model={state.cfg.d_model}")
        if self.n_samples < 2:
            raise ValueError(f"(n_samples={self.n_samples}): a standard error needs at least 2 probes")
        if self.rtol is not None and not self.rtol > 0:
            raise ValueError(f"(rtol={self.rtol}): expected a positive relative error or None")

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """Eigenvectors with weights ``λ_i``, of F or of its leading part; for ``sampled`` the first probes too."""
        if self.how != "exact" and self.rank > 0:
            single = reads[0].logits.dtype == torch.float32
            tol = SAMPLED_TOL if self.how == "sampled" else 1e-4 if single else 1e-6
            return [self._rows(*found) for found in leading(reads, state, self.rank, tol)]
        row_squares = state.row_squares
        fishers = [read.fisher(row_squares) for read in reads]
        return [
            self._rows(read, fisher, fisher.all_eigenpairs() if self.how == "exact" else None)
            for read, fisher in zip(reads, fishers, strict=True)
        ]

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The divergence of the changed distribution, of which F is half the Hessian."""
        return divergence()

    def _rows(self, read: ReadOut, fisher: FisherInformation, pairs: Eigenpairs | None) -> Rows:
        details: dict[str, Any] = {"estimator": self.how, "trace": fisher.trace() if pairs is None else pairs.trace}
        whole = self.how != "sampled" or (pairs is not None and len(pairs.values) == fisher.d_model)
        part = None if pairs is None or whole else LeadingPart(pairs.vectors, pairs.images)
        found = pairs if part is None else part
        V = fisher.zeros(0, fisher.d_model) if found is None else found.vectors
        weights = fisher.zeros(0) if found is None else found.values
        if found is not None:
            details["rank"] = len(weights)
            details["explained_share"] = float(weights.sum()) / details["trace"]
        if whole:
            return TraceRows(V, weights, None, details)
        probes = Probes(fisher, part, prompt_generator(self.seed, read.text))
        V = torch.cat([V, probes.draw(self._first)])
        return SampledRows(V, weights, None, details, (), probes, self.n_samples, self.rtol)


@dataclass(frozen=True, eq=False)
class TraceRows(Rows):
    """Rows whose weighted squares are summed, without the root."""

    root: bool = field(default=False, kw_only=True)

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """``Σ_i λ_i ‖u_iᵀ J_t‖²``."""
        return Scored(einsum(self.weights.to(norms), norms.square(), "k, k pos -> pos"))


class LeadingPart:
    """``L = F U (Uᵀ F U)⁻¹ Uᵀ F`` of orthonormal U, by its eigenpairs; ``F − L`` is positive semidefinite.

    What U and ``F U`` say near the rounding of their dtype is left to the rest; eigenvalues are 0 there.
    """

    def __init__(self, U: Float[Tensor, "rank d_model"], images: Float[Tensor, "rank d_model"]) -> None:
        self._U, self._images = to_float64(U), to_float64(images)
        between = self._U @ self._images.T
        sizes, mix = torch.linalg.eigh((between + between.T) / 2)
        told = sizes > 1e3 * torch.finfo(U.dtype).eps * sizes[-1]
        self._inverse_root = mix.T * torch.where(told, sizes, torch.inf).rsqrt()[:, None]
        _, roots, vectors = torch.linalg.svd(self._inverse_root @ self._images, full_matrices=False)
        self.values, self.vectors = roots.square().to(U), vectors.to(U)

    def rest(self, V: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """``v − F U (Uᵀ F U)⁻¹ Uᵀ v`` of each."""
        along = to_float64(V) @ self._U.T @ self._inverse_root.T
        rest: Tensor = to_float64(V) - along @ self._inverse_root @ self._images
        return rest.to(V)


class Probes:
    """Gaussian probes of what the leading part leaves of F."""

    def __init__(self, fisher: FisherInformation, part: LeadingPart | None, generator: torch.Generator) -> None:
        self.fisher, self.part, self.generator = fisher, part, generator

    def draw(self, n: int) -> Float[Tensor, "n d_model"]:
        """``v = Σ_i √p_i ξ_i (a_i − μ)`` less what the leading part accounts for."""
        V = self.fisher.gaussian_probes(n, self.generator)
        return V if self.part is None else self.part.rest(V)


@dataclass(frozen=True, eq=False)
class SampledRows(TraceRows):
    """The leading part first, then probes; asks for more probes until the relative error is met."""

    probes: Probes | None = None
    most: int = 0
    rtol: float | None = None

    @property
    def adaptive(self) -> bool:
        """Only with a stopping rule."""
        return self.rtol is not None

    def more(self, n: int) -> Tensor | None:
        """Probes of what the leading part leaves."""
        return None if self.probes is None else self.probes.draw(n)

    def wanted(self, drawn: int, scored: Scored) -> int:
        """Another round while some token that matters has too large a standard error."""
        if self.rtol is None or drawn >= self.most:
            return 0
        assert scored.stderr is not None
        matters = scored.scores > NEGLIGIBLE * scored.scores.max()
        if bool((scored.stderr <= self.rtol * scored.scores)[matters].all()):
            return 0
        return min(MIN_PROBES, self.most - drawn)

    def next_rows(self, norms: Float[Tensor, "k pos"]) -> Tensor | None:
        """Another round of probes, where one is wanted."""
        n = self.wanted(len(norms) - len(self.weights), self.score(norms))
        return self.more(n) if n else None

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """The leading part exactly, the probes' mean, and its standard error."""
        from scipy.stats import t

        rank = len(self.weights)
        exact = einsum(self.weights.to(norms), norms[:rank].square(), "k, k pos -> pos")
        used = norms[rank:].square()
        n = max(len(used), 1)
        stderr = used.std(dim=0) / math.sqrt(n) if n > 1 else torch.zeros_like(exact)
        details = {
            "n_samples": len(used),
            "confidence": CONFIDENCE,
            "t_quantile": float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) if n > 1 else None,
        }
        return Scored(exact + (used.mean(dim=0) if len(used) else 0.0), stderr, details)


def _total_information(model: LensModel, n: int, keywords: Keywords) -> TotalInformation:
    how, rtol = (keywords.get(name, default) for name, default in (("how", "sampled"), ("rtol", RTOL)))
    return TotalInformation(how, keywords["rank"], keywords["n_samples"], rtol, keywords["seed"])


def _total_information_again(model: LensModel, explained: Explained) -> TotalInformation:
    details = explained.details
    rank, probes = int(details.get("rank", 0)), max(2, int(details.get("n_samples", 64)))
    return TotalInformation(details.get("estimator", "sampled"), rank, probes, None, 0)


TOTAL_INFORMATION = Scope(
    name="total_information",
    called="total_information",
    label="Total information",
    summary="The whole distribution, in all directions",
    title="Total information: which {tokens} move the whole distribution, in all directions",
    unit="nats per squared unit of {at}",
    direction=_total_information,
    rebuild=_total_information_again,
    keywords={"rank": 8, "n_samples": 64, "seed": 0},
    additive=True,
    rebuilt_from=("estimator", "rank"),
    # half the scope's probes for each target; its stopping rule would need a forward per target
    of_rows={"n_samples": 32, "rtol": None},
)
