"""How much memory a run will take, before it runs, and how to run it so that it fits.

The peak of a run is what the tensors alive at the worst moment take, weights left out.

The estimate is measured, not tabulated: :mod:`tl_scopes.model.probe_runs`. Layers that pad a prompt to whole chunks take as
much on a short one as on a chunk, which is counted for each chunk. A coarse upper bound from the model's sizes comes first
and saves the measurement wherever memory is plenty.

What a run does, in this order, until it fits: smaller batches (unless the caller fixed them), fewer rows pulled back at once,
checkpointing (unless the caller forbade it). The numbers do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from tl_scopes.model.attention_plan import AttentionPlan
from tl_scopes.model.forward import RECORDING, Recording, makes_table
from tl_scopes.model.hooks import BY_HEAD_FIRST, cached_names, has_hooks_at
from tl_scopes.model.lens import LensModel, attention_width, has_states, weights
from tl_scopes.model.probe_runs import Held, Run, nothing, profile, read_out_bytes

PLENTY = 0.5
"""Share of the budget below which the coarse bound is believed without measuring."""


class Memory:
    """Chooses how to run a model so that it fits.

    Args:
        model: the model.
        recording: what the runs keep.
        checkpoint: True always, False never, None where a run does not fit otherwise.
        budget: bytes that a run may take beside the weights; None is what the devices have free.
        adjustable: does that call take ``checkpoint``, ``cache`` and ``memory_budget``, so that a refusal may name them?
        written_out: is attention computed as the model writes it in any case?
        held: where all logits are looked at, so that there is a table of them: what is made of them, by explained positions.
            None where nobody looks at all, and a large table is not made.
    """

    def __init__(
        self,
        model: LensModel,
        recording: Recording = RECORDING,
        *,
        checkpoint: bool | None = None,
        budget: int | None = None,
        adjustable: bool = True,
        written_out: bool = False,
        held: Held | None = None,
    ) -> None:
        self.model, self.checkpoint, self.stated = model, checkpoint, budget
        self.adjustable, self.held = adjustable, nothing if held is None and makes_table(model, recording) else held
        self.written_out = written_out or bool(recording.frozen) or has_hooks_at(model, BY_HEAD_FIRST)
        names = cached_names(model.hook_dict, recording.cache) if recording.cache else None
        self.recording = replace(recording, cache=None if names is None else tuple(names))
        self.budget = available_memory(model) if budget is None else budget

    def fits(self, run: Run) -> bool:
        """Is the run's peak within the budget?"""
        if self.budget is None or coarse_bound(self.model, run, self.held) <= PLENTY * self.budget:
            return True
        return self.peak(run) <= self.budget

    def peak(self, run: Run) -> int:
        """Bytes alive at the worst moment of the run, weights left out."""
        table, _ = read_out_bytes(self.model, run.reads, self.held)
        recording = self.recording if table else replace(self.recording, table=False)
        found = profile(self.model, recording, run, written_out=self.written_out)
        return found.peak(self.model, run, self.held)

    def batch_plan(self, length: int, batch: int, *, fixed: bool, texts: int = 1, reads: int = 1) -> Run:
        """The run for at most ``batch`` prompts of at most ``length`` tokens, one row of V at a time.

        Args:
            length: tokens of the longest.
            batch: prompts.
            fixed: may the batch not shrink?
            texts: that are run for each prompt.
            reads: explained positions of each.

        Raises:
            ValueError: no batch fits, with or without checkpointing.
        """
        sizes = [batch] if fixed else [batch >> i for i in range(batch.bit_length())]
        runs = [Run(b * texts, length, b * reads, 1, c) for c in self.checkpointing() for b in sizes]
        return self.first_that_fits(runs)

    def first_that_fits(self, runs: Sequence[Run]) -> Run:
        """The first of the runs that fits; the refusal names the last."""
        for run in runs:
            if self.fits(run):
                return run
        raise ValueError(self._refusal(runs[-1]))

    def rows_at_once(self, run: Run, most: int) -> int:
        """How many rows of V to pull back at once, at most ``most``; at least one."""
        while most > 1 and not self.fits(replace(run, rows=most)):
            most //= 2
        return max(most, 1)

    def checkpointing(self) -> list[bool]:
        """Whether to checkpoint, in the order of trying."""
        return [False, True] if self.checkpoint is None else [self.checkpoint]

    def _refusal(self, run: Run) -> str:
        """What does not fit, by how much, and what to do."""
        assert self.budget is not None  # without one everything fits
        has = gibibytes(self.budget)
        limit = f"{has} are available" if self.stated is None else f"memory_budget={self.stated} allows {has}"
        text = (
            f"a run on {run.length} tokens"
            + (f" in batches of {run.batch}" if run.batch > 1 else "")
            + f" needs about {gibibytes(self.peak(run))} beside the weights"
            + (", with checkpointing," if run.checkpoint else ",")
            + f" and {limit}. To make it fit, "
        )
        if self.adjustable and not run.checkpoint:
            text += f"pass checkpoint=True (about {gibibytes(self.peak(replace(run, checkpoint=True)))}), "
        if self.adjustable and (cheaper := self._without_maps()) is not None and AttentionPlan(run.length).acts:
            least = cheaper.peak(replace(run, checkpoint=True))
            text += (
                "ask for no attention pattern or score (cache, grads_at), hold nothing (frozen=()), and take off hooks "
                f"there (about {gibibytes(least)} with checkpoint=True), "
            )
        if run.batch > 1:
            text += "pass a smaller batch_size, "
        if not self.adjustable:
            return text + "shorten the prompt, or load the model in half precision"
        return text + (
            "shorten the prompt, ask for fewer activations (cache, grads_at), load the model in half precision, or pass "
            "memory_budget=<bytes> if more may be used than seems free"
        )

    def _without_maps(self) -> Memory | None:
        """The same where nobody sees ``[query, key]``; None where nobody does."""
        given = self.recording
        named = given.cache if isinstance(given.cache, tuple) else ()
        cache = tuple(name for name in named if name.rsplit(".", 1)[-1] not in BY_HEAD_FIRST)
        grads = tuple(name for name in given.grads if name.rsplit(".", 1)[-1] not in BY_HEAD_FIRST)
        recording = replace(given, cache=cache or None, grads=grads, frozen=())
        if recording == given and not has_hooks_at(self.model, BY_HEAD_FIRST):
            return None
        found = Memory(self.model, recording, budget=self.budget, held=self.held)
        found.written_out = False
        return found


