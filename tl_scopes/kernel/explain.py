"""The kernel: one forward, the rows of V pulled back to the source, scores.

    prompt → tokens → hooked forward → (x, y) → V → VJP → scores → Attribution

For every prompt the explanandum gives rows ``V`` ``[k, d_model]`` at the final hidden state; the kernel pulls all
of them back, ``G = V·J`` ``[k, pos, d_model]``, and reduces them to one score per token. Rows of a batch do not
see each other, so one vector-Jacobian product serves the whole batch, and several explananda on one prompt share
one forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from tl_scopes.directions.base import Explanandum, Rows, Scored
from tl_scopes.kernel.massive_activations import found_sinks, residual_norms
from tl_scopes.kernel.options import DEFAULT_BATCH, Capture, Tap
from tl_scopes.kernel.pull_back import VJP_CHUNK, pull_back
from tl_scopes.kernel.read_out import read_outs, target_string, top_predictions
from tl_scopes.model import prompts as _prompts
from tl_scopes.model.forward import ForwardPass, activation_cache, forward_pass
from tl_scopes.model.hooks import NamesFilter, differentiable
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory, Run
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.model.state import ModelState, model_state
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.results.attribution import Attribution

if TYPE_CHECKING:
    from transformer_lens import ActivationCache

MOST_ROW_SCORES = 64
"""Rows of V up to which each row's own scores are kept in ``details``."""


def explain(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    explananda: Sequence[Explanandum],
    capture: Capture,
    call: str,
) -> list[list[Attribution]]:
    """Attributions ``[prompt][explanandum]``, each prompt through one forward.

    Prompts run in batches of similar length; an activation cache is taken one prompt at a time, so that it looks
    as ``run_with_cache`` on that prompt would.
    """
    return [[a for a, _ in results] for results in explain_inside(model, prompts, explananda, (), capture, call)]


def explain_inside(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    explananda: Sequence[Explanandum],
    taps: Sequence[Tap],
    capture: Capture,
    call: str,
) -> list[list[tuple[Attribution, list[Tensor]]]]:
    """As :func:`explain`, with what each tap measured in the same backward, ``[pos, ...]`` on the CPU.

    A tap behind the target hook measures 0: nothing flows from there to it.
    """
    state = model_state(model)
    for explanandum in explananda:
        explanandum.check(state, call)
    results: dict[int, list[tuple[Attribution, list[Tensor]]]] = {}
    with differentiable(model):
        memory = capture.memory(model, call, taps)
        batches = _batches(prompts, capture, memory)
        for batch, run in tqdm(batches, desc=call, unit="batch", disable=None if len(batches) > 1 else True):
            chosen = [prompts[i] for i in batch]
            explained = _explain_batch(model, state, chosen, batch, explananda, taps, capture, memory, run, call)
            results.update(zip(batch, explained, strict=True))
    return [results[i] for i in range(len(prompts))]


def _batches(prompts: Sequence[EncodedPrompt], capture: Capture, memory: Memory) -> list[tuple[list[int], Run]]:
    """Prompts of similar length together, as many as fit; refused before any forward where one does not."""
    size = 1 if capture.wants_cache else capture.batch_size or DEFAULT_BATCH
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].tokens))
    found = []
    for first in range(0, len(order), size):
        batch = order[first : first + size]
        run = memory.batch_plan(len(prompts[batch[-1]].tokens), len(batch), fixed=capture.batch_size is not None)
        found += [(batch[i : i + run.batch], run) for i in range(0, len(batch), run.batch)]
    return found


