"""A direction: the rows V at the final hidden state that a scope pulls back, and the scalar whose gradient they are.

Legend: ``y`` final hidden state at the explained position; ``A = ∂z/∂y`` the model's real read-out (unembedding rows times
the slope of any soft cap or scale), with rows ``a_i``; ``p = softmax(z)``; ``h`` the activation at the target hook, ``y`` by
default.

How a change of the explained scalar from a run on ``x`` to one on ``x'`` is measured, with ``δ = x' − x``:

==============  =========================================================  ===================================
measure         measured                                                   predicted from ``G = V·J``
==============  =========================================================  ===================================
``signed``      ``s(x') − s(x)``; s a logit, a difference of logits,       ``Σ_t ⟨g_t, δ_t⟩``, error O(δ²)
                log p, ``‖y‖``, a moment, or ``vᵀh``
``norm``        ``‖V (h(x') − h(x))‖₂``, several rows of one's own          ``‖Σ_t G_t δ_t‖₂``, error O(δ²)
``divergence``  ``KL(p(x) ‖ p(x'))``, for Fisher and total information      ``½ Σ_i c_i (Σ_t ⟨G_it, δ_t⟩)²``, error O(δ³)
==============  =========================================================  ===================================

``c_i`` are the weights of the rows in ``tr F_t = Σ_i c_i ‖G_it‖²``: eigenvalues, or one over the number of probes. A
Fisher attribution of low rank predicts the part of the divergence that its own directions explain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.model.predictions import Predictions
from tl_scopes.model.probe_runs import Held
from tl_scopes.model.state import ModelState
from tl_scopes.numerics.fisher_information import FisherInformation
from tl_scopes.numerics.norms import root_of_squares
from tl_scopes.numerics.unembedding import RowSquares

Measure = Literal["signed", "norm", "divergence"]
Combine = Literal["sum", "norm"]
"""How several predictions become one score: the gradient of their sum, or the root of the sum of their squares."""


@dataclass(frozen=True, eq=False)
class ReadOut:
    """Everything at one explained position that a direction may depend on, in the computing dtype.

    Attributes:
        y: final hidden state.
        hidden: activation at the target hook; ``y`` itself by default.
        predictions: there.
        W_U: the unembedding, in the model's own dtype.
        index: number of the prompt in the call.
        tokens: of all prompts that run together, padded.
        place: (row of them, position).
    """

    y: Float[Tensor, " d_model"]
    hidden: Tensor
    predictions: Predictions
    W_U: Float[Tensor, "d_model d_vocab"]
    index: int
    tokens: Tensor
    place: tuple[int, int]

    @property
    def text(self) -> Tensor:
        """The tokens up to this position."""
        row, position = self.place
        return self.tokens[row, : position + 1]

    @property
    def logits(self) -> Float[Tensor, " d_vocab"]:
        """All of them, as the model returns them."""
        return self.predictions.of.source.logits[self.predictions.rows[0]].to(self.y)

    @property
    def slope(self) -> Float[Tensor, " d_vocab"] | None:
        """Their derivative by the raw logits in the model's dtype, or None where it is 1."""
        slope = self.predictions.of.source.slope
        return None if slope is None else slope[self.predictions.rows[0]]

    def fisher(self, row_squares: RowSquares) -> FisherInformation:
        """Fisher information at ``y``, with :attr:`ModelState.row_squares`, one for all positions."""
        device, slope = self.W_U.device, self.slope
        slope = None if slope is None else slope.to(device)
        return FisherInformation(self.W_U.T, self.logits.to(device), slope, row_squares)


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
    relative_to: float | None = field(default=None, kw_only=True)
    """What the weights are multiples of, where that is not 1: λ_1 of a Fisher scope."""
    root: bool = field(default=True, kw_only=True)
    """Is the score the root of the weighted squares, or their sum?"""
    offset: float = field(default=0.0, kw_only=True)
    """What the bias of the unembedding adds to the scalar, where that is linear in the logits."""

    @property
    def adaptive(self) -> bool:
        """May :meth:`next_rows` ask for further rows, so that the graph must be kept?"""
        return False

    @property
    def single(self) -> bool:
        """Is it one row, whose gradient can be kept and has a sign?"""
        return len(self.V) == 1 and not self.adaptive

    def next_rows(self, norms: Float[Tensor, "k pos"]) -> Tensor | None:
        """Further rows wanted after seeing the norms of all rows so far; None when there are enough."""
        return None

    def more(self, n: int) -> Tensor | None:
        """n random rows beside those with weights, where the score is a mean over such; None where it is exact."""
        return None

    def wanted(self, drawn: int, scored: Scored) -> int:
        """How many further random rows a rule for when to stop asks for."""
        return 0

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """From the norms ``‖v_iᵀJ_t‖`` to the score."""
        return Scored(root_of_squares(norms, self.weights.to(norms)))


