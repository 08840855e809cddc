"""Activation patching where an attribution points: cells of TransformerLens' ``patching`` sweeps, and whole sets of tokens.

Legend: the *clean* and the *corrupt* prompt have equally many tokens; ``m`` is the metric, by default the scalar that the
attribution explains. A patch puts the clean run's activation into the corrupt run at one layer and some positions:

    recovered = (m_patched − m_corrupt) / (m_clean − m_corrupt)

1 restores the clean metric, 0 does nothing. Three things side by side:

* the *cells*: each attributed token at each layer alone; the numbers are those of a full sweep by
  ``transformer_lens.patching.get_act_patch_*``, which computes all logits for every cell of the prompt;
* *jointly*: all attributed tokens at one layer, beside as many tokens drawn at random;
* the *estimate* of each cell from one backward, attribution patching: ``⟨∂m/∂a, a_clean − a_corrupt⟩`` at the corrupt run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.analysis.explained_scalar import prompt_of, question_of, target_hook_of
from tl_scopes.directions.base import Reading, Readings, joined
from tl_scopes.kernel.batching import rows_per_forward
from tl_scopes.kernel.calls import encode_one
from tl_scopes.kernel.options import RunOptions
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.model.forward import Recording, forward_pass, run_with_hooks
from tl_scopes.model.hooks import Y_HOOK, Hook, differentiable, fires_again, require_hook
from tl_scopes.model.later_blocks import beginning_at, stream_before
from tl_scopes.model.lens import LensModel, architecture, feeds_a_branch, source_device
from tl_scopes.model.lock import model_call
from tl_scopes.model.predictions import Predictions, Table
from tl_scopes.model.prompts import OnePrompt
from tl_scopes.numerics.arguments import Seed, integer, number
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.precision import compute_dtype, to_float64
from tl_scopes.numerics.progress import progress
from tl_scopes.numerics.ranking import most_influential
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.patching import Component, PatchTop

Metric = Callable[[Tensor], Tensor]
"""From logits ``[batch, pos, d_vocab]`` to one number, as TransformerLens' patching functions take it."""
MOST_LOGITS = 2**27
"""Of one forward: half a GiB in float32."""


@model_call
def patch_top(
    model: LensModel,
    clean: OnePrompt,
    corrupt: OnePrompt,
    attribution: Attribution,
    *,
    k: int = 5,
    layers: Sequence[int] | None = None,
    component: Component = "resid_pre",
    metric: Metric | None = None,
    n_random: int = 20,
    seed: Seed = 0,
    prepend_bos: bool | None = None,
    chat_options: Mapping[str, Any] | None = None,
) -> PatchTop:
    """How much of a clean/corrupt difference is recovered by patching the top tokens of an attribution.

    ``recovered = (m_patched − m_corrupt)/(m_clean − m_corrupt)`` with the clean run's activation put into the corrupt run:
    token by token and layer by layer, all k tokens of a layer together, and k tokens drawn at random.

    Args:
        model: the model that made the attribution.
        clean: prompt whose activations are put in.
        corrupt: prompt that is run; equally many tokens.
        attribution: of one of the two prompts; special and hidden tokens are never patched.
        k: tokens.
        layers: None is all that have the component (up to the target hook, where the attribution explains one inside the
            model).
        component: which activation, as TransformerLens' ``get_act_patch_*`` names it.
        metric: ``metric(logits) -> scalar``, as TransformerLens takes it, on ``[1, pos, d_vocab]``; None is the scalar that
            the attribution explains (minus the divergence from the clean run where it has no sign).
        n_random: draws of k random tokens.
        seed: of the draws; the global RNG is not used.
        prepend_bos: put BOS before string prompts; None is the model's own default.
        chat_options: of prompts that are lists of messages, as in :func:`tl_scopes.semantic_scope`.

    Returns:
        A :class:`PatchTop`; print it, ``.summary``, ``.by_layer()``, ``.to_frame()``, ``.plot()``, ``.html()``.

    Raises:
        ValueError: prompts of different lengths or of the same metric; an attribution of another prompt; k, layers,
            component or n_random out of range.
        TypeError: not a TransformerLens model, or several prompts.

    Cost: forwards of ``len(layers) · (k + 1 + n_random)`` rows, four more and one backward; logits at one position of
    each row, or at all for a ``metric`` of one's own. A row begins at its layer, on the corrupt run's residual stream, where
    the model can be run so, which one more row per layer tells.

    >>> clean, corrupt = (f"German: der {w} sieht die Katze. English: the" for w in ("Hund", "Vogel"))
    >>> attr = semantic_scope(model, clean, target=" dog")
    >>> result = patch_top(model, clean, corrupt, attr, k=3, layers=[0], n_random=5)
    >>> result.to_frame()[["layer", "token"]].shape
    (3, 2)

    Reference: Zhang and Nanda 2024 (arXiv 2309.16042); attribution patching: Syed et al. 2023 (arXiv 2310.10348).
    """
    options = RunOptions(prepend_bos=prepend_bos, chat_options=chat_options)
    pair = _checked(model, clean, corrupt, attribution, options)
    chosen, candidates = _top(attribution, k)
    integer("n_random", n_random, least=1)
    rows = _layers(model, layers, target_hook_of(attribution) if metric is None else Y_HOOK, component)
    runs = _Runs(model, pair, attribution, metric, component, rows)
    m_clean, m_corrupt = runs.ends
    if abs(m_clean - m_corrupt) <= 64 * torch.finfo(model.W_U.dtype).eps * max(1.0, abs(m_clean)):
        raise ValueError(
            f"(clean=..., corrupt=...): both give {m_clean:.4g}, so there is nothing to recover; take prompts that "
            "differ where it matters, or another metric"
        )
    generator = prompt_generator(seed, attribution.tokens)
    draws = [[candidates[i] for i in torch.randperm(len(candidates), generator=generator)[:k]] for _ in range(n_random)]
    estimate = runs.estimate(chosen)
    found = runs.patched([*([position] for position in chosen), chosen, *draws])
    return PatchTop(
        attribution=attribution,
        positions=tuple(chosen),
        layers=tuple(rows),
        component=component,
        scalar=runs.question.name if metric is None else getattr(metric, "__name__", "metric"),
        clean=m_clean,
        corrupt=m_corrupt,
        cells=found[:, :k],
        estimate=estimate,
        joint=found[:, k],
        random=found[:, k + 1 :],
        random_positions=tuple(tuple(d) for d in draws),
        full_cells=model.cfg.n_layers * pair.shape[1],
    )