def gibibytes(n: int) -> str:
    """Bytes, readable."""
    return f"{n / 2**30:.3g} GiB"


def coarse_bound(model: LensModel, run: Run, held: Held | None = None) -> float:
    """More bytes than the run takes, from the sizes in the model's configuration; infinite where they do not tell.

    What a state-space or linear attention layer takes follows from how it is written, down to its chunks.
    """
    cfg = model.cfg
    if has_states(model):
        return math.inf
    width, hidden = cfg.d_model, getattr(cfg, "d_mlp", None) or 4 * cfg.d_model
    hidden *= getattr(cfg, "experts_per_token", None) or 1
    heads = attention_width(model)
    per_token = 15 * width + 6 * hidden + 15 * heads
    per_block = run.batch * run.length * (per_token + 6 * cfg.n_heads * run.length)
    itemsize = max(4, model.W_U.element_size())
    per_block *= cfg.n_layers + 2 * run.rows
    table, made = read_out_bytes(model, run.reads, held)
    return float(itemsize * (per_block + 2 * model.W_U.numel()) + 7 * table + 1.5 * made)  # a cap is several operations


def available_memory(model: LensModel) -> int | None:
    """Bytes free on the devices that hold the model's weights, together; None where a device does not tell."""
    devices = {parameter.device for parameter in weights(model)}
    free = [_free_bytes(device) for device in devices]
    return None if None in free else sum(f for f in free if f is not None)


def _free_bytes(device: torch.device) -> int | None:
    """Bytes that new tensors may take on one device."""
    if device.type == "cpu":
        free = int(psutil.virtual_memory().available)
        limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
        if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
            free = min(free, max(0, int(text) - int(used.read_text())))
        return free
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return None
