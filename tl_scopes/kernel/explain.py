"""The kernel: one forward, the rows of V pulled back to the source, scores.

    prompt → tokens → hooked forward → (x, y) → V → VJP → scores → Attribution

For every prompt the direction gives rows ``V`` ``[k, d_model]`` at the final hidden state of each explained position; the
kernel pulls all of them back, ``G = V·J`` ``[k, pos, d_model]``, and reduces them to one score per token. Rows of a batch do
not see each other, so one vector-Jacobian product serves the whole batch; several directions on one prompt, and several
questions about the same tokens, share one forward (:mod:`tl_scopes.kernel.shared_forward`). A cotangent may have a row at
every explained position of a prompt: backwards add what comes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import Direction, Rows, Scored, held_by
from tl_scopes.directions.joint import Joint, joint, surely_several
from tl_scopes.kernel.attributed import (
    Answer,
    attributed,
    refuse_influence_from_the_future,
)
from tl_scopes.kernel.massive_activations import found_sinks, residual_norms
from tl_scopes.kernel.options import GradientProbe, RunOptions
from tl_scopes.kernel.pull_back import VJP_CHUNK
from tl_scopes.kernel.pulled_rows import Backwards, Pulled, Size, norm_of_gradient
from tl_scopes.kernel.read_out import rank_together, read_outs
from tl_scopes.kernel.shared_forward import Texts, shared_forwards
from tl_scopes.model.completeness import has_leaves
from tl_scopes.model.forward import ForwardPass, activation_cache, forward_pass
from tl_scopes.model.held_functions import Valve
from tl_scopes.model.hooks import RAW_LOGITS_HOOK, NamesFilter, differentiable
from tl_scopes.model.leaves import KINDS, UNEMBEDDING, Leaves, live_leaves
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.probe_runs import Run, nothing
from tl_scopes.model.prompts import EncodedPrompt, pad_right
from tl_scopes.model.soundness import require_causal
from tl_scopes.model.state import ModelState, model_state
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.progress import progress
from tl_scopes.results.attribution import Attribution

if TYPE_CHECKING:
    from transformer_lens import ActivationCache

MOST_ROW_SCORES = 64
"""Rows of V up to which each row's own scores are kept in ``details``."""
PROBE_SEED = 0
Measured = tuple[Attribution, list[Tensor]]
"""An attribution, and what each probe measured in the same backward, ``[pos, ...]`` on the CPU."""


def explain(
    model: LensModel, prompts: Sequence[EncodedPrompt], directions: Sequence[Direction], options: RunOptions
) -> list[list[Attribution]]:
    """Attributions ``[prompt][direction]``, each prompt through one forward.

    Prompts run in batches of similar length, those of the same tokens as one; an activation cache is taken one text at a
    time, so that it looks as ``run_with_cache`` on that prompt would.
    """
    return [[a for a, _ in results] for results in explain_inside(model, prompts, directions, (), options)]


def explain_inside(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    directions: Sequence[Direction],
    probes: Sequence[GradientProbe],
    options: RunOptions,
    *,
    split: bool = False,
    leaves: bool = False,
    size: Size = norm_of_gradient,
) -> list[list[Measured]]:
    """As :func:`explain`, with what each probe measured in the same backward, ``[pos, ...]`` on the CPU.

    A probe behind the target hook measures 0: nothing flows from there to it.

    With ``split`` a second backward of the same graph holds attention, and each direction has three results, of the exact
    gradient, of that one, and of their difference: the same rows of V, so that the gradients can be subtracted.

    ``size`` is what scores are made of: of each row of V at each token.

    With ``leaves`` the shares of all :data:`tl_scopes.model.leaves.KINDS` stand behind what the probes measured; a model that
    has such leaves then runs one text at a time, because a bias is one leaf for all of a batch.
    """
    state = model_state(model)
    for direction in directions:
        direction.check(state)
        if any(surely_several(direction, len(prompt.positions), options.combine) for prompt in prompts):
            _require_one_row(direction, options, probes)
    if any(len(prompt.positions) > 1 for prompt in prompts):
        require_causal(model)
    with differentiable(model):
        live = leaves and has_leaves(model)
        options = replace(options, batch_size=1) if live else options
        held = held_by(directions, model.W_U)
        held = nothing if split and held is None else held
        memory = options.memory(model, probes, written_out=split, held=held)
        backwards = Backwards(options, probes, Valve() if split else None, size)
        explanation = _Explanation(model, state, directions, backwards, memory)
        results: dict[int, list[Measured]] = {}
        batches = shared_forwards(prompts, options, memory, len(backwards.linearisations))
        ends = list(accumulate(len(prompt.positions) for prompt in prompts))
        for groups, run in progress(batches, unit="batch"):
            batch = [i for group in groups for i in group]
            indices = [range(ends[i] - len(prompts[i].positions), ends[i]) for i in batch]
            texts = Texts([[prompts[i] for i in group] for group in groups])
            none: Leaves | None = {} if leaves else None
            opened: AbstractContextManager[Leaves | None] = live_leaves(model) if live else nullcontext(none)
            with opened as found:
                results.update(zip(batch, explanation.of(texts, indices, run, found), strict=True))
    return [results[i] for i in range(len(prompts))]


