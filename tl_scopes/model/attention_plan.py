"""How each attention of a run is computed: by torch's fused kernel, by blocks of queries, or as the model writes it.

    z = softmax(s q kᵀ + m) v                      [..., pos, d_value]

Legend: T tokens, ``s`` a scale, ``m`` a mask or bias; a *cell* is one number of ``[batch, head, query, key]``.

A bridge writes this out, with tensors ``[head, T, T]`` that autograd keeps. In a long run, product and softmax are put off
(:mod:`tl_scopes.model.deferred`) until the values come, and then it is

==========  ==================================================================================================
fused       ``scaled_dot_product_attention`` with ``is_causal`` and no mask, where that is what was written and
            torch has a kernel for it that keeps nothing of T²
blocks      the very functions that the model called, for a few queries at a time, computed again in the backward:
            windows, padding, biases of positions, caps on scores, attention sinks, values narrower than keys
eager       as it is written: short prompts; where somebody has a hook at scores or patterns, or asks for them; where
            anything is held constant; and whatever mixes queries
==========  ==================================================================================================

The model's own code runs in all three; a ``TorchFunctionMode`` sees its functions in this thread alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from tl_scopes.model.attention_masks import Mask, Pattern, left, pattern_of
from tl_scopes.model.deferred import (
    BIASED_PRODUCTS,
    BROADCAST,
    FACTORIES,
    PRODUCTS,
    Deferred,
    applied,
    constant,
    mask,
    product,
)
from tl_scopes.model.frozen import holding
from tl_scopes.model.patches import patched
from tl_scopes.model.row_steps import Rows, Step

Path = Literal["fused", "blocks", "eager"]

SHORTEST = 256
"""Tokens from which on attention is planned; below, T² is little and written out is as fast."""
CELLS = 2**23
"""Cells in a block of queries."""
FEWEST = 64
"""Queries in a block at least: fewer are slow."""

_ENTRIES = PRODUCTS | BIASED_PRODUCTS | BROADCAST | FACTORIES


@dataclass
class AttentionPlan:
    """Decides for each attention of one run, and says what it chose.

    Attributes:
        length: T.
        shortest: tokens from which on anything is put off.
        cells: in a block of queries.
        fewest: queries in a block at least.
        fuse: may the fused kernel be taken?
        chosen: what was, in the order of the run.
    """

    length: int
    shortest: int = field(default_factory=lambda: SHORTEST)
    cells: int = field(default_factory=lambda: CELLS)
    fewest: int = field(default_factory=lambda: FEWEST)
    fuse: bool = True
    chosen: list[Path] = field(default_factory=list)

    @property
    def acts(self) -> bool:
        """Is anything put off?"""
        return self.length >= self.shortest

    def queries(self, maps: int) -> int:
        """Queries in a block, of so many maps ``[query, key]`` at once."""
        return min(self.length, max(self.fewest, self.cells // (maps * self.length)))

    def widest(self, maps: int, window: int | None = None) -> int:
        """Cells of one map in the largest block that :func:`_blocks` makes; a query sees so many keys, or all before it."""
        n = self.queries(maps)
        if window is None:
            return n * self.length
        blocks = (min(rows, self.length) * min(rows + window, self.length) for rows in range(n, self.length + n, n))
        return max(cells for cells in blocks if cells <= n * self.length)


_ACTIVE = threading.local()


@contextmanager
def planned(plan: AttentionPlan, points: Iterable[Any]) -> Iterator[None]:
    """Run the model inside: its attention is computed by the plan, hooked points of these get whole tensors.

    A context inside another does nothing; nor does one where parts are held constant, which are looked for in what the
    model writes.
    """
    if not plan.acts or getattr(_ACTIVE, "inside", False) or holding() is not None:
        yield
        return
    with ExitStack() as stack:
        for point in points:
            if point._forward_hooks or point._backward_hooks or point._forward_pre_hooks or point._backward_pre_hooks:
                stack.enter_context(patched(point, "forward", _of_whole))
        stack.enter_context(_Planning(plan))
        _ACTIVE.inside = True
        stack.callback(setattr, _ACTIVE, "inside", False)
        yield


def _of_whole(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A hook point's forward, which makes what is put off."""

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(x.make() if isinstance(x, Deferred) else x, *args, **kwargs)

    return call