def _explain_batch(
    model: LensModel,
    state: ModelState,
    batch: Sequence[EncodedPrompt],
    indices: Sequence[int],
    explananda: Sequence[Explanandum],
    taps: Sequence[Tap],
    capture: Capture,
    memory: Memory,
    plan: Run,
    call: str,
) -> Iterator[list[tuple[Attribution, list[Tensor]]]]:
    """One forward, all VJPs; one list of attributions, with what the taps measured, per prompt of the batch."""
    tokens = _prompts.pad_right(batch)
    with residual_norms(model) as norms_seen:
        run = forward_pass(
            model,
            tokens,
            torch.tensor([p.pos for p in batch]),
            source=capture.at,
            target=capture.target_hook,
            grads=(*capture.grads_at, *(tap.name for tap in taps)),
            cache=capture.cache,
            checkpoint=plan.checkpoint,
            call=call,
        )
    reads = read_outs(model, run, indices, call)
    of_each = [explanandum.rows(reads, state) for explanandum in explananda]
    chosen = [[_at(read.hidden, row) for row in rows] for read, *rows in zip(reads, *of_each, strict=True)]
    for explanandum, row in zip(explananda, chosen[0], strict=True):
        if (len(row.V) > 1 or row.may_ask) and (capture.keep_gradient or capture.grads_at):
            raise ValueError(
                f"{call}: {explanandum.method} pulls back {len(row.V)} rows, so there is no single gradient to "
                "keep. Use one row (rank=1), or jacobian_scope row by row, with keep_gradient and grads_at"
            )
        if (len(row.V) > 1 or row.may_ask) and any(tap.joined == "one row" for tap in taps):
            raise ValueError(
                f"{call}(kind='signed'): {explanandum.method} pulls back {len(row.V)} rows, which have no common sign. "
                "Use kind='sensitivity', or one row (rank=1)"
            )
    most = min(VJP_CHUNK, max(sum(VJP_CHUNK if r.may_ask else len(r.V) for r in rows) for rows in chosen))
    at_once = memory.rows_at_once(plan, most)
    norms, tapped, gradients = _pull_rows(run, taps, chosen, batch, capture, at_once, call)
    dtype = compute_dtype(run.logits.dtype)
    log_probs = run.logits.to(dtype).log_softmax(-1)
    for n, (prompt, rows) in enumerate(zip(batch, chosen, strict=True)):
        top, top_tokens = top_predictions(model, log_probs[n])
        out = []
        for i, (explanandum, row) in enumerate(zip(explananda, rows, strict=True)):
            scored = row.score(norms[n][i])
            if bool(scored.scores[prompt.pos + 1 :].any()):
                raise ValueError(
                    f"{call}: tokens after pos={prompt.pos} influence the prediction there, so this model is not "
                    "causal; Jacobian Scopes explain causal language models"
                )
            cache = None
            if capture.wants_cache:
                cache = _cache(model, run, taps, capture, [g[i] for g in gradients[1:]])
            inside = [_joined(row, tap, m[n][i]).to(dtype) for tap, m in zip(taps, tapped, strict=True)]
            result = Attribution(
                scores=scored.scores.to(dtype).cpu(),
                stderr=None if scored.stderr is None else scored.stderr.to(dtype).cpu(),
                tokens=prompt.tokens,
                str_tokens=prompt.str_tokens,
                pos=prompt.pos,
                method=explanandum.method,
                target=row.target,
                target_str=target_string(model, row.target),
                top_predictions=top,
                top_tokens=top_tokens,
                gradient=gradients[0][i][n, : len(prompt.tokens)].cpu() if capture.keep_gradient else None,
                direction=row.V.cpu() if row.given else None,
                cache=cache,
                details=_details(row, scored, norms[n][i], log_probs[n], capture),
                notes=row.notes,
                provenance=state.provenance(),
                special=prompt.special,
                text=prompt.text,
                offsets=prompt.offsets,
                sinks=found_sinks(norms_seen, n, prompt),
            )
            out.append((result, inside))
        yield out


def _at(hidden: Tensor, rows: Rows) -> Rows:
    """The rows on the device of the activation they are pulled back from: the unembedding may live on another."""
    return rows if rows.V.device == hidden.device else replace(rows, V=rows.V.to(hidden.device))


