"""Where a path to a prompt's embeddings begins: ``x'``, chosen by name or given.

====================  =================================================================================================
``"zero"``            0 everywhere
``"mean"``            the mean row of the prompt's tokens up to ``pos`` that are not special
``"pad"``             the padding token's rows
a token id            that token's rows
a tensor of ids       another prompt's rows, token by token, as those of a counterpart prompt
a tensor of floats    itself, ``[d_model]`` or ``[pos, d_model]``
====================  =================================================================================================

Special tokens keep their own rows under ``"mean"``, ``"pad"`` and a token id: much of a model's attention rests on its BOS,
and a path on which BOS fades turns abruptly, wherever it began.

Zero is out of distribution, and for a norm without mean it is no point but a limit: ``x/√(mean x² + eps)`` turns around
``|x| = √eps``, in every layer at another α, so that all of a model's answer can lie below any step.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.kernel.ablation import substitutes
from tl_scopes.kernel.batching import repeated
from tl_scopes.kernel.interventions import Change, run_changed
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.numerics.precision import to_float64

StartName = Literal["zero", "mean", "pad"]
OTHER_STARTS = (
    "baseline='mean', the id of a token that says nothing, or the ids of another prompt of as many tokens, such as one with "
    "the decisive word exchanged"
)
"""What is recommended where zero is no start."""
JUMP = 0.1
"""Relative change of y within no way at all from a baseline; smooth models stay far below."""


def jumps(start: Float[Tensor, " d_model"], beside: Float[Tensor, " d_model"]) -> bool:
    """Is the final hidden state beside a baseline another than at it, so that the baseline is a limit and no point?"""
    start, beside = to_float64(start), to_float64(beside)
    return float((beside - start).norm()) > JUMP * float(beside.norm())


def start_name(baseline: StartName | int | Tensor) -> str:
    """For results: a name, ``"token 5"``, ``"prompt"`` or ``"given"``."""
    if isinstance(baseline, Tensor):
        return "given" if baseline.is_floating_point() else "prompt"
    return baseline if isinstance(baseline, str) else f"token {baseline}"


def path_start(model: LensModel, prompt: EncodedPrompt, baseline: StartName | int | Tensor, at: str) -> Change:
    """x' as a function of the activation ``[batch, pos, d_model]``.

    Raises:
        TypeError: a tensor of neither floats nor integers.
        ValueError: a baseline that does not fit; no padding token.
    """
    if isinstance(baseline, Tensor):
        if baseline.is_complex() or baseline.dtype == torch.bool:
            raise TypeError(f"(baseline=...): expected embeddings or token ids, got {baseline.dtype}")
        if not baseline.is_floating_point():
            return _rows_of(model, prompt, baseline, at)
        if not bool(torch.isfinite(baseline).all()):
            raise ValueError("(baseline=...): holds NaN or infinity")
        return _given(model, prompt, baseline.detach())
    if not isinstance(baseline, str):
        return _rows_of(model, prompt, _everywhere(prompt, int(baseline)), at)
    if baseline == "pad":
        pad = getattr(model.tokenizer, "pad_token_id", None)
        if pad is None:
            raise ValueError("(baseline='pad'): this model's tokenizer has no padding token; use 'zero' or 'mean'")
        return _rows_of(model, prompt, _everywhere(prompt, pad), at)
    if baseline == "zero":
        return torch.zeros_like
    if baseline == "mean":
        kept = [p for p in range(prompt.pos + 1) if p not in prompt.special] or list(range(prompt.pos + 1))
        values, chosen = substitutes("mean", kept, prompt.tokens, 0), torch.zeros(prompt.pos + 1, 1, dtype=torch.bool)
        chosen[kept] = True
        return lambda x: torch.where(chosen.to(x.device), values(x[0]), x)
    raise ValueError(
        f"(baseline={baseline!r}): expected 'zero', 'mean', 'pad', a token id, or a tensor of embeddings or of ids"
    )


def _everywhere(prompt: EncodedPrompt, token: int) -> Tensor:
    """The prompt's tokens, all but the special ones this one."""
    ids = prompt.tokens[: prompt.pos + 1].clone()
    ids[[p for p in range(len(ids)) if p not in prompt.special]] = token
    return ids


def _given(model: LensModel, prompt: EncodedPrompt, baseline: Tensor) -> Change:
    """Embeddings of the caller's own."""
    shape = (prompt.pos + 1, model.cfg.d_model)
    try:
        rows = (baseline[..., : shape[0], :] if baseline.ndim == 2 and len(baseline) > 1 else baseline).expand(shape)
    except (RuntimeError, IndexError):
        raise ValueError(
            f"(baseline=tensor of shape {list(baseline.shape)}): expected [d_model] or [pos, d_model] with "
            f"d_model={shape[1]} and at least {shape[0]} positions"
        ) from None
    return lambda x: rows.to(x).expand_as(x)


def _rows_of(model: LensModel, prompt: EncodedPrompt, ids: Tensor, at: str) -> Change:
    """What stands at the hook for other tokens in the place of the prompt's."""
    tokens, read = repeated(model, prompt, 1)
    given = ids[0] if ids.ndim == 2 and len(ids) == 1 else ids
    if given.ndim != 1 or len(given) < tokens.shape[1]:
        raise ValueError(
            f"(baseline=tensor of ids {list(ids.shape)}): expected one id for each of at least {tokens.shape[1]} tokens "
            "up to the explained position"
        )
    given, d_vocab = given[: tokens.shape[1]].to(tokens), model.W_U.shape[1]
    outside = [i for i in given.tolist() if not 0 <= i < d_vocab]
    if outside:
        raise ValueError(f"(baseline=...): token id {outside[0]} is outside the vocabulary 0..{d_vocab - 1}")
    rows = run_changed(model, given[None], read, at=at).x[0]
    return lambda x: rows.to(x).expand_as(x)
