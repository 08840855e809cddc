"""Attention sinks: how much attention goes to the first tokens and to a few others, and what that does to scopes.

A *secondary sink* is a position after the first tokens, not special, whose residual norm at some layer, or whose attention
over all layers and heads, exceeds ``multiple`` times the median; attention must be more than an even share of it as well.
How attention is counted: :mod:`tl_scopes.analysis.attention`. Positions up to the explained one only.

References: StreamingLLM, Xiao et al. 2023 (arXiv 2309.17453); massive activations, Sun et al. 2024 (arXiv 2402.17762).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import reduce, repeat
from jaxtyping import Float
from torch import Tensor

from tl_scopes.analysis.attention import attention_ratio, mass_on, received_attention
from tl_scopes.directions.by_name import Keywords, Method, named_explananda, reads
from tl_scopes.kernel.calls import encode, one_or_many
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.massive_activations import MULTIPLE, middle, outlying
from tl_scopes.kernel.options import capture_options
from tl_scopes.model.lens import LensModel, block_hooks, residual_hooks
from tl_scopes.model.prompts import EncodedPrompt, Prompt, Target, token_strings
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.numerics.statistics import spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.sinks import AttentionSinks, PositionalBaseline

METHODS: tuple[Method, ...] = ("semantic", "fisher", "temperature")


@dataclass(frozen=True, eq=False)
class _Seen:
    """One run: each scope's result, and the activations up to the explained position, on the CPU."""

    attributions: dict[str, Attribution]
    patterns: Float[Tensor, "layer head query key"]
    value_norms: Float[Tensor, "layer head end"]
    residual_norms: Float[Tensor, "stream end"]


@one_or_many
def attention_sinks(
    model: LensModel,
    prompt: Prompt,
    *,
    methods: Sequence[Method] = METHODS,
    n_first: int = 1,
    multiple: float = MULTIPLE,
    bos: Sequence[int] = (0, 1, 2),
    unrelated: int | Sequence[str] | Sequence[Tensor] = 8,
    seed: int = 0,
    target: Target = None,
    foil: Target = None,
    rank: int | None = None,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
) -> list[AttentionSinks]:
    """Attention on the first tokens and on secondary sinks, norms there, and each scope's share of influence on them.

    Definitions are at the top of this module. The sinks found are recorded in the attributions of the result:
    ``sinks.attributions["semantic"].without("sinks")`` is the corrected view, and says so.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: a string, a 1-D or ``[1, pos]`` tensor of token ids, or a list of either.
        methods: scopes whose share of influence on the sinks is wanted: names as in :func:`tl_scopes.layer_influence`.
        n_first: how many first positions count as sinks; 1 is BOS where there is one.
        multiple: of the median, from which a position in mid-sequence is a secondary sink.
        bos: numbers of BOS tokens to put before the same text and compare; empty for none.
        unrelated: prompts of the positional baseline: how many to draw (random tokens of the vocabulary, as long as the
            prompt, behind the same leading special tokens), or the prompts themselves, at least that long; 0 for none.
        seed: of the drawn prompts.
        target, foil, rank: of the scopes that read them.
        pos, prepend_bos, at: as in :func:`tl_scopes.semantic_scope`.

    Returns:
        One :class:`AttentionSinks` for one prompt, a list for a list: ``print`` it, ``.plot()``, ``.html()``,
        ``.to_frame()`` (by head), ``.influence_frame()``, ``.bos_frame()``, ``.position_frame()``.

    Raises:
        ValueError: as the scopes; fewer than ``n_first + 2`` tokens up to ``pos``; a block without attention patterns.

    Cost: per prompt one forward that keeps the attention patterns ``[layer, head, pos, pos]`` and one vector-Jacobian
    product per row of V; the same again for every entry of ``bos``, and one batch for the baseline.

    >>> sinks = attention_sinks(model, "German: der Hund sieht die Katze. English: the", bos=(), unrelated=0)
    >>> sinks.mass["first"].shape == (model.cfg.n_layers, model.cfg.n_heads)
    True
    >>> sinks.attributions["semantic"].without("sinks").top(1)[0].pos > 0
    True

    Reference: Xiao et al. 2023 (arXiv 2309.17453); paper section A.6 (influence near the zero input piles up on sinks).
    """
    call = "attention_sinks"
    _require_numbers(n_first, multiple, bos, call)
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    keywords = Keywords(target=target, foil=foil, rank=rank)
    named_explananda(model, methods, len(prompts), keywords, call, "methods")  # refuse before any forward
    for i, one in enumerate(prompts):
        if one.pos + 1 < n_first + 2:
            raise ValueError(
                f"{call}: prompt {i} has {one.pos + 1} tokens up to pos; attention on the first {n_first} needs at least "
                f"{n_first + 2}"
            )
    results = []
    for i, one in enumerate(prompts):
        own = replace(keywords, target=_own(target, i), foil=_own(foil, i))
        seen = _look(model, one, methods, own, at, call)
        result = _diagnose(one, seen, n_first, multiple)
        # every comparison explains what the prompt itself was explained for
        fixed = replace(own, target=_explained(result, own.target)) if reads("target", methods) else own
        rows = [_with_bos(model, one, n, methods, fixed, at, result, call) for n in bos]
        if any(row is None for row in rows):
            note = "No comparison without and with BOS: this model's tokenizer has no BOS token, or no text is left."
            result = replace(result, notes=(*result.notes, note))
        results.append(
            replace(
                result,
                bos_comparison=tuple(row for row in rows if row is not None),
                baseline=_baselines(model, one, methods, own, unrelated, seed, at, call),
            )
        )
    return results


