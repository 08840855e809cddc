"""Bridges of any Hugging Face configuration, tiny and random in float64, each with the plain model beside it.

model, hf = bridged(transformers.OPTConfig(**SIZES, ...))
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import families
import torch
import transformers
from torch import Tensor, nn

SIZES = dict(vocab_size=families.D_VOCAB, bos_token_id=1, eos_token_id=2, pad_token_id=3)
WIDTHS = SIZES | dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)


def hugging_face(
    config: Any, make: Callable[[Any], nn.Module] | None = None, dtype: torch.dtype = torch.float64
) -> nn.Module:
    """A model with that configuration, in eval mode; ``make`` where ``AutoModelForCausalLM`` does not know it."""
    eager = dict(attn_implementation="eager", dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = make(config) if make else transformers.AutoModelForCausalLM.from_config(config, **eager)
        for name, parameter in hf.named_parameters():
            noise = torch.randn(parameter.shape)
            if parameter.ndim > 1:
                embeds = "emb" in name or "wte" in name
                parameter.data = noise * (1.0 if embeds else 1.5 * parameter.shape[-1] ** -0.5)
            else:
                parameter.data = parameter.data + 0.2 * noise
    hf = hf.to(dtype).eval()
    hf.config.use_cache = False
    hf.config.dtype, hf.config.architectures = dtype, [type(hf).__name__]
    return hf


def bridge_around(hf: nn.Module) -> Any:
    """The bridge that takes this module over."""
    boot = families.TransformerBridge.boot_transformers
    with torch.random.fork_rng(devices=[]):
        return boot("tiny", hf_model=hf, tokenizer=families.tokenizer(), device="cpu", dtype=hf.config.dtype).eval()


def bridged(config: Any, make: Callable[[Any], nn.Module] | None = None) -> tuple[Any, nn.Module]:
    """The bridge, and the plain model with the same weights."""
    hf = hugging_face(config, make)
    return bridge_around(copy.deepcopy(hf)), hf


def logit_gradient(hf: nn.Module, tokens: Tensor, target: int, inside: nn.Module | None = None) -> Tensor:
    """``∂z_target/∂x`` ``[pos, d]`` at the last position by plain autograd, x what a module gives back: the embedding's."""
    leaves: list[Tensor] = []

    def leaf(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().clone().requires_grad_(True))
        return leaves[0]

    handle = (inside or hf.get_input_embeddings()).register_forward_hook(leaf)
    try:
        logits = hf(tokens[None]).logits[0, -1]
    finally:
        handle.remove()
    return torch.autograd.grad(logits[target], leaves[0])[0][0]
