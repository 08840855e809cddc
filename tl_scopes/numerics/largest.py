"""The largest numbers of long rows."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

GROUP = 64
"""Numbers of which the largest is looked for first."""


def largest_of(
    z: Float[Tensor, "read tokens"], k: int
) -> tuple[Float[Tensor, "read leading"], Int[Tensor, "read leading"], Int[Tensor, " read"]]:
    """The k largest of each row, or all where there are fewer, and where they are; where the first of the largest is.

    Only the groups of the k largest maxima can hold them, and maxima are less work than a search in all.
    """
    n, size = z.shape
    whole = size // GROUP * GROUP
    if size <= k * GROUP:
        found = z.topk(min(k, size))
        return found.values, found.indices, z.max(dim=1).indices
    rest = torch.arange(whole, size, device=z.device).expand(n, -1)
    maxima = z[:, :whole].view(n, whole // GROUP, GROUP).amax(-1)
    groups = torch.cat([maxima.max(dim=1, keepdim=True).indices, maxima.topk(k).indices], 1)
    among = groups[:, :, None] * GROUP + torch.arange(GROUP, device=z.device)
    firsts = torch.cat([among[:, 0], rest], 1)
    first = firsts.gather(1, z.gather(1, firsts).max(dim=1, keepdim=True).indices)
    others = torch.cat([among[:, 1:].flatten(1), rest], 1)
    found = z.gather(1, others).topk(k)
    return found.values, others.gather(1, found.indices), first[:, 0]