@one_or_many
def positional_baseline(
    model: LensModel,
    prompt: Prompt,
    *,
    method: Method = "semantic",
    unrelated: int | Sequence[str] | Sequence[Tensor] = 16,
    seed: int = 0,
    foil: Target = None,
    target: Target = None,
    rank: int | None = None,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
) -> list[PositionalBaseline]:
    """Share of influence that each position gets on prompts that have nothing to do with this one.

    ``share_t = mean over prompts of score_t / Σ_s score_s``, read at the prompt's ``pos``: what BOS, the first tokens and the
    last ones get whatever they are. Without a target each prompt's own top prediction is explained.

    Args:
        prompt: whose length, leading special tokens and explained position the others take.
        method, target, foil, rank: the scope and its keywords.
        unrelated: how many prompts of random tokens to draw, or the prompts themselves, at least as long.
        seed: of the drawn prompts; the global RNG is not used.
        model, pos, prepend_bos, at: as in :func:`tl_scopes.semantic_scope`.

    Returns:
        One :class:`PositionalBaseline` for one prompt, a list for a list; ``.ratio(attribution)`` compares.

    Raises:
        ValueError: as the scope; fewer than two prompts, or a prompt that is too short.

    Cost: one forward and one vector-Jacobian product per row of V and batch of prompts.

    >>> baseline = positional_baseline(model, "German: der Hund sieht die Katze. English: the", unrelated=4)
    >>> round(float(baseline.share.sum()), 4)
    1.0

    Reference: this package.
    """
    call = "positional_baseline"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    keywords = Keywords(target=target, foil=foil, rank=rank)
    named_explananda(model, [method], len(prompts), keywords, call)
    results = []
    for i, one in enumerate(prompts):
        own = replace(keywords, target=_own(target, i), foil=_own(foil, i))
        found = _baselines(model, one, [method], own, unrelated, seed, at, call)
        if not found:
            raise ValueError(f"{call}(unrelated={unrelated!r}): a baseline needs at least two prompts")
        results.append(found[method])
    return results