class _Planning(TorchFunctionMode):
    """Puts products of queries and keys off, and computes them with the values."""

    def __init__(self, plan: AttentionPlan) -> None:
        super().__init__()
        self.plan = plan
        self._number: dict[Step, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function of torch."""
        kwargs = kwargs or {}
        if Deferred in types:
            return self._of_deferred(func, args, kwargs)
        if func in _ENTRIES:
            entered = self._entry(func, args, kwargs)
            if entered is not None:
                return entered
        return func(*args, **kwargs)

    def _entry(self, func: Any, args: Any, kwargs: Any) -> Deferred | None:
        """A product of queries and keys, or a mask, put off; None where it is neither."""
        length = self.plan.length
        if func in FACTORIES:
            return constant(func, args, kwargs, length)
        if func in BROADCAST:
            return mask(func, args, kwargs, length)
        found = product(func, args, kwargs, length)
        if found is not None:
            self._number[found.step] = len(self.plan.chosen)
            self.plan.chosen.append("eager")
        return found

    def _of_deferred(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Something put off goes on: the values come, or another step."""
        pattern = args[0].step if func in PRODUCTS and isinstance(args[0], Deferred) and args[0].value is None else None
        start = _product_in(pattern) if pattern is not None and self._are_values(args[1]) else None
        if pattern is None or start is None:
            return applied(func, args, kwargs)
        z, self.plan.chosen[self._number[start]] = attend(self.plan, pattern, args[1], func)
        return z

    def _are_values(self, v: Any) -> bool:
        return isinstance(v, Tensor) and not isinstance(v, Deferred) and v.ndim > 2 and v.shape[-2] == self.plan.length


def _product_in(step: Step) -> Step | None:
    """The product of queries and keys that a step depends on."""
    while step.kind != "product":
        further = [arg for arg in _flat(step.args) if isinstance(arg, Step) and arg.scores]
        if not further:
            return None
        step = further[0]
    return step


def _flat(args: Any) -> list[Any]:
    return [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else [arg])]


# -- the two ways ----------------------------------------------------------------------------------


def attend(plan: AttentionPlan, pattern: Step, v: Tensor, func: Callable[..., Any]) -> tuple[Tensor, Path]:
    """``pattern · v``, and how it was computed."""
    found = pattern_of(pattern)
    n = plan.queries(pattern.like.shape[:-2].numel())
    if plan.fuse and found is not None and _has_kernel(found, pattern, v) and _is_causal(plan, found.masks):
        return _fused(found, v), "fused"
    masks = found.masks if found is not None and not found.lowered else []
    return by_blocks(plan, n, pattern, masks, v, func), "blocks"


def _has_kernel(found: Pattern, pattern: Step, v: Tensor) -> bool:
    """Has torch a fused kernel for it that keeps nothing of T²?"""
    if not found.plain or found.lowered or found.product is None or found.product.func is not torch.matmul:
        return False
    q, k = found.product.args
    alike = q.dtype == k.dtype == v.dtype == pattern.like.dtype and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    if not alike or q.shape[-1] != v.shape[-1] or q.ndim not in (3, 4):
        return False
    if v.device.type == "cpu":
        return v.dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    return v.device.type == "cuda" and _has_cuda_kernel(q, k.transpose(-1, -2), v)


def _has_cuda_kernel(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Would torch take a fused kernel on this card? Its other way keeps T²."""
    q, k, v = (t if t.ndim == 4 else t[None] for t in (q, k, v))
    asked = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, True, False)
    return torch.backends.cuda.can_use_flash_attention(asked) or torch.backends.cuda.can_use_efficient_attention(asked)


def _is_causal(plan: AttentionPlan, masks: list[Mask]) -> bool:
    """Do the masks leave each query itself and what is before it? Looked at for a block of one map at a time."""
    n = plan.queries(1)
    return all(left(masks, plan.length, a, min(a + n, plan.length)).causal for a in range(0, plan.length, n))


def _fused(found: Pattern, v: Tensor) -> Tensor:
    """By torch's kernel."""
    assert found.product is not None
    q, k = (t if t.ndim == 4 else t[None] for t in (found.product.args[0], found.product.args[1].transpose(-1, -2)))
    with torch._C.DisableTorchFunction():
        z = F.scaled_dot_product_attention(q, k, v if v.ndim == 4 else v[None], is_causal=True, scale=found.scale)
    return z if v.ndim == 4 else z[0].contiguous()


def by_blocks(
    plan: AttentionPlan, n: int, pattern: Step, masks: list[Mask], v: Tensor, func: Callable[..., Any]
) -> Tensor:
    """n queries at a time, or more where masks leave them few keys, computed again in the backward."""
    parts = []
    for rows in _blocks(plan.length, n, masks):
        part = functools.partial(_block, pattern, v, func, rows)
        parts.append(
            checkpoint(part, use_reentrant=False, preserve_rng_state=False) if torch.is_grad_enabled() else part()
        )
    return torch.cat(parts, dim=-2)


def _blocks(length: int, n: int, masks: list[Mask]) -> Iterator[Rows]:
    """All queries, at least n at a time, and no block with more cells than n queries have with all keys."""
    first, low, high, last = 0, length, 0, 0
    while last < length:
        further = min(last + n, length)
        keys = left(masks, length, last, further)
        wider = min(low, keys.low), max(high, keys.high)
        if last > first and (further - first) * (wider[1] - wider[0]) > n * length:
            yield Rows(length, first, last, low, high)
            first, wider = last, (keys.low, keys.high)
        (low, high), last = wider, further
    yield Rows(length, first, last, low, high)


def _block(pattern: Step, v: Tensor, func: Callable[..., Any], rows: Rows) -> Tensor:
    """z of some queries."""
    with torch._C.DisableTorchFunction():
        z: Tensor = func(rows.fresh()(pattern), v[..., rows.keys, :])
    return z
