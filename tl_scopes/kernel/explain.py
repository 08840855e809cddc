"""The kernel: one forward, the rows of V pulled back to the source, scores.

    prompt → tokens → hooked forward → (x, y) → V → VJP → scores → Attribution

For every prompt the direction gives rows ``V`` ``[k, d_model]`` at the final hidden state; the kernel pulls all of them
back, ``G = V·J`` ``[k, pos, d_model]``, and reduces them to one score per token. Rows of a batch do not see each other, so
one vector-Jacobian product serves the whole batch, and several directions on one prompt share one forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from tl_scopes.directions.base import Direction, Rows, Scored
from tl_scopes.kernel.attributed import (
    Answer,
    attributed,
    refuse_influence_from_the_future,
    refuse_influence_of_padding,
)
from tl_scopes.kernel.massive_activations import found_sinks, residual_norms
from tl_scopes.kernel.options import DEFAULT_BATCH, GradientProbe, RunOptions
from tl_scopes.kernel.pull_back import VJP_CHUNK, pull_back
from tl_scopes.kernel.read_out import read_outs
from tl_scopes.model.forward import ForwardPass, activation_cache, forward_pass
from tl_scopes.model.hooks import NamesFilter, differentiable
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory, Run
from tl_scopes.model.prompts import EncodedPrompt, pad_right
from tl_scopes.model.state import ModelState, model_state
from tl_scopes.numerics.arguments import call_name
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.results.attribution import Attribution

if TYPE_CHECKING:
    from transformer_lens import ActivationCache

MOST_ROW_SCORES = 64
"""Rows of V up to which each row's own scores are kept in ``details``."""
Measured = tuple[Attribution, list[Tensor]]
"""An attribution, and what each probe measured in the same backward, ``[pos, ...]`` on the CPU."""


def explain(
    model: LensModel, prompts: Sequence[EncodedPrompt], directions: Sequence[Direction], options: RunOptions
) -> list[list[Attribution]]:
    """Attributions ``[prompt][direction]``, each prompt through one forward.

    Prompts run in batches of similar length; an activation cache is taken one prompt at a time, so that it looks
    as ``run_with_cache`` on that prompt would.
    """
    return [[a for a, _ in results] for results in explain_inside(model, prompts, directions, (), options)]


def explain_inside(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    directions: Sequence[Direction],
    probes: Sequence[GradientProbe],
    options: RunOptions,
) -> list[list[Measured]]:
    """As :func:`explain`, with what each probe measured in the same backward, ``[pos, ...]`` on the CPU.

    A probe behind the target hook measures 0: nothing flows from there to it.
    """
    state = model_state(model)
    for direction in directions:
        direction.check(state)
    with differentiable(model):
        memory = options.memory(model, probes)
        explanation = _Explanation(model, state, directions, probes, options, memory)
        results: dict[int, list[Measured]] = {}
        batches = _batches(prompts, options, memory)
        many = None if len(batches) > 1 else True
        for batch, run in tqdm(batches, desc=call_name(), unit="batch", disable=many, leave=None):
            results.update(zip(batch, explanation.of([prompts[i] for i in batch], batch, run), strict=True))
    return [results[i] for i in range(len(prompts))]


def _batches(prompts: Sequence[EncodedPrompt], options: RunOptions, memory: Memory) -> list[tuple[list[int], Run]]:
    """Prompts of similar length together, as many as fit; refused before any forward where one does not."""
    size = 1 if options.wants_cache else options.batch_size or DEFAULT_BATCH
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))
    found = []
    for first in range(0, len(order), size):
        batch = order[first : first + size]
        run = memory.batch_plan(len(prompts[batch[-1]].tokens), len(batch), fixed=options.batch_size is not None)
        found += [(batch[i : i + run.batch], run) for i in range(0, len(batch), run.batch)]
    return found


@dataclass(frozen=True, eq=False)
class _Pulled:
    """What came of pulling the rows of a batch back.

    Attributes:
        norms: at the source, ``[prompt][direction]`` of ``[k, pos]``, on the CPU.
        probed: of each probe, ``[probe][prompt][direction]`` of ``[k, pos, ...]``, on the CPU.
        gradients: ``[source][direction]``, where there is one row each and somebody asked.
    """

    norms: list[list[Tensor]]
    probed: list[list[list[Tensor]]]
    gradients: list[list[Tensor]]


