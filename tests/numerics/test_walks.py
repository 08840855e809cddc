"""Invariant: shares of walks are sums over all walks, one by one: by their number of edges, by the nodes that they pass, in
all, and the strongest is the largest of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from tl_scopes.numerics.walks import by_length, strongest, visits

pytestmark = pytest.mark.one_lens


def small(seed: int, nodes: int = 6, sources: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, and a graph whose rows ``[P | G]`` add up to 1."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(nodes, sources + nodes, generator=generator, dtype=torch.float64) ** 3
    rows[:, sources:] = rows[:, sources:].tril(-1)
    rows[1:, :sources] *= 0.2  # so that many a walk is stronger than its last step alone
    rows /= rows.sum(dim=1, keepdim=True)
    w = torch.rand(nodes, generator=generator, dtype=torch.float64)
    return w / w.sum(), rows[:, sources:], rows[:, :sources]


def every_walk(w: torch.Tensor, G: torch.Tensor, P: torch.Tensor) -> Iterator[tuple[tuple[int, ...], int, float]]:
    """Nodes, source and share of each: any subset of nodes, from late to early, then any source."""
    for n in range(1, len(G) + 1):
        for nodes in itertools.combinations(reversed(range(len(G))), n):
            share = float(w[nodes[0]]) * math.prod(float(G[a, b]) for a, b in itertools.pairwise(nodes))
            for q in range(P.shape[1]):
                yield nodes, q, share * float(P[nodes[-1], q])


@pytest.mark.parametrize("seed", range(3))
def test_hops_and_the_solve_are_sums_over_all_walks(seed: int) -> None:
    w, G, P = small(seed)
    by_hop, total, passed = (
        torch.zeros(len(G), P.shape[1]).double(),
        torch.zeros(P.shape[1]).double(),
        torch.zeros(len(G)).double(),
    )
    for nodes, q, share in every_walk(w, G, P):
        by_hop[len(nodes) - 1, q] += share
        total[q] += share
        passed[list(nodes)] += share
    assert torch.allclose(by_length(w, G, len(G) - 1) @ P, by_hop, rtol=1e-12, atol=1e-15)
    assert torch.allclose(visits(w, G) @ P, total, rtol=1e-12)
    assert torch.allclose(visits(w, G), passed, rtol=1e-12), "all that passes a node ends at some source"
    assert float(total.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_strongest_walk_is_the_largest_of_all(seed: int) -> None:
    w, G, P = small(seed)
    nodes, q, share = max(every_walk(w, G, P), key=lambda walk: walk[2])
    assert strongest(w, G, P) == (nodes, q)
    assert share > 0
    for u, alone in enumerate(torch.eye(len(w), dtype=torch.float64)):
        nodes, q, _ = max(every_walk(alone, G, P), key=lambda walk: walk[2])
        assert nodes[0] == u
        assert strongest(alone, G, P) == (nodes, q)


def test_where_nothing_leads_to_a_source_there_is_no_walk() -> None:
    w, G, P = small(0)
    assert strongest(w, G, torch.zeros_like(P)) is None
    assert strongest(w, G, P[:, :0]) is None