@dataclass(frozen=True, eq=False)
class _Batch:
    """One forward: its texts, and what was seen and made in it.

    Attributes:
        residual: norms of the residual stream, by hook name.
        leaves: that are no token's, by kind; None where nobody asks for their shares.
    """

    texts: Texts
    run: ForwardPass
    residual: dict[str, Tensor]
    leaves: Leaves | None


@dataclass(frozen=True, eq=False)
class _Explanation:
    """One call's directions on one model, and what is asked of each run."""

    model: LensModel
    state: ModelState
    directions: Sequence[Direction]
    backwards: Backwards
    memory: Memory

    @property
    def options(self) -> RunOptions:
        """Of the call."""
        return self.backwards.options

    @property
    def probes(self) -> Sequence[GradientProbe]:
        """What is measured in the same backwards."""
        return self.backwards.probes

    def of(self, texts: Texts, indices: Sequence[range], plan: Run, leaves: Leaves | None) -> list[list[Measured]]:
        """One forward, all vector-Jacobian products; ``[prompt][direction]``. ``indices`` number the explained positions.

        What is measured ends with the shares of the leaves that the forward makes; None where nobody asks for them.
        """
        with residual_norms(self.model) as residual:
            run = forward_pass(
                self.model,
                pad_right(texts.all),
                texts.columns,
                self.options.recording(self.probes),
                rows=texts.rows,
                checkpoint=plan.checkpoint,
                valve=self.backwards.valve,
            )
        reads = read_outs(self.model, run, [i for each in indices for i in each])
        of_each = [(direction, direction.rows(reads, self.state)) for direction in self.directions]
        chosen = [
            [self._joint(prompt, direction, rows[own], run.hidden.device) for direction, rows in of_each]
            for prompt, own in zip(texts.prompts, texts.slices, strict=True)
        ]
        for rows in chosen:
            self._require_one_row_each(rows)
        adaptive = any(r.adaptive for rows in chosen for r in rows)
        most = VJP_CHUNK if adaptive else min(VJP_CHUNK, texts.starts([[r.V for r in rows] for rows in chosen])[1])
        gradients = len(self.backwards.linearisations)
        at_once = max(1, self.memory.rows_at_once(plan, gradients * most) // gradients)
        every = self.backwards.rows(run, chosen, texts, leaves or {}, at_once, adaptive)
        rank_together(
            run.predictions, [(n, row.targets) for n, rows in zip(texts.read_at, chosen, strict=True) for row in rows]
        )
        batch = _Batch(texts, run, residual, leaves)
        return [
            [one for i, row in enumerate(rows) for one in self._measured(batch, n, i, row, every)]
            for n, rows in enumerate(chosen)
        ]

    def _measured(self, batch: _Batch, n: int, i: int, row: Joint, every: Sequence[Pulled]) -> Iterator[Measured]:
        """Of direction i on prompt n: by each linearisation, its result and what the probes measured."""
        texts, options, predictions = batch.texts, self.options, batch.run.predictions
        prompt, text, read_at = texts.prompts[n], texts.row_of[n], texts.read_at[n]
        target_log_probs = _log_probs(predictions[texts.slices[n]], row.targets)
        for linearisation, pulled in zip(self.backwards.linearisations, every, strict=True):
            norms = pulled.norms[n][i]
            scored = row.score(norms)
            refuse_influence_from_the_future(scored.scores, prompt.pos)
            kept = [of_source[pulled.row_of[n][i]] for of_source in pulled.gradients if of_source]
            answer = Answer(
                scored.scores,
                row.targets,
                _details(row, scored, norms, options) | linearisation,
                row.notes,
                stderr=scored.stderr,
                gradient=kept[0][text, : len(prompt.tokens)].cpu() if options.keep_gradient else None,
                target_log_probs=target_log_probs,
            )
            method = self.directions[i].method
            result = replace(
                attributed(self.model, prompt, predictions[read_at : read_at + 1], method, answer),
                direction=None if row.given is None else row.given.cpu(),
                cache=self._cache(batch.run, [g[:1] for g in kept[1:]], texts.slices[n])
                if options.wants_cache
                else None,
                sinks=found_sinks(batch.residual, text, prompt),
            )
            inside = [
                _joined(row, probe, of_probe[n][i]).to(predictions.dtype)
                for probe, of_probe in zip(self.probes, pulled.probed, strict=True)
            ]
            if batch.leaves is not None:
                shares = {kind: float(of_kind[n][i].sum()) for kind, of_kind in pulled.shares.items()}
                shares[UNEMBEDDING] = row.offset
                inside.append(torch.tensor([shares.get(kind, 0.0) for kind in KINDS], dtype=torch.float64))
            yield result, inside

    def _joint(self, prompt: EncodedPrompt, direction: Direction, parts: Sequence[Rows], device: torch.device) -> Joint:
        """The rows of one result, on the device that they are pulled back from: the unembedding may live on another."""
        parts = [part if part.V.device == device else replace(part, V=part.V.to(device)) for part in parts]
        options = self.options
        return joint(
            direction, parts, options.combine, options.n_probes, lambda: prompt_generator(PROBE_SEED, prompt.tokens)
        )

    def _require_one_row_each(self, rows: Sequence[Joint]) -> None:
        """The same of rows whose number only a run tells."""
        for direction, row in zip(self.directions, rows, strict=True):
            if not row.single:
                _require_one_row(direction, self.options, self.probes)

    def _cache(self, run: ForwardPass, gradients: Sequence[Tensor], own: slice) -> ActivationCache:
        """The run's activations that were asked for, and gradients under ``name + "_grad"``; ``own`` are the prompt's among
        all explained positions, which alone are there behind y.
        """
        options, points = self.options, self.model.hook_dict
        kept, behind = dict(run.activations), points[RAW_LOGITS_HOOK]
        for name in (options.at, *(probe.name for probe in self.probes)):
            if name not in options.grads_at and not _picked(options.cache, name):
                kept.pop(name, None)
        for name, gradient in zip(options.grads_at, gradients, strict=True):
            kept[f"{name}_grad"] = gradient.to(run.activations[name].dtype)
        at_own = {name: a[:, own] for name, a in kept.items() if points.get(name.removesuffix("_grad")) is behind}
        return activation_cache(self.model, kept | at_own)


def _require_one_row(direction: Direction, options: RunOptions, probes: Sequence[GradientProbe]) -> None:
    """Refuse several rows where a gradient, or a sign, is asked for."""
    if options.wants_gradient:
        raise ValueError(
            f"{direction.method} pulls back several rows here, so there is no single gradient to keep. Use one row "
            "(rank=1, combine='sum'), or jacobian_scope row by row, with keep_gradient and grads_at"
        )
    if any(probe.joined == "one row" for probe in probes):
        raise ValueError(
            f"(kind='signed'): {direction.method} pulls back several rows here, which have no common sign. "
            "Use kind='sensitivity', or one row (rank=1, combine='sum')"
        )


def _joined(row: Joint, probe: GradientProbe, measured: Float[Tensor, "k pos ..."]) -> Float[Tensor, "pos ..."]:
    """What a probe measured of all rows, as one number per place: joined as the score joins norms."""
    if probe.joined == "if one row" and not row.single:
        return torch.full_like(measured[0], torch.nan)
    if probe.joined != "score":
        return measured[0]
    return row.score(rearrange(measured, "k ... -> k (...)")).scores.reshape(measured.shape[1:])


def _log_probs(predictions: Predictions, targets: Sequence[int | None]) -> list[float]:
    """Of the target at each of several positions, where there are targets."""
    known = [target for target in targets if target is not None]
    return predictions.log_prob(known).tolist() if len(known) == len(targets) > 1 else []


def _details(row: Joint, scored: Scored, norms: Float[Tensor, "k pos"], options: RunOptions) -> dict[str, Any]:
    """The direction's own details, where it was read, and scores of a few rows."""
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
