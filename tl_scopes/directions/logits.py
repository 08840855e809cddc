"""Directions read off the logits: one token's logit, a difference of two, one token's log-probability.

=====================  =====================  ==================================
scope                  V                      explains
=====================  =====================  ==================================
Semantic               ``a_target``           the target's logit (paper eq. 3)
Contrast               ``a_target − a_foil``  why this token and not that one
=====================  =====================  ==================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import BLOCK, Combine, Reading, ReadOut, Rows, Scalar, chosen_target, one_row
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.answers import Side
from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import ModelState
from tl_scopes.model.targets import encode_targets
from tl_scopes.numerics.precision import to_float64

Of = Literal["logit", "log_prob"]
"""What is explained of a token."""


@dataclass(frozen=True)
class Semantic:
    """``v = a_target``, or ``v = Aᵀ(e_target − p)``, the gradient at y of the target's log-probability.

    Attributes:
        targets: at each explained position; None stands for the model's top prediction.
        of: what is explained of each target, or of all of them.
    """

    combines: ClassVar[tuple[Combine, ...]] = ("sum", "norm")

    targets: tuple[int | None, ...]
    of: Of | tuple[Of, ...] = "logit"
    method: str = "semantic"

    def check(self, state: ModelState) -> None:
        """Valid on every model, processed or not."""

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """The target's row of the read-out, less the mean row where its log-probability is explained."""
        ofs = [self.of if isinstance(self.of, str) else self.of[read.index] for read in reads]
        chosen = [chosen_target(self.targets[read.index], read) for read in reads]
        by_log_prob = [n for n, of in enumerate(ofs) if of == "log_prob"]
        slopes = dict(zip(by_log_prob, log_prob_rows([(reads[n], chosen[n][0]) for n in by_log_prob]), strict=True))
        found, b_U = [], state.model.b_U.detach() if state.unembedding_bias else None
        for n, (read, (target, notes)) in enumerate(zip(reads, chosen, strict=True)):
            details: dict[str, Any] = {"of": ofs[n], "logit": float(read.logits[target])}
            if n in slopes:
                details["log_prob"] = float(read.logits.log_softmax(-1)[target])
            elif state.centred_unembedding:
                notes += (
                    "The unembedding is centred (center_unembed), so this is the logit relative to the mean logit: "
                    "scores differ from the unprocessed model's by several per cent.",
                )
            details["centred_unembedding"] = state.centred_unembedding
            V, weights = one_row(slopes[n] if n in slopes else read.row(target))
            offset = 0.0 if b_U is None else _offset(read, target, ofs[n], b_U)
            found.append(Rows(V, weights, target, details, notes, offset=offset))
        return found

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The target's logit, or its log-probability."""
        if self.of == "logit":
            return Scalar(f"logit of {text(target)!r}", "logits", lambda run: to_float64(run.logits[:, target]))

        def read(run: Reading) -> Tensor:
            return run.each(lambda logits: to_float64(logits).log_softmax(-1)[:, target])

        return Scalar(f"log p of {text(target)!r}", "nats", read)


