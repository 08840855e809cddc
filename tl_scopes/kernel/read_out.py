"""What a forward gives at the explained position: the read-out that directions depend on, and the top predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from tl_scopes.directions.base import ReadOut
from tl_scopes.model import prompts as _prompts
from tl_scopes.model.forward import ForwardPass
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions


def require_finite(run: ForwardPass) -> None:
    """Refuse logits that are no numbers."""
    if not run.predictions.finite:
        raise ValueError(
            "the model's logits hold NaN or infinity. Check its weights for NaN; in float16 activations "
            "may overflow: load the model in bfloat16 or float32"
        )


def read_outs(model: LensModel, run: ForwardPass, indices: Sequence[int]) -> list[ReadOut]:
    """What directions depend on, at every explained position of a run."""
    require_finite(run)
    dtype, W_U = run.predictions.dtype, model.W_U.detach()
    return [
        ReadOut(
            y=run.y[n].detach().to(dtype),
            hidden=run.hidden[n].detach().to(dtype),
            predictions=run.predictions[n : n + 1],
            W_U=W_U,
            index=index,
            tokens=run.tokens,
            place=run.places[n],
        )
        for n, index in enumerate(indices)
    ]


def top_predictions(model: LensModel, predicted: Predictions) -> tuple[list[tuple[str, float]], tuple[int, ...]]:
    """The most probable next tokens at one position with their probabilities, and their ids."""
    tokens, probabilities = (of[0].cpu() for of in predicted.leading())
    texts = _prompts.token_strings(model, tokens)
    return list(zip(texts, probabilities.tolist(), strict=True)), tuple(tokens.tolist())


def rank_together(predicted: Predictions, asked: Iterable[tuple[int, Sequence[int | None]]]) -> None:
    """Count in one walk the rank of what is explained at each position, where that is one token; kept for the results."""
    single = [(n, targets[0]) for n, targets in asked if len(targets) == 1 and targets[0] is not None]
    predicted[torch.tensor([n for n, _ in single], dtype=torch.int64)].ranks([target for _, target in single])


def target_string(model: LensModel, target: int | None) -> str | None:
    """The explained token as text."""
    return None if target is None else _prompts.token_strings(model, torch.tensor([target]))[0]
