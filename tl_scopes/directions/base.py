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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.model.state import ModelState
from tl_scopes.numerics.fisher_information import FisherInformation
from tl_scopes.numerics.norms import root_of_squares


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


def one_row(v: Tensor) -> tuple[Tensor, Tensor]:
    """V and weights of a single direction."""
    return v[None], torch.ones(1, dtype=v.dtype, device=v.device)


def chosen_target(target: int | None, read: ReadOut) -> tuple[int, tuple[str, ...]]:
    """The given target, or the model's top prediction and the sentence that says so."""
    if target is not None:
        return target, ()
    return int(read.logits.argmax()), ("No target was given: the model's own top prediction is explained.",)
