"""The model on changed embeddings: predictions at the explained position, and the gradient there if it is asked for.

Legend: ``x`` ``[pos, d_model]`` the activation at the source hook (embeddings by default); ``x'`` what is put in its
place; ``g = ∂s/∂x`` at ``x'`` for the explained scalar s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.directions.base import Direction, Reading, Readings, Rows, held_by
from tl_scopes.kernel.options import RunOptions
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.read_out import read_outs, require_finite
from tl_scopes.model.forward import RECORDING, Recording, forward_pass
from tl_scopes.model.hooks import attached, differentiable, require_hook
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.model.state import model_state

Change = Callable[[Tensor], Tensor]
"""From the activation ``[batch, pos, d_model]`` to what takes its place."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run on changed embeddings.

    Attributes:
        x: what the model saw at the source hook, ``[batch, pos, d_model]``.
        hidden: activation at the target hook, ``[read, ...]``; by default the final hidden state.
        predictions: at each explained position.
        gradient: ``∂s/∂x``, ``[batch, pos, d_model]``; None where no scalar was explained.
        rows: the direction's rows, one per explained position; empty where no scalar was explained.
    """

    x: Float[Tensor, "batch pos d_model"]
    hidden: Float[Tensor, "read ..."]
    predictions: Predictions
    gradient: Float[Tensor, "batch pos d_model"] | None
    rows: list[Rows]

    @property
    def readings(self) -> Readings:
        """What was read at the first explained position of every row, at the second, …"""
        n = len(self.predictions) // len(self.x)
        return tuple(Reading(self.predictions[m::n], self.hidden[m::n]) for m in range(n))


def run_changed(
    model: LensModel,
    tokens: Int[Tensor, "batch pos"],
    read: Int[Tensor, " read"],
    *,
    changes: Sequence[tuple[str, Change]] = (),
    direction: Direction | None = None,
    indices: Sequence[int] | None = None,
    at: str | Recording = RECORDING,
) -> Outcome:
    """Run the model once with its activations changed at some hooks; every row has its own read positions.

    Args:
        tokens: right-padded.
        read: explained positions of the rows, equally many of each, row by row.
        changes: hooks, and what takes the place of the activation there.
        direction: whose gradient is wanted, one row of V per prompt; None runs without a graph.
        indices: number of each explained position in the call, for the direction's targets; None: as they come.
        at: source hook; or also the hook whose activation is wanted, where the direction's rows live, and what the gradient
            holds constant.

    Returns:
        An :class:`Outcome`.

    Raises:
        ValueError: an unknown hook, logits or gradients that are not finite; a graph that does not fit the memory even
            with checkpointing.

    Cost: one forward with logits at one position per row; with a direction one backward to the source, checkpointed
    where it does not fit otherwise.
    """
    recording = Recording(at) if isinstance(at, str) else at
    with ExitStack() as stack:
        stack.enter_context(differentiable(model))
        if direction is None:
            stack.enter_context(torch.no_grad())
        # made anew here: tensors from a caller's inference mode cannot enter a graph
        tokens, read = tokens.clone(), read.clone()
        points = model.hook_dict
        for name, _ in changes:
            require_hook(model, points, name, "at")
        stack.enter_context(attached(points, [(name, _as_hook(c)) for name, c in changes]))
        again = False
        if direction is not None:
            memory = Memory(model, recording, adjustable=False, held=held_by([direction], model.W_U))
            again = memory.batch_plan(tokens.shape[1], len(tokens), fixed=True).checkpoint
        rows = torch.arange(len(tokens)).repeat_interleave(len(read) // len(tokens))
        run = forward_pass(model, tokens, read, recording, rows=rows, checkpoint=again)
        require_finite(run)
        if direction is None:
            return Outcome(run.source.detach(), run.hidden.detach(), run.predictions, None, [])
        state = model_state(model)
        reads = read_outs(model, run, range(len(read)) if indices is None else indices)
        chosen = direction.rows(reads, state)
        V = torch.stack([rows.V for rows in chosen], dim=1)
        options = RunOptions(at=recording.source, target_hook=recording.target)
        (pulled,) = list(pull_back(run.hidden, [run.source], V, options))
        return Outcome(run.source.detach(), run.hidden.detach(), run.predictions, pulled[0][0], chosen)


def _as_hook(change: Change) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:
        return change(activation)

    return hook


def each_its_own(prompts: Sequence[EncodedPrompt], rows: Sequence[int], changes: Sequence[Change]) -> Change:
    """One change for the copies of each prompt, which stand behind each other in a batch; padding stays."""
    parts = list(zip(slices(rows), (p.pos + 1 for p in prompts), changes, strict=True))

    def change(x: Tensor) -> Tensor:
        out = x.clone()
        for part, length, own in parts:
            out[part, :length] = own(x[part, :length])
        return out

    return change


def slices(rows: Sequence[int]) -> list[slice]:
    """Where the copies of each prompt stand in a batch."""
    ends = list(accumulate(rows))
    return [slice(end - n, end) for end, n in zip(ends, rows, strict=True)]


def along(alphas: Sequence[float], baseline: Change) -> Change:
    """Row n of the batch moves to ``x' + α_n (x − x')``."""
    column = torch.tensor(alphas, dtype=torch.float64)[:, None, None]

    def change(x: Tensor) -> Tensor:
        start, a = baseline(x), column.to(x)
        return torch.where(a == 1, x, start + a * (x - start))

    return change
