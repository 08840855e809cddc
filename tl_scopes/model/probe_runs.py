"""How much memory a run takes, by the bytes alive in the same run on a few short prompts.

Legend: a *run* is one forward on ``[batch, pos]`` tokens with the graph to the source, ``reads`` explained positions, and
backwards of ``rows`` rows of V at once.

What a run takes on 48 tokens must be there. The sequence of operations is the same at every length, and the bytes alive after
each of them are a quadratic polynomial of the length: three lengths determine it, and the peak at any length is the largest
of these polynomials there.

The square is that of attention, ``[query, key]``. Where it is computed in blocks, a short prompt is two blocks; at length T
there are R queries in a block, and the square is R·T, or less where each of them sees a window of keys. What is made as a
whole in the same run, as a pattern that somebody asked for, is told by its shape ``[T, T]`` and counted as T².
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tl_scopes.model.attention_plan import AttentionPlan
from tl_scopes.model.forward import Recording, forward_pass
from tl_scopes.model.hooks import without_hooks
from tl_scopes.model.lens import LensModel, attention_window, chunk_length, memory_flags
from tl_scopes.model.predictions import BLOCK, TABLE

PROBE_LENGTHS = (17, 31, 47)
"""Lengths of the measuring runs: three points of a quadratic, and no width that a model has."""
BLOCK_COPIES = 2
"""Blocks of logits that a walk over the vocabulary holds at once where no table is made."""
COTANGENT_COPIES = 4
"""Tensors ``[rows, reads, d_model]`` in a backward: rows as directions give them, those of all prompts, scaled, cast."""

PULLED_COPIES = 2
"""Of them where each row has entries at one position, which is all that is given of it: as pulled back, scaled."""

Held = Callable[[int], int]
"""Bytes that are made of whole distributions at so many explained positions, beside the table of their logits."""


def nothing(reads: int) -> int:
    """Of distributions that are only looked at."""
    return 0


@dataclass(frozen=True)
class Run:
    """What decides how much memory a run takes.

    Attributes:
        batch: prompts in the forward.
        length: tokens of the longest.
        reads: explained positions.
        rows: rows of V pulled back at once.
        checkpoint: are the insides of the blocks computed again?
        pulled: explained positions that rows of V have entries at, where others were only read; None is all.
    """

    batch: int
    length: int
    reads: int
    rows: int = 1
    checkpoint: bool = False
    pulled: int | None = None


@dataclass(frozen=True, eq=False)
class Profile:
    """Bytes alive after each operation of a run: ``constant + linear·length + block·length·queries + whole·length²``.

    Attributes:
        coefficients: of each operation.
        forward: after the forward, when V is made.
        of_read: what one more explained position takes after each operation, and after the forward.
        batch: prompts of the measured runs, each with one explained position: torch copies in a batch what it need not copy
            of one prompt, as keys that heads share.
        in_blocks: are there blocks of queries? Else each is of all of them.
        window: keys that a query of a block sees, where all other attention is fused; None for all before it.
    """

    coefficients: Float[Tensor, "operations 4"]
    forward: Float[Tensor, " 4"]
    of_read: tuple[Float[Tensor, " operations"], int]
    batch: int = 1
    in_blocks: bool = False
    window: int | None = None

    def peak(self, model: LensModel, run: Run, held: Held | None = None) -> int:
        """The largest, for a batch; what does not depend on the length is there once, or once per chunk of a prompt."""
        chunk = chunk_length(model)
        chunks = 1 if chunk is None else math.ceil(run.length / chunk)
        chunks += 2 * (chunks > 1)  # for what goes from chunk to chunk
        constants = 1 if chunk is None else run.batch / self.batch * chunks
        square = block = run.length**2
        if self.in_blocks:
            block = AttentionPlan(run.length).widest(run.batch * model.cfg.n_heads, self.window)
        tokens = run.batch * run.length
        powers = torch.tensor([constants, tokens, run.batch * block, run.batch * square], dtype=torch.float64)
        itemsize, d_model = max(4, model.W_U.element_size()), int(model.cfg.d_model)
        wide, tensors = (run.reads, COTANGENT_COPIES) if run.pulled is None else (run.pulled, PULLED_COPIES)
        cotangents = tensors * run.rows * (wide - 1) * d_model * itemsize
        scaled = run.rows * tokens * d_model * itemsize  # gradients as they are pulled back, and as they are
        table, made = read_out_bytes(model, run.reads, held)
        each, after = self.of_read
        others = run.reads - self.batch if table else 0
        throughout = int(float((self.coefficients @ powers + each * others).max())) + cotangents + scaled
        return max(throughout, int(float(self.forward @ powers)) + after * others + made)


def read_out_bytes(model: LensModel, reads: int, held: Held | None) -> tuple[int, int]:
    """Of the table of the logits of so many predictions, 0 where there is none; and of what is made of logits."""
    logits, size = reads * int(model.cfg.d_vocab), model.W_U.element_size()
    if held is None and logits > TABLE:
        return 0, BLOCK_COPIES * BLOCK * max(4, size)
    walked = min(logits, BLOCK) * max(4, size) * (1 if size >= 4 else 2)
    return logits * size, walked if held is None else max(walked, held(reads))


_PROFILES: weakref.WeakKeyDictionary[Any, dict[Any, Profile]] = weakref.WeakKeyDictionary()


def profile(model: LensModel, recording: Recording, run: Run, *, written_out: bool = False) -> Profile:
    """How much memory runs like this one take; measured once per model, flags and recording.

    Args:
        model: the model.
        recording: what the run keeps.
        run: the run; its rows, its checkpointing, and how its length has attention computed.
        written_out: is attention computed as the model writes it in any case?
    """
    held = _PROFILES.setdefault(model, {})
    window = attention_window(model)
    planned = AttentionPlan(run.length).acts and not written_out
    fuse = planned and (window is None or run.length <= window)
    batch = min(run.batch, 2)
    key = (recording, batch, run.rows, run.checkpoint, planned, fuse, memory_flags(model))
    if key not in held:
        lengths = [min(n, model.cfg.n_ctx // 3 * (i + 1)) for i, n in enumerate(PROBE_LENGTHS)]
        with without_hooks(model):
            alive(model, lengths[0], recording, run, planned, fuse)  # what a model makes once and keeps
            found = [alive(model, n, recording, run, planned, fuse) for n in lengths]
            more = alive(model, lengths[0], recording, run, planned, fuse, further=1)
            # what a short run fuses altogether is written out in a long one for its windows alone
            short = alive(model, lengths[0], recording, run, True, True).attention if planned and not fuse else ()
        coefficients, forward = _fitted(lengths, found, batch, planned)
        after = sum(more.forward) - sum(found[0].forward)
        each = torch.full((len(coefficients),), float(after), dtype=torch.float64)
        if len(more.timeline) == len(found[0].timeline) == len(each):
            each = torch.tensor(more.timeline, dtype=torch.float64) - torch.tensor(found[0].timeline)
        keys = window if set(short) == {"fused"} else None
        held[key] = Profile(coefficients, forward, (each, after), batch, planned, keys)
    return held[key]


def _queries(length: int) -> int:
    """In a block of a measuring run: half of all, so that no tensor of a block is ``[T, T]``."""
    return -(-length // 2)


def _fitted(
    lengths: Sequence[int], found: Sequence[BytesAlive], batch: int, in_blocks: bool
) -> tuple[Float[Tensor, "operations 4"], Float[Tensor, " 4"]]:
    """Polynomials through the three measurements, one per operation and that after the forward; through the peaks where the
    operations differ.
    """
    whole, rest = ([watch.squares for watch in found], [watch.others for watch in found])
    if len({len(watch.timeline) for watch in found}) > 1:
        peaks = [watch.timeline.index(max(watch.timeline)) for watch in found]
        whole, rest = ([[of[i]] for of, i in zip(series, peaks, strict=True)] for series in (whole, rest))
    whole, rest = (
        [[*of, watch.forward[i]] for of, watch in zip(s, found, strict=True)] for i, s in ((1, whole), (0, rest))
    )
    of_block = [[1, batch * n, batch * n * (_queries(n) if in_blocks else n)] for n in lengths]
    of_whole = [[1, batch * n, batch * n * n] for n in lengths]
    block, square = (
        torch.linalg.solve(torch.tensor(powers, dtype=torch.float64), torch.tensor(series, dtype=torch.float64)).T
        for powers, series in ((of_block, rest), (of_whole, whole))
    )
    coefficients = torch.cat([block[:, :2] + square[:, :2], block[:, 2:], square[:, 2:]], dim=1)
    return coefficients[:-1], coefficients[-1]


def alive(
    model: LensModel,
    length: int,
    recording: Recording,
    like: Run,
    planned: bool = False,
    fuse: bool = False,
    further: int = 0,
) -> BytesAlive:
    """What is alive after every operation of a run on prompts of this length, one or two, with the rows and checkpoints of
    another run.

    One position of each is explained, and so many ``further`` ones. Where attention is planned, half of the queries are one
    block.
    """
    batch = min(like.batch, 2)
    tokens = (torch.arange(length) % model.cfg.d_vocab).expand(batch, length)
    plan = AttentionPlan(length, shortest=0 if planned else length + 1, cells=0, fewest=_queries(length), fuse=fuse)
    watch = BytesAlive(length)
    with torch.autograd.set_detect_anomaly(False), _no_garbage_collection(), watch:
        rows = torch.arange(batch + further).clamp_max(batch - 1)
        read = torch.full_like(rows, length - 1)
        run = forward_pass(model, tokens, read, recording, rows=rows, checkpoint=like.checkpoint, plan=plan)
        watch.forward, watch.attention = (watch.alive - watch.square, watch.square), plan.chosen
        sources = [run.source, *(run.activations[name] for name in recording.grads)]
        seed = torch.ones_like(run.hidden)
        if like.rows > 1:
            seed = seed.expand(like.rows, *seed.shape).clone()
        # Retained, as in all backwards of several but the last: no lower than the peak of one that frees as it goes.
        torch.autograd.grad(
            run.hidden, sources, seed, retain_graph=True, allow_unused=True, is_grads_batched=like.rows > 1
        )
    return watch


class BytesAlive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes after every operation how many bytes the tensors made since the start still take.

    Attributes:
        timeline: the bytes after each operation.
        squares: those of tensors ``[..., T, T]`` among them.
        alive: the bytes now.
        square: those of such tensors among them.
        forward: of other tensors and such ones, after the forward of :func:`alive`.
        attention: how that run computed each of its attentions.
        length: T; None where nobody asks for squares.
    """

    def __init__(self, length: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive, self.length, self.square = 0, length, 0
        self.forward = (0, 0)
        self.attention: Sequence[str] = ()
        self.timeline: list[int] = []
        self.squares: list[int] = []
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    @property
    def others(self) -> list[int]:
        """Bytes of all other tensors after each operation."""
        return [n - square for n, square in zip(self.timeline, self.squares, strict=True)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run the operation, then count its results."""
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        if made and all(tensor.device.type == "meta" for tensor in made):
            return result  # a shape, which is asked for once
        for tensor in made:
            storage = tensor.untyped_storage()
            if id(storage) not in before and storage not in self._known:
                self._known.add(storage)
                n = storage.nbytes()
                square = n if tensor.shape[-2:] == (self.length, self.length) else 0
                self.alive, self.square = self.alive + n, self.square + square
                weakref.finalize(storage, self._freed, n, square)
        self.timeline.append(self.alive)
        self.squares.append(self.square)
        return result

    def _freed(self, n: int, square: int) -> None:
        self.alive, self.square = self.alive - n, self.square - square


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