def log_prob_rows(asked: Sequence[tuple[ReadOut, int]]) -> list[Float[Tensor, " d_model"]]:
    """``Aᵀ(e_target − p)`` of each; 1 − p_target is summed over the other tokens, so that it does not cancel.

    As many as :data:`BLOCK` allows share a pass over the unembedding.
    """
    found: list[Tensor] = []
    size = max(1, 8 * BLOCK // len(asked[0][0].logits)) if asked else 1
    for first in range(0, len(asked), size):
        rows = [_log_prob_weights(read, target) for read, target in asked[first : first + size]]
        W_U = asked[first][0].W_U.to(rows[0])
        found += [W_U @ rows[0]] if len(rows) == 1 else list((W_U @ torch.stack(rows, dim=1)).T)
    return found


def _log_prob_weights(read: ReadOut, target: int) -> Float[Tensor, " d_vocab"]:
    """``slope ⊙ (e_target − p)``."""
    weights = -read.logits.softmax(-1)
    weights[target] = 0
    weights[target] = -weights.sum()
    return weights if read.slope is None else weights * read.slope


def _offset(read: ReadOut, target: int, of: Of, b_U: Float[Tensor, " d_vocab"]) -> float:
    """What the unembedding's bias adds to the logit, or along the slope of the log-probability."""
    if of == "log_prob":
        weights = to_float64(_log_prob_weights(read, target))
        return float(weights @ to_float64(b_U).to(weights.device))
    return float(b_U[target]) * (1.0 if read.slope is None else float(read.slope[target]))


@dataclass(frozen=True)
class Contrast:
    """``v = a_target − a_foil``; of two answers, ``±Aᵀ(e_token − p)`` at the tokens of one and of the other."""

    combines: ClassVar[tuple[Combine, ...]] = ("sum", "norm")

    targets: tuple[int | None, ...]
    foils: tuple[int | Side, ...]
    method: str = "contrast"

    def check(self, state: ModelState) -> None:
        """Valid on every model, processed or not."""

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """Difference of two rows of the read-out, or of two log-probabilities at the two sides' positions."""
        chosen = [chosen_target(self.targets[read.index], read) for read in reads]
        sides = [n for n, read in enumerate(reads) if isinstance(self.foils[read.index], Side)]
        slopes = dict(zip(sides, log_prob_rows([(reads[n], chosen[n][0]) for n in sides]), strict=True))
        found: list[Rows] = []
        for n, (read, (target, notes)) in enumerate(zip(reads, chosen, strict=True)):
            foil = self.foils[read.index]
            if isinstance(foil, Side):
                details = {"of": "log_prob", "log_prob": float(read.logits.log_softmax(-1)[target])}
                found.append(Rows(*one_row(foil.sign * slopes[n]), target, details, notes))
                continue
            if target == foil:
                top = " (no target given: the model's top prediction)" if notes else ""
                raise ValueError(
                    f"(target={target}, foil={foil}): target and foil are the same token{top}, so there is nothing "
                    "to contrast"
                )
            details = {"foil": foil, "logit_difference": float(read.logits[target] - read.logits[foil])}
            found.append(Rows(*one_row(read.row(target) - read.row(foil)), target, details, notes))
        return found

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The difference of the two logits."""
        (foil,) = self.foils
        assert isinstance(foil, int)
        return Scalar(
            f"logit of {text(target)!r} less that of {text(foil)!r}",
            "nats of log-odds",
            lambda run: to_float64(run.logits[:, target] - run.logits[:, foil]),
        )


def _semantic(model: LensModel, n: int, keywords: Keywords) -> Semantic:
    of: Of | Sequence[Of] = keywords["of"] or "logit"
    own = tuple(of) if isinstance(of, list) else of
    return Semantic(tuple(encode_targets(model, keywords["target"], n)), own)  # type: ignore[arg-type]


def _contrast(model: LensModel, n: int, keywords: Keywords) -> Contrast:
    targets = encode_targets(model, keywords["target"], n)
    given = keywords["foil"]
    sides = isinstance(given, list) and any(isinstance(foil, Side) for foil in given)
    foils: list[Any] = given if sides else encode_targets(model, given, n, argument="foil")
    if any(foil is None for foil in foils):
        raise ValueError("(foil=None): the contrast scope needs a foil, a token that the target is compared with")
    return Contrast(tuple(targets), tuple(foils))


def _contrast_again(model: LensModel, explained: Explained) -> Contrast:
    return Contrast((explained.target,), (int(explained.details["foil"]),))


SEMANTIC = Scope(
    name="semantic",
    label="Semantic",
    summary="What moves the logit of one token",
    title="Semantic Scope: which tokens move the {of} of {target}",
    unit="{unit} per unit of {at}",
    direction=_semantic,
    rebuild=lambda model, explained: Semantic((explained.target,), explained.details.get("of", "logit")),
    keywords={"target": None, "of": None},
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
    keywords={"target": None, "foil": None, "of": None},
    needs=("foil",),
    targeted=True,
    asked=("target", "foil"),
)
