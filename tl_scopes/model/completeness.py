"""With everything frozen the parts of a prediction add up to it: asked of every model once, by its own numbers.

    Σ_leaves ⟨leaf, ∂s/∂leaf⟩ = s        leaves: token embeddings, and those of :mod:`tl_scopes.model.leaves`

holds for any scalar s linear in the logits where every function of the model is held (:mod:`tl_scopes.model.frozen`): it is
then linear in its leaves together. A state-space scan, an attention that is no softmax, a product that is not seen: each
breaks it, and the model is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tl_scopes.model.forward import probe_tokens, run_with_hooks
from tl_scopes.model.frozen import STATE, held
from tl_scopes.model.held_functions import PARTS, Part
from tl_scopes.model.hooks import differentiable, without_hooks
from tl_scopes.model.leaves import KINDS, UNEMBEDDING, live_leaves, share
from tl_scopes.model.lens import LensModel, all_modules, architecture, whole
from tl_scopes.model.soundness import once_per_model
from tl_scopes.numerics.precision import to_float64

TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Largest accepted gap as a share of the parts' sizes: what rounding does stays far below (Hugging Face computes norms in
float32 in a float64 model)."""
TOKENS = "token embeddings"
_WHAT = {
    "norms": "a norm (a module whose class is called so)",
    "attention": "a softmax in a module of attention",
    "activations": "an activation function",
}


@dataclass(frozen=True)
class Held:
    """What came of one run with everything frozen.

    Attributes:
        held: how often each part was held.
        parts: share of each kind of leaf in the scalar.
        scalar: the scalar itself.
        size: sum of the parts' sizes.
    """

    held: Mapping[str, int]
    parts: Mapping[str, float]
    scalar: float
    size: float

    @property
    def gap(self) -> float:
        """``|s − Σ parts|`` as a share of the parts' sizes."""
        return abs(self.scalar - sum(self.parts.values())) / max(self.size, 1e-30)


def refuse_unfrozen(model: LensModel, parts: Sequence[Part]) -> None:
    """Refuse to hold what cannot be held in this model.

    Raises:
        ValueError: a state-space mixer, where attention or activations are to be held; a part that is not found; everything
            is asked for and does not add up.

    Cost: the first time one forward and one backward on 5 tokens.
    """
    if not parts:
        return
    mixer = next((type(m).__name__ for m in all_modules(whole(model)) if STATE.search(type(m).__name__)), None)
    name = f"frozen={list(parts)}"
    if mixer is not None and set(parts) - {"norms"}:
        raise ValueError(
            f"({name}): {architecture(model)} carries a state from token to token in {mixer}, which is no attention and "
            "cannot be held. Use frozen='norms', or frozen=()"
        )
    found = everything_held(model)
    for part in parts:
        if not found.held[part]:
            raise ValueError(
                f"({name}): {_WHAT[part]} was not found in {architecture(model)}, so there is nothing to hold. Leave "
                f"{part!r} out of frozen"
            )
    if mixer is None and found.gap > TOLERANCE.get(model.W_U.dtype, 0.2):
        raise ValueError(
            f"({name}): with everything frozen the parts of a prediction of {architecture(model)} add up to "
            f"{sum(found.parts.values()):.4g} and not to {found.scalar:.4g}, so it computes something that is not seen "
            "here. Use frozen=(), the exact gradient"
        )


@once_per_model
def everything_held(model: LensModel) -> Held:
    """A run on a short random prompt with everything frozen, explained along its own logits."""
    tokens: list[Tensor] = []

    def embed(activation: Tensor, hook: Any) -> Tensor:
        tokens.append(activation.detach().requires_grad_(True))
        return tokens[-1].clone()

    with ExitStack() as stack:
        stack.enter_context(differentiable(model))
        stack.enter_context(without_hooks(model))
        leaves = stack.enter_context(live_leaves(model))
        mode = stack.enter_context(held(PARTS, [whole(model), model]))
        assert mode is not None
        z = to_float64(run_with_hooks(model, probe_tokens(model), [("hook_embed", embed)])[0, -1])
        direction = z.detach() - z.detach().mean()
        scalar = (z * direction).sum() / direction.norm()
        found = [(kind, leaf) for kind, of_kind in {TOKENS: tokens, **leaves}.items() for leaf in of_kind]
        gradients = torch.autograd.grad(scalar, [leaf for _, leaf in found], allow_unused=True)
    parts, size = dict.fromkeys((TOKENS, *KINDS), 0.0), 0.0
    for (kind, leaf), gradient in zip(found, gradients, strict=True):
        if gradient is not None:
            own = float(share(leaf, gradient[None]))
            parts[kind] += own
            size += abs(own)
    return Held({str(part): n for part, n in mode.held.items()}, parts, float(scalar.detach()), size)


def has_leaves(model: LensModel) -> bool:
    """Does a prediction have parts, with everything frozen, that flow from no token's embedding into the final state?"""
    return any(part for kind, part in everything_held(model).parts.items() if kind not in (TOKENS, UNEMBEDDING))
