"""What a baseline explains of each prompt: one token after it, or several predictions together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import Readings, target_notes
from tl_scopes.directions.logits import Of
from tl_scopes.kernel.attributed import Answer
from tl_scopes.kernel.calls import encode
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.answers import with_targets
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.prompts import EncodedPrompt, Prompt, Target
from tl_scopes.model.soundness import require_causal


@dataclass(frozen=True, eq=False)
class Aim:
    """What a baseline explains of one prompt: one token after it, or several together.

    Attributes:
        prompt: with its answer behind it.
        given: the target at each explained position; None is the model's top prediction.
        of: the explained scalar.
    """

    prompt: EncodedPrompt
    given: tuple[int | None, ...]
    of: Of

    def chosen(self, unchanged: Readings) -> tuple[int, ...]:
        """The targets, where none was given the top prediction of the last run."""
        return tuple(
            int(one.predictions.top[-1]) if t is None else t for one, t in zip(unchanged, self.given, strict=True)
        )

    def named(self, unchanged: Sequence[Predictions]) -> tuple[int | None, ...]:
        """The targets as the result names them where nothing of them enters: of one prediction what was asked for."""
        if len(self.given) == 1:
            return self.given
        return tuple(int(one.top) if t is None else t for one, t in zip(unchanged, self.given, strict=True))

    def values(self, runs: Readings, targets: Sequence[int]) -> Float[Tensor, " runs"]:
        """The explained scalar in every run."""
        each = zip(runs, targets, strict=True)
        return torch.stack(
            [r.predictions.logit(t) if self.of == "logit" else r.predictions.log_prob(t) for r, t in each]
        ).sum(0)

    def answer(self, scores: Tensor, unchanged: Readings, details: dict[str, Any], notes: tuple[str, ...]) -> Answer:
        """The result's parts."""
        targets = self.chosen(unchanged)
        log_probs = [float(r.predictions[-1:].log_prob(t)) for r, t in zip(unchanged, targets, strict=True)]
        many = len(targets) > 1
        notes = (*target_notes([t is None for t in self.given]), *notes)
        return Answer(
            scores,
            targets if many else targets[0],
            {"of": self.of, **details},
            notes,
            target_log_probs=log_probs * many,
        )


def aims(
    model: LensModel, prompt: Prompt, target: Target, of: Of | None, options: RunOptions
) -> tuple[LensModel, list[Aim]]:
    """The prompts, their targets and what is explained of each: a logit, of an answer the log-probability."""
    model, prompts = encode(model, prompt, options, spans=True)
    prompts, targets, _ = with_targets(model, prompts, target)
    if any(len(one.positions) > 1 for one in prompts):
        require_causal(model)
    ends = list(accumulate(len(one.positions) for one in prompts))
    return model, [
        Aim(one, tuple(targets[end - len(one.positions) : end]), of or ("log_prob" if one.answer else "logit"))
        for one, end in zip(prompts, ends, strict=True)
    ]
