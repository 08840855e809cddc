"""Where float64 is to be had (on the CPU, for a device that has none), and float32 that is float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)
"""Types of devices that cannot hold a float64 tensor."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products of float32 in float32, also where the user allows TF32 or bfloat16 for speed."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by torch's newer switches, which do not mix with this one: left as the user set them
        yield
        return
    try:
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, moved to the CPU first if it must."""
    return (tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor).double()
