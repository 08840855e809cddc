"""Tells rounding from a fault: the float32 steps that models take inside float64 are made in float64.

    with in_float64():
        error = check(subject)   # what is left is no rounding of float32

Hugging Face writes ``x.float()``, ``x.to(torch.float32)`` and ``softmax(x, dtype=torch.float32)`` in norms, rotary angles and
attention. Inside, these leave what is float64 as it is, in the reference and in the bridge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@contextmanager
def in_float64() -> Iterator[None]:
    """Nothing that is float64 becomes float32."""
    to_float, to, softmax = Tensor.float, Tensor.to, F.softmax

    def kept(x: Tensor, wanted: Any) -> Any:
        return torch.float64 if wanted is torch.float32 and x.dtype == torch.float64 else wanted

    def as_float(x: Tensor, **how: Any) -> Tensor:
        return x if x.dtype == torch.float64 else to_float(x, **how)

    def moved(x: Tensor, *args: Any, **how: Any) -> Tensor:
        return to(x, *(kept(x, a) for a in args), **{name: kept(x, a) for name, a in how.items()})

    def shares(x: Tensor, *args: Any, dtype: Any = None, **how: Any) -> Tensor:
        return softmax(x, *args, dtype=kept(x, dtype), **how)

    Tensor.float, Tensor.to, F.softmax = as_float, moved, shares  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Tensor.float, Tensor.to, F.softmax = to_float, to, softmax  # type: ignore[method-assign]