class _Runs:
    """Runs on one pair of prompts with one metric.

    The clean prompt runs once with its activations cached, the corrupt one once with a graph; one of the two is the
    attribution's own, and tells what is explained. Logits exist at the explained position alone, unless a caller's metric
    takes those of all positions. What was patched begins at its layer, from the corrupt run's residual stream.
    """

    def __init__(
        self,
        model: LensModel,
        pair: Int[Tensor, "two pos"],
        attribution: Attribution,
        metric: Metric | None,
        component: Component,
        layers: Sequence[int],
    ) -> None:
        self.model, self.pair, self.metric, self.prompt = model, pair, metric, prompt_of(attribution)
        explained = list(attribution.span or [attribution.pos])
        read = explained if metric is None else list(range(pair.shape[1]))
        self.read, self.at = torch.tensor(read), [read.index(p) for p in explained]
        self.target_hook = target_hook_of(attribution) if metric is None else Y_HOOK
        self.layers = {f"blocks.{layer}.hook_{component}": layer for layer in layers}
        self.names = list(self.layers)
        for name in self.names:
            require_hook(model, model.hook_dict, name, "component")
        self.cache: dict[str, Tensor] = {}
        with torch.no_grad():
            clean = self.run(pair[:1], [(name, self._keep(name)) for name in self.names])
        with differentiable(model):
            self.graph = forward_pass(
                model,
                pair[1:].clone(),
                self.read,
                Recording(self.names[0], self.target_hook, tuple(self.names[1:]), table=True),
                rows=torch.zeros(len(read), dtype=torch.int64),
            )
        corrupt = self.graph.logits.detach()[None], self.graph.hidden.detach()[None]
        self.base = self._reading(*clean)
        own = self.base if torch.equal(attribution.tokens, pair[0].cpu()) else self._reading(*corrupt)
        self.question = question_of(model, attribution, joined(own))
        self.ends = float(self.values(*clean)), float(self.values(*corrupt))

    def _keep(self, name: str) -> Hook:
        def hook(activation: Tensor, hook: Any) -> None:
            if name in self.cache:
                raise fires_again(name, "component")
            self.cache[name] = activation

        return hook

    def streams(self) -> dict[int, Tensor]:
        """The corrupt run's stream before each layer at which a run may begin, for without a patch it is the corrupt run.

        The clean prompt runs in between, and the last layer is tried first: what blocks left out may keep is of that run.
        """
        seen: dict[int, list[Tensor]] = {}

        def keep(layer: int) -> tuple[str, Hook]:
            return stream_before(layer), lambda activation, hook: seen.setdefault(layer, []).append(activation)

        layers = [layer for layer in self.layers.values() if layer and stream_before(layer) in self.model.hook_dict]
        if not layers:
            return {}
        known, _ = self.run(self.pair[1:], [keep(layer) for layer in layers])
        self.run(self.pair[:1], [])
        found = {layer: streams[0] for layer, streams in sorted(seen.items(), reverse=True) if len(streams) == 1}
        within = 4 * torch.finfo(known.dtype).eps * known.abs().max()
        for layer, stream in list(found.items()):
            try:
                same = bool((self.run_from(layer, 1, [], stream)[0] - known).abs().max() <= within)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
                same = False
            if not same:
                del found[layer]
        return found

    def run_from(
        self, layer: int, n: int, hooks: Sequence[tuple[str, Hook]], stream: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`run`, n rows of the corrupt prompt, from a layer on where its stream is given."""
        tokens = repeat(self.pair[1], "pos -> sets pos", sets=n)
        if stream is None:
            return self.run(tokens, hooks)
        with beginning_at(self.model, layer, stream) as begin:
            return self.run(tokens, [*begin, *hooks])

    def run(self, tokens: Int[Tensor, "batch pos"], hooks: Sequence[tuple[str, Hook]]) -> tuple[Tensor, Tensor]:
        """Logits ``[batch, read, d_vocab]`` and what passed the target hook, ``[batch, read, ...]``."""
        seen: list[Tensor] = []

        def watch(activation: Tensor, hook: Any) -> None:
            seen[:] = [activation[:, self.read.to(activation.device)]]

        def read_out(activation: Tensor, hook: Any) -> Tensor:
            return activation[:, self.read.to(activation.device)]

        logits = run_with_hooks(self.model, tokens, [*hooks, (self.target_hook, watch), (Y_HOOK, read_out)])
        return logits, seen[-1]

    def _reading(self, logits: Tensor, hidden: Tensor) -> Readings:
        n, W_U = len(self.read), self.model.W_U.detach()
        table = Table(rearrange(logits, "batch read d_vocab -> (batch read) d_vocab"), None, W_U)
        every = Predictions.all_of(table)
        return tuple(Reading(every[m::n], hidden[:, m]) for m in self.at)

    def values(self, logits: Tensor, hidden: Tensor) -> Float[Tensor, " batch"]:
        """The metric of every row."""
        if self.metric is None:
            return self.question.metric(self.base, self._reading(logits, hidden))
        return torch.stack([_one_number(self.metric(row[None])) for row in logits])

    def patched(self, sets: Sequence[Sequence[int]]) -> Float[Tensor, "layer set"]:
        """The metric with the tokens of a set patched at one layer; a set is a row of a batch, patched in its places."""
        chosen = torch.zeros(len(sets), self.pair.shape[1], dtype=torch.bool)
        for row, positions in enumerate(sets):
            chosen[row, list(positions)] = True
        found: list[Tensor] = []
        size = rows_per_forward(self.model, [replace(self.prompt, pos=self.pair.shape[1] - 1)], None)
        size = min(size, max(1, MOST_LOGITS // (len(self.read) * int(self.model.cfg.d_vocab))))
        with torch.no_grad(), progress(total=len(self.names) * len(sets), unit="patch") as bar:
            streams = self.streams()
            for name, layer in self.layers.items():
                for part in torch.split(chosen, size):

                    def put(corrupted: Tensor, hook: Any, name: str = name, part: Tensor = part) -> Tensor:
                        return torch.where(part.to(corrupted.device)[..., None], self.cache[name], corrupted)

                    found.append(self.values(*self.run_from(layer, len(part), [(name, put)], streams.get(layer))))
                    bar.update(len(part))
        return rearrange(torch.cat(found).cpu(), "(layer set) -> layer set", set=len(sets))

    def estimate(self, positions: Sequence[int]) -> Float[Tensor, "layer token"] | None:
        """Attribution patching: from the corrupt run's gradient, ``m_corrupt + ⟨∂m/∂a, a_clean − a_corrupt⟩``; once."""
        run = vars(self).pop("graph")  # which is freed with it
        with differentiable(self.model):
            logits = run.logits.clone().requires_grad_(True)
            hidden = run.hidden.detach().clone().requires_grad_(True)
            value = self.values(logits[None], hidden[None])[0]
            if not value.requires_grad:
                return None
            by_logits, by_hidden = torch.autograd.grad(value, [logits, hidden], allow_unused=True)
            V = torch.zeros_like(hidden) if by_hidden is None else by_hidden
            if by_logits is not None:
                by_raw = by_logits if run.slope is None else by_logits * run.slope.to(by_logits)
                V = V + (by_raw.to(V) @ self.model.W_U.detach().to(V).T)
            options = RunOptions(at=self.names[0], target_hook=self.target_hook, grads_at=tuple(self.names[1:]))
            sources = [run.activations[name] for name in self.names]
            (pulled,) = list(pull_back(run.hidden, sources, V[None], options))
        changes = [
            einsum(
                to_float64(gradient[0, 0, list(positions)]),
                to_float64((self.cache[name] - run.activations[name].detach())[0, list(positions)]),
                "token d_model, token d_model -> token",
            )
            for name, gradient in zip(self.names, pulled, strict=True)
        ]
        return (self.ends[1] + torch.stack(changes)).cpu().to(compute_dtype(self.model.W_U.dtype))


def _one_number(found: object) -> Tensor:
    """What a caller's metric gave, as a tensor of no dimension on the CPU."""
    if not isinstance(found, Tensor):
        number("metric(logits)", found)
        return torch.as_tensor(found).reshape(())
    if found.numel() != 1:
        raise ValueError(f"(metric=...): it must return one number, got a tensor of shape {list(found.shape)}")
    return found.reshape(()).cpu()


def _checked(
    model: LensModel, clean: OnePrompt, corrupt: OnePrompt, attribution: Attribution, options: RunOptions
) -> Int[Tensor, "two pos"]:
    """Both prompts as tokens ``[2, pos]``, one of which is the attribution's."""
    model, first = encode_one(model, clean, options, "clean")
    _, second = encode_one(model, corrupt, options, "corrupt")
    if len(first.tokens) != len(second.tokens):
        raise ValueError(
            f"(clean=..., corrupt=...): {len(first.tokens)} and {len(second.tokens)} tokens; positions must "
            f"correspond, so take prompts of equal length. Clean: {first.str_tokens}; corrupt: {second.str_tokens}"
        )
    answer = attribution.tokens[list(attribution.answer)]
    pair = [p.tokens for p in (first, second)]
    if len(answer) and len(pair[0]) == attribution.answer[0]:
        pair = [torch.cat([tokens, answer]) for tokens in pair]
    if not any(torch.equal(attribution.tokens, tokens) for tokens in pair):
        raise ValueError(
            f"(attribution=...): it is of another prompt than clean and corrupt: {attribution.str_tokens}; make it "
            "with the same text and prepend_bos"
        )
    prompt_of(attribution)  # refuses one by word
    return torch.stack(pair).to(source_device(model))


def _top(attribution: Attribution, k: int) -> tuple[list[int], list[int]]:
    """The k tokens with the highest scores, and all that may be drawn."""
    candidates = [p for p in attribution.shown if p not in {*attribution.special, *attribution.answer}]
    if not 1 <= k <= len(candidates):
        raise ValueError(f"(k={k!r}): k must be in 1..{len(candidates)}, the tokens that may be patched")
    return most_influential(attribution.scores.tolist(), candidates, k), candidates


def _layers(model: LensModel, layers: Sequence[int] | None, target_hook: str, component: Component) -> list[int]:
    """Layers to patch: those upstream of what is explained."""
    n: int = model.cfg.n_layers
    parts = target_hook.split(".")
    if len(parts) > 2 and parts[0] == "blocks":
        n = int(parts[1]) + (component == "resid_pre" or parts[2] == "hook_resid_post")
    if not n:
        raise ValueError(
            f"(component={component!r}): no hook_{component} stands before {target_hook}, where the attribution's direction "
            "is; use 'resid_pre', or a direction at a later hook"
        )
    there = [i for i in range(n) if f"blocks.{i}.hook_{component}" in model.hook_dict]
    if not there:
        blocks = [p for p in model.hook_dict if p.startswith("blocks.")]
        has = [c for c in get_args(Component) if any(p.endswith(f".hook_{c}") for p in blocks)]
        raise ValueError(
            f"(component={component!r}): TransformerLens shows no hook_{component} in any layer of {architecture(model)}. "
            + (f"Use one of {has}" if has else "There is nothing to patch; use a scope, or leave_one_out")
        )
    if feeds_a_branch(model, f"blocks.{there[0]}.hook_{component}"):
        raise ValueError(
            f"(component={component!r}): on a TransformerBridge this hook is the input of the MLP's branch alone, and what "
            "flows beside it would stay as it is. Use 'resid_pre', 'attn_out' or 'mlp_out'"
        )
    chosen = there if layers is None else list(layers)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(n)):
        raise ValueError(f"(layers={layers}): expected different layers among 0..{n - 1}")
    return chosen
