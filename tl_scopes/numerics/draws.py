"""Random numbers that depend on a seed and a text alone."""

from __future__ import annotations

import zlib

import torch
from jaxtyping import Int
from torch import Tensor


def prompt_generator(seed: int, tokens: Int[Tensor, " pos"]) -> torch.Generator:
    """A generator of its own for each prompt and seed, wherever and in whatever order the prompt is run."""
    stamp = zlib.crc32(tokens.to(torch.int64).cpu().numpy().tobytes())
    return torch.Generator().manual_seed((int(seed) * 0x9E3779B1 + stamp) % 2**63)
