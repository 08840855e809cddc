"""FlashTrace (arXiv 2602.01914) on plain Hugging Face: ``FlashTrace.trace`` of the answer to the prompt.

    flashtrace          method "flashtrace" with one hop: the answer's tokens, and what they passed through each other
    flashtrace/direct   method "ifr-span": the same without hops
    flashtrace/before   the latter read one token earlier, where the answer is predicted: not what the package does by itself

Scores are no gradients: how near each token's part of an attention layer comes to the stream behind that layer, over all
tokens of the answer together. The package reads it **at the answer's own tokens**, behind those that predict them, hence the
third. In the first, commas, full stops and white space have score 0 (its stop words); in the third, the last token of the
prompt has. It reads text, the prompt with BOS written out, whose ids are compared with ours.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from plain import Asked, Peer, relative_error, require_same_ids
from torch import Tensor


def one_hop(hf: Any, tokenizer: Any, one: Asked) -> Tensor:
    """FlashTrace as its quickstart calls it."""
    return _trace(hf, tokenizer, one, "flashtrace")


def direct(hf: Any, tokenizer: Any, one: Asked) -> Tensor:
    """Without hops, nor stop words."""
    return _trace(hf, tokenizer, one, "ifr-span")


def before(hf: Any, tokenizer: Any, one: Asked) -> Tensor:
    """Without hops, of the last token of the prompt and all but the last of the answer."""
    found = _trace(hf, tokenizer, one, "ifr-span", shift=1)
    return torch.cat([found, torch.zeros(1)])


def _trace(hf: Any, tokenizer: Any, one: Asked, method: Any, shift: int = 0) -> Tensor:
    """Scores of the prompt's tokens, all but the last ``shift``."""
    from flashtrace import FlashTrace

    n = len(one.prompt) - shift
    ids = torch.cat([one.prompt, torch.tensor(one.answer)])
    prompt, answer = tokenizer.decode(ids[:n]), tokenizer.decode(ids[n : n + len(one.answer)])
    for text, own in ((prompt, ids[:n]), (answer, ids[n : n + len(one.answer)])):
        require_same_ids("flashtrace", tokenizer(text, add_special_tokens=False)["input_ids"], own)
    span = (0, len(one.answer) - 1)
    with contextlib.redirect_stderr(io.StringIO()):  # a bar per layer
        found = FlashTrace(hf, tokenizer).trace(prompt=prompt, target=answer, output_span=span, hops=1, method=method)
    return torch.tensor(found.scores)


@torch.no_grad()
def check(model: Any, hf: Any, one: Asked) -> dict[str, float]:
    """``flashtrace/direct`` by its definition, from the bridge's activations.

    ``p(a) = max(0, ‖m‖₁ − ‖a − m‖₁)`` for a part a of the stream m behind an attention layer, summed over the answer's
    tokens; a token's part is what each head moves from it. ``score_t = Σ_layers Σ_heads p(part) / (Σ p(parts) + p(x))``,
    x the stream before the layer. (The package takes 1e-6 for the epsilon of every norm, whatever the model has.)
    """
    ids = torch.cat([one.prompt, torch.tensor(one.answer)])
    _, cache = model.run_with_cache(ids[None])
    rows, expected = slice(len(one.prompt), len(ids)), torch.zeros(len(ids))
    for layer, block in enumerate(model.blocks):
        name = f"blocks.{layer}"
        pattern, v = cache[f"{name}.attn.hook_pattern"][0], cache[f"{name}.attn.hook_v"][0]
        x, m = (cache[f"{name}.hook_resid_{at}"][0, rows].sum(0) for at in ("pre", "mid"))
        v = v.repeat_interleave(len(pattern) // v.shape[1], dim=1)
        moved = torch.einsum("hqk,khd,hdm->khm", pattern[:, rows], v, block.attn.W_O)
        parts = (m.abs().sum() - (moved - m).abs().sum(-1)).clamp_min(0).sum(1)
        passed = (m.abs().sum() - (x - m).abs().sum()).clamp_min(0)
        expected += parts / (parts.sum() + passed)
    found = direct(hf, model.tokenizer, one)
    what = "flashtrace/direct is its definition on the bridge's activations"
    return {what: relative_error(found, expected[: len(found)])}


PEER = Peer(
    "flashtrace",
    {"flashtrace": one_hop, "flashtrace/direct": direct, "flashtrace/before": before},
    check,
    families=("llama", "qwen2", "qwen3"),
)
