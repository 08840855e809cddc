"""Integrated gradients: gradients averaged along the straight path from a baseline to the prompt.

Legend: ``x`` ``[pos, d_model]`` the prompt's embeddings, ``x'`` the baseline, ``x(α) = x' + α(x − x')``; ``s`` the
explained scalar at the explained position; ``g(α) = ∂s/∂x`` at ``x(α)``.

    IG    (x − x') ⊙ ∫₀¹ g(α) dα    by the rules of :mod:`tl_scopes.numerics.quadrature`

Completeness: ``∫₀¹ ⟨x − x', g(α)⟩ dα = s(x) − s(x')``. What a rule misses of it is reported, never hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import einsum, reduce
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.baselines.aims import Aim, aims
from tl_scopes.baselines.path_starts import OTHER_STARTS, StartName, jumps, path_start, start_name
from tl_scopes.directions.base import Readings
from tl_scopes.directions.logits import Of, Semantic
from tl_scopes.kernel.attributed import attributed
from tl_scopes.kernel.batching import copies, packed, rows_per_forward
from tl_scopes.kernel.calls import prompt_call
from tl_scopes.kernel.interventions import Change, along, each_its_own, run_changed, slices
from tl_scopes.kernel.options import FrozenSourceKeywords, RunOptions, run_options
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, Prompt, Target
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.progress import progress
from tl_scopes.numerics.quadrature import NEAR_ZERO, split_rule
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.written import minus

FIRST_REACH = 1e-4
"""α of what a path begins with: a change below it is a jump at the baseline, which no rule's nodes see."""


@prompt_call
def integrated_gradients(
    model: LensModel,
    prompt: Prompt,
    *,
    n_steps: int = 50,
    baseline: StartName | int | Tensor = "zero",
    target: Target = None,
    of: Of | None = None,
    **options: Unpack[FrozenSourceKeywords],
) -> list[Attribution]:
    """Gradients integrated along the straight path from a baseline to the prompt's embeddings.

    ``score_t = ‖(x_t − x'_t) ⊙ ∫₀¹ ∂s/∂x_t (x' + α(x − x')) dα‖₂``, read at ``pos``; logits (or nats). The signed sums
    over d (``.signed``) add up to ``s(x) − s(x')`` up to the quadrature's error, the *completeness gap*. With ``frozen=``
    each gradient is of another linearisation, and they need not.

    The path is cut at α = 0.05 and each part has a rule of its own (:mod:`tl_scopes.numerics.quadrature`), because in trained
    models nearly all of the error sits next to the baseline, where the input is out of distribution.

    Args:
        model, prompt, target, options: as in :func:`semantic_scope`; ``batch_size`` counts points of the path.
        n_steps: gradients in all, at least 2; three fifths of them on α > 0.05.
        baseline: x': ``"zero"``; ``"mean"``, the mean row of the prompt's tokens up to ``pos`` that are not special;
            ``"pad"``, the padding token's rows; a token's id, for its rows; a tensor of ids, for the rows of another prompt
            (``model.to_tokens(...)``); or embeddings that broadcast to ``[pos, d_model]``. Where the norms take no mean
            (RMSNorm), zero is a limit and not a point: take another.
        of: the explained scalar.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list. ``details``: ``signed``; ``change``, which is
        ``s(x) − s(x')``; ``completeness_gap``, the signed sum − change; and of the part [0, 0.05] alone ``near_zero``:
        its ``signed_sum``, ``change``, ``gap``, and ``jump``, the change below α = 1e-4, which no step reaches. A note
        is added when the gap is above 5 % of the change; it recommends another baseline where the jump is the cause.

    Raises:
        ValueError: as :func:`semantic_scope`; fewer than 2 steps; a baseline that does not fit; no padding token.

    Cost: ``n_steps`` forwards and backwards in batches over prompts and α, and four forwards for the ends.

    >>> attr = integrated_gradients(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> abs(sum(attr.details["signed"]) - attr.details["change"] - attr.details["completeness_gap"]) < 1e-9
    True

    Reference: paper eq. 13, 14; Sundararajan et al. 2017 (arXiv 1703.01365). Differs from the released code, which
    takes five points of the cross-entropy's gradient and keeps a factor α.
    """
    chosen = run_options(**options)
    model, asked_for = aims(model, prompt, target, of, chosen)
    prompts = [aim.prompt for aim in asked_for]
    if integer("n_steps", n_steps) < 2:
        raise ValueError(f"(n_steps={n_steps!r}): expected an integer of at least 2, one for each part of the path")
    at = chosen.at
    size = rows_per_forward(model, prompts, chosen.batch_size, at=at)
    starts = [path_start(model, one, baseline, at) for one in prompts]
    results: dict[int, Attribution] = {}
    with progress(total=len(prompts) * n_steps, unit="step") as bar:
        for group in packed(prompts, [n_steps] * len(prompts), size):
            together = [asked_for[i] for i in group], [starts[i] for i in group]
            paths = integrate_paths(
                model, *together, n_steps=n_steps, options=chosen, batch_size=size, advance=bar.update
            )
            for i, path in zip(group, paths, strict=True):
                details = {"at": at, "n_steps": n_steps} | chosen.linearisation
                results[i] = _attribution(model, asked_for[i], path, start_name(baseline), details)
    return [results[i] for i in range(len(prompts))]


