"""Directions read off the logits: one token's logit, a difference of two, one token's log-probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tl_scopes.directions.base import ReadOut, Rows, chosen_target, each_alone, one_row
from tl_scopes.model.state import ModelState


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
        V, weights = one_row(read.row(target))
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
        V, weights = one_row(read.row(target) - read.row(foil))
        details = {"foil": foil, "logit_difference": float(read.logits[target] - read.logits[foil])}
        return Rows(V, weights, target, details, notes)


@dataclass(frozen=True)
class LogProb:
    """``v = a_target − Σ_i p_i a_i``, the gradient at y of the target's log-probability (minus its cross-entropy)."""

    targets: tuple[int | None, ...]
    method: str = "log_prob"

    def check(self, state: ModelState, call: str) -> None:
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
        v = read.W_U.to(weights) @ weights
        details = {"log_prob": float(read.logits.log_softmax(-1)[target])}
        return Rows(v[None], torch.ones(1, dtype=v.dtype, device=v.device), target, details, notes)
