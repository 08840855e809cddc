"""Vector-Jacobian products: rows of V pulled back from the target hook to the sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.hooks import Y_HOOK
from tl_scopes.numerics.stopping import require_wanted

VJP_CHUNK = 8
"""Rows of V pulled back at once (vmapped); past 8 the gain is gone and memory grows."""
COTANGENT_EXPONENT = 8
"""V is scaled to norms near 2**8 before the backward, so that half-precision gradients do not flush to 0."""


def pull_back(
    hidden: Tensor,
    sources: Sequence[Tensor],
    V: Float[Tensor, "k read ..."],
    options: RunOptions,
    *,
    retain_graph: bool = False,
    n_required: int | None = None,
    optional: Sequence[Tensor] = (),
    at_once: int = VJP_CHUNK,
) -> Iterator[list[Tensor]]:
    """``V·J`` at each source, ``[rows, batch, ...]`` in V's dtype, ``at_once`` rows in one backward.

    Each row of V is scaled by a power of two before the backward and back after it, which is exact. Sources from number
    ``n_required`` on may lie behind a target hook inside the model: there ``V·J`` is 0. Behind them all stands what flows
    to the tensors that are ``optional``, ``[rows, value]`` of all their values in a row, 0 where nothing does.

    Raises:
        ValueError: a source does not influence the target hook, or the backward overflowed.
    """
    if not hidden.requires_grad:
        raise _not_upstream(options)
    norms = torch.linalg.vector_norm(V.flatten(2), dim=2).amax(dim=1)
    exponent = torch.where(norms > 0, COTANGENT_EXPONENT - torch.frexp(norms).exponent, 0)
    scale = torch.ldexp(torch.ones_like(norms), exponent)
    if torch.is_anomaly_enabled():
        at_once = 1  # its check has no rule for a backward of several rows
    cotangents = (V * scale.reshape(-1, *[1] * (V.ndim - 1))).to(hidden)
    for first in range(0, len(cotangents), at_once):
        require_wanted()
        chunk = cotangents[first : first + at_once]
        one = len(chunk) == 1
        grads = torch.autograd.grad(
            hidden,
            [*sources, *optional],
            chunk[0] if one else chunk,
            retain_graph=retain_graph or first + at_once < len(cotangents),
            allow_unused=True,
            is_grads_batched=not one,
        )
        pulled = []
        by_row = scale[first : first + at_once]
        for i, grad in enumerate(grads[: len(sources)]):
            if grad is None and n_required is not None and i >= n_required and options.target_hook != Y_HOOK:
                pulled.append(torch.zeros(len(chunk), *sources[i].shape, dtype=V.dtype, device=sources[i].device))
                continue
            if grad is None:
                raise _not_upstream(options, source=i)
            if not bool(torch.isfinite(grad).all()):
                raise _overflowed(hidden)
            grad = (grad[None] if one else grad).to(V.dtype)
            pulled.append(grad / by_row.to(grad.device).reshape(-1, *[1] * (grad.ndim - 1)))
        if optional:
            if any(grad is not None and not bool(torch.isfinite(grad).all()) for grad in grads[len(sources) :]):
                raise _overflowed(hidden)
            found = [
                V.new_zeros(len(chunk), leaf.numel()) if grad is None else grad.reshape(len(chunk), -1).to(V)
                for leaf, grad in zip(optional, grads[len(sources) :], strict=True)
            ]
            pulled.append(torch.cat(found, dim=1) / by_row[:, None])
        yield pulled


def _overflowed(hidden: Tensor) -> ValueError:
    """The error for gradients that are no numbers."""
    return ValueError(
        f"the backward pass gave NaN or infinity in {hidden.dtype}; load the model in bfloat16 or float32"
    )


def _not_upstream(options: RunOptions, source: int = 0) -> ValueError:
    """The error for a hook whose activation does not reach the target hook."""
    if source > len(options.grads_at):
        return ValueError("a layer of this model takes no part in the prediction, so nothing flows through it")
    argument, name = ("at", options.at) if source == 0 else ("grads_at", options.grads_at[source - 1])
    return ValueError(
        f"({argument}={name!r}): nothing flows from there to target_hook={options.target_hook!r}. Choose a "
        "target hook later in the forward than the source, and a source that the model reads: some bridges throw away what "
        "a hook at their attention patterns gives back"
    )
