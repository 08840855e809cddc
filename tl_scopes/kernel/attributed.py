"""The one place where attributions are made: scores and what they explain, with the prompt, the predictions and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.kernel.read_out import target_string, top_predictions
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.prompts import EncodedPrompt, token_strings
from tl_scopes.model.soundness import NOT_CAUSAL
from tl_scopes.model.state import model_state
from tl_scopes.results.attribution import Attribution


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method says of one prompt; tokens after the explained one may be left off, where everything is 0.

    Attributes:
        scores: one per token.
        target: explained token, or None; of several positions the token at each of them.
        details: of the method.
        notes: for the reader.
        stderr: of the scores, where they were sampled.
        gradient: ``[pos, d_model]``, where it is kept.
        signed: ``[pos]``, where there is a sign.
        target_log_probs: of the targets of several positions.
    """

    scores: Float[Tensor, " pos"]
    target: int | Sequence[int | None] | None
    details: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    stderr: Float[Tensor, " pos"] | None = None
    gradient: Float[Tensor, "pos d_model"] | None = None
    signed: Float[Tensor, " pos"] | None = None
    target_log_probs: Sequence[float] = ()


def attributed(
    model: LensModel, prompt: EncodedPrompt, predicted: Predictions, method: str, answer: Answer
) -> Attribution:
    """The frozen result, in the dtype of the predictions; ``predicted`` is that at the explained position."""
    n, dtype = len(prompt.tokens), predicted.dtype
    top, top_tokens = top_predictions(model, predicted)
    details = {**answer.details, **how_attention_ran(predicted)}
    targets = answer.target if isinstance(answer.target, Sequence) else (answer.target,)
    target = targets[0] if len(targets) == 1 else None
    text = target_string(model, target)
    if target is not None:
        details["target_probability"] = float(predicted.log_prob(target).exp())
        (details["target_rank"],) = predicted.ranks([target])
    elif targets[0] is not None:
        said = token_strings(model, torch.tensor(targets))
        own = len(prompt.span)
        text = "".join(said[:own])
        details["log_prob"] = sum(answer.target_log_probs[:own])
        details["target_log_probs"] = list(answer.target_log_probs[:own])
        details["target_strs"] = list(said[:own])
        if prompt.against is not None:
            details["foil_str"] = "".join(said[own:])
            details["foil_log_prob"] = sum(answer.target_log_probs[own:])
            details["log_prob_difference"] = details["log_prob"] - details["foil_log_prob"]
    if "foil" in details.get("by_position", {}):
        foils = details["by_position"]["foil"]
        details["foil_str"] = "".join(token_strings(model, torch.tensor(foils)))
    if "foil" in details:
        details["foil_str"] = target_string(model, int(details["foil"]))
    return Attribution(
        scores=_padded(answer.scores, n).to(dtype),
        stderr=None if answer.stderr is None else _padded(answer.stderr, n).to(dtype),
        tokens=prompt.tokens,
        str_tokens=prompt.str_tokens,
        pos=prompt.pos,
        method=method,
        target=target,
        target_str=text,
        span=prompt.span,
        answer=prompt.answer,
        targets=tuple(targets[: len(prompt.span)]) if prompt.span else (),
        top_predictions=top,
        top_tokens=top_tokens,
        gradient=None if answer.gradient is None else _padded(answer.gradient, n).to(dtype),
        signed=None if answer.signed is None else _padded(answer.signed, n).to(dtype),
        details=details,
        notes=(*prompt.notes, *answer.notes),
        provenance=provenance(model, details),
        special=prompt.special,
        text=prompt.text,
        offsets=prompt.offsets,
        units=prompt.units,
    )


def how_attention_ran(predicted: Predictions) -> dict[str, list[str]]:
    """``{"attention": ...}``: how a long run computed each of its attentions, in order; nothing of a short one."""
    return {"attention": list(predicted.of.attention)} if predicted.of.attention else {}


def provenance(model: LensModel, details: Mapping[str, Any]) -> dict[str, Any]:
    """The model's state, and which linearisation of it gave the scores where that is not the exact one."""
    return model_state(model).provenance() | {key: details[key] for key in ("frozen", "through") if key in details}


def _padded(values: Tensor, n: int) -> Tensor:
    """On the CPU, with zeros for the positions after the last one given."""
    out = torch.zeros(n, *values.shape[1:], dtype=values.dtype)
    out[: len(values)] = values.detach().cpu()
    return out


def refuse_influence_from_the_future(scores: Float[Tensor, " pos"], pos: int) -> None:
    """Scores after the explained position must be exactly 0.

    Raises:
        ValueError: they are not.
    """
    if bool(scores[pos + 1 :].any()):
        raise ValueError(
            f"tokens after position {pos} influence the prediction there, so this model is not causal; Jacobian Scopes "
            "explain causal language models"
        )


def refuse_influence_of_padding(norms: Float[Tensor, "k read pos"], lengths: Sequence[int]) -> None:
    """What stands behind a prompt in its batch must have no influence at all.

    Raises:
        ValueError: it has.
    """
    if any(bool(norms[:, n, length:].any()) for n, length in enumerate(lengths)):
        raise ValueError(NOT_CAUSAL)
