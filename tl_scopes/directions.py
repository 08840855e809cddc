"""V for each explanandum: the rows at the final hidden state that a scope pulls back.

Legend: ``y`` final hidden state at the explained position; ``A = ∂z/∂y`` the model's real read-out (unembedding
rows times the slope of any soft cap or scale), with rows ``a_i``; ``p = softmax(z)``.

==================  =======================================  ================================
explanandum         rows of V                                explains
==================  =======================================  ================================
:class:`Semantic`   ``a_target``                             the target's logit
:class:`Contrast`   ``a_target − a_foil``                    why this token and not that one
:class:`Temperature`  ``y / ‖y‖₂``                           confidence ``β = ‖y‖₂``
:class:`Fisher`     ``u_1 … u_rank`` of F, weights λ_i/λ_1   the whole distribution
:class:`Direction`  the user's rows                          whatever they mean
==================  =======================================  ================================

A new scope adds a class here and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.fisher import TOGETHER, Eigenpairs, FisherInformation, leading_eigenpairs
from tl_scopes.model import ModelState, require_fisher, require_temperature
from tl_scopes.scores import root_of_squares

NEARLY_DEGENERATE = 0.95
"""Ratio λ_{r+1}/λ_r from which the r-th Fisher direction is called ill-defined."""


@dataclass(frozen=True, eq=False)
class ReadOut:
    """Everything at one explained position that a direction may depend on, in the computing dtype.

    Attributes:
        y: final hidden state.
        hidden: activation at the target hook; ``y`` itself by default.
        logits: as the model returns them.
        slope: their derivative by the raw logits, or None where it is 1.
        W_U: the unembedding, in the model's own dtype.
        index: number of the prompt in the call.
    """

    y: Float[Tensor, " d_model"]
    hidden: Tensor
    logits: Float[Tensor, " d_vocab"]
    slope: Float[Tensor, " d_vocab"] | None
    W_U: Float[Tensor, "d_model d_vocab"]
    index: int

    def row(self, token: int) -> Float[Tensor, " d_model"]:
        """``a_token = slope_token · w_token``."""
        w = self.W_U[:, token].to(self.y)
        return w if self.slope is None else w * self.slope[token]

    def fisher(self, state: ModelState) -> FisherInformation:
        """Fisher information at ``y``."""
        device = self.W_U.device
        slope = None if self.slope is None else self.slope.to(device)
        return FisherInformation(self.W_U.T, self.logits.to(device), slope, state.unembedding_norms)


@dataclass(frozen=True, eq=False)
class Scored:
    """One score per token, with its standard error where it was sampled."""

    scores: Float[Tensor, " pos"]
    stderr: Float[Tensor, " pos"] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of V for one prompt, with the weights of their squares in the score."""

    V: Tensor
    weights: Float[Tensor, " k"]
    target: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    given: bool = field(default=False, kw_only=True)
    """Did the caller give V? Then nothing but V itself can tell what is explained, and results keep it."""

    @property
    def may_ask(self) -> bool:
        """May :meth:`more` ask for further rows, so that the graph must be kept?"""
        return False

    def more(self, norms: Float[Tensor, "k pos"]) -> Tensor | None:
        """Further rows wanted after seeing the norms of all rows so far; None when there are enough."""
        return None

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """From the norms ``‖v_iᵀJ_t‖`` to the score."""
        return Scored(root_of_squares(norms, self.weights.to(norms)))


@runtime_checkable
class Explanandum(Protocol):
    """What a scope explains: a choice of V."""

    @property
    def method(self) -> str:
        """Name under which results are stored."""
        ...

    def check(self, state: ModelState, call: str) -> None:
        """Refuse a model on which this is not defined."""
        ...

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """V at each explained position of a forward."""
        ...


_Rows = Callable[[Any, ReadOut, ModelState], Rows]