def _attribution(model: LensModel, aim: Aim, path: PathIntegral, baseline: str, options: dict[str, Any]) -> Attribution:
    """The result of one prompt."""
    gap = path.signed_sum - path.change
    near = {
        "signed_sum": path.near_sum,
        "change": path.near_change,
        "gap": path.near_sum - path.near_change,
        "jump": path.jump,
    }
    notes = (*path.notes, *map(minus, _about_the_gap(path, baseline, "frozen" in options)))
    signed = reduce(path.product, "pos d_model -> pos", "sum")
    details = {
        **options,
        "baseline": baseline,
        "signed": signed.tolist(),
        "change": path.change,
        "completeness_gap": gap,
        "near_zero": {"up_to": NEAR_ZERO, **near},
    }
    answer = replace(aim.answer(row_norms(path.product), path.unchanged, details, notes), signed=signed)
    last = path.unchanged[-1].predictions[-1:]
    return attributed(model, aim.prompt, last, "integrated_gradients", answer)


def _about_the_gap(path: PathIntegral, baseline: str, frozen: bool) -> tuple[str, ...]:
    """The sentence for a completeness gap above 5 % of the change, with what helps against it."""
    gap, near_gap = path.signed_sum - path.change, path.near_sum - path.near_change
    if abs(gap) <= 0.05 * abs(path.change):
        return ()
    says = f"The completeness gap is {gap:.2g} where {path.change:.2g} had to be explained"
    if frozen:
        return (f"{says}: its parts that are held constant have effects that these gradients leave out.",)
    if abs(near_gap) < 0.5 * abs(gap):
        return (f"{says}; {near_gap:.2g} of it arises on α < {NEAR_ZERO}. Raise n_steps.",)
    if not path.limit:
        return (
            f"{says}; {near_gap:.2g} of it arises on α < {NEAR_ZERO}, next to the baseline. Raise n_steps or choose another "
            f"baseline: {OTHER_STARTS}.",
        )
    why = "; zero is a limit, not a point, where norms take no mean (RMSNorm)" if baseline == "zero" else ""
    return (
        f"{says}: the model jumps at the baseline {baseline!r}, by {path.jump:.2g} below α = {FIRST_REACH:g}{why}. More "
        f"steps cannot help: another baseline is needed, {OTHER_STARTS}. From α = {FIRST_REACH:g} on, the scores add up "
        f"to the change of {path.change - path.jump:.2g} to within {gap + path.jump:.2g}.",
    )


@dataclass(frozen=True, eq=False)
class PathIntegral:
    """What :func:`integrate_paths` found.

    Attributes:
        product: ``(x − x') ⊙ ∫ g dα``, ``[pos, d_model]``, float64 on the CPU.
        signed_sum: its sum over everything.
        change: ``s(x) − s(x')``.
        near_sum: the part of ``signed_sum`` from α ≤ NEAR_ZERO.
        near_change: ``s(x(NEAR_ZERO)) − s(x')``.
        jump: ``s(x(FIRST_REACH)) − s(x')``.
        limit: is the final hidden state another there, so that x' is a limit of the path and no point of it?
        unchanged: what was read, the unchanged prompt last.
        notes: of the direction.
    """

    product: Float[Tensor, "pos d_model"]
    signed_sum: float
    change: float
    near_sum: float
    near_change: float
    jump: float
    limit: bool
    unchanged: Readings
    notes: tuple[str, ...]


