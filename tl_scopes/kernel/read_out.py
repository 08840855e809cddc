"""What a forward gives at the explained position: the read-out that directions depend on, and the top predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import ReadOut
from tl_scopes.model import prompts as _prompts
from tl_scopes.model.forward import ForwardPass
from tl_scopes.model.lens import LensModel
from tl_scopes.numerics.precision import compute_dtype

N_PREDICTIONS = 7


def require_finite(run: ForwardPass) -> None:
    """Refuse logits that are no numbers."""
    if not bool(torch.isfinite(run.logits).all()):
        raise ValueError(
            "the model's logits hold NaN or infinity. Check its weights for NaN; in float16 activations "
            "may overflow: load the model in bfloat16 or float32"
        )


def read_outs(model: LensModel, run: ForwardPass, indices: Sequence[int]) -> list[ReadOut]:
    """What directions depend on, at every explained position of a run."""
    require_finite(run)
    dtype, device, W_U = compute_dtype(run.logits.dtype), run.y.device, model.W_U.detach()
    return [
        ReadOut(
            y=run.y[n].detach().to(dtype),
            hidden=run.hidden[n].detach().to(dtype),
            logits=run.logits[n].to(device, dtype),
            slope=None if run.slope is None else run.slope[n].to(device, dtype),
            W_U=W_U,
            index=index,
        )
        for n, index in enumerate(indices)
    ]


def top_predictions(
    model: LensModel, log_probs: Float[Tensor, " d_vocab"]
) -> tuple[list[tuple[str, float]], tuple[int, ...]]:
    """The most probable next tokens with their probabilities, and their ids."""
    best = log_probs.topk(min(N_PREDICTIONS, len(log_probs)))
    texts = _prompts.token_strings(model, best.indices.cpu())
    return list(zip(texts, best.values.exp().tolist(), strict=True)), tuple(best.indices.tolist())


def target_string(model: LensModel, target: int | None) -> str | None:
    """The explained token as text."""
    return None if target is None else _prompts.token_strings(model, torch.tensor([target]))[0]
