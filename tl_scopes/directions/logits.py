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
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import Combine, ReadOut, Rows, Scalar, chosen_target, one_row
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.answers import Side
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions
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

    def held(self, reads: int, W_U: Tensor) -> None:
        """No whole distribution is looked at."""

    def check(self, state: ModelState) -> None:
        """Valid on every model, processed or not."""

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """The target's row of the read-out, less the mean row where its log-probability is explained."""
        predictions, b_U = together(reads), state.model.b_U.detach() if state.unembedding_bias else None
        targets, notes = zip(*(chosen_target(self.targets[read.index], read) for read in reads), strict=True)
        rows = predictions.logit_rows(targets).to(reads[0].y)
        logits, log_probs = predictions.logit(targets).tolist(), predictions.log_prob(targets).tolist()
        offsets = [0.0] * len(reads) if b_U is None else (b_U[list(targets)] * predictions.own_slopes(targets)).tolist()
        ofs = [self.of if isinstance(self.of, str) else self.of[read.index] for read in reads]
        by_log_prob = [n for n, of in enumerate(ofs) if of == "log_prob"]
        slopes = dict(zip(by_log_prob, log_prob_rows([(reads[n], targets[n]) for n in by_log_prob], b_U), strict=True))
        found = []
        for n, target in enumerate(targets):
            details: dict[str, Any] = {"of": ofs[n], "logit": logits[n]}
            v, offset, said = rows[n], offsets[n], notes[n]
            if n in slopes:
                details["log_prob"] = log_probs[n]
                v, offset = slopes[n]
            elif state.centred_unembedding:
                said += (
                    "The unembedding is centred (center_unembed), so this is the logit relative to the mean logit: "
                    "scores differ from the unprocessed model's by several per cent.",
                )
            details["centred_unembedding"] = state.centred_unembedding
            found.append(Rows(*one_row(v), target, details, said, offset=offset))
        return found

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The target's logit, or its log-probability."""
        if self.of == "logit":
            return Scalar(f"logit of {text(target)!r}", "logits", lambda run: to_float64(run.predictions.logit(target)))
        return Scalar(f"log p of {text(target)!r}", "nats", lambda run: run.predictions.log_prob(target))


def together(reads: Sequence[ReadOut]) -> Predictions:
    """What is predicted at explained positions of one run, to be asked at once: a GPU waits for each answer."""
    return replace(reads[0].predictions, rows=torch.cat([read.predictions.rows for read in reads]))


def log_prob_rows(
    asked: Sequence[tuple[ReadOut, int]], b_U: Float[Tensor, " d_vocab"] | None = None
) -> list[tuple[Float[Tensor, " d_model"], float]]:
    """``Aᵀ(e_target − p)`` of each, and what the unembedding's bias adds along it; those of one run share a walk."""
    if not asked:
        return []
    reads, targets = zip(*asked, strict=True)
    rows, offsets = together(reads).log_prob_rows(targets, b_U)
    return list(zip(rows.to(reads[0].y), offsets.tolist(), strict=True))


@dataclass(frozen=True)
class Contrast:
    """``v = a_target − a_foil``; of two answers, ``±Aᵀ(e_token − p)`` at the tokens of one and of the other."""

    combines: ClassVar[tuple[Combine, ...]] = ("sum", "norm")

    targets: tuple[int | None, ...]
    foils: tuple[int | Side, ...]
    method: str = "contrast"

    def held(self, reads: int, W_U: Tensor) -> None:
        """No whole distribution is looked at."""

    def check(self, state: ModelState) -> None:
        """Valid on every model, processed or not."""

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """Difference of two rows of the read-out, or of two log-probabilities at the two sides' positions."""
        predictions = together(reads)
        targets, notes = zip(*(chosen_target(self.targets[read.index], read) for read in reads), strict=True)
        foils = [self.foils[read.index] for read in reads]
        plain = [target if isinstance(foil, Side) else foil for target, foil in zip(targets, foils, strict=True)]
        rows = (predictions.logit_rows(targets) - predictions.logit_rows(plain)).to(reads[0].y)
        differences = (predictions.logit(targets) - predictions.logit(plain)).tolist()
        log_probs = predictions.log_prob(targets).tolist()
        sides = [n for n, foil in enumerate(foils) if isinstance(foil, Side)]
        slopes = dict(zip(sides, log_prob_rows([(reads[n], targets[n]) for n in sides]), strict=True))
        found: list[Rows] = []
        for n, (target, foil) in enumerate(zip(targets, foils, strict=True)):
            if isinstance(foil, Side):
                details = {"of": "log_prob", "log_prob": log_probs[n]}
                found.append(Rows(*one_row(foil.sign * slopes[n][0]), target, details, notes[n]))
                continue
            if target == foil:
                top = " (no target given: the model's top prediction)" if notes[n] else ""
                raise ValueError(
                    f"(target={target}, foil={foil}): target and foil are the same token{top}, so there is nothing "
                    "to contrast"
                )
            details = {"foil": foil, "logit_difference": differences[n]}
            found.append(Rows(*one_row(rows[n]), target, details, notes[n]))
        return found

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The difference of the two logits."""
        (foil,) = self.foils
        assert isinstance(foil, int)
        return Scalar(
            f"logit of {text(target)!r} less that of {text(foil)!r}",
            "nats of log-odds",
            lambda run: to_float64(run.predictions.logit(target) - run.predictions.logit(foil)),
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
    title="Semantic Scope: which {tokens} move the {of} of {target}",
    unit="{unit} per unit of {at}",
    direction=_semantic,
    rebuild=lambda model, explained: Semantic((explained.target,), explained.details.get("of", "logit")),
    keywords={"target": None, "of": None},
    rebuilt_from=("of",),
    targeted=True,
    asked=("target",),
)
CONTRAST = Scope(
    name="contrast",
    label="Contrast",
    summary="Why this token and not that",
    title="Contrast Scope: which {tokens} prefer {target} to {foil}",
    unit="nats of log-odds per unit of {at}",
    direction=_contrast,
    rebuild=_contrast_again,
    keywords={"target": None, "foil": None, "of": None},
    needs=("foil",),
    rebuilt_from=("foil",),
    targeted=True,
    asked=("target", "foil"),
)
