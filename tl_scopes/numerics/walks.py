"""Walks through a graph whose edges all go back: how much of what starts at some nodes ends at each source.

Legend: ``G[u, v]`` the share of node u that comes from an earlier node v, so strictly lower triangular; ``P[u, q]`` its
share that comes from source q; ``w[u]`` what starts at u. A walk goes back by some edges of G and ends by one of P; its share
is the product of its edges.

    after k edges of G    w Gᵏ P
    all walks             Σ_k w Gᵏ P = w (I − G)⁻¹ P

The sum ends, because no walk has more edges than there are nodes. Where every row of ``[P | G]`` adds up to 1, so does what
ends at the sources.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def visits(w: Float[Tensor, " node"], G: Float[Tensor, "node node"]) -> Float[Tensor, " node"]:
    """``w (I − G)⁻¹``: the share of all walks that pass each node; one triangular solve."""
    back = (torch.eye(len(G), dtype=G.dtype) - G).mT
    found: Tensor = torch.linalg.solve_triangular(back, w[:, None], upper=True, unitriangular=True)
    return found[:, 0]


def by_length(w: Float[Tensor, " node"], G: Float[Tensor, "node node"], most: int) -> Float[Tensor, "hop node"]:
    """``w Gᵏ`` for k = 0 … most: where walks are after k edges."""
    found = [w]
    for _ in range(most):
        found.append(found[-1] @ G)
    return torch.stack(found)


def strongest(
    w: Float[Tensor, " node"], G: Float[Tensor, "node node"], P: Float[Tensor, "node source"]
) -> tuple[tuple[int, ...], int] | None:
    """The walk with the largest share, its first edge's ``w`` included: its nodes in order, and its source; None of none.

    ``best[u] = max(max_q P[u, q], max_v G[u, v] best[v])``, from the first node to the last.
    """
    if not P.shape[1]:
        return None
    best, ends = P.max(dim=1)
    following: list[int | None] = [None] * len(G)
    for u in range(1, len(G)):
        share, v = (G[u, :u] * best[:u]).max(dim=0)
        if share > best[u]:
            best[u], following[u] = share, int(v)
    start = int((w * best).argmax())
    if not w[start] * best[start] > 0:
        return None
    nodes, at = [start], following[start]
    while at is not None:
        nodes.append(at)
        at = following[at]
    return tuple(nodes), int(ends[nodes[-1]])
