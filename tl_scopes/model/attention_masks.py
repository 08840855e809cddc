"""What a recorded pattern of attention is: a scaled product, masks, a softmax; and which keys its masks rule out.

``pattern = softmax(s q kᵀ + m)``, in whatever order and by whatever functions a model writes it. A mask rules a key out for a
query where ``m`` is (about) the lowest number of its dtype, or where the score is replaced by it; the pattern is exactly 0
there as long as some other key is left to the query.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from tl_scopes.model.deferred import CASTS, CAT, LARGEST, SOFTMAX
from tl_scopes.model.row_steps import Rows, Step
from tl_scopes.model.torch_functions import functions_named

_ADD = functions_named("add", "__add__", "__radd__")
_SUB = functions_named("sub", "__sub__")
_MUL = functions_named("mul", "__mul__", "__rmul__")
_DIV = functions_named("div", "true_divide", "__truediv__", "__div__")
_FILL, _WHERE = functions_named("masked_fill"), functions_named("where")
_ALL, _IS_NAN = functions_named("all"), functions_named("isnan")


@dataclass(frozen=True)
class Mask:
    """One mask.

    Attributes:
        of: a step, or a tensor that broadcasts to ``[..., query, key]``.
        rules_out: ``"true"`` where it is true, ``"false"`` where it is false, ``"low"`` where what it adds is that low.
    """

    of: Step | Tensor
    rules_out: Literal["true", "false", "low"]

    def at(self, rows: Rows) -> tuple[Bool[Tensor, ...], Bool[Tensor, ...] | None]:
        """What is ruled out in these rows, as it broadcasts; and where other scores are not left as they are, if anywhere."""
        value = rows(self.of) if isinstance(self.of, Step) else rows.cut(self.of)
        if self.rules_out != "low":
            return value if self.rules_out == "true" else ~value, None
        out = value <= torch.finfo(value.dtype).min / 2
        return out, (value != 0) & ~out


@dataclass
class Pattern:
    """What the steps of a pattern are.

    Attributes:
        product: the product of queries and keys; None where functions that are not known come after it.
        scale: what it is multiplied by.
        masks: between it and the softmax.
        plain: is there nothing else?
        lowered: is the softmax, or a step before it, less precise than the queries?
    """

    product: Step | None = None
    scale: float = 1.0
    masks: list[Mask] = field(default_factory=list)
    plain: bool = True
    lowered: bool = False


def pattern_of(step: Step) -> Pattern | None:
    """The pattern that this step makes; None where no softmax is seen."""
    found = Pattern()
    while step.func not in SOFTMAX:
        further = _unchanged(step)
        if further is None and step.func is Tensor.__getitem__ and isinstance(step.args[0], Step):
            further, found.plain = step.args[0], False  # an attention sink, cut off
        if further is None:
            return None
        step = further
    chain = [step.like.dtype]
    at: Step | None = _scores_in(step)
    while at is not None and at.kind != "product":
        chain.append(at.like.dtype)
        at = _below(at, found)
    found.product = at
    found.plain &= at is not None
    query = chain[-1] if at is None else at.args[-2].dtype
    found.lowered = any(torch.promote_types(dtype, query) != dtype for dtype in chain)
    return found


def _scores_in(step: Step) -> Step | None:
    """The one argument that depends on queries and keys."""
    steps = [arg for arg in step.args if isinstance(arg, Step) and arg.scores]
    return steps[0] if steps else None


def _unchanged(step: Step) -> Step | None:
    """What a step of a pattern passes on as it is: in another dtype, or with numbers that are none replaced."""
    first = step.args[0]
    if step.func in CASTS:
        return first if isinstance(first, Step) else None
    if step.func in _WHERE and isinstance(first, Step) and first.func in _IS_NAN:
        kept = step.args[2]
        return kept if isinstance(kept, Step) else None
    if step.func in _FILL and isinstance(step.args[1], Step) and step.args[1].func in _ALL:
        return first if isinstance(first, Step) else None
    return None


def _below(step: Step, found: Pattern) -> Step | None:
    """The step before it towards the product, with what this one does to scores noted; None if that is not known."""
    if (further := _unchanged(step)) is not None:
        return further
    args, func = list(step.args), step.func
    scores: list[Step] = [arg for arg in args if isinstance(arg, Step) and arg.scores]
    if func in CAT:
        found.plain = False
        return next((t for t in args[0] if isinstance(t, Step)), None)
    if len(args) == 2 and func in _SUB and len(scores) == 2 and _is_largest(args[1], args[0]):
        return scores[0]
    if len(scores) != 1:
        return None
    first: Step = scores[0]
    others = [arg for arg in args if arg is not scores[0]]
    if func in _FILL and first is args[0] and _lowest(args[2]):
        found.masks.append(Mask(args[1], "true"))
        return scores[0]
    if func in _WHERE and first is args[1] and _lowest(args[2]):
        found.masks.append(Mask(args[0], "false"))
        return scores[0]
    if len(others) != 1 or step.kwargs:
        return None
    if func in LARGEST and _lowest(others[0]):
        return scores[0]
    number = _number(others[0])
    if func in _MUL | _DIV and first is args[0] and number is not None and number > 0:
        found.scale *= 1 / number if func in _DIV else number
        return scores[0]
    if func in _ADD and isinstance(others[0], (Step, Tensor)):
        found.plain &= not (isinstance(others[0], Tensor) and others[0].requires_grad)
        found.masks.append(Mask(others[0], "low"))
        return scores[0]
    return None


def _is_largest(step: Any, of: Any) -> bool:
    """Is the step the largest number in each row of another?"""
    if isinstance(step, Step) and step.kind == "item":
        step = step.args[0]
    return isinstance(step, Step) and step.func in LARGEST and step.args[0] is of


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor):
        return None if value.numel() != 1 or value.requires_grad else float(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _lowest(value: Any) -> bool:
    """Is it (about) the lowest number of some dtype?"""
    number = _number(value)
    return number is not None and number <= torch.finfo(torch.float16).min / 2


@dataclass(frozen=True)
class Left:
    """What masks leave to some queries.

    Attributes:
        low: number of the first key that one of them may see.
        high: that behind the last.
        causal: does each see itself and all before, with their scores as they are, and nothing else?
    """

    low: int
    high: int
    causal: bool


def left(masks: list[Mask], length: int, first: int, last: int) -> Left:
    """What these masks leave to the queries ``first:last``; all keys, where that may be none for some query."""
    alone = masks[0].of if len(masks) == 1 and isinstance(masks[0].of, Step) else None
    if alone is None or (masks[0].rules_out, first, last) not in alone.ruled_out:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            found = _left(masks, Rows(length, first, last, 0, length), last - first, length)
        if alone is None:
            return found
        alone.ruled_out[masks[0].rules_out, first, last] = found
    known: Left = alone.ruled_out[masks[0].rules_out, first, last]
    return known


def _left(masks: list[Mask], rows: Rows, queries: int, length: int) -> Left:
    """Computed where the masks are, and looked at once: a GPU waits for each look."""
    if not masks:
        return Left(0, length, False)
    looks = [mask.at(rows) for mask in masks]
    device = looks[0][0].device
    always = sometimes = torch.zeros(queries, length, dtype=torch.bool, device=device)
    changed = torch.zeros((), dtype=torch.bool, device=device)
    for out, others in looks:
        out = out.to(device)
        out = out.expand(*out.shape[:-2], queries, length).reshape(-1, queries, length)
        always, sometimes = always | out.all(0), sometimes | out.any(0)
        changed = changed if others is None else changed | others.to(device).any()
    future = torch.ones(queries, length, dtype=torch.bool, device=device).triu(1 + rows.queries.start)
    differs = changed | (always != future).any() | (sometimes != future).any()
    seen = (~always).any(0).to(torch.uint8)
    ends = [seen.argmax(), seen.flip(0).argmax(), sometimes.all(1).any(), differs]
    low, behind, none, other = torch.stack([end.long() for end in ends]).tolist()
    return Left(0, length, not other) if none else Left(low, length - behind, not other)
