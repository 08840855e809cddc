"""How much attention each token gets, and whether it gets more than others at its distance.

Legend: ``A_{l,h}`` ``[query, key]`` the pattern of head h in layer l.

    attention received by t     mean_{q > t} A_{l,h}[q, t]
    mass on a set S             mean over queries q after its first position and outside it of Σ_{t ∈ S} A_{l,h}[q, t]

Attention is compared at equal distance, ``Σ_q B[q, t] / Σ_q median_s B[s + q − t, s]``: B is the mean pattern, each query's
row over its mean on the candidates without the strongest. Causal attention gives early keys more, local attention late
ones, and a strong sink leaves little for the keys beside it, without any of them being a sink themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tl_scopes.kernel.massive_activations import LEAST


def received_attention(patterns: Float[Tensor, "*head query key"]) -> Float[Tensor, "*head key"]:
    """``mean_{q > t} A[q, t]``; 0 for the last key, which no later query sees."""
    n = patterns.shape[-1]
    later = torch.arange(n - 1, -1, -1, dtype=patterns.dtype)
    received: Tensor = torch.tril(patterns, -1).sum(-2) / later.clamp_min(1)
    return received


def mass_on(patterns: Float[Tensor, "*head query key"], positions: Sequence[int]) -> Float[Tensor, "*head"]:
    """Mean over queries after the first of these positions, themselves left out, of the attention on them together."""
    chosen = sorted(positions)
    queries = [q for q in range(chosen[0] + 1, patterns.shape[-1]) if q not in chosen] if chosen else []
    if not queries:
        return patterns.new_zeros(patterns.shape[:-2])
    return patterns[..., queries, :][..., chosen].sum(-1).mean(-1)


def attention_ratio(mean_pattern: Float[Tensor, "query key"], candidates: Sequence[int]) -> dict[int, float]:
    """Attention on each candidate from later queries over the median that candidates get at the same distances.

    A candidate needs :data:`LEAST` later queries and more than an even share of their attention (``(q + 1) A[q, t]`` above
    1 in the mean): beside a strong sink the next one stands out too, and takes nothing. There must be :data:`LEAST`
    candidates.
    """
    n = len(mean_pattern)
    if len(candidates) < LEAST:
        return {}
    wanted = torch.zeros(n, dtype=torch.bool)
    wanted[list(candidates)] = True
    relative, used = _relative_attention(mean_pattern, wanted)
    expected = torch.zeros(n, dtype=torch.float64)
    for distance in range(1, n):
        at_distance = torch.diagonal(relative, -distance)
        counts = wanted[: n - distance] & used[distance:]
        if bool(counts.any()):
            expected[: n - distance] += used[distance:] * at_distance[counts].median()
    got = relative.sum(0)
    share = received_attention(mean_pattern * torch.arange(1, n + 1)[:, None])
    judged = [t for t in candidates if n - 1 - t >= LEAST and float(share[t]) > 1 and float(expected[t]) > 0]
    return {t: float(got[t] / expected[t]) for t in judged}


def _relative_attention(
    mean_pattern: Float[Tensor, "query key"], wanted: Bool[Tensor, " key"]
) -> tuple[Float[Tensor, "query key"], Bool[Tensor, " query"]]:
    """Each query's attention on an earlier key over its mean attention on candidates, the strongest left out.

    A query that spends nearly all on one sink has as much to say of the others as one that cannot see it. Queries with
    fewer than :data:`LEAST` earlier candidates say nothing: 0, and False.
    """
    earlier = torch.tril(mean_pattern.double(), -1)
    among = earlier * wanted
    counts = torch.tril(wanted.expand(len(earlier), -1).double(), -1).sum(1)
    rest = among.sum(1) - among.amax(1)
    used = (counts >= LEAST) & (rest > 0)
    scale = torch.where(used, (counts - 1) / rest.clamp_min(1e-300), 0.0)
    return earlier * scale[:, None], used
