"""The model with tokens removed: what is put in their place, and what is read at the explained position.

Ablations replace a token's row of the activation ``x`` at the source hook by

=============  ===========================================================================================
``"zero"``     0
``"mean"``     the mean row over the prompt's tokens that may be removed
``"resample"`` the row of another such token of the prompt, drawn once per prompt (the same for all methods)
=============  ===========================================================================================

Draws come from a generator seeded by the caller's seed and the prompt's tokens: they do not depend on the batch, on
other prompts or on the global random state, which is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.directions.base import Reading, Readings
from tl_scopes.kernel.batching import copies, repeated
from tl_scopes.kernel.interventions import each_its_own, run_changed, slices
from tl_scopes.model.forward import Recording
from tl_scopes.model.hooks import Y_HOOK
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.numerics.progress import progress
from tl_scopes.results.verdict import Ablation as Ablation


def substitutes(
    ablation: Ablation, candidates: Sequence[int], tokens: Int[Tensor, " pos"], seed: int
) -> Callable[[Float[Tensor, "pos d_model"]], Float[Tensor, "pos d_model"]]:
    """What each removed row of x becomes, as a function of x; see the table at the top of this file."""
    chosen = torch.tensor(sorted(candidates), dtype=torch.int64)
    source = torch.arange(len(tokens))
    if ablation == "resample" and len(chosen) > 1:
        # a cyclic shift of a random order: nobody stays in place
        order = chosen[torch.randperm(len(chosen), generator=prompt_generator(seed, tokens))]
        source[order] = order.roll(1)

    def values(x: Tensor) -> Tensor:
        if ablation == "zero":
            return torch.zeros_like(x)
        if ablation == "mean":
            mean = x[chosen.to(x.device)].to(compute_dtype(x.dtype)).mean(dim=0)
            return mean.to(x).expand_as(x)
        return x[source[: len(x)].to(x.device)]

    return values


def run_ablated(
    model: LensModel,
    prompt: EncodedPrompt,
    sets: Sequence[Sequence[int]],
    values: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    at: str = "hook_embed",
    target_hook: str = Y_HOOK,
) -> Iterator[Readings]:
    """What is read at each explained position with each set of positions replaced, ``batch_size`` sets at a time.

    All sets of one prompt are one batch, or a few. Positions after the explained one are cut off: nothing there can reach it.
    """
    length = prompt.pos + 1
    removed = torch.zeros(len(sets), length, dtype=torch.bool)
    for row, positions in enumerate(sets):
        removed[row, [p for p in positions if p < length]] = True
    parts = torch.split(removed, batch_size) if sets else ()
    for part in progress(parts, unit="batch"):
        change = partial(_removed, part, values)
        run = run_changed(
            model, *repeated(model, prompt, len(part)), changes=[(at, change)], at=Recording(at, target_hook)
        )
        yield run.readings


@dataclass(frozen=True, eq=False)
class Ablated:
    """What is kept of the runs with sets of positions replaced.

    Attributes:
        tokens: whose logit and log-probability are read, at each explained position.
        logit: ``[sets]``, of all positions together.
        log_prob: ``[sets]``, of all positions together.
        first: what is predicted at each position with the first set replaced.
    """

    tokens: tuple[int, ...]
    logit: Float[Tensor, " sets"]
    log_prob: Float[Tensor, " sets"]
    first: tuple[Predictions, ...]


def ablated(
    model: LensModel,
    prompt: EncodedPrompt,
    sets: Sequence[Sequence[int]],
    values: Callable[[Tensor], Tensor],
    tokens: Sequence[int | None],
    *,
    batch_size: int,
    at: str = "hook_embed",
) -> Ablated:
    """A token's logit and log-probability with each set replaced, or the sums of several positions' tokens.

    None is the top prediction with the first set replaced.
    """
    parts: list[Ablated] = []
    for runs in run_ablated(model, prompt, sets, values, batch_size=batch_size, at=at):
        parts.append(_read(runs, parts[0].tokens if parts else tokens))
    logit, log_prob = (torch.cat(of) for of in zip(*((part.logit, part.log_prob) for part in parts), strict=True))
    return replace(parts[0], logit=logit, log_prob=log_prob)


def ablated_together(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    sets: Sequence[Sequence[Sequence[int]]],
    values: Sequence[Callable[[Tensor], Tensor]],
    tokens: Sequence[Sequence[int | None]],
    *,
    at: str = "hook_embed",
) -> list[Ablated]:
    """As :func:`ablated`, of several prompts with their own sets in one forward; each has as many explained positions."""
    rows = [len(own) for own in sets]
    changes = []
    for prompt, own, value in zip(prompts, sets, values, strict=True):
        removed = torch.zeros(len(own), prompt.pos + 1, dtype=torch.bool)
        for row, positions in enumerate(own):
            removed[row, list(positions)] = True
        changes.append(partial(_removed, removed, value))
    run = run_changed(
        model,
        *copies(model, prompts, rows),
        changes=[(at, each_its_own(prompts, rows, changes))],
        at=Recording(at, Y_HOOK),
    )
    return [
        _read([reading[part] for reading in run.readings], asked)
        for part, asked in zip(slices(rows), tokens, strict=True)
    ]


def _read(runs: Sequence[Reading], asked: Sequence[int | None]) -> Ablated:
    """What is kept of runs on one prompt."""
    first = tuple(run.predictions[:1].alone() for run in runs)
    tokens = tuple(int(one.top) if token is None else token for one, token in zip(first, asked, strict=True))
    each = list(zip((run.predictions for run in runs), tokens, strict=True))
    logit = _summed([predictions.logit(token) for predictions, token in each])
    log_prob = _summed([predictions.log_prob(token) for predictions, token in each])
    return Ablated(tokens, logit, log_prob, first)


def _removed(part: Tensor, values: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Rows of x with what takes the place of the removed ones."""
    return torch.where(part.to(x.device)[..., None], values(x[0]), x)


def _summed(values: Sequence[Float[Tensor, " runs"]]) -> Float[Tensor, " runs"]:
    """The sum over positions; a tensor of its own, for a view would keep all logits."""
    return torch.stack(list(values)).sum(0)