@dataclass(frozen=True, eq=False)
class _Explanation:
    """One call's directions on one model, and what is asked of each run."""

    model: LensModel
    state: ModelState
    directions: Sequence[Direction]
    probes: Sequence[GradientProbe]
    options: RunOptions
    memory: Memory

    def of(self, batch: Sequence[EncodedPrompt], indices: Sequence[int], plan: Run) -> list[list[Measured]]:
        """One forward, all vector-Jacobian products; ``[prompt][direction]``."""
        options = self.options
        tokens = pad_right(batch)
        with residual_norms(self.model) as norms_seen:
            run = forward_pass(
                self.model,
                tokens,
                torch.tensor([p.pos for p in batch]),
                options.recording(self.probes),
                checkpoint=plan.checkpoint,
            )
        reads = read_outs(self.model, run, indices)
        of_each = [direction.rows(reads, self.state) for direction in self.directions]
        chosen = [[_at(read.hidden, row) for row in rows] for read, *rows in zip(reads, *of_each, strict=True)]
        self._require_one_row_each(chosen[0])
        most = min(VJP_CHUNK, max(sum(VJP_CHUNK if r.adaptive else len(r.V) for r in rows) for rows in chosen))
        pulled = self._pull(run, chosen, batch, self.memory.rows_at_once(plan, most))
        dtype = compute_dtype(run.logits.dtype)
        log_probs = run.logits.to(dtype).log_softmax(-1)
        out = []
        for n, (prompt, rows) in enumerate(zip(batch, chosen, strict=True)):
            results: list[Measured] = []
            for i, (direction, row) in enumerate(zip(self.directions, rows, strict=True)):
                norms = pulled.norms[n][i]
                scored = row.score(norms)
                refuse_influence_from_the_future(scored.scores, prompt.pos)
                gradient = pulled.gradients[0][i][n, : len(prompt.tokens)].cpu() if options.keep_gradient else None
                answer = Answer(
                    scored.scores,
                    row.target,
                    _details(row, scored, norms, options),
                    row.notes,
                    stderr=scored.stderr,
                    gradient=gradient,
                )
                result = attributed(self.model, prompt, log_probs[n], direction.method, answer)
                result = replace(
                    result,
                    direction=row.V.cpu() if row.given else None,
                    cache=self._cache(run, [g[i] for g in pulled.gradients[1:]]) if options.wants_cache else None,
                    sinks=found_sinks(norms_seen, n, prompt),
                )
                inside = [
                    _joined(row, probe, of_probe[n][i]).to(dtype)
                    for probe, of_probe in zip(self.probes, pulled.probed, strict=True)
                ]
                results.append((result, inside))
            out.append(results)
        return out

    def _require_one_row_each(self, rows: Sequence[Rows]) -> None:
        """Refuse several rows where a gradient, or a sign, is asked for."""
        for direction, row in zip(self.directions, rows, strict=True):
            if row.single:
                continue
            if self.options.wants_gradient:
                raise ValueError(
                    f"{direction.method} pulls back {len(row.V)} rows, so there is no single gradient to keep. Use one "
                    "row (rank=1), or jacobian_scope row by row, with keep_gradient and grads_at"
                )
            if any(probe.joined == "one row" for probe in self.probes):
                raise ValueError(
                    f"(kind='signed'): {direction.method} pulls back {len(row.V)} rows, which have no common sign. "
                    "Use kind='sensitivity', or one row (rank=1)"
                )

    def _pull(
        self, run: ForwardPass, chosen: Sequence[Sequence[Rows]], batch: Sequence[EncodedPrompt], at_once: int
    ) -> _Pulled:
        """Pull all rows back, and the further rows that adaptive directions ask for when they see the norms.

        The rows of one batch are pulled together.
        """
        options, probes = self.options, self.probes
        sources = [run.source, *(run.activations[name] for name in options.grads_at)]
        inside = {probe.name: run.activations[probe.name] for probe in probes}
        V: Tensor | None = torch.stack([torch.cat([r.V for r in rows]) for rows in chosen], dim=1)
        counts = [len(r.V) for r in chosen[0]]
        adaptive = any(r.adaptive for r in chosen[0])
        measured: list[list[list[Tensor]]] = [[[] for _ in batch] for _ in (run.source, *probes)]
        gradients: list[list[Tensor]] = []
        while V is not None:
            parts: list[list[Tensor]] = [[] for _ in measured]
            for pulled in pull_back(
                run.hidden,
                [*sources, *inside.values()],
                V,
                options,
                retain_graph=adaptive,
                n_required=len(sources),
                at_once=at_once,
            ):
                parts[0].append(row_norms(pulled[0]).cpu())
                refuse_influence_of_padding(parts[0][-1], [len(prompt.tokens) for prompt in batch])
                within = dict(zip(inside, pulled[len(sources) :], strict=True))
                for part, probe in zip(parts[1:], probes, strict=True):
                    part.append(probe.reduce(within[probe.name], inside[probe.name].detach()).cpu())
                if options.wants_gradient:
                    kept = pulled[: len(sources)]
                    gradients = [[*old, *p] for old, p in zip(gradients or [[] for _ in sources], kept, strict=True)]
            for quantity, part in zip(measured, parts, strict=True):
                new = torch.split(torch.cat(part), counts)
                for n, prompt in enumerate(batch):
                    fresh = [x[:, n, : len(prompt.tokens)] for x in new]
                    old = quantity[n]
                    quantity[n] = [torch.cat(both) for both in zip(old, fresh, strict=True)] if old else fresh
            asked = [
                [r.next_rows(x) for r, x in zip(rows, measured[0][n], strict=True)] for n, rows in enumerate(chosen)
            ]
            V, counts = _stacked(asked, V)
        return _Pulled(measured[0], measured[1:], gradients)

    def _cache(self, run: ForwardPass, gradients: Sequence[Tensor]) -> ActivationCache:
        """The run's activations that were asked for, and gradients under ``name + "_grad"``."""
        options, kept = self.options, dict(run.activations)
        for name in (options.at, *(probe.name for probe in self.probes)):
            if name not in options.grads_at and not _picked(options.cache, name):
                kept.pop(name, None)
        for name, gradient in zip(options.grads_at, gradients, strict=True):
            kept[f"{name}_grad"] = gradient.to(run.activations[name].dtype)
        return activation_cache(self.model, kept)


