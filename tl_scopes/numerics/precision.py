"""Where float64 can be computed (on the CPU, for a device that has none), and float32 that is float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Where norms, softmax and Fisher information are computed: float64 stays, all else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


WITHOUT_FLOAT64 = ("mps",)
"""Types of devices that cannot hold a float64 tensor."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products of float32 in float32, also where the user allows TF32 or bfloat16 for speed."""
    matmuls: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    if not all(hasattr(matmul, "fp32_precision") for matmul in matmuls):  # older torch has one switch for both
        one = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(one)
        return
    before = [matmul.fp32_precision for matmul in matmuls]
    try:
        for matmul in matmuls:
            matmul.fp32_precision = "ieee"
        yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = "none"  # what torch.backends.fp32_precision says
            if matmul.fp32_precision != precision:
                matmul.fp32_precision = precision


def to_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, moved to the CPU first if it must."""
    return (tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor).double()
