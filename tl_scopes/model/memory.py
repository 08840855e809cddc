"""How much memory a run will take, before it runs, and how to run it so that it fits.

Legend: a *run* is one forward on ``[batch, pos]`` tokens with the graph to the source, ``reads`` explained positions, and
backwards of ``rows`` rows of V at once. Its peak is what the tensors alive at the worst moment take, weights left out.

The estimate is measured, not tabulated. The run itself is done on a few short prompts (what it takes on 48 tokens must be
there), with the bytes alive noted after every operation. The sequence of operations is the same at every length, and the
bytes alive after each of them are a quadratic polynomial of the length (attention patterns are quadratic, everything else at
most linear): three lengths determine it, and the peak at any length is the largest of these polynomials there. Layers that
pad a prompt to whole chunks take as much on a short one as on a chunk, which is counted for each chunk. A coarse upper bound
from the model's sizes comes first and saves the measurement wherever memory is plenty.

What a run does, in this order, until it fits: smaller batches (unless the caller fixed them), fewer rows pulled back at once,
checkpointing (unless the caller forbade it). The numbers do not depend on it.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tl_scopes.model.forward import RECORDING, Recording, forward_pass
from tl_scopes.model.hooks import cached_names, without_hooks
from tl_scopes.model.lens import LensModel, attention_width, chunk_length, has_states, memory_flags

PROBE_LENGTHS = (16, 32, 48)
"""Lengths of the measuring runs: three points of a quadratic."""
PLENTY = 0.5
"""Share of the budget below which the coarse bound is believed without measuring."""
READ_OUT_COPIES = 6
"""Tensors ``[reads, d_vocab]`` at the read-out: logits raw and returned, their float copy, softmax, slope, working space."""


@dataclass(frozen=True)
class Run:
    """What decides how much memory a run takes.

    Attributes:
        batch: prompts in the forward.
        length: tokens of the longest.
        reads: explained positions.
        rows: rows of V pulled back at once.
        checkpoint: are the insides of the blocks computed again?
    """

    batch: int
    length: int
    reads: int
    rows: int = 1
    checkpoint: bool = False


class Memory:
    """Chooses how to run a model so that it fits.

    Args:
        model: the model.
        recording: what the runs keep.
        checkpoint: True always, False never, None where a run does not fit otherwise.
        budget: bytes that a run may take beside the weights; None is what the devices have free.
        adjustable: does that call take ``checkpoint``, ``cache`` and ``memory_budget``, so that a refusal may name them?
    """

    def __init__(
        self,
        model: LensModel,
        recording: Recording = RECORDING,
        *,
        checkpoint: bool | None = None,
        budget: int | None = None,
        adjustable: bool = True,
    ) -> None:
        self.model, self.checkpoint, self.stated = model, checkpoint, budget
        self.adjustable = adjustable
        names = cached_names(model.hook_dict, recording.cache) if recording.cache else None
        self.recording = replace(recording, cache=None if names is None else tuple(names))
        self.budget = available_memory(model) if budget is None else budget

    def fits(self, run: Run) -> bool:
        """Is the run's peak within the budget?"""
        if self.budget is None or coarse_bound(self.model, run) <= PLENTY * self.budget:
            return True
        return self.peak(run) <= self.budget

    def peak(self, run: Run) -> int:
        """Bytes alive at the worst moment of the run, weights left out."""
        return _profile(self.model, self.recording, run.rows, run.checkpoint).peak(self.model, run)

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
        has = "" if self.budget is None else gibibytes(self.budget)
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
        if run.batch > 1:
            text += "pass a smaller batch_size, "
        if not self.adjustable:
            return text + "shorten the prompt, or load the model in half precision"
        return text + (
            "shorten the prompt, ask for fewer activations (cache, grads_at), load the model in half precision, or pass "
            "memory_budget=<bytes> if more may be used than seems free"
        )


def gibibytes(n: int) -> str:
    """Bytes, readable."""
    return f"{n / 2**30:.3g} GiB"