def _at(hidden: Tensor, rows: Rows) -> Rows:
    """The rows on the device of the activation they are pulled back from: the unembedding may live on another."""
    return rows if rows.V.device == hidden.device else replace(rows, V=rows.V.to(hidden.device))


def _joined(row: Rows, probe: GradientProbe, measured: Float[Tensor, "k pos ..."]) -> Float[Tensor, "pos ..."]:
    """What a probe measured of all rows, as one number per place: joined as the score joins norms."""
    if probe.joined != "score":
        return measured[0]
    return row.score(rearrange(measured, "k ... -> k (...)")).scores.reshape(measured.shape[1:])


def _stacked(asked: list[list[Tensor | None]], like: Tensor) -> tuple[Tensor | None, list[int]]:
    """The rows that were asked for as one ``[k, read, ...]``; zeros where a prompt wants no more but another does."""
    sizes = [max(0 if m is None else len(m) for m in column) for column in zip(*asked, strict=True)]
    if not any(sizes):
        return None, sizes
    blank = [like.new_zeros(size, *like.shape[2:]) for size in sizes]
    rows = [torch.cat([b if m is None else m.to(b) for m, b in zip(row, blank, strict=True)]) for row in asked]
    return torch.stack(rows, dim=1), sizes


def _details(row: Rows, scored: Scored, norms: Float[Tensor, "k pos"], options: RunOptions) -> dict[str, Any]:
    """The direction's own details, where it was read, and the score of each row if there are a few."""
    details = {**row.details, **scored.details, "at": options.at, "target_hook": options.target_hook}
    if 1 < len(norms) <= MOST_ROW_SCORES:
        details["row_scores"] = norms.tolist()
    return details


def _picked(cache: NamesFilter, name: str) -> bool:
    """Does the names filter ask for this activation?"""
    if cache is None or isinstance(cache, bool):
        return bool(cache)
    if callable(cache):
        return cache(name)
    return name in ([cache] if isinstance(cache, str) else cache)
