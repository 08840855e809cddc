"""Plain Hugging Face models with parts of them detached, module by module: what `frozen=` is compared with.

    with detached(hf, {"norms", "attention"}):
        oracles.hf_gradient(hf, tokens, pos, scalar)

Nothing of TransformerLens or of this package runs here. Each part is written by another rule than the package's own:

    attention     the modelling file's `eager_attention_forward` is given queries and keys without history
    norms         out = (x − mean x)·w/σ + b with 1/σ detached, read off out by least squares over the units
    activations   out = u·r with r = out/u detached; what enters a down projection of a gated MLP is half detached; the
                  weights that a router gives are detached
    a cap         z_t = raw_t·r with r = z_t/raw_t detached, in `frozen_logit`
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUERY_OR_KEY = re.compile(r"\.(q|k|qk|query|key)_[a-z_]*norm|\.(q|k)_layernorm|q_a_layernorm")

CENTRED = ("CohereLayerNorm", "Cohere2LayerNorm", "OlmoLayerNorm")
"""Classes of transformers that take the mean off and are no `nn.LayerNorm`."""


@contextmanager
def detached(hf: nn.Module, parts: Collection[str]) -> Iterator[None]:
    """The model, with these parts constant in every backward."""
    with ExitStack() as stack:
        if "attention" in parts:
            file = sys.modules[type(hf).__module__]
            eager = file.eager_attention_forward  # type: ignore[attr-defined]

            def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
                return eager(module, query.detach(), key.detach(), value, *args, **kwargs)

            stack.enter_context(mock.patch.object(file, "eager_attention_forward", attend))
        for name, module in hf.named_modules():
            new = _replacement(name, module, parts)
            if new is not None:
                stack.enter_context(mock.patch.object(module, "forward", new))
        yield


def _replacement(name: str, module: nn.Module, parts: Collection[str]) -> Callable[..., Any] | None:
    of, forward = type(module).__name__, module.forward
    if "Norm" in of and "norms" in parts and not QUERY_OR_KEY.search("." + name):
        return _norm(module, forward)
    if "activations" not in parts:
        return None
    if type(module).__module__ == "transformers.activations" or isinstance(module, nn.GELU | nn.SiLU | nn.ReLU):
        return _times_constant(forward)
    if of.endswith("Router"):
        return lambda *args: tuple(t.detach() for t in forward(*args))
    if of == "MixtralExperts":
        return lambda x, index, weights: _experts(module, x, index, weights)
    if of == "Linear" and name.endswith("mlp.down_proj"):
        return lambda t: forward(0.5 * t + 0.5 * t.detach())
    return None


def _norm(module: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    centred = isinstance(module, nn.LayerNorm) or type(module).__name__ in CENTRED
    bias, weight = getattr(module, "bias", None), getattr(module, "weight", None)
    offset: Any = 0.0 if bias is None else bias
    # Hugging Face multiplies by the weight, by 1 + weight, or by nothing
    plain = torch.ones((), dtype=torch.float64)
    gains = [plain] if weight is None else [plain, weight.detach().double(), 1 + weight.detach().double()]

    def call(x: Tensor) -> Tensor:
        live = x - x.mean(-1, keepdim=True) if centred else x
        fits = []
        with torch.no_grad():
            out = (forward(x) - offset).double()
            for gain in (g for g in gains if g.shape in ((), x.shape[-1:])):
                unscaled = live.double() * gain
                scale = (out * unscaled).sum(-1, keepdim=True) / unscaled.square().sum(-1, keepdim=True)
                fits.append((float((out - scale * unscaled).norm() / out.norm()), scale * gain))
        error, ratio = min(fits, key=lambda fit: fit[0])
        assert error < 1e-2 if x.dtype is torch.bfloat16 else error < 1e-5, f"{type(module).__name__} is no scaled x"
        return live * ratio.to(live) + offset

    return call


def _times_constant(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(u: Tensor) -> Tensor:
        with torch.no_grad():
            ratio = forward(u) / u
        return u * ratio

    return call


def _experts(module: Any, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Every expert on every token, weighted; written anew because its product is inside one forward."""
    total = torch.zeros_like(x)
    for expert in range(module.num_experts):
        gate, up = F.linear(x, module.gate_up_proj[expert]).chunk(2, dim=-1)
        product = module.act_fn(gate) * up
        chosen = (weights * (index == expert)).sum(-1, keepdim=True)
        total = total + chosen * F.linear(0.5 * product + 0.5 * product.detach(), module.down_proj[expert])
    return total


def frozen_logit(hf: nn.Module, target: int, parts: Collection[str]) -> Callable[[Tensor, Tensor], Tensor]:
    """The scalar of `oracles.hf_gradient`: a logit, whose cap or scale is a constant factor where activations are held."""

    def scalar(z: Tensor, y: Tensor) -> Tensor:
        if "activations" not in parts:
            return z[target]
        head = hf.get_output_embeddings()
        raw = F.linear(y, head.weight[target], None if head.bias is None else head.bias[target])
        return raw * (z[target] / raw).detach()

    return scalar
