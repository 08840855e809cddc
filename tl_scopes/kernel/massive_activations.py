"""Which positions of a prompt are attention sinks by the size of their residual stream.

Legend: ``r_{l,t}`` the norm of the residual stream of token t before block l (and after the last block). A *secondary
sink* is a position after the first token, not special, with ``r_{l,t} > MULTIPLE · median_s r_{l,s}`` at some l, where s
runs over all such positions. The rule looks at positions up to the explained one only.

The norms are read off the scope's own forward: one reduction per block, nothing is kept.

Reference: massive activations, Sun et al. 2024 (arXiv 2402.17762).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.model.hooks import Hook, attached
from tl_scopes.model.lens import LensModel, residual_hooks
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.numerics.precision import compute_dtype

MULTIPLE = 5.0
"""Times the median from which a position stands out: ordinary tokens stay below 3, massive activations are above 10."""
LEAST = 4
"""Positions that a median needs to mean anything."""


@contextmanager
def residual_norms(model: LensModel) -> Iterator[dict[str, Float[Tensor, "batch pos"]]]:
    """Run the model inside: afterwards the norms at every residual hook that fired, by hook name."""
    norms: dict[str, Tensor] = {}

    def watch(name: str) -> Hook:
        def hook(activation: Tensor, hook: Any) -> None:
            if name not in norms:
                dtype = compute_dtype(activation.dtype)
                norms[name] = torch.linalg.vector_norm(activation.detach(), dim=-1, dtype=dtype)

        return hook

    points = model.hook_dict
    with attached(points, [(name, watch(name)) for name in residual_hooks(model) if name in points]):
        yield norms


def candidates(prompt: EncodedPrompt, n_first: int = 1) -> list[int]:
    """Positions that may be secondary sinks: up to the explained one, without the first ones and special tokens."""
    return [p for p in range(n_first, prompt.pos + 1) if p not in prompt.special]


def outliers(
    values: Float[Tensor, "row pos"], positions: Sequence[int], multiple: float = MULTIPLE
) -> dict[int, float]:
    """Positions whose value exceeds ``multiple`` times their median in some row, with the largest ratio."""
    if len(positions) < LEAST:
        return {}
    chosen = values[:, list(positions)].cpu().double()
    ratio = (chosen / chosen.median(dim=1, keepdim=True).values.clamp_min(1e-300)).amax(dim=0)
    return {p: r for p, r in zip(positions, ratio.tolist(), strict=True) if r > multiple}


def found_sinks(norms: dict[str, Float[Tensor, "batch pos"]], row: int, prompt: EncodedPrompt) -> frozenset[int] | None:
    """Secondary sinks of one prompt of the batch by residual norm; None where no norm was seen."""
    if not norms:
        return None
    rows = [n[row] for n in norms.values()]
    alike = len({of_hook.device for of_hook in rows}) == 1  # then the device is waited for once
    table = torch.stack(rows).cpu() if alike else torch.stack([of_hook.cpu() for of_hook in rows])
    return frozenset(outliers(table, candidates(prompt)))