def each_alone(rows: _Rows) -> Callable[[Any, Sequence[ReadOut], ModelState], list[Rows]]:
    """Makes :meth:`Explanandum.rows` of a method for one explained position."""

    @wraps(rows)
    def of_all(self: Any, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        return [rows(self, read, state) for read in reads]

    return of_all


def leading(
    reads: Sequence[ReadOut], state: ModelState, rank: int, tol: float
) -> Iterator[tuple[ReadOut, FisherInformation, Eigenpairs]]:
    """The leading eigenpairs of F at each explained position, found :data:`TOGETHER` at a time."""
    for first in range(0, len(reads), TOGETHER):
        group = reads[first : first + TOGETHER]
        fishers = [read.fisher(state) for read in group]
        yield from zip(group, fishers, leading_eigenpairs(fishers, rank, tol), strict=True)


def _one_row(v: Tensor) -> tuple[Tensor, Tensor]:
    return v[None], torch.ones(1, dtype=v.dtype, device=v.device)


@dataclass(frozen=True)
class Semantic:
    """``v = a_target``; None stands for the model's top prediction."""

    targets: tuple[int | None, ...]
    method: str = "semantic"

    def check(self, state: ModelState, call: str) -> None:
        """Valid on every model."""

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """The target's row of the read-out."""
        target, notes = chosen_target(self.targets[read.index], read)
        if state.centred_unembedding:
            notes += (
                "The unembedding is centred (center_unembed), so this is the logit relative to the mean logit: "
                "scores differ from the unprocessed model's by several per cent.",
            )
        V, weights = _one_row(read.row(target))
        details = {"logit": float(read.logits[target]), "centred_unembedding": state.centred_unembedding}
        return Rows(V, weights, target, details, notes)


@dataclass(frozen=True)
class Contrast:
    """``v = a_target − a_foil``."""

    targets: tuple[int | None, ...]
    foils: tuple[int, ...]
    method: str = "contrast"

    def check(self, state: ModelState, call: str) -> None:
        """Valid on every model, processed or not."""

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """Difference of two rows of the read-out."""
        foil = self.foils[read.index]
        target, notes = chosen_target(self.targets[read.index], read)
        if target == foil:
            raise ValueError(
                f"contrast_scope(target={target}, foil={foil}): target and foil are the same token (no target "
                "given: the model's top prediction), so there is nothing to contrast"
            )
        V, weights = _one_row(read.row(target) - read.row(foil))
        details = {"foil": foil, "logit_difference": float(read.logits[target] - read.logits[foil])}
        return Rows(V, weights, target, details, notes)


@dataclass(frozen=True)
class Temperature:
    """``v = ŷ = y/‖y‖₂``."""

    method: str = "temperature"

    def check(self, state: ModelState, call: str) -> None:
        """Refused where ‖y‖ is constant."""
        require_temperature(state, call)

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """The unit vector along y."""
        beta = torch.linalg.vector_norm(read.y)
        V, weights = _one_row(read.y / beta)
        exact = read.slope is None and not state.unembedding_bias
        notes: tuple[str, ...] = ()
        if not exact:
            notes = (
                "The logits are capped, scaled or biased, so ‖y‖ is not the exact inverse temperature of the "
                "distribution; the score is still that of ‖y‖.",
            )
        return Rows(V, weights, None, {"beta": float(beta), "beta_is_inverse_temperature": exact}, notes)


@dataclass(frozen=True)
class Fisher:
    """``V = u_1 … u_rank``, weights ``λ_i/λ_1``.

    An eigenvector has no sign of its own: each is turned so that a step along it raises the top prediction's probability.
    """

    rank: int
    tol: float
    method: str = "fisher"

    def check(self, state: ModelState, call: str) -> None:
        """Refused on processed weights, and for a rank or tolerance that makes no sense."""
        require_rank(state, self.rank, self.tol, call)

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """Leading eigenvectors of F with their certificate."""
        return [self._rows(fisher, pairs) for _, fisher, pairs in leading(reads, state, self.rank, self.tol)]

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
        return Rows(vectors, pairs.values / first, None, details, notes)


@dataclass(frozen=True, eq=False)
class Direction:
    """The user's rows, at any hook point."""

    V: Tensor
    method: str = "jacobian"

    def check(self, state: ModelState, call: str) -> None:
        """Refuse what is not one or several finite, non-zero rows."""
        if not isinstance(self.V, Tensor) or not self.V.is_floating_point():
            raise TypeError(f"{call}(direction=...): expected a floating-point tensor, got {type(self.V).__name__}")
        if self.V.ndim < 1 or self.V.numel() == 0:
            raise ValueError(f"{call}(direction=...): shape {list(self.V.shape)}; expected [d_model] or [k, d_model]")
        if not bool(torch.isfinite(self.V).all()):
            raise ValueError(f"{call}(direction=...): holds NaN or infinity")

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """The rows as they were given, all with weight 1; heads may be given as one flat row."""
        V, feature = self.V.detach().to(read.hidden), read.hidden.shape
        flat = len(feature) > 1 and V.ndim <= 2 and V.shape[-1] == feature.numel()
        if flat:
            V = V.reshape(*V.shape[:-1], *feature)
        if V.shape == feature:
            V = V[None]
        if V.shape[1:] != feature:
            raise ValueError(
                f"jacobian_scope(direction=...): shape {list(self.V.shape)} does not fit the activation "
                f"{list(feature)} at the target hook; expected {list(feature)} or [k, *{list(feature)}]"
            )
        return Rows(V, torch.ones(len(V), dtype=V.dtype, device=V.device), given=True)


def require_rank(state: ModelState, rank: int, tol: float, call: str, argument: str = "rank") -> None:
    """Refuse processed weights, and numbers of eigenpairs or tolerances that make no sense."""
    require_fisher(state, call)
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise TypeError(f"{call}({argument}={rank!r}): expected an integer")
    if not 1 <= rank <= state.cfg.d_model:
        raise ValueError(f"{call}({argument}={rank}): {argument} must be in 1..d_model={state.cfg.d_model}")
    if not (isinstance(tol, int | float) and 0 < tol < 1):
        raise ValueError(f"{call}(tol={tol!r}): tol is a relative residual between 0 and 1, e.g. 1e-4")


def chosen_target(target: int | None, read: ReadOut) -> tuple[int, tuple[str, ...]]:
    """The given target, or the model's top prediction and the sentence that says so."""
    if target is not None:
        return target, ()
    return int(read.logits.argmax()), ("No target was given: the model's own top prediction is explained.",)
