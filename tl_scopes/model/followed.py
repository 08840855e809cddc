"""Logits that are followed on their way out of the model: which functions of single numbers make them of the raw ones.

What is not known to leave its arguments alone, or gives somebody a way to write to them, ends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tl_scopes.model.deferred import CASTS, ELEMENTWISE, IN_PLACE, METADATA
from tl_scopes.model.torch_functions import functions_named

_SCALES = functions_named("mul", "__mul__", "__rmul__", "div", "true_divide", "__truediv__")


class Step(NamedTuple):
    """A function of torch that acts on each number by itself, without its first argument."""

    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    @property
    def changes(self) -> bool:
        """Is it more than a cast, or a scale of 1?"""
        return self.func not in CASTS and not (self.func in _SCALES and tuple(self.args) == (1,) and not self.kwargs)


class Followed(Tensor):
    """Logits on their way out of the model, which note what becomes of them.

    Attributes:
        steps: the functions applied so far; None once one of them is not elementwise.
        version: torch's count of the writes to these numbers, those that are noted.
    """

    steps: tuple[Step, ...] | None
    version: int

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function of torch on such logits: done, and noted in what it gives."""
        kwargs = kwargs or {}
        if func in METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Followed)]
        steps = cls._steps(func, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            if steps is None or func in IN_PLACE:
                for value in given:  # what is not known may have written to any of them, or lets somebody do so later
                    value.steps, value.version = steps, value._version
            return followed(result, steps) if isinstance(result, Tensor) else result

    @staticmethod
    def _steps(func: Any, args: Any, kwargs: Any) -> tuple[Step, ...] | None:
        first, others = args[0] if args else None, [*args[1:], *kwargs.values()]
        func = IN_PLACE.get(func, func)
        alone = not any(isinstance(other, Tensor) for other in others)
        if not isinstance(first, Followed) or func not in ELEMENTWISE or not alone:
            return None
        before = first.noted
        return None if before is None else (*before, Step(func, args[1:], kwargs))

    @property
    def noted(self) -> tuple[Step, ...] | None:
        """The functions that made these numbers; None too where somebody wrote to them past this class."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.steps if self._version == self.version else None


def followed(logits: Tensor, steps: tuple[Step, ...] | None = ()) -> Followed:
    """The same numbers, followed from here on."""
    made = logits.as_subclass(Followed)
    made.steps = steps
    with torch._C.DisableTorchFunctionSubclass():
        made.version = made._version
    return made
