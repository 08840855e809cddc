"""torch's functions by name: one name stands for the function of the module, the method and the operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_OWNERS: tuple[Any, ...] = (torch, Tensor, F, torch.special, torch.linalg, torch._C._nn)


def functions_named(*names: str) -> frozenset[Any]:
    """torch's functions of these names, wherever it has them."""
    return frozenset(getattr(owner, name) for owner in _OWNERS for name in names if hasattr(owner, name))
