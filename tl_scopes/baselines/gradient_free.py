"""Attributions that no gradient enters: measured removals, attention, noise.

=======================  ==========================================================  =========================
method                   score of token t                                            cost
=======================  ==========================================================  =========================
``leave_one_out``        ``|s(x with token t removed) − s(x)|``                      1 forward per token
``attention_rollout``    row ``pos`` of ``Π_l ½(mean_h pattern_l + 1)``              1 forward
``random_attribution``   uniform noise                                               1 forward
=======================  ==========================================================  =========================

``s`` is the target's log-probability or logit at the explained position; of several positions and of an answer the sum, and
rollout is the mean over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.baselines.aims import Aim, aims
from tl_scopes.directions.base import target_notes
from tl_scopes.directions.logits import Of
from tl_scopes.kernel.ablation import Ablated, Ablation, ablated, ablated_together, substitutes
from tl_scopes.kernel.attributed import Answer, attributed
from tl_scopes.kernel.batching import batches, packed, padded, rows_per_forward
from tl_scopes.kernel.calls import prompt_call
from tl_scopes.kernel.options import BatchKeywords, RunOptions, SourceKeywords, run_options
from tl_scopes.kernel.read_out import require_finite
from tl_scopes.model.attention import PATTERN, attention_layers, attention_notes
from tl_scopes.model.forward import Recording, forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.prompts import Prompt, Target
from tl_scopes.numerics.arguments import Seed
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.progress import progress
from tl_scopes.results.attribution import Attribution


@prompt_call
def leave_one_out(
    model: LensModel,
    prompt: Prompt,
    *,
    ablation: Ablation = "zero",
    seed: Seed = 0,
    target: Target = None,
    of: Of = "log_prob",
    **options: Unpack[SourceKeywords],
) -> list[Attribution]:
    """Measured change of the target when each token's embedding is removed by itself.

    ``score_t = |s(x with x_t replaced) − s(x)|``, read at ``pos``; nats (or logits). Not a gradient: each entry is an
    intervention. Signed changes of both scalars are ``details["delta_log_prob"]`` and ``details["delta_logit"]``.

    Args:
        model, prompt, target, options: as in :func:`semantic_scope`; ``batch_size`` counts removals.
        ablation: what takes the row's place: ``"zero"``, the ``"mean"`` row of the prompt's tokens up to ``pos`` that
            are not special, or ``"resample"``, the row of another of them.
        seed: of the resampling.
        of: which change is the score.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list; special tokens are removed in turn as well.

    Raises:
        ValueError: as :func:`semantic_scope`; an unknown ablation.

    Cost: ``pos + 2`` forwards in batches, no backward.

    >>> attr = leave_one_out(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> attr.top(1)[0].str_token
    ' Hund'

    Reference: Li et al. 2016 (arXiv 1612.08220).
    """
    chosen = run_options(**options)
    model, asked = aims(model, prompt, target, of, chosen)
    at, prompts = chosen.at, [aim.prompt for aim in asked]
    sets: list[list[list[int]]] = [[[], *([p] for p in range(given.pos + 1))] for given in prompts]
    values = []
    for given in prompts:
        candidates = [p for p in range(given.pos + 1) if p not in given.special]
        values.append(substitutes(ablation, candidates or range(given.pos + 1), given.tokens, seed))
    rows, size = [len(own) for own in sets], rows_per_forward(model, prompts, chosen.batch_size, at=at)
    results: dict[int, Attribution] = {}
    for group in progress(list(packed(prompts, rows, size)), unit="batch"):
        own = [prompts[i] for i in group], [sets[i] for i in group], [values[i] for i in group]
        if len(group) == 1:
            (i,) = group
            found = [ablated(model, prompts[i], sets[i], values[i], asked[i].given, batch_size=size, at=at)]
        else:
            found = ablated_together(model, *own, [asked[i].given for i in group], at=at)
        for i, one in zip(group, found, strict=True):
            details = {"of": of, "at": at, "ablation": ablation}
            results[i] = _left_out(model, asked[i], one, of, details)
    return [results[i] for i in range(len(prompts))]


def _left_out(model: LensModel, aim: Aim, found: Ablated, of: Of, details: dict[str, Any]) -> Attribution:
    """The changes that leaving out each token makes, the first set being none."""
    changes = {
        name: (values_of[1:] - values_of[0]).cpu().double()
        for name, values_of in (("delta_logit", found.logit), ("delta_log_prob", found.log_prob))
    }
    details |= {k: v.tolist() for k, v in changes.items()}
    answer = _answer(
        changes[f"delta_{of}"].abs(), found.tokens, found.first, details, target_notes([t is None for t in aim.given])
    )
    return attributed(model, aim.prompt, found.first[-1], "leave_one_out", answer)


@prompt_call
def attention_rollout(
    model: LensModel,
    prompt: Prompt,
    *,
    target: Target = None,
    **options: Unpack[BatchKeywords],
) -> list[Attribution]:
    """Share of attention that flows from each token to the explained position through all layers.

    ``score = row pos of A_L ⋯ A_1`` with ``A_l = ½ mean_h(pattern_l) + ½ 1``; dimensionless, the scores sum to 1. It is
    the same for every target, which it does not look at. Layers without attention are skipped, and ``.notes`` says so.

    Args:
        model, prompt, options: as in :func:`semantic_scope`.
        target: only named in the result.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; a model without attention, or whose attention TransformerLens does not show.

    Cost: one forward per batch, keeping the attention patterns ``[batch, head, pos, pos]`` of every layer.

    >>> attr = attention_rollout(model, "German: der Hund sieht die Katze. English: the")
    >>> round(float(attr.scores.sum()), 4)
    1.0

    Reference: Abnar and Zuidema 2020 (arXiv 2005.00928).
    """
    chosen = run_options(**options)
    model, asked = aims(model, prompt, target, "log_prob", chosen)
    prompts = [aim.prompt for aim in asked]
    layers = attention_layers(model, PATTERN)
    names, notes = [f"blocks.{layer}.{PATTERN}" for layer in layers], attention_notes(model, layers)
    results: dict[int, Attribution] = {}
    for i, own, read, patterns in _runs(model, asked, chosen, names):
        n = prompts[i].pos + 1
        unit = flow = torch.eye(n, dtype=torch.float64)
        for name in names:
            pattern = reduce(patterns[name][:, :n, :n].cpu().double(), "head q k -> q k", "mean")
            flow = (pattern + unit) / 2 @ flow
        mean = reduce(flow[read], "read pos -> pos", "mean")
        answer = _answer(mean, asked[i].named(own), own, {}, notes)
        results[i] = attributed(model, prompts[i], own[-1], "attention_rollout", answer)
    return [results[i] for i in range(len(prompts))]


def _runs(
    model: LensModel, asked: Sequence[Aim], options: RunOptions, names: Sequence[str] = ()
) -> Iterator[tuple[int, list[Predictions], Tensor, dict[str, Tensor]]]:
    """Of each prompt, run in batches without a graph: its number, the predictions at its explained positions, these
    positions, and its activations at the hooks ``names``."""
    prompts = [aim.prompt for aim in asked]
    for batch in batches(prompts, rows_per_forward(model, prompts, options.batch_size)):
        tokens, _ = padded(model, prompts, batch)
        rows, read = torch.tensor([(row, p) for row, i in enumerate(batch) for _, p in prompts[i].positions]).T
        with differentiable(model), torch.no_grad():
            run = forward_pass(model, tokens, read, Recording(cache=names), rows=rows)
        require_finite(run)
        for n, i in enumerate(batch):
            own = [run.predictions[m : m + 1] for m in (rows == n).nonzero()[:, 0].tolist()]
            yield i, own, read[rows == n], {name: run.activations[name][n] for name in names}


def _answer(
    scores: Tensor,
    targets: Sequence[int | None],
    predictions: Sequence[Predictions],
    details: Mapping[str, Any],
    notes: tuple[str, ...],
) -> Answer:
    """The result's parts, of one explained position or of several."""
    if len(targets) == 1:
        return Answer(scores, targets[0], details, notes)
    said = [float(one.log_prob(t)) for one, t in zip(predictions, targets, strict=True) if t is not None]
    return Answer(scores, targets, details, notes, target_log_probs=said)


@prompt_call
def random_attribution(
    model: LensModel,
    prompt: Prompt,
    *,
    seed: Seed = 0,
    target: Target = None,
    **options: Unpack[BatchKeywords],
) -> list[Attribution]:
    """Uniform noise for each token: what a method must beat.

    ``score_t ~ U[0, 1)`` for tokens up to ``pos``; depends on the seed and the prompt's tokens alone.

    Args:
        model, prompt, options: as in :func:`semantic_scope`.
        seed: of the noise; the global RNG is not used.
        target: only named in the result.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`.

    Cost: one forward per batch, for the predictions that come with every result.

    >>> a = random_attribution(model, "German: der Hund", seed=3)
    >>> bool((a.scores == random_attribution(model, "German: der Hund", seed=3).scores).all())
    True
    """
    chosen = run_options(**options)
    model, asked = aims(model, prompt, target, "log_prob", chosen)
    results: dict[int, Attribution] = {}
    for i, own, _, _ in _runs(model, asked, chosen):
        given = asked[i].prompt
        noise = random_scores(given.tokens, given.pos + 1, seed)
        answer = _answer(noise, asked[i].named(own), own, {"seed": seed}, ())
        results[i] = attributed(model, given, own[-1], "random_attribution", answer)
    return [results[i] for i in range(len(asked))]


def random_scores(tokens: Tensor, n: int, seed: int) -> Float[Tensor, " n"]:
    """Uniform noise for the first ``n`` tokens of a prompt."""
    return torch.rand(n, generator=prompt_generator(seed, tokens), dtype=torch.float64)
