"""Digests of tensors: of every bit of them, with name, dtype and shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 26
"""Bytes that are brought to the CPU at a time."""


def digest_tensors(
    digest: Any, tensors: Iterable[tuple[str, Tensor]], progress: Callable[[int], object] = lambda n: None
) -> None:
    """Let a :mod:`hashlib` digest see named tensors; ``progress`` is told the bytes as they are read."""
    for name, given in tensors:
        tensor = given.detach()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode("utf-8", "surrogatepass"))
        if tensor.is_meta or tensor.is_quantized or tensor.layout is not torch.strided:
            digest.update(b"" if tensor.is_meta else repr(tensor.cpu()).encode())
            continue
        flat = tensor.reshape(-1)
        step = max(CHUNK // max(flat.element_size(), 1), 1)
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step].contiguous().view(torch.uint8).cpu()
            digest.update(part.numpy().data)
            progress(part.numel())
