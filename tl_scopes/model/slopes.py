"""Activation functions that keep one tensor for the backward: their slope.

An activation written out in several operations (GPT-2's ``gelu_new`` is nine) leaves a tensor of the MLP's width on the graph
for each of them, a third of all that a GPT-2 forward keeps, and every row of V goes back through all of them. But it acts on
each number by itself, ``y_i = f(x_i)``, so its derivative is one tensor, ``f'(x)``: taken once in the forward, by autograd
itself, and then each backward is one multiplication. The values are the very same; gradients differ by rounding.

Gemma's ``GELUTanh`` is one operation, but in its backward PyTorch takes the rows of V one by one, with a tanh for each.

Other activations of one operation (``silu``, ``gelu``) are left alone, and so is one that mixes units (``solu``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tl_scopes.model.lens import all_modules
from tl_scopes.model.patches import own_function, patched

WRITTEN_OUT = frozenset(
    {
        "NewGELUActivation",
        "FastGELUActivation",
        "QuickGELUActivation",
        "AccurateGELUActivation",
        "LaplaceActivation",
        "GELUTanh",
        "gelu_new",
        "gelu_fast",
    }
)
"""Names of elementwise activations whose backward is several operations: Hugging Face's modules, TransformerLens'
functions."""


class _BySlope(torch.autograd.Function):
    """``f(x)`` with ``f'(x)`` as all that is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """``f(x)``."""
        # Hooks on saved tensors (checkpointing has some) are for the graph of the run, not for this small one.
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            inner = x.detach().requires_grad_(True)
            y = f(inner)
            (slope,) = torch.autograd.grad(y, inner, y.new_ones(()).expand_as(y))
        ctx.save_for_backward(slope)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """``g f'(x)``; its own derivative does not exist, since the slope has no graph."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a scope's forward has no second derivatives; take them in one of your own, with model(tokens)"
            )
        (gradient,) = gradients
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


@contextmanager
def slopes_only(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Activations of the blocks keep their slope alone; on exit the modules are as they were. Without a graph: nothing."""
    with ExitStack() as stack:
        for module in all_modules(*blocks) if torch.is_grad_enabled() else ():
            own = module.__dict__  # asking a bridge's module for what it does not have is slow
            if _is_own(module, WRITTEN_OUT, "forward"):
                stack.enter_context(patched(module, "forward", _by_slope))
            elif getattr(own.get("act_fn"), "__name__", None) in WRITTEN_OUT:
                stack.enter_context(patched(module, "act_fn", _by_slope))
        yield


def _is_own(module: nn.Module, names: frozenset[str], function: str) -> bool:
    """A module of these classes that computes what its class does: nobody put another function in its place."""
    return type(module).__name__ in names and own_function(module, function) is None


def _by_slope(f: Any) -> Callable[[Tensor], Tensor]:
    """``f``, by :class:`_BySlope` where a gradient is wanted."""

    def call(x: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and x.requires_grad
        result: Tensor = _BySlope.apply(x, f) if wanted else f(x)  # type: ignore[no-untyped-call]
        return result

    return call
