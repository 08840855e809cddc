"""Attention sinks: how much attention goes to the first tokens and to a few others, and what that does to scopes.

A *secondary sink* is a position after the first tokens, not special, whose residual norm at some layer, or whose attention
over all layers and heads, exceeds ``multiple`` times the median; attention must be more than an even share of it as well.
How attention is counted: :mod:`tl_scopes.analysis.attention`. Positions up to the explained one only.

References: StreamingLLM, Xiao et al. 2023 (arXiv 2309.17453); massive activations, Sun et al. 2024 (arXiv 2402.17762).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.analysis.attention import attention_ratio, mass_on, received_attention
from tl_scopes.directions.by_name import DEFAULT_METHODS, SCOPES, named_directions
from tl_scopes.kernel.calls import encode, prompt_call
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.massive_activations import MULTIPLE, candidates, outliers
from tl_scopes.kernel.options import FrozenKeywords, PlacedKeywords, RunOptions, run_options, split_keywords
from tl_scopes.model.attention import (
    OUTPUT,
    PATTERN,
    attention_layers,
    attention_notes,
    require_equal_heads,
    value_hooks,
    value_norms,
)
from tl_scopes.model.hooks import required_residual_hooks
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, Prompt, Target, token_strings
from tl_scopes.numerics.arguments import Seed, integer
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.numerics.progress import progress
from tl_scopes.numerics.statistics import spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.sinks import AttentionSinks, PositionalBaseline

_TOGETHER = 1024
"""Tokens of a baseline's prompts that run at once; after them the progress bar moves."""


class SinkKeywords(PlacedKeywords, FrozenKeywords, total=False):
    """Keywords of the scopes, and of their run."""

    target: Target
    foil: Target
    rank: int | None


@dataclass(frozen=True, eq=False)
class _Seen:
    """One run: each scope's result, and the activations up to the explained position, on the CPU."""

    attributions: dict[str, Attribution]
    layers: tuple[int, ...]
    patterns: Float[Tensor, "layer head query key"]
    value_norms: Float[Tensor, "layer head end"]
    residual_norms: Float[Tensor, "stream end"]


