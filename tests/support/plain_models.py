"""What a plain Hugging Face model says: autograd from the output of its embedding module to the input of its head.

Nothing of TransformerLens runs here. `Plain(hf, tokens, leaf)` is one forward in which the embedding module's output is
replaced by a leaf of the graph; everything else is read off that graph. Symbols as in `oracles`, for a prompt of T tokens:

    x [T, d]   the leaf;   y [T, d'] the input of the head;   z [T, V] the logits;   A = ∂z/∂y, J = ∂y[pos]/∂x, F = AᵀΣA
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn


class Plain:
    """One forward of a plain Hugging Face model on one unpadded prompt, differentiable from x.

    `blocks` and `heads` are paths of modules whose inputs (and, of the last block, output) are kept too; `zeroed` are the
    positions whose row of x is 0; `changed` makes another x of x, and `patched` another input of the block of that number.
    """

    def __init__(
        self,
        hf: nn.Module,
        tokens: Tensor,
        leaf: str = "",
        blocks: Sequence[str] = (),
        heads: Sequence[str | None] = (),
        zeroed: Sequence[int] = (),
        changed: Callable[[Tensor], Tensor] | None = None,
        patched: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self.streams: list[Tensor] = []
        self.head_outputs: dict[int, Tensor] = {}
        seen: dict[str, Tensor] = {}

        def embed(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if "x" not in seen:
                x = output.detach().clone()
                x[:, list(zeroed)] = 0
                seen["x"] = (x if changed is None else changed(x)).detach().requires_grad_(True)
            return seen["x"]

        def head(module: nn.Module, args: Any) -> None:
            seen["y"] = args[0]

        def block(module: nn.Module, args: Any, kwargs: Any) -> Any:
            # a view: what reaches the block, and not what else reads the same tensor (a second input of every layer)
            stream = args[0] if args else kwargs["hidden_states"]
            change = (patched or {}).get(len(self.streams))
            self.streams.append(stream.view_as(stream) if change is None else change(stream))
            return (
                ((self.streams[-1], *args[1:]), kwargs)
                if args
                else (args, kwargs | {"hidden_states": self.streams[-1]})
            )

        def last(module: nn.Module, args: Any, output: Any) -> None:
            self.streams.append(output[0] if isinstance(output, tuple) else output)

        def keep(layer: int) -> Any:
            return lambda module, args: self.head_outputs.__setitem__(layer, args[0])

        with ExitStack() as stack, torch.enable_grad():
            embedding = hf.get_submodule(leaf) if leaf else hf.get_input_embeddings()
            handles = [
                embedding.register_forward_hook(embed),
                hf.get_output_embeddings().register_forward_pre_hook(head),
            ]
            handles += [hf.get_submodule(p).register_forward_pre_hook(block, with_kwargs=True) for p in blocks]
            handles += [hf.get_submodule(p).register_forward_hook(last) for p in blocks[-1:]]
            handles += [hf.get_submodule(p).register_forward_pre_hook(keep(i)) for i, p in enumerate(heads) if p]
            for handle in handles:
                stack.callback(handle.remove)
            self.z: Tensor = hf(input_ids=tokens[None], use_cache=False).logits[0]
        self.x, self.y = seen["x"], seen["y"]

    def gradient(self, scalar: Tensor, *places: Tensor) -> list[Tensor]:
        """∂ scalar / ∂ place for x or the given activations, without the batch; zeros where nothing reaches it."""
        wanted = places or (self.x,)
        found = torch.autograd.grad(scalar, wanted, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p)[0] if g is None else g[0] for p, g in zip(wanted, found, strict=True)]

    def score(self, scalar: Tensor, place: Tensor | None = None) -> Tensor:
        """‖∂ scalar / ∂ x_t‖, [T]."""
        (g,) = self.gradient(scalar, *(() if place is None else (place,)))
        return g.double().flatten(1).norm(dim=-1)

    def log_prob(self, pos: int, target: int) -> Tensor:
        """log p(target) after `pos`."""
        return self.z[pos].double().log_softmax(-1)[target]

    @cached_property
    def last(self) -> AtPosition:
        """What is read at the last position."""
        return AtPosition(self, len(self.z) - 1)


class AtPosition:
    """The dense objects at one position, in float64."""

    def __init__(self, plain: Plain, pos: int) -> None:
        y = plain.y
        rows = torch.eye(plain.z.shape[-1], dtype=plain.z.dtype)
        (A,) = torch.autograd.grad(plain.z[pos], y, rows, retain_graph=True, is_grads_batched=True)
        self.A = A[:, 0, pos].double()
        self.J = torch.stack([plain.gradient(coordinate)[0].double() for coordinate in y[0, pos]])
        self.y = y[0, pos].detach().double()
        p = plain.z[pos].detach().double().softmax(-1)
        F = self.A.T @ (torch.diag(p) - torch.outer(p, p)) @ self.A
        values, vectors = torch.linalg.eigh(F)
        self.values, self.vectors = values.flip(0), vectors.flip(1)

    def along(self, v: Tensor) -> Tensor:
        """‖vᵀJ_t‖, [T]."""
        return torch.einsum("i,itd->td", v, self.J).norm(dim=-1)

    def fisher(self, rank: int) -> Tensor:
        """√(Σ_{i≤rank} λᵢ/λ₁ ‖uᵢᵀJ_t‖²), [T]."""
        squares = torch.stack([self.along(u) ** 2 for u in self.vectors.T[:rank]])
        return torch.einsum("i,it->t", self.values[:rank] / self.values[0], squares).sqrt()

    def total_information(self) -> Tensor:
        """tr(J_tᵀFJ_t), [T]."""
        return torch.einsum("i,it->t", self.values, torch.stack([self.along(u) ** 2 for u in self.vectors.T]))


def attentions(hf: nn.Module, tokens: Tensor) -> list[Tensor]:
    """The patterns [head, query, key] that Hugging Face returns, of the layers that have one, first layer first; float64."""
    with torch.no_grad():
        found = hf(input_ids=tokens[None], use_cache=False, output_attentions=True).get("attentions") or ()
    return [pattern[0].double() for pattern in found if pattern is not None and pattern.ndim == 4]
