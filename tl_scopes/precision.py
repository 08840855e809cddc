"""Where float64 is to be had: on the tensor's own device, or on the CPU where the device has none (Apple's MPS)."""

from __future__ import annotations

from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)
"""Types of devices that cannot hold a float64 tensor."""


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, moved to the CPU first if it must."""
    return (tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor).double()