@prompt_call
def attention_sinks(
    model: LensModel,
    prompt: Prompt,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    n_first: int = 1,
    multiple: float = MULTIPLE,
    bos: Sequence[int] = (0, 1, 2),
    unrelated: int | Sequence[str | Tensor] = 8,
    seed: Seed = 0,
    **keywords: Unpack[SinkKeywords],
) -> list[AttentionSinks]:
    """Attention on the first tokens and on secondary sinks, norms there, and each scope's share of influence on them.

    Definitions are at the top of this module. The sinks found are recorded in the attributions of the result:
    ``sinks.attributions["semantic"].without("sinks")`` is the corrected view, and says so.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: a string, a 1-D or ``[1, pos]`` tensor of token ids, what a tokenizer returned (without the padding that
            its mask names), a chat as a list of messages, or what :func:`tl_scopes.generate` gave; a list of these, a
            ``[batch, pos]`` tensor, or what a tokenizer returned for several texts, gives a list of results.
        methods: scopes whose share of influence on the sinks is wanted: names as in :func:`tl_scopes.layer_influence`.
        n_first: how many first positions count as sinks; 1 is BOS where there is one.
        multiple: of the median, from which a position in mid-sequence is a secondary sink.
        bos: numbers of BOS tokens to put before the same text and compare; empty for none.
        unrelated: prompts of the positional baseline: how many to draw (random tokens of the vocabulary, as long as the
            prompt, behind the same leading special tokens), or the prompts themselves, at least that long; 0 for none.
        seed: of the drawn prompts.
        target, foil, rank: of the scopes that read them.
        pos, prepend_bos, chat_options, at: as in :func:`tl_scopes.semantic_scope`.
        frozen: as there; of the scopes' gradients, and not of the attention that is shown.

    Returns:
        One :class:`AttentionSinks` for one prompt, a list for a list: ``print`` it, ``.plot()``, ``.html()``,
        ``.to_frame()`` (by head), ``.influence_frame()``, ``.bos_frame()``, ``.position_frame()``. Of a model with
        attention in some layers only, ``.layers`` says in which.

    Raises:
        ValueError: as the scopes; fewer than ``n_first + 2`` tokens up to ``pos``; a model without attention, or
            whose attention TransformerLens does not show.

    Cost: per prompt one forward that keeps the attention patterns ``[layer, head, pos, pos]`` and one vector-Jacobian
    product per row of V; the same again for every entry of ``bos``, and one batch for the baseline.

    >>> sinks = attention_sinks(model, "German: der Hund sieht die Katze. English: the", bos=(), unrelated=0)
    >>> sinks.mass["first"].shape == (model.cfg.n_layers, model.cfg.n_heads)
    True
    >>> sinks.attributions["semantic"].without("sinks").top(1)[0].pos > 0
    True

    Reference: Xiao et al. 2023 (arXiv 2309.17453); paper section A.6 (influence near the zero input piles up on sinks).
    """
    _require_numbers(n_first, multiple, bos)
    n_unrelated = _n_prompts(unrelated)
    given, options = split_keywords(keywords)
    chosen = run_options(**options)
    model, prompts = encode(model, prompt, chosen)
    named_directions(model, methods, len(prompts), given)  # refuse before any forward
    layers = attention_layers(model, PATTERN, OUTPUT)
    value_hooks(model, layers)
    for i, one in enumerate(prompts):
        if one.pos + 1 < n_first + 2:
            raise ValueError(
                f"prompt {i} has {one.pos + 1} tokens up to pos; attention on the first {n_first} needs at least "
                f"{n_first + 2}"
            )
    results = []
    with progress(total=len(prompts) * (1 + len(bos) + n_unrelated), unit="text") as bar:
        for i, one in enumerate(prompts):
            look = _Look(model, tuple(methods), _of_prompt(given, i), chosen, layers)
            seen = look.at(one)
            bar.update()
            result = _diagnose(one, seen, n_first, multiple, attention_notes(model, layers))
            # every comparison explains what the prompt itself was explained for
            target = next((a.target for a in result.attributions.values() if a.target is not None), None)
            fixed = look if target is None else replace(look, keywords={**look.keywords, "target": target})
            rows = []
            for n in bos:
                rows.append(fixed.with_bos(one, n, result))
                bar.update()
            if any(row is None for row in rows):
                note = "No comparison without and with BOS: the tokenizer has no BOS token, or no text is left."
                result = replace(result, notes=(*result.notes, note))
            compared = tuple(row for row in rows if row is not None)
            baseline = look.baselines(one, unrelated, seed, bar.update)
            results.append(replace(result, bos_comparison=compared, baseline=baseline))
    return results


