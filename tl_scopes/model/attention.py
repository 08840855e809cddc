"""Attention as TransformerLens shows it: which layers have it, how many heads, and how their tensors lie.

Hybrid models have attention in some blocks, state-space models in none. Latent attention (DeepSeek and its kin) gives values
out head first, and its bridge splits the heads' outputs by the width of the rotary part. So the number of heads is that of
the pattern ``[batch, head, query, key]`` of the same run, and every other tensor of the layer is laid out by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from tl_scopes.model.hooks import Hook, attached
from tl_scopes.model.lens import LensModel, architecture, residual_hooks

PATTERN, OUTPUT = "attn.hook_pattern", "attn.hook_z"
VALUE, NORMED_VALUE = "attn.hook_v", "attn.v_norm.hook_out"


def attention_layers(model: LensModel, *names: str) -> tuple[int, ...]:
    """Numbers of the layers whose attention has all these hook points; refuses a model in which no layer has them."""
    points = model.hook_dict
    found = tuple(n for n in range(model.cfg.n_layers) if all(f"blocks.{n}.{name}" in points for name in names))
    if found:
        return found
    missing = next(name for name in names if not any(f"blocks.{n}.{name}" in points for n in range(model.cfg.n_layers)))
    if not _config(model, "num_attention_heads", 1):
        raise ValueError(f"{architecture(model)} has no attention in any layer. {_otherwise(model)}")
    raise _not_shown(model, missing)


def _otherwise(model: LensModel) -> str:
    """What can be asked of the model instead."""
    stream = all(name in model.hook_dict for name in residual_hooks(model))
    return "Use layer_influence, which reads the residual stream alone, or a scope" if stream else "Use a scope"


def _not_shown(model: LensModel, name: str) -> ValueError:
    return ValueError(
        f"TransformerLens' bridge shows no {name} in any layer of {architecture(model)}: what its attention computes stays "
        f"inside. {_otherwise(model)}"
    )


def _config(model: LensModel, name: str, unknown: Any = None) -> Any:
    """What the model's Hugging Face config says of its text part; None where it has no such entry."""
    config: Any = getattr(model.__dict__.get("original_model"), "config", None)
    text = getattr(config, "get_text_config", lambda: config)()
    return unknown if text is None else getattr(text, name, None)


def value_hooks(model: LensModel, layers: Sequence[int]) -> dict[int, str]:
    """The hook point of the values that each layer's heads read.

    That is after their norm, where they have one; and in the last earlier layer of the same kind that has its own, where
    layers share them (Gemma 4).
    """
    points, kinds = model.hook_dict, _config(model, "layer_types")
    found: dict[int, str] = {}
    for layer in layers:
        own = [name for name in (f"blocks.{layer}.{NORMED_VALUE}", f"blocks.{layer}.{VALUE}") if name in points]
        shared = [
            found[i] for i in found if kinds and kinds[i] == kinds[layer] and _config(model, "num_kv_shared_layers")
        ]
        if not own + shared:
            raise _not_shown(model, VALUE)
        found[layer] = (own or shared[::-1])[0]
    return found


def attention_notes(model: LensModel, layers: Sequence[int]) -> tuple[str, ...]:
    """What a reader must know where tokens see each other by other ways than attention."""
    n: int = model.cfg.n_layers
    beside = sorted(
        {int(p.split(".")[1]) for p in model.hook_dict if p.startswith("blocks.") and p.endswith("ssm_state")}
    )
    notes = []
    if len(layers) < n:
        there = f"{_named(layers)} of 0..{n - 1}"
        notes.append(f"Attention in {there} only; what the others carry from token to token is not in it.")
    if both := [layer for layer in beside if layer in layers]:
        notes.append(f"A state-space mixer works beside attention in {_named(both)}, and is not in it.")
    return tuple(notes)


def _named(layers: Sequence[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


# -- how the tensors lie -------------------------------------------------------------------------


@contextmanager
def head_counts(model: LensModel, layers: Sequence[int]) -> Iterator[Mapping[int, int]]:
    """Run the model inside: the number of heads of each layer, as its pattern has them."""
    counts: dict[int, int] = {}

    def watch(layer: int) -> Hook:
        def hook(activation: Tensor, hook: Any) -> None:
            counts[layer] = activation.shape[1]

        return hook

    points = model.hook_dict
    names = {layer: f"blocks.{layer}.{PATTERN}" for layer in layers}
    with attached(points, [(name, watch(layer)) for layer, name in names.items() if name in points]):
        yield counts


def by_head(output: Tensor, first: int, heads: int | None) -> Float[Tensor, "*place head d_value"]:
    """Heads' outputs, whose dimensions from number ``first`` on hold all heads one after the other, by head.

    Without a pattern that says how many there are, they are as TransformerLens splits them.
    """
    if heads is None and output.ndim == first + 2:
        return output
    flat = output.flatten(first)
    if heads is None or flat.shape[-1] % heads:
        raise ValueError(f"{OUTPUT} is {list(output.shape)} for {heads or 'an unknown number of'} heads of the pattern")
    return rearrange(flat, "... (head d_value) -> ... head d_value", head=heads)


def value_norms(model: LensModel, hook: str, value: Tensor, output: Tensor, heads: int) -> Float[Tensor, "head pos"]:
    """Norm of the value vector, seen at this hook, that each head reads at each position; tensors without their batch.

    A value is as wide as a head's output, so that grouped heads are told apart however the tensor is split.
    """
    if _head_first(model, hook):
        value = rearrange(value, "head pos d -> pos head d")
    width = by_head(output, 1, heads).shape[-1]
    norms = torch.linalg.vector_norm(rearrange(value.flatten(1), "pos (kv d) -> pos kv d", d=width), dim=-1)
    by_query: Tensor = repeat(norms, "pos kv -> (kv group) pos", group=heads // norms.shape[1])
    return by_query


def _head_first(model: LensModel, hook: str) -> bool:
    """Is the value ``[batch, head, pos, d_head]``, as latent attention's is (TransformerLens 3 does not declare it)?"""
    declared = getattr(model.hook_dict[hook], "pos_dim", None) == 2
    return declared or f"{hook.removesuffix(VALUE)}attn.hook_kv_latent" in model.hook_dict


def require_equal_heads(model: LensModel, heads: Mapping[int, int]) -> None:
    """Refuse a table by head where layers have different numbers of them."""
    if len(set(heads.values())) > 1:
        raise ValueError(
            f"{architecture(model)} has different numbers of heads in its layers ({dict(heads)}), which make no table by "
            "head. Read one layer: a scope with grads_at='blocks.0.attn.hook_z' keeps activation and gradient there"
        )
