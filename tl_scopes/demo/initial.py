"""Initial position embeddings of the demo model."""

from __future__ import annotations

import math

import torch


def sinusoids(n_positions: int, width: int) -> torch.Tensor:
    """Sines and cosines of wavelengths 2 pi ... 4 n_positions, RMS 1: an offset is one rotation at every position."""
    shortest, longest = 2 * math.pi, 4.0 * n_positions
    rates = 2 * math.pi / (shortest * (longest / shortest) ** torch.linspace(0, 1, width // 2))
    angles = torch.outer(torch.arange(n_positions), rates)
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)