@prompt_call
def positional_baseline(
    model: LensModel,
    prompt: Prompt,
    *,
    method: str = "semantic",
    unrelated: int | Sequence[str | Tensor] = 16,
    seed: Seed = 0,
    **keywords: Unpack[SinkKeywords],
) -> list[PositionalBaseline]:
    """Share of influence that each position gets on prompts that have nothing to do with this one.

    ``share_t = mean over prompts of score_t / Σ_s score_s``, read at the prompt's ``pos``: what BOS, the first tokens and the
    last ones get whatever they are. Without a target each prompt's own top prediction is explained.

    Args:
        prompt: whose length, leading special tokens and explained position the others take.
        method, target, foil, rank: the scope and its keywords.
        unrelated: how many prompts of random tokens to draw, or the prompts themselves, at least as long.
        seed: of the drawn prompts; the global RNG is not used.
        model, pos, prepend_bos, chat_options, at, frozen: as in :func:`tl_scopes.semantic_scope`.

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
    n_unrelated = _n_prompts(unrelated)
    given, options = split_keywords(keywords)
    chosen = run_options(**options)
    model, prompts = encode(model, prompt, chosen)
    named_directions(model, [method], len(prompts), given, argument="method")
    results = []
    with progress(total=len(prompts) * n_unrelated, unit="text") as bar:
        for i, one in enumerate(prompts):
            look = _Look(model, (method,), _of_prompt(given, i), chosen)
            found = look.baselines(one, unrelated, seed, bar.update)
            if not found:
                raise ValueError(f"(unrelated={unrelated!r}): a baseline needs at least two prompts")
            results.append(found[method])
    return results


def _require_numbers(n_first: int, multiple: float, bos: Sequence[int]) -> None:
    integer("n_first", n_first, least=1)
    if not multiple > 1:
        raise ValueError(f"(multiple={multiple!r}): a multiple of the median, above 1")
    if any(n < 0 for n in bos) or len(set(bos)) != len(bos):
        raise ValueError(f"(bos={bos!r}): expected different numbers of BOS tokens, e.g. (0, 1, 2)")


def _n_prompts(unrelated: int | Sequence[str | Tensor]) -> int:
    return integer("unrelated", unrelated, least=0) if isinstance(unrelated, int) else len(unrelated)


def _of_prompt(keywords: Mapping[str, Any], i: int) -> dict[str, Any]:
    """One prompt's keywords out of what the caller gave for all."""

    def own(value: Any) -> Any:
        return value if value is None or isinstance(value, str | int) else list(value)[i]

    return {name: own(value) if name in ("target", "foil") else value for name, value in keywords.items()}