def _require_numbers(n_first: int, multiple: float, bos: Sequence[int], call: str) -> None:
    if isinstance(n_first, bool) or not isinstance(n_first, int) or n_first < 1:
        raise ValueError(f"{call}(n_first={n_first!r}): expected a positive integer")
    if not multiple > 1:
        raise ValueError(f"{call}(multiple={multiple!r}): a multiple of the median, above 1")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in bos) or len(set(bos)) != len(bos):
        raise ValueError(f"{call}(bos={bos!r}): expected different numbers of BOS tokens, e.g. (0, 1, 2)")


def _own(asked: Target, i: int) -> Target:
    """One prompt's target out of what the caller gave for all."""
    return asked if asked is None or isinstance(asked, str | int) else list(asked)[i]


def _explained(result: AttentionSinks, asked: Target) -> Target:
    """The token that was explained."""
    return next((a.target for a in result.attributions.values() if a.target is not None), asked)


def _look(
    model: LensModel, prompt: EncodedPrompt, methods: Sequence[str], keywords: Keywords, at: str, call: str
) -> _Seen:
    """One forward with the scopes' backwards, and the activations that tell of sinks."""
    patterns, values, streams = (
        block_hooks(model, "attn.hook_pattern"),
        block_hooks(model, "attn.hook_v"),
        residual_hooks(model),
    )
    capture = capture_options(
        at=at, batch_size=None, cache=[*patterns, *values, *streams], grads_at=(), keep_gradient=False, call=call
    )
    explananda = named_explananda(model, methods, 1, keywords, call, "methods")
    found = dict(zip(methods, explain(model, [prompt], explananda, capture, call)[0], strict=True))
    cache: Any = next(iter(found.values())).cache
    end = prompt.pos + 1

    def read(name: str) -> Tensor:
        activation: Tensor = cache[name][0]
        return activation.to(compute_dtype(activation.dtype)).cpu()

    table = torch.stack([read(name)[:, :end, :end] for name in patterns])
    heads = table.shape[1]
    norms = [torch.linalg.vector_norm(read(name)[:end], dim=-1) for name in values]
    return _Seen(
        attributions={method: replace(a, cache=None) for method, a in found.items()},
        patterns=table,
        value_norms=torch.stack([repeat(n, "end kv -> (kv group) end", group=heads // n.shape[1]) for n in norms]),
        residual_norms=torch.stack([torch.linalg.vector_norm(read(name)[:end], dim=-1) for name in streams]),
    )


def _diagnose(prompt: EncodedPrompt, seen: _Seen, n_first: int, multiple: float) -> AttentionSinks:
    """Groups of sinks, and the numbers of each."""
    end = prompt.pos + 1
    candidates = middle(prompt, n_first)
    mean_pattern = reduce(seen.patterns, "layer head query key -> query key", "mean")
    ratios = {
        "residual": outlying(seen.residual_norms, candidates, multiple=0.0),
        "attention": attention_ratio(mean_pattern, candidates),
    }
    secondary = {
        p: {name: found[p] for name, found in ratios.items() if p in found}
        for p in candidates
        if any(found.get(p, 0.0) > multiple for found in ratios.values())
    }
    leading = next((p for p in range(end) if p not in prompt.special), end)
    groups = {"bos": tuple(range(leading)), "first": tuple(range(n_first)), "secondary": tuple(secondary)}
    sinks = frozenset(p for group in groups.values() for p in group)
    return AttentionSinks(
        received=received_attention(seen.patterns),
        value_norms=seen.value_norms,
        residual_norms=seen.residual_norms,
        groups=groups,
        mass={name: mass_on(seen.patterns, positions) for name, positions in groups.items()},
        secondary=secondary,
        attributions={method: replace(a, sinks=sinks) for method, a in seen.attributions.items()},
        multiple=multiple,
    )


def _with_bos(
    model: LensModel,
    prompt: EncodedPrompt,
    n: int,
    methods: Sequence[str],
    keywords: Keywords,
    at: str,
    own: AttentionSinks,
    call: str,
) -> dict[str, Any] | None:
    """The same text behind n BOS tokens, in one row; None where that cannot be."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    leading = len(own.groups["bos"])
    length = n + len(prompt.tokens) - leading
    if bos is None or prompt.pos - leading + n < 1 or prompt.pos < leading or length > model.cfg.n_ctx:
        return None
    tokens = torch.cat([torch.full((n,), int(bos)), prompt.tokens[leading:]])
    shifted = frozenset(range(n)) | {p - leading + n for p in prompt.special if p >= leading}
    changed = EncodedPrompt(tokens, token_strings(model, tokens), prompt.pos - leading + n, shifted)
    seen = _look(model, changed, methods, keywords, at, call)
    sinks = list(range(max(n, 1)))
    text = slice(n, changed.pos + 1)
    row: dict[str, Any] = {
        "n_bos": n,
        "attention_first": float(mass_on(seen.patterns, [0]).mean()),
        "attention_bos": float(mass_on(seen.patterns, range(n)).mean()),
        "residual_ratio_first": float(
            (seen.residual_norms[:, 0] / seen.residual_norms[:, text].median(1).values).amax()
        ),
    }
    for method, attribution in seen.attributions.items():
        scores = attribution.scores[: changed.pos + 1].double()
        row["top_prediction"], row["probability"] = attribution.top_predictions[0]
        row[f"share_{method}"] = float(scores[sinks].sum() / scores.sum().clamp_min(1e-300))
        before = own.attributions[method].scores[leading : prompt.pos + 1].double()
        correlation = spearman(scores[text].tolist(), before.tolist())
        if not math.isnan(correlation):
            row[f"rank_correlation_{method}"] = correlation
    return row


def _baselines(
    model: LensModel,
    prompt: EncodedPrompt,
    methods: Sequence[str],
    keywords: Keywords,
    unrelated: int | Sequence[str] | Sequence[Tensor],
    seed: int,
    at: str,
    call: str,
) -> dict[str, PositionalBaseline]:
    """Mean share by position over unrelated prompts, for each method; none for fewer than two prompts."""
    if isinstance(unrelated, int):
        others: list[Tensor] = _drawn(model, prompt, unrelated, seed)
    else:
        _, given = encode(model, list(unrelated), -1, None, call)  # type: ignore[arg-type]
        short = [i for i, one in enumerate(given) if len(one.tokens) <= prompt.pos]
        if short:
            raise ValueError(
                f"{call}(unrelated=...): prompt {short[0]} has {len(given[short[0]].tokens)} tokens, and the explained "
                f"position is {prompt.pos}; pass longer ones"
            )
        others = [one.tokens[: prompt.pos + 1] for one in given]
    if len(others) < 2:
        return {}
    _, encoded = encode(model, others, prompt.pos, None, call)
    explananda = named_explananda(model, methods, len(encoded), keywords, call, "methods")
    capture = capture_options(at=at, batch_size=None, cache=None, grads_at=(), keep_gradient=False, call=call)
    results = explain(model, encoded, explananda, capture, call)
    out = {}
    for i, method in enumerate(methods):
        scores = torch.stack([r[i].scores.double() for r in results])
        share = scores / scores.sum(1, keepdim=True).clamp_min(1e-300)
        dtype = results[0][i].scores.dtype
        stderr = share.std(0) / len(share) ** 0.5
        out[method] = PositionalBaseline(share.mean(0).to(dtype), stderr.to(dtype), results[0][i].method, len(share))
    return out


def _drawn(model: LensModel, prompt: EncodedPrompt, n: int, seed: int) -> list[Tensor]:
    """Prompts of random tokens that are not special, behind the prompt's own leading special tokens."""
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    ordinary = torch.tensor([i for i in range(model.cfg.d_vocab) if i not in special])
    leading = next((p for p in range(prompt.pos + 1) if p not in prompt.special), prompt.pos + 1)
    generator = torch.Generator().manual_seed(seed)
    rest = prompt.pos + 1 - leading
    drawn = ordinary[torch.randint(len(ordinary), (n, rest), generator=generator)]
    return [torch.cat([prompt.tokens[:leading], row]) for row in drawn]