def integrate_paths(
    model: LensModel,
    aims: Sequence[Aim],
    baselines: Sequence[Change],
    *,
    n_steps: int,
    options: RunOptions,
    batch_size: int,
    advance: Callable[[int], object],
) -> list[PathIntegral]:
    """Integrated gradients of prompts that run together, in batches over prompts and α; ``advance`` hears of each."""
    prompts, at = [aim.prompt for aim in aims], options.at
    ends = _ends(model, prompts, baselines, at)
    targets = [aim.chosen(end.readings) for aim, end in zip(aims, ends, strict=True)]
    differences = [
        (end.x - baseline(end.x[None])[0]).cpu().double() for end, baseline in zip(ends, baselines, strict=True)
    ]
    nodes, weights, n_near = split_rule(n_steps)
    parts = [[torch.zeros_like(difference) for _ in range(2)] for difference in differences]
    notes: list[tuple[str, ...]] = [()] * len(aims)
    of = tuple(aim.of for aim in aims for _ in aim.given)
    explained = Semantic(tuple(t for own in targets for t in own), of if len(set(of)) > 1 else of[0])
    numbers = [range(part.start, part.stop) for part in slices([len(own) for own in targets])]
    step = batch_size if len(aims) == 1 else n_steps
    for first in range(0, n_steps, step):
        alphas = nodes[first : first + step]
        rows = [len(alphas)] * len(aims)
        moves = [along(alphas, baseline) for baseline in baselines]
        run = run_changed(
            model,
            *copies(model, prompts, rows),
            changes=[(at, each_its_own(prompts, rows, moves))],
            direction=explained,
            indices=[i for own in numbers for i in [*own] * len(alphas)],
            at=options.recording(),
        )
        assert run.gradient is not None
        gradient = run.gradient.cpu().double()
        w = torch.tensor(weights[first : first + step], dtype=torch.float64)
        near = torch.arange(first, first + len(alphas)) < n_near
        for k, own in enumerate(slices(rows)):
            for part, chosen in enumerate((near, ~near)):
                g = gradient[own, : prompts[k].pos + 1]
                parts[k][part] += einsum(w * chosen, g, "a, a pos d_model -> pos d_model")
            notes[k] = tuple(dict.fromkeys((*notes[k], *run.rows[own.start * len(targets[k])].notes)))
        advance(sum(rows))
        del run  # before the next is made
    return [
        _path(aim, end, target, difference, part, note)
        for aim, end, target, difference, part, note in zip(aims, ends, targets, differences, parts, notes, strict=True)
    ]


ENDS = (0.0, FIRST_REACH, NEAR_ZERO, 1.0)
"""α where the explained scalar itself is read."""


@dataclass(frozen=True, eq=False)
class _Ends:
    """One prompt at the ends of its path: what was read, and the unchanged embeddings ``[pos, d_model]``."""

    readings: Readings
    x: Tensor


def _ends(model: LensModel, prompts: Sequence[EncodedPrompt], baselines: Sequence[Change], at: str) -> list[_Ends]:
    """Each prompt at :data:`ENDS`."""
    rows = [len(ENDS)] * len(prompts)
    moves = [along(ENDS, baseline) for baseline in baselines]
    run = run_changed(model, *copies(model, prompts, rows), changes=[(at, each_its_own(prompts, rows, moves))], at=at)
    return [
        _Ends(
            tuple(one[own] for one in run.readings),
            run.x[own][-1, : prompt.pos + 1],
        )
        for prompt, own in zip(prompts, slices(rows), strict=True)
    ]


def _path(
    aim: Aim, ends: _Ends, targets: tuple[int, ...], difference: Tensor, parts: Sequence[Tensor], notes: tuple[str, ...]
) -> PathIntegral:
    """What was found of one prompt."""
    start, first_reached, near, end = aim.values(ends.readings, targets).tolist()
    near_sum, far_sum = (float((difference * part).sum()) for part in parts)
    return PathIntegral(
        product=difference * (parts[0] + parts[1]),
        signed_sum=near_sum + far_sum,
        change=end - start,
        near_sum=near_sum,
        near_change=near - start,
        jump=first_reached - start,
        limit=any(jumps(one.hidden[0], one.hidden[1]) for one in ends.readings),
        unchanged=ends.readings,
        notes=notes,
    )