@dataclass(frozen=True, eq=False)
class _Look:
    """Scopes of one prompt on one model, with their keywords; of the call's options source, frozen parts and BOS are read."""

    model: LensModel
    methods: tuple[str, ...]
    keywords: Mapping[str, Any]
    options: RunOptions
    layers: tuple[int, ...] = ()

    def at(self, prompt: EncodedPrompt) -> _Seen:
        """One forward with the scopes' backwards, and the activations that tell of sinks."""
        streams = required_residual_hooks(self.model)
        names = [f"blocks.{layer}.{name}" for layer in self.layers for name in (PATTERN, OUTPUT)]
        values = value_hooks(self.model, self.layers)
        shown = [*names, *dict.fromkeys(values.values()), *streams]
        options = RunOptions(at=self.options.at, frozen=self.options.frozen, cache=shown)
        directions = named_directions(self.model, self.methods, 1, self.keywords)
        found = dict(zip(self.methods, explain(self.model, [prompt], directions, options)[0], strict=True))
        cache: Any = next(iter(found.values())).cache
        end = prompt.pos + 1

        def read(name: str) -> Tensor:
            activation: Tensor = cache[name][0]
            return activation.to(compute_dtype(activation.dtype)).cpu()

        patterns = {layer: read(f"blocks.{layer}.{PATTERN}") for layer in self.layers}
        require_equal_heads(self.model, {layer: len(pattern) for layer, pattern in patterns.items()})
        norms = [
            value_norms(self.model, values[layer], read(values[layer]), read(f"blocks.{layer}.{OUTPUT}"), len(pattern))
            for layer, pattern in patterns.items()
        ]
        return _Seen(
            attributions={method: replace(a, cache=None) for method, a in found.items()},
            layers=self.layers,
            patterns=torch.stack([pattern[:, :end, :end] for pattern in patterns.values()]),
            value_norms=torch.stack(norms)[..., :end],
            residual_norms=torch.stack([torch.linalg.vector_norm(read(name)[:end], dim=-1) for name in streams]),
        )

    def with_bos(self, prompt: EncodedPrompt, n: int, own: AttentionSinks) -> dict[str, Any] | None:
        """The same text behind n BOS tokens, in one row; None where that cannot be."""
        bos = getattr(self.model.tokenizer, "bos_token_id", None)
        leading = len(own.groups["bos"])
        length = n + len(prompt.tokens) - leading
        no_room = prompt.pos - leading + n < 1 or prompt.pos < leading or length > self.model.cfg.n_ctx
        if bos is None or no_room:
            return None
        tokens = torch.cat([torch.full((n,), int(bos)), prompt.tokens[leading:]])
        shifted = frozenset(range(n)) | {p - leading + n for p in prompt.special if p >= leading}
        changed = EncodedPrompt(tokens, token_strings(self.model, tokens), prompt.pos - leading + n, shifted)
        seen = self.at(changed)
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

    def baselines(
        self,
        prompt: EncodedPrompt,
        unrelated: int | Sequence[str | Tensor],
        seed: int,
        ran: Callable[[int], object],
    ) -> dict[str, PositionalBaseline]:
        """Mean share by position over unrelated prompts, for each method; none for fewer than two; ``ran`` hears how many."""
        if isinstance(unrelated, int):
            others: list[Tensor] = _drawn(self.model, prompt, unrelated, seed)
        else:
            _, given = encode(
                self.model, list(unrelated), RunOptions(prepend_bos=self.options.prepend_bos), "unrelated"
            )
            short = [i for i, one in enumerate(given) if len(one.tokens) <= prompt.pos]
            if short:
                raise ValueError(
                    f"(unrelated=...): prompt {short[0]} has {len(given[short[0]].tokens)} tokens, and the explained "
                    f"position is {prompt.pos}; pass longer ones"
                )
            others = [one.tokens[: prompt.pos + 1] for one in given]
        if len(others) < 2:
            return {}
        options = RunOptions(pos=prompt.pos, at=self.options.at, frozen=self.options.frozen)
        _, encoded = encode(self.model, others, options)
        results: list[list[Attribution]] = []
        size = max(1, _TOGETHER // (prompt.pos + 1))
        for first in range(0, len(encoded), size):
            part = encoded[first : first + size]
            directions = named_directions(self.model, self.methods, len(part), self.keywords)
            results += explain(self.model, part, directions, options)
            ran(len(part))
        out = {}
        for i, method in enumerate(self.methods):
            telling, details = ("at", "of", *SCOPES[method].asked), results[0][i].details
            scores = torch.stack([r[i].scores.double() for r in results])
            share = scores / scores.sum(1, keepdim=True).clamp_min(1e-300)
            dtype = results[0][i].scores.dtype
            stderr = share.std(0) / len(share) ** 0.5
            out[method] = PositionalBaseline(
                share.mean(0).to(dtype),
                stderr.to(dtype),
                results[0][i].method,
                len(share),
                options.frozen,
                {name: details[name] for name in telling if name in details},
            )
        return out


def _diagnose(
    prompt: EncodedPrompt, seen: _Seen, n_first: int, multiple: float, notes: tuple[str, ...]
) -> AttentionSinks:
    """Groups of sinks, and the numbers of each."""
    end = prompt.pos + 1
    middle = candidates(prompt, n_first)
    mean_pattern = reduce(seen.patterns, "layer head query key -> query key", "mean")
    ratios = {
        "residual": outliers(seen.residual_norms, middle, multiple=0.0),
        "attention": attention_ratio(mean_pattern, middle),
    }
    secondary = {
        p: {name: found[p] for name, found in ratios.items() if p in found}
        for p in middle
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
        notes=(*prompt.notes, *notes),
        layers=seen.layers,
    )


def _drawn(model: LensModel, prompt: EncodedPrompt, n: int, seed: int) -> list[Tensor]:
    """Prompts of random tokens that are not special, behind the prompt's own leading special tokens."""
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    ordinary = torch.tensor([i for i in range(model.cfg.d_vocab) if i not in special])
    leading = next((p for p in range(prompt.pos + 1) if p not in prompt.special), prompt.pos + 1)
    generator = torch.Generator().manual_seed(seed)
    rest = prompt.pos + 1 - leading
    drawn = ordinary[torch.randint(len(ordinary), (n, rest), generator=generator)]
    return [torch.cat([prompt.tokens[:leading], row]) for row in drawn]
