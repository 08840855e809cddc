"""Which runs share a forward: prompts of similar length, or copies of one prompt, as many as fit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from einops import repeat
from torch import Tensor

from tl_scopes.kernel.options import DEFAULT_BATCH, check_batch_size
from tl_scopes.model.forward import Recording
from tl_scopes.model.hooks import differentiable, require_hook
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import Run
from tl_scopes.model.prompts import EncodedPrompt, pad_right
from tl_scopes.model.soundness import refuse_unseen_future


def rows_per_forward(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    batch_size: int | None,
    *,
    at: str = "hook_embed",
    most: int = DEFAULT_BATCH,
) -> int:
    """The caller's batch size, checked; else as many copies of the longest prompt as fit with their graph, up to ``most``."""
    check_batch_size(batch_size)
    if batch_size is not None:
        return min(batch_size, sys.maxsize)  # as much as PyTorch counts
    require_hook(model, model.hook_dict, at, "at")
    longest, reads = max(p.pos for p in prompts) + 1, max(len(p.positions) for p in prompts)
    with differentiable(model):
        memory = Memory(model, Recording(at), checkpoint=False)
        while most > 1 and not memory.fits(Run(most, longest, most * reads)):
            most //= 2
    return most


def batches(prompts: Sequence[EncodedPrompt], size: int) -> Iterator[list[int]]:
    """Numbers of the prompts that run together, of similar length."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].pos)
    for first in range(0, len(order), size):
        yield order[first : first + size]


def padded(model: LensModel, prompts: Sequence[EncodedPrompt], batch: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Tokens and explained positions of some of the prompts, cut after the explained position and padded."""
    chosen = [prompts[i] for i in batch]
    refuse_unseen_future(model, chosen)
    cut = [replace(p, tokens=p.tokens[: p.pos + 1], str_tokens=p.str_tokens[: p.pos + 1]) for p in chosen]
    return pad_right(cut), torch.tensor([p.pos for p in chosen])


def packed(prompts: Sequence[EncodedPrompt], rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers of the prompts whose copies, ``rows`` of each, run together: at most ``size`` in all, or one prompt alone.

    They are of similar length and have as many explained positions.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].positions), prompts[i].pos))
    group: list[int] = []
    for i in order:
        fits = sum(rows[j] for j in group) + rows[i] <= size
        if group and not (fits and len(prompts[i].positions) == len(prompts[group[0]].positions)):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def copies(model: LensModel, prompts: Sequence[EncodedPrompt], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """As :func:`repeated`, of several prompts behind each other, right-padded."""
    each = [repeated(model, prompt, n) for prompt, n in zip(prompts, rows, strict=True)]
    longest = max(tokens.shape[1] for tokens, _ in each)
    padded = [torch.nn.functional.pad(tokens, (0, longest - tokens.shape[1])) for tokens, _ in each]
    return torch.cat(padded), torch.cat([read for _, read in each])


def repeated(model: LensModel, prompt: EncodedPrompt, n: int) -> tuple[Tensor, Tensor]:
    """Tokens and read positions of ``n`` copies of one prompt, cut after the explained position; all of a span's for each."""
    refuse_unseen_future(model, [prompt])
    tokens = repeat(prompt.tokens[: prompt.pos + 1], "pos -> n pos", n=n)
    return tokens, repeat(torch.tensor(prompt.span or (prompt.pos,)), "read -> (n read)", n=n)
