"""What is no token's embedding and adds to a prediction as one does, made a leaf of the graph of a run.

=====================  ================================================================================================
positions              what a module of position embeddings gives
other embeddings       what any further module of embeddings gives (Gemma 4's by layer)
norm offsets           the biases of norms
biases                 every other bias, and a number that the model adds to its activations
unembedding bias       ``b_U``
=====================  ================================================================================================

With everything frozen (:mod:`tl_scopes.model.frozen`) ``⟨leaf, ∂s/∂leaf⟩`` is the share of each in the scalar s.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tl_scopes.model.frozen import offsets_shown
from tl_scopes.model.hooks import attached
from tl_scopes.model.lens import LensModel, whole
from tl_scopes.numerics.precision import to_float64

POSITIONS, OTHERS, OFFSETS, BIASES = "positions", "other embeddings", "norm offsets", "biases"
UNEMBEDDING = "unembedding bias"
KINDS = (POSITIONS, OTHERS, OFFSETS, BIASES, UNEMBEDDING)
Leaves = Mapping[str, Sequence[Tensor]]
"""The leaves of a run, by kind."""
_TURNS, _PLACE = re.compile(r"Rotary|Rope"), re.compile(r"[Pp]os|wpe")
_BIAS = re.compile(r"(^|_)(b|bias)(_|$)|^b_")


@contextmanager
def live_leaves(model: LensModel) -> Iterator[Leaves]:
    """Run the model inside, within :func:`differentiable`, and take gradients inside: the leaves that the runs made.

    What is at ``hook_embed`` has no history there: a bias before it is part of the tokens' embeddings. A parameter is one
    leaf for all rows of a batch.
    """
    found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    thread = threading.get_ident()

    def leaf(kind: str, activation: Tensor) -> Tensor:
        found[kind].append(activation.detach().requires_grad_(True))
        return found[kind][-1].clone()

    def offset(number: float, beside: Any) -> Any:
        live = isinstance(beside, Tensor) and beside.requires_grad and beside.is_floating_point()
        return leaf(BIASES, beside.new_tensor(number)) if live and number else number

    def cut(activation: Tensor, hook: Any) -> Tensor:
        return activation.detach()

    with ExitStack() as stack:
        biases, embeddings = _places(model)
        for bias, kind in biases.items():
            stack.callback(bias.requires_grad_, bias.requires_grad)
            found[kind].append(bias.requires_grad_(True))
        for module, kind in embeddings.items():

            def output(module: nn.Module, args: Any, output: Any, kind: str = kind) -> Any:
                mine = threading.get_ident() == thread
                floating = mine and isinstance(output, Tensor) and output.is_floating_point()
                return leaf(kind, output) if floating else output

            stack.callback(module.register_forward_hook(output).remove)
        stack.enter_context(offsets_shown(offset))
        stack.enter_context(attached(model.hook_dict, [("hook_embed", cut)]))
        yield found


def share(leaf: Tensor, gradients: Tensor) -> Tensor:
    """``⟨leaf, gradient⟩`` of each of several gradients, in float64."""
    return (to_float64(gradients) * to_float64(leaf.detach())).reshape(len(gradients), -1).sum(dim=1)


def _modules(root: Any) -> Iterator[tuple[str, nn.Module]]:
    """Every module below, each once, with its path; on each run of many layers, and so without recursion."""
    left, seen = [("", root)], set[nn.Module]()
    while left:
        path, module = left.pop()
        if module not in seen:
            seen.add(module)
            yield path, module
            left += [(f"{path}.{name}", child) for name, child in module._modules.items() if child is not None]


def _places(model: LensModel) -> tuple[dict[Tensor, str], dict[nn.Module, str]]:
    """Every bias, each once, by what it belongs to, and every module whose outputs are embeddings, but for what the tokens'
    hook is in. The bias of a bridge's unembedding may be a buffer.
    """
    biases, embeddings = dict[Tensor, str](), dict[nn.Module, str]()
    point = model.hook_dict["hook_embed"]
    for i, root in enumerate((model.unembed, model, whole(model))):
        for path, module in _modules(root):
            of = type(module).__name__
            kind = UNEMBEDDING if i == 0 else OFFSETS if "Norm" in of else BIASES
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and _BIAS.search(name) and tensor.is_floating_point():
                        biases.setdefault(tensor, kind)
            if "Embed" in of and not _TURNS.search(of) and all(part is not point for _, part in _modules(module)):
                place = _PLACE.search(f"{path} {of}") or embeddings.get(module) == POSITIONS
                embeddings[module] = POSITIONS if place else OTHERS
    return biases, embeddings


def shares_of(leaves: Leaves, gradients: Float[Tensor, "rows value"]) -> list[Float[Tensor, "rows 1 1"]]:
    """Of each kind what its leaves have in the scalar of each row of V, of the one text that there is."""
    values = torch.cat([leaf.detach().reshape(-1).to(gradients) for of_kind in leaves.values() for leaf in of_kind])
    sizes = [sum(leaf.numel() for leaf in of_kind) for of_kind in leaves.values()]
    parts = torch.split(to_float64(gradients) * to_float64(values), sizes, dim=1)
    return [part.sum(dim=1)[:, None, None] for part in parts]
