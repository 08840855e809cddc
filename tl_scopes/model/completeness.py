"""With everything frozen the parts of a prediction add up to it: asked of every model once, by its own numbers.

    Σ_leaves ⟨leaf, ∂s/∂leaf⟩ = s        leaves: token embeddings, other embeddings (positions, …), biases

holds for any scalar s linear in the logits where every function of the model is held (:mod:`tl_scopes.model.frozen`): it is
then linear in its leaves together. A state-space scan, an attention that is no softmax, a product that is not seen: each
breaks it, and the model is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tl_scopes.model.forward import probe_tokens, run_with_hooks
from tl_scopes.model.frozen import STATE, held
from tl_scopes.model.held_functions import PARTS, Part
from tl_scopes.model.hooks import differentiable, without_hooks
from tl_scopes.model.lens import LensModel, architecture, whole
from tl_scopes.model.soundness import once_per_model
from tl_scopes.numerics.precision import to_float64

TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Largest accepted gap as a share of the parts' sizes: what rounding does stays far below (Hugging Face computes norms in
float32 in a float64 model)."""
TOKENS, POSITIONS, OTHERS, BIASES = "token embeddings", "positions", "other embeddings", "biases"
_TURNS, _PLACE = re.compile(r"Rotary|Rope"), re.compile(r"[Pp]os|wpe")
_BIAS = re.compile(r"(^|_)(b|bias)(_|$)|^b_")
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
    mixer = next((type(m).__name__ for m in whole(model).modules() if STATE.search(type(m).__name__)), None)
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
    found: dict[str, list[Tensor]] = {TOKENS: [], POSITIONS: [], OTHERS: [], BIASES: []}

    def leaf(kind: str, activation: Tensor) -> Tensor:
        found[kind].append(activation.detach().requires_grad_(True))
        return found[kind][-1].clone()

    def offset(number: float, beside: Any) -> Any:
        live = isinstance(beside, Tensor) and beside.requires_grad and beside.is_floating_point()
        return leaf(BIASES, beside.new_tensor(number)) if live and number else number

    def embed(activation: Tensor, hook: Any) -> Tensor:
        return leaf(TOKENS, activation)

    with ExitStack() as stack:
        for context in (differentiable(model), without_hooks(model), _live_biases(model, found[BIASES])):
            stack.enter_context(context)
        for module, kind in _embeddings(model):

            def output(module: nn.Module, args: Any, output: Any, kind: str = kind) -> Any:
                floating = isinstance(output, Tensor) and output.is_floating_point()
                return leaf(kind, output) if floating else output

            stack.callback(module.register_forward_hook(output).remove)
        mode = stack.enter_context(held(PARTS, [whole(model), model]))
        assert mode is not None
        mode.offset = offset
        z = to_float64(run_with_hooks(model, probe_tokens(model), [("hook_embed", embed)])[0, -1])
        direction = z.detach() - z.detach().mean()
        scalar = (z * direction).sum() / direction.norm()
        leaves = [(kind, tensor) for kind, of_kind in found.items() for tensor in of_kind]
        gradients = torch.autograd.grad(scalar, [tensor for _, tensor in leaves], allow_unused=True)
    parts, size = dict.fromkeys(found, 0.0), 0.0
    for (kind, tensor), gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            share = float((to_float64(tensor.detach()) * to_float64(gradient)).sum())
            parts[kind] += share
            size += abs(share)
    return Held({str(part): n for part, n in mode.held.items()}, parts, float(scalar.detach()), size)


def _embeddings(model: LensModel) -> list[tuple[nn.Module, str]]:
    """Modules whose outputs are embeddings, but for what the tokens' hook is in."""
    point, modules = model.hook_dict["hook_embed"], {}
    roots: tuple[Any, ...] = (whole(model), model)
    for root in roots:
        for path, module in root.named_modules():
            of = type(module).__name__
            if "Embed" in of and not _TURNS.search(of) and all(part is not point for part in module.modules()):
                modules[module] = POSITIONS if _PLACE.search(f"{path} {of}") else OTHERS
    return list(modules.items())


@contextmanager
def _live_biases(model: LensModel, found: list[Tensor]) -> Iterator[None]:
    """Every bias is a leaf of the graph."""
    biases = {
        parameter: None
        for root in (model, whole(model))
        for module in root.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.is_floating_point() and _BIAS.search(name)
    }
    for parameter in biases:
        parameter.requires_grad_(True)
    found.extend(biases)
    try:
        yield
    finally:
        for parameter in biases:
            parameter.requires_grad_(False)
