"""The way that all targets of a text share in the backward: from the last block's MLP to the last attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.kernel.options import RunOptions
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.model.forward import ForwardPass
from tl_scopes.model.lens import LensModel, has_hooks


def last_attention(model: LensModel) -> str | None:
    """The hook after the last attention; None on a hooked model, whose hooks may mix positions after it."""
    return None if has_hooks(model) else f"blocks.{model.cfg.n_layers - 1}.hook_resid_mid"


def after_last_attention(
    run: ForwardPass,
    mid: str | None,
    V: Sequence[Float[Tensor, "k d_model"]],
    columns: Int[Tensor, " read"],
    options: RunOptions,
    at_once: int,
) -> tuple[Float[Tensor, "read d_model"], Float[Tensor, "row d_model"]]:
    """Where each explained position begins to be alone in the graph, and all rows of V pulled back to there.

    The i-th rows of all positions but the last share a cotangent. The last has its own, in which a model is seen that mixes
    positions after its last attention (a token shift). There, and where the graph has no such place (attention and MLP side
    by side), it is the final hidden state, with V as it is.
    """
    cut = run.activations.get(mid) if mid else None
    if cut is None or not _separates(cut, run.hidden):
        return run.hidden, torch.cat(list(V))
    last = len(V) - 1
    shared = [columns[:last], columns[last:]] if last else [columns]
    rank = max(map(len, V))
    together = V[0].new_zeros(rank, len(shared), *run.hidden.shape)
    for n, v in enumerate(V):
        # Each row at its own power of two: a common scale would flush small rows to 0 in float16.
        together[: len(v), -1 if n == last else 0, n] = torch.ldexp(v, -_exponents(v))
    parts: list[Tensor] = []
    cotangents = together.flatten(0, 1)
    for (pulled,) in pull_back(run.hidden, [cut], cotangents, options, retain_graph=True, at_once=at_once):
        for row in pulled[:, 0]:
            if bool(row.count_nonzero() > row[shared[len(parts) % len(shared)]].count_nonzero()):
                return run.hidden, torch.cat(list(V))
            parts.append(row[columns])
    alone = torch.stack(parts).reshape(rank, len(shared), len(V), -1)
    rows = torch.cat([alone[: len(v), -1 if n == last else 0, n] for n, v in enumerate(V)])
    return cut[0, columns], torch.ldexp(rows, torch.cat([_exponents(v) for v in V]).to(rows.device))


def _exponents(rows: Float[Tensor, "k d_model"]) -> Int[Tensor, "k 1"]:
    """Of the power of two next to each row's norm."""
    return torch.frexp(torch.linalg.vector_norm(rows, dim=1, keepdim=True)).exponent


def _separates(cut: Tensor, end: Tensor) -> bool:
    """Does every path of the graph from ``end`` to a leaf pass ``cut``, and some path?"""
    if cut.grad_fn is None:
        return False
    seen, ahead = {cut.grad_fn}, [end.grad_fn]
    while ahead:
        node = ahead.pop()
        if hasattr(node, "variable"):
            return False
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [further for further, _ in node.next_functions]
    return True