def _pull_rows(
    run: ForwardPass,
    taps: Sequence[Tap],
    chosen: Sequence[Sequence[Rows]],
    batch: Sequence[EncodedPrompt],
    capture: Capture,
    at_once: int,
    call: str,
) -> tuple[list[list[Float[Tensor, "k pos"]]], list[list[list[Tensor]]], list[list[Tensor]]]:
    """Pull all rows back: norms at the source ``[prompt][explanandum]`` and what each tap measures
    ``[tap][prompt][explanandum]``, on the CPU; and the gradients ``[source][explanandum]`` where there is one row each
    and somebody asked.

    Explananda that sample may ask for more rows when they see the norms; those of one batch are pulled together.
    """
    keep = capture.keep_gradient or bool(capture.grads_at)
    sources = [run.source, *(run.activations[name] for name in capture.grads_at)]
    inside = {tap.name: run.activations[tap.name] for tap in taps}
    V: Tensor | None = torch.stack([torch.cat([r.V for r in rows]) for rows in chosen], dim=1)
    counts = [len(r.V) for r in chosen[0]]
    may_ask = any(r.may_ask for r in chosen[0])
    measured: list[list[list[Tensor]]] = [[[] for _ in batch] for _ in (run.source, *taps)]
    gradients: list[list[Tensor]] = []
    while V is not None:
        parts: list[list[Tensor]] = [[] for _ in measured]
        every, least = [*sources, *inside.values()], len(sources)
        for pulled in pull_back(
            run.hidden, every, V, capture, call, retain_graph=may_ask, n_required=least, at_once=at_once
        ):
            parts[0].append(row_norms(pulled[0]).cpu())
            within = dict(zip(inside, pulled[len(sources) :], strict=True))
            for part, tap in zip(parts[1:], taps, strict=True):
                part.append(tap.reduce(within[tap.name], inside[tap.name].detach()).cpu())
            if keep:
                kept = pulled[: len(sources)]
                gradients = [[*old, *p] for old, p in zip(gradients or [[] for _ in sources], kept, strict=True)]
        for quantity, part in zip(measured, parts, strict=True):
            new = torch.split(torch.cat(part), counts)
            for n, prompt in enumerate(batch):
                fresh = [x[:, n, : len(prompt.tokens)] for x in new]
                old = quantity[n]
                quantity[n] = [torch.cat(both) for both in zip(old, fresh, strict=True)] if old else fresh
        asked = [[r.more(x) for r, x in zip(rows, measured[0][n], strict=True)] for n, rows in enumerate(chosen)]
        V, counts = _stacked(asked, V)
    return measured[0], measured[1:], gradients


def _joined(row: Rows, tap: Tap, measured: Float[Tensor, "k pos ..."]) -> Float[Tensor, "pos ..."]:
    """What a tap measured of all rows, as one number per place: joined as the score joins norms."""
    if tap.joined != "score":
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


def _details(
    row: Rows,
    scored: Scored,
    norms: Float[Tensor, "k pos"],
    log_probs: Float[Tensor, " d_vocab"],
    capture: Capture,
) -> dict[str, Any]:
    """The explanandum's own details, where it was read, and the score of each row if there are a few."""
    details = {**row.details, **scored.details, "at": capture.at, "target_hook": capture.target_hook}
    if row.target is not None:
        details["target_probability"] = float(log_probs[row.target].exp())
    if 1 < len(norms) <= MOST_ROW_SCORES:
        details["row_scores"] = norms.tolist()
    return details


def _cache(
    model: LensModel, run: ForwardPass, taps: Sequence[Tap], capture: Capture, gradients: Sequence[Tensor]
) -> ActivationCache:
    """The run's activations that were asked for, and gradients under ``name + "_grad"``."""
    kept = dict(run.activations)
    for name in (capture.at, *(tap.name for tap in taps)):
        if name not in capture.grads_at and not _picked(capture.cache, name):
            kept.pop(name, None)
    for name, gradient in zip(capture.grads_at, gradients, strict=True):
        kept[f"{name}_grad"] = gradient.to(run.activations[name].dtype)
    return activation_cache(model, kept)


def _picked(cache: NamesFilter, name: str) -> bool:
    """Does the names filter ask for this activation?"""
    if cache is None or isinstance(cache, bool):
        return bool(cache)
    if callable(cache):
        return cache(name)
    return name in ([cache] if isinstance(cache, str) else cache)
