"""Fisher: ``V = sqrt(λ_i/λ_1) u_i``, leading eigenvectors of the Fisher information of the whole distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tl_scopes.directions.base import Combine, ReadOut, Rows, Scalar, divergence
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import ModelState, require_fisher
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.fisher_information import (
    TOGETHER,
    VECTORS,
    Eigenpairs,
    FisherInformation,
    leading_eigenpairs,
    search_bytes,
)
from tl_scopes.numerics.parts import even_parts

NEARLY_DEGENERATE = 0.95
"""Ratio λ_{r+1}/λ_r from which the r-th Fisher direction is called ill-defined."""


def leading(
    reads: Sequence[ReadOut], state: ModelState, rank: int, tol: float
) -> Iterator[tuple[ReadOut, FisherInformation, Eigenpairs]]:
    """The leading eigenpairs of F at each explained position, found for up to :data:`TOGETHER` at a time."""
    row_squares = state.row_squares
    for at in even_parts(len(reads), _most(rank)):
        group = reads[at]
        fishers = [read.fisher(row_squares) for read in group]
        yield from zip(group, fishers, leading_eigenpairs(fishers, rank, tol), strict=True)


def _most(rank: int) -> int:
    return max(1, min(TOGETHER, VECTORS // rank))


def at_once(reads: int, rank: int) -> int:
    """Searches that :func:`leading` runs side by side."""
    return max(len(range(reads)[at]) for at in even_parts(reads, _most(rank)))


@dataclass(frozen=True)
class Fisher:
    """``V = u_1 … u_rank``, weights ``λ_i/λ_1``.

    An eigenvector has no sign of its own: each is turned so that a step along it raises the top prediction's probability.
    """

    combines: ClassVar[tuple[Combine, ...]] = ("norm",)
    rank: int
    tol: float
    method: str = "fisher"

    @property
    def fewest(self) -> int:
        """As many as were asked for."""
        return self.rank

    def held(self, reads: int, W_U: Tensor) -> int:
        """The largest group of searches."""
        return search_bytes(W_U.T, at_once(reads, self.rank), self.rank)

    def check(self, state: ModelState) -> None:
        """Refused on processed weights, and for a rank or tolerance that makes no sense."""
        require_rank(state, self.rank, self.tol)

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """Leading eigenvectors of F with their certificate."""
        return [self._rows(fisher, pairs) for _, fisher, pairs in leading(reads, state, self.rank, self.tol)]

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The divergence of the changed distribution, of which F is half the Hessian."""
        return divergence()

    def _rows(self, fisher: FisherInformation, pairs: Eigenpairs) -> Rows:
        rising = pairs.vectors @ fisher.top_gradient() >= 0
        vectors = torch.where(rising[:, None], pairs.vectors, -pairs.vectors)
        first = float(pairs.values[0])
        second = float(pairs.values[1]) if self.rank > 1 else pairs.next_value
        gap = first - second
        residual = float(pairs.residual.max())
        ratio = pairs.next_value / max(float(pairs.values[-1]), torch.finfo(torch.float64).tiny)
        notes: tuple[str, ...] = ()
        if ratio > NEARLY_DEGENERATE:
            notes += (
                f"λ_{self.rank + 1}/λ_{self.rank} = {ratio:.3f}: the Fisher direction u_{self.rank} is nearly "
                "degenerate and ill-defined; raise the rank or use total information.",
            )
        if residual > self.tol:
            notes += (
                f"The eigenpairs' relative residual {residual:.1e} is above tol={self.tol:.0e}: the precision of "
                f"{pairs.values.dtype} does not allow more.",
            )
        details = {
            "rank": self.rank,
            "eigenvalues": pairs.values.tolist(),
            "trace": pairs.trace,
            "explained_share": float(pairs.values.sum()) / pairs.trace,
            "relative_residual": pairs.residual.tolist(),
            "next_eigenvalue": pairs.next_value,
            "eigengap": gap,
            "sin_estimate": float(pairs.residual[0]) * first / gap if gap > 0 else math.inf,
            "products": pairs.products,
        }
        details = {k: (None if v == math.inf else v) for k, v in details.items()}
        return Rows(vectors, pairs.values / first, None, details, notes, relative_to=first)


def require_rank(state: ModelState, rank: int, tol: float, argument: str = "rank") -> None:
    """Refuse processed weights, and numbers of eigenpairs or tolerances that make no sense."""
    require_fisher(state)
    d_model = state.cfg.d_model
    if not 1 <= integer(argument, rank) <= d_model:
        raise ValueError(f"({argument}={rank}): {argument} must be in 1..d_model={d_model}")
    if not (isinstance(tol, int | float) and 0 < tol < 1):
        raise ValueError(f"(tol={tol!r}): tol is a relative residual between 0 and 1, e.g. 1e-4")


def _fisher(model: LensModel, n: int, keywords: Keywords) -> Fisher:
    return Fisher(keywords["rank"], keywords["tol"])


def _fisher_again(model: LensModel, explained: Explained) -> Fisher:
    return Fisher(int(explained.details.get("rank", 1)), FISHER.keywords["tol"])


FISHER = Scope(
    name="fisher",
    label="Fisher",
    summary="What moves the whole distribution",
    title="Fisher Scope: which {tokens} move the whole distribution",
    unit="hidden-state units per unit of {at}",
    direction=_fisher,
    rebuild=_fisher_again,
    keywords={"rank": 1, "tol": 1e-4},
    require=require_fisher,
    asked=("rank",),
    rebuilt_from=("rank",),
    kept_of_rows={
        "first_eigenvalue": lambda details: details["eigenvalues"][0],
        "explained_share": lambda details: details["explained_share"],
    },
)
