"""Directions read off the logits: one token's logit, a difference of two, one token's log-probability.

=====================  =====================  ==================================
scope                  V                      explains
=====================  =====================  ==================================
Semantic               ``a_target``           the target's logit (paper eq. 3)
Contrast               ``a_target − a_foil``  why this token and not that one
=====================  =====================  ==================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tl_scopes.directions.base import Reading, ReadOut, Rows, Scalar, chosen_target, each_alone, one_row
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import encode_targets
from tl_scopes.model.state import ModelState
from tl_scopes.numerics.precision import to_float64

Of = Literal["logit", "log_prob"]
"""What is explained of a token."""


@dataclass(frozen=True)
class Semantic:
    """``v = a_target``; None stands for the model's top prediction."""

    targets: tuple[int | None, ...]
    method: str = "semantic"

    def check(self, state: ModelState) -> None:
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
        V, weights = one_row(read.row(target))
        details = {"logit": float(read.logits[target]), "centred_unembedding": state.centred_unembedding}
        return Rows(V, weights, target, details, notes)

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The target's logit."""
        return Scalar(f"logit of {text(target)!r}", "logits", lambda run: to_float64(run.logits[:, target]))


@dataclass(frozen=True)
class Contrast:
    """``v = a_target − a_foil``."""

    targets: tuple[int | None, ...]
    foils: tuple[int, ...]
    method: str = "contrast"

    def check(self, state: ModelState) -> None:
        """Valid on every model, processed or not."""

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """Difference of two rows of the read-out."""
        foil = self.foils[read.index]
        target, notes = chosen_target(self.targets[read.index], read)
        if target == foil:
            raise ValueError(
                f"(target={target}, foil={foil}): target and foil are the same token (no target given: the model's top "
                "prediction), so there is nothing to contrast"
            )
        V, weights = one_row(read.row(target) - read.row(foil))
        details = {"foil": foil, "logit_difference": float(read.logits[target] - read.logits[foil])}
        return Rows(V, weights, target, details, notes)

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The difference of the two logits."""
        (foil,) = self.foils
        return Scalar(
            f"logit of {text(target)!r} less that of {text(foil)!r}",
            "nats of log-odds",
            lambda run: to_float64(run.logits[:, target] - run.logits[:, foil]),
        )


@dataclass(frozen=True)
class LogProb:
    """``v = a_target − Σ_i p_i a_i``, the gradient at y of the target's log-probability (minus its cross-entropy)."""

    targets: tuple[int | None, ...]
    method: str = "log_prob"

    def check(self, state: ModelState) -> None:
        """Valid on every model, processed or not."""

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """``Aᵀ(e_target − p)``; 1 − p_target is summed over the other tokens, so that it does not cancel."""
        target, notes = chosen_target(self.targets[read.index], read)
        weights = -read.logits.softmax(-1)
        weights[target] = 0
        weights[target] = -weights.sum()
        if read.slope is not None:
            weights = weights * read.slope
        V, ones = one_row(read.W_U.to(weights) @ weights)
        return Rows(V, ones, target, {"log_prob": float(read.logits.log_softmax(-1)[target])}, notes)

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The target's log-probability."""

        def read(run: Reading) -> Tensor:
            return run.each(lambda logits: to_float64(logits).log_softmax(-1)[:, target])

        return Scalar(f"log p of {text(target)!r}", "nats", read)


def _semantic(model: LensModel, n: int, keywords: Keywords) -> Semantic:
    return Semantic(tuple(encode_targets(model, keywords["target"], n)))


def _contrast(model: LensModel, n: int, keywords: Keywords) -> Contrast:
    targets = encode_targets(model, keywords["target"], n)
    foils = [f for f in encode_targets(model, keywords["foil"], n, argument="foil") if f is not None]
    if len(foils) < n:
        raise ValueError("(foil=None): the contrast scope needs a foil, a token that the target is compared with")
    return Contrast(tuple(targets), tuple(foils))


def _contrast_again(model: LensModel, explained: Explained) -> Contrast:
    return Contrast((explained.target,), (int(explained.details["foil"]),))


SEMANTIC = Scope(
    name="semantic",
    label="Semantic",
    summary="What moves the logit of one token",
    title="Semantic Scope: which tokens move the logit of {target}",
    unit="logit per unit of {at}",
    direction=_semantic,
    rebuild=lambda model, explained: Semantic((explained.target,)),
    keywords={"target": None},
    targeted=True,
    asked=("target",),
)
CONTRAST = Scope(
    name="contrast",
    label="Contrast",
    summary="Why this token and not that",
    title="Contrast Scope: which tokens prefer {target} to {foil}",
    unit="nats of log-odds per unit of {at}",
    direction=_contrast,
    rebuild=_contrast_again,
    keywords={"target": None, "foil": None},
    needs=("foil",),
    targeted=True,
    asked=("target", "foil"),
)
