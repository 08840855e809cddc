"""Steps that make tensors ``[..., query, key]``, and the rows of such tensors, for a few queries at a time.

Legend: T is the number of tokens; a *step* is one function of torch with its arguments, other steps among them.

Attention's scores, masks and patterns have a row for each query, and every step treats each row by itself: a product
``q kᵀ`` takes the row's query, an elementwise function or a mask the row's numbers, a softmax the row's keys. So the rows
``a:b`` of the last step follow from the rows ``a:b`` of the first, by the model's own functions in the model's own order, and
no tensor ``[T, T]`` need exist. Where a mask rules out some keys for all of these rows, the columns ``c:d`` of the others
will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["product", "rows", "reshape", "expand", "triangle", "constant", "item"]


@dataclass(eq=False, repr=False)
class Step:
    """One function that makes a tensor with a row for each query.

    Attributes:
        func: the function.
        args: its arguments; those that are put off as steps.
        kwargs: the same by name.
        like: shape and dtype of the whole, without the numbers; several where the function has several results.
        device: where it is.
        kind: how the function takes rows.
        scores: does it depend on a product of queries and keys?
        ruled_out: what was found out about it as a mask, by rows.
    """

    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    like: Any
    device: torch.device
    kind: Kind = "rows"
    scores: bool = False
    ruled_out: dict[Any, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """T."""
        return int(self.like.shape[-2])


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value, or those in a sequence or mapping, each changed."""
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(mapped(v, change) for v in value)
    if isinstance(value, dict):
        return {name: mapped(v, change) for name, v in value.items()}
    return change(value)


class Rows:
    """The rows ``first:last`` and columns ``low:high`` of any step: call it.

    Args:
        length: T.
        first: number of the first query.
        last: that behind the last.
        low: number of the first key.
        high: that behind the last.
    """

    def __init__(self, length: int, first: int, last: int, low: int, high: int) -> None:
        self.length, self.queries, self.keys = length, slice(first, last), slice(low, high)
        self._made: dict[Step, Any] = {}

    def fresh(self) -> Rows:
        """The same, with nothing made yet."""
        return Rows(self.length, self.queries.start, self.queries.stop, self.keys.start, self.keys.stop)

    def __call__(self, step: Step) -> Any:
        """These rows."""
        if step not in self._made:
            self._made[step] = self._make(step)
        return self._made[step]

    def _make(self, step: Step) -> Any:
        args, kwargs = step.args, step.kwargs
        if step.kind == "item":
            return self(args[0])[args[1]]
        if step.kind == "constant":
            size = (*args[0], self.queries.stop - self.queries.start, self.keys.stop - self.keys.start)
            return torch.full(size, args[1], dtype=step.like.dtype, device=step.device)
        if step.kind == "product":
            *bias, q, k = args
            bias = [self.cut(b) for b in bias]
            return step.func(*bias, q[..., self.queries, :], k[..., self.keys], **kwargs)
        if step.kind == "triangle":
            diagonal = kwargs["diagonal"] + self.queries.start - self.keys.start
            return step.func(self(args[0]), diagonal=diagonal)
        args, kwargs = mapped((args, kwargs), self._argument)
        return step.func(*args, **kwargs)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Step):
            return self(value)
        return self.cut(value) if isinstance(value, Tensor) else value

    def cut(self, tensor: Tensor) -> Tensor:
        """Of a tensor that has queries and keys, or one of them, where another tensor has."""
        if tensor.ndim > 1 and tensor.shape[-2] == self.length:
            tensor = tensor[..., self.queries, :]
        return tensor[..., self.keys] if tensor.ndim and tensor.shape[-1] == self.length else tensor


def whole(step: Step) -> Tensor:
    """All rows and columns."""
    with torch._C.DisableTorchFunction():
        found: Tensor = Rows(step.length, 0, step.length, 0, step.length)(step)
    return found