@dataclass(frozen=True, eq=False)
class Reading:
    """What several runs on one prompt gave at its explained position.

    Attributes:
        predictions: there.
        hidden: activation at the target hook; by default the final hidden state.
    """

    predictions: Predictions
    hidden: Float[Tensor, "runs ..."]

    def __getitem__(self, runs: slice) -> Reading:
        """Of fewer runs."""
        return Reading(self.predictions[runs], self.hidden[runs])


Readings = tuple[Reading, ...]
"""What was read at each explained position."""


def joined(readings: Readings) -> Predictions:
    """The predictions of one run at all its explained positions."""
    first = readings[0].predictions
    return replace(first, rows=torch.cat([reading.predictions.rows for reading in readings]))


@dataclass(frozen=True, eq=False)
class Scalar:
    """The number that a direction explains, as something that a run can be read for.

    Attributes:
        name: for readers, e.g. ``"logit of ' dog'"``.
        unit: of its changes.
        read: the scalar of each run, ``[runs]``, or ``[runs, k]`` for several rows; unused by ``divergence``.
        measure: how changes are measured; see the table at the top of this file.
    """

    name: str
    unit: str
    read: Callable[[Reading], Tensor]
    measure: Measure = "signed"

    def change(self, base: Reading, changed: Reading) -> Float[Tensor, " runs"]:
        """Change of every run against the first run of ``base``, float64 on the CPU."""
        if self.measure == "divergence":
            before, after = base.predictions[:1], changed.predictions
            p = before.log_probs()[0].exp()
            own, other = (run.mean_logit(p) - run.normaliser for run in (before, after))
            return (own - other).cpu()  # both in the same way, so that a run differs from itself by 0
        change = (self.read(changed) - self.read(base)[:1]).cpu()
        return torch.linalg.vector_norm(change, dim=-1) if self.measure == "norm" else change

    def metric(self, base: Reading, run: Reading) -> Float[Tensor, " runs"]:
        """The scalar itself for patching: higher is nearer to ``base`` where it has no value of its own."""
        return self.read(run).cpu() if self.measure == "signed" else 0.0 - self.change(base, run)


def divergence() -> Scalar:
    """``KL(p ‖ p′)`` between the unchanged and the changed run's predictions."""
    return Scalar("KL(p ‖ p′)", "nats", lambda run: run.predictions.log_probs(), "divergence")


@runtime_checkable
class Direction(Protocol):
    """What a scope explains: a choice of V."""

    @property
    def method(self) -> str:
        """Name under which results are stored."""
        ...

    @property
    def combines(self) -> tuple[Combine, ...]:
        """The ways in which several predictions may be explained together; the first is the default."""
        ...

    def held(self, reads: int, W_U: Tensor) -> int | None:
        """Bytes at the worst moment while V is made for so many explained positions, beside the table of their logits.

        None where it does not look at all of p, so that a run need not make every logit.
        """
        ...

    def check(self, state: ModelState) -> None:
        """Refuse a model on which this is not defined, and keywords that make no sense on it."""
        ...

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """V at each explained position of a forward."""
        ...

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The scalar whose gradient V is; ``target`` is the explained token, ``text`` gives a token's."""
        ...


def held_by(directions: Sequence[Direction], W_U: Tensor) -> Held | None:
    """:meth:`Direction.held` of several, whose V are made one after another."""
    if all(direction.held(1, W_U) is None for direction in directions):
        return None
    return lambda reads: max(direction.held(reads, W_U) or 0 for direction in directions)


_Rows = Callable[[Any, ReadOut, ModelState], Rows]


def each_alone(rows: _Rows) -> Callable[[Any, Sequence[ReadOut], ModelState], list[Rows]]:
    """Makes :meth:`Direction.rows` of a method for one explained position."""

    @wraps(rows)
    def of_all(self: Any, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        return [rows(self, read, state) for read in reads]

    return of_all


def one_row(v: Tensor) -> tuple[Tensor, Tensor]:
    """V and weights of a single direction."""
    return v[None], torch.ones(1, dtype=v.dtype, device=v.device)


def chosen_target(target: int | None, read: ReadOut) -> tuple[int, tuple[str, ...]]:
    """The given target, or the model's top prediction and the sentence that says so."""
    return (int(read.predictions.top) if target is None else target), target_note(target)


def target_notes(chosen: Sequence[bool]) -> tuple[str, ...]:
    """:func:`target_note` of several predictions; ``chosen``: was the target of each the model's choice?"""
    if len(chosen) > 1 and chosen[-1] and not any(chosen[:-1]):
        return ("At the last position no target was given: there the model's own top prediction is explained.",)
    return target_note(None if any(chosen) else 0)


def target_note(target: int | None) -> tuple[str, ...]:
    """The sentence that says that the target was the model's choice."""
    return () if target is not None else ("Where no target was given, the model's own top prediction is explained.",)
