"""Total information: the trace of the Fisher information pulled back to each token, three ways.

Legend: ``F`` Fisher information at the final hidden state (:mod:`tl_scopes.numerics.fisher_information`) with eigenpairs
``λ_i, u_i``; ``J_t = ∂y/∂x_t``; ``F_t = J_tᵀ F J_t``. The quantity is

    tr F_t = Σ_i λ_i ‖u_iᵀ J_t‖²

and ``ε²/(2 d_model) · tr F_t`` is the expected KL divergence, in nats, under an isotropic perturbation of ``x_t`` of norm
ε (paper eq. 16). It does not change when the final norm is folded into the unembedding or the unembedding is centred.

* ``exact``: all eigenpairs above the numerical rank.
* ``low_rank``: the leading ``rank`` eigenpairs (paper eq. 18), biased downwards; the explained share says how much of
  ``tr F`` they hold, which is not the same as of ``tr F_t``.
* ``sampled``: the leading eigenpairs exactly, the rest by Gaussian probes. With ``v = Σ_i √p_i ξ_i (a_i − μ)``,
  ``ξ ~ N(0, I)``, ``E[v vᵀ] = F``; the part of v orthogonal to the leading directions has expectation the rest of F, so the
  mean of ``‖vᵀ J_t‖²`` over probes is unbiased, with a standard error per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import ReadOut, Rows, Scalar, Scored, divergence
from tl_scopes.directions.fisher import leading
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import ModelState
from tl_scopes.numerics.fisher_information import Eigenpairs, FisherInformation

MIN_PROBES = 16
"""Probes before a stopping rule may act: fewer make the standard error itself unreliable."""
CONFIDENCE = 0.95
NEGLIGIBLE = 0.01
"""Tokens below this share of the highest score do not hold up the stopping rule."""
_EIGEN_TOL = 1e-6
RTOL = 0.05
"""Relative standard error at which sampling stops."""


@dataclass(frozen=True)
class TotalInformation:
    """``tr F_t`` by one of the three methods."""

    how: Literal["sampled", "exact", "low_rank"]
    rank: int
    n_samples: int
    rtol: float | None
    seed: int
    method: str = "total_information"

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
        """Eigenvectors with weights ``λ_i``, and for ``sampled`` the first probes."""
        if self.how != "exact" and self.rank > 0:
            return [self._rows(*found) for found in leading(reads, state, self.rank, _EIGEN_TOL)]
        fishers = [read.fisher(state) for read in reads]
        return [
            self._rows(read, fisher, fisher.all_eigenpairs() if self.how == "exact" else None)
            for read, fisher in zip(reads, fishers, strict=True)
        ]

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The divergence of the changed distribution, of which F is half the Hessian."""
        return divergence()

    def _rows(self, read: ReadOut, fisher: FisherInformation, pairs: Eigenpairs | None) -> Rows:
        details: dict[str, Any] = {"estimator": self.how, "trace": fisher.trace() if pairs is None else pairs.trace}
        V = fisher.zeros(0, fisher.d_model) if pairs is None else pairs.vectors
        weights = fisher.zeros(0) if pairs is None else pairs.values
        if pairs is not None:
            details["rank"] = len(pairs.values)
            details["explained_share"] = float(pairs.values.sum()) / pairs.trace
        if self.how != "sampled" or len(V) == fisher.d_model:
            return TraceRows(V, weights, None, details)
        generator = torch.Generator().manual_seed((self.seed + read.index) % 2**63)
        probes = Probes(fisher, V, generator)
        most = self.n_samples
        first = min(most, MIN_PROBES) if self.rtol is not None else most
        return SampledRows(torch.cat([V, probes.draw(first)]), weights, None, details, (), probes, most, self.rtol)


@dataclass(frozen=True, eq=False)
class TraceRows(Rows):
    """Rows whose weighted squares are summed, without the root."""

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """``Σ_i λ_i ‖u_iᵀ J_t‖²``."""
        return Scored(einsum(self.weights.to(norms), norms.square(), "k, k pos -> pos"))


class Probes:
    """Gaussian probes of what the leading eigenvectors leave of F."""

    def __init__(self, fisher: FisherInformation, U: Float[Tensor, "rank d_model"], generator: torch.Generator) -> None:
        self.fisher, self.U, self.generator = fisher, U, generator

    def draw(self, n: int) -> Float[Tensor, "n d_model"]:
        """``v = Σ_i √p_i ξ_i (a_i − μ)`` less its projection on the eigenvectors."""
        V = self.fisher.gaussian_probes(n, self.generator)
        return V - (V @ self.U.T) @ self.U


@dataclass(frozen=True, eq=False)
class SampledRows(TraceRows):
    """Eigenvectors first, then probes; asks for more probes until the relative error is met."""

    probes: Probes | None = None
    most: int = 0
    rtol: float | None = None

    @property
    def adaptive(self) -> bool:
        """Only with a stopping rule."""
        return self.rtol is not None

    def next_rows(self, norms: Float[Tensor, "k pos"]) -> Tensor | None:
        """Another round of probes while some token that matters has too large a standard error."""
        drawn = len(norms) - len(self.weights)
        if self.rtol is None or self.probes is None or drawn >= self.most:
            return None
        scored = self.score(norms)
        assert scored.stderr is not None
        matters = scored.scores > NEGLIGIBLE * scored.scores.max()
        if bool((scored.stderr <= self.rtol * scored.scores)[matters].all()):
            return None
        return self.probes.draw(min(MIN_PROBES, self.most - drawn))

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """The eigenpairs' share exactly, the probes' mean, and its standard error."""
        from scipy.stats import t

        rank = len(self.weights)
        exact = einsum(self.weights.to(norms), norms[:rank].square(), "k, k pos -> pos")
        # A prompt that wanted no more probes in the last rounds was given rows of zeros.
        used = norms[rank:][norms[rank:].any(dim=1)].square()
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
    label="Total information",
    summary="The whole distribution, in all directions",
    title="Total information: which tokens move the whole distribution, in all directions",
    unit="nats per squared unit of {at}",
    direction=_total_information,
    rebuild=_total_information_again,
    keywords={"rank": 8, "n_samples": 64, "seed": 0},
    additive=True,
    # half the scope's probes for each target; its stopping rule would need a forward per target
    of_rows={"n_samples": 32, "rtol": None},
)