def coarse_bound(model: LensModel, run: Run) -> float:
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
    read_out = READ_OUT_COPIES * run.reads * cfg.d_vocab + 2 * model.W_U.numel()
    return float(itemsize * (per_block * (cfg.n_layers + 2 * run.rows) + read_out))


# -- measuring -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Profile:
    """Bytes alive after each operation of a run on one prompt: ``constant + linear·length + quadratic·length²``."""

    coefficients: Float[Tensor, "operations 3"]

    def peak(self, model: LensModel, run: Run) -> int:
        """The largest, for a batch; what does not depend on the length is there once, or once per chunk of a prompt."""
        chunk = chunk_length(model)
        chunks = 1 if chunk is None else math.ceil(run.length / chunk)
        chunks += 2 * (chunks > 1)  # for what goes from chunk to chunk
        constants = 1 if chunk is None else run.batch * chunks
        powers = torch.tensor([constants, run.batch * run.length, run.batch * run.length**2], dtype=torch.float64)
        read_out = (run.reads - 1) * model.cfg.d_vocab * max(4, model.W_U.element_size()) * READ_OUT_COPIES
        return int(float((self.coefficients @ powers).max())) + int(read_out)


_PROFILES: weakref.WeakKeyDictionary[Any, dict[Any, _Profile]] = weakref.WeakKeyDictionary()


def _profile(model: LensModel, recording: Recording, rows: int, checkpoint: bool) -> _Profile:
    """Measured once per model, flags and recording."""
    held = _PROFILES.setdefault(model, {})
    key = (recording, rows, checkpoint, memory_flags(model))
    if key not in held:
        lengths = [min(n, model.cfg.n_ctx // 3 * (i + 1)) for i, n in enumerate(PROBE_LENGTHS)]
        with without_hooks(model):
            _alive(model, lengths[0], recording, rows, checkpoint)  # what a model makes once and keeps
            found = [_alive(model, n, recording, rows, checkpoint) for n in lengths]
        held[key] = _Profile(_fitted(lengths, found))
    return held[key]


def _fitted(lengths: Sequence[int], found: Sequence[Sequence[int]]) -> Float[Tensor, "operations 3"]:
    """Polynomials through the three measurements, one per operation; through the peaks where the operations differ."""
    if len({len(f) for f in found}) > 1:
        found = [[max(f)] for f in found]
    powers = torch.tensor([[1, n, n**2] for n in lengths], dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(powers, torch.tensor(found, dtype=torch.float64))
    return solved.T


def _alive(model: LensModel, length: int, recording: Recording, rows: int, checkpoint: bool) -> list[int]:
    """Bytes alive after every operation of a run on one prompt of this length."""
    tokens = torch.arange(length)[None] % model.cfg.d_vocab
    with torch.autograd.set_detect_anomaly(False), _no_garbage_collection(), _BytesAlive() as watch:
        run = forward_pass(
            model,
            tokens,
            torch.tensor([length - 1]),
            recording,
            checkpoint=checkpoint,
        )
        sources = [run.source, *(run.activations[name] for name in recording.grads)]
        seed = torch.ones_like(run.hidden)
        if rows > 1:
            seed = seed.expand(rows, *seed.shape).clone()
        # Retained, as in all backwards of several but the last: no lower than the peak of one that frees as it goes.
        torch.autograd.grad(run.hidden, sources, seed, retain_graph=True, allow_unused=True, is_grads_batched=rows > 1)
    return list(watch.timeline)


class _BytesAlive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes after every operation how many bytes the tensors made since the start still take."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = 0
        self.timeline: list[int] = []
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run the operation, then count its results."""
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in before and storage not in self._known:
                    self._known.add(storage)
                    self.alive += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.timeline.append(self.alive)
        return result

    def _freed(self, n: int) -> None:
        self.alive -= n


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Cyclic garbage is collected at no fixed moment: measured as if never, so that the estimate is not below the peak."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def available_memory(model: LensModel) -> int | None:
    """Bytes free on the devices that hold the model's weights, together; None where a device does not tell."""
    devices = {parameter.device for parameter in model.parameters()}
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
