"""Integrated gradients: gradients averaged along the straight path from a baseline to the prompt.

Legend: ``x`` ``[pos, d_model]`` the prompt's embeddings, ``x'`` the baseline, ``x(α) = x' + α(x − x')``; ``s`` the
explained scalar at the explained position; ``g(α) = ∂s/∂x`` at ``x(α)``.

    IG    (x − x') ⊙ ∫₀¹ g(α) dα    by the rules of :mod:`tl_scopes.numerics.quadrature`

Completeness: ``∫₀¹ ⟨x − x', g(α)⟩ dα = s(x) − s(x')``. What a rule misses of it is reported, never hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from tl_scopes.kernel.batching import repeated, rows_per_forward
from tl_scopes.kernel.calls import prompt_call
from tl_scopes.kernel.interventions import Change, along, run_changed
from tl_scopes.kernel.options import SourceKeywords, run_options
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Prompt, Target
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
    **options: Unpack[SourceKeywords],
) -> list[Attribution]:
    """Gradients integrated along the straight path from a baseline to the prompt's embeddings.

    ``score_t = ‖(x_t − x'_t) ⊙ ∫₀¹ ∂s/∂x_t (x' + α(x − x')) dα‖₂``, read at ``pos``; logits (or nats). The signed sums
    over d (``details["signed"]``) add up to ``s(x) − s(x')`` up to the quadrature's error, the *completeness gap*.

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

    Cost: ``n_steps`` forwards and backwards in batches over α, and four forwards for the ends.

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
    at, results = chosen.at, []
    size = rows_per_forward(model, prompts, chosen.batch_size, at=at)
    for aim in asked_for:
        start = path_start(model, aim.prompt, baseline, at)
        path = integrate_path(model, aim, start, n_steps=n_steps, at=at, batch_size=size)
        gap = path.signed_sum - path.change
        near = {
            "signed_sum": path.near_sum,
            "change": path.near_change,
            "gap": path.near_sum - path.near_change,
            "jump": path.jump,
        }
        name = start_name(baseline)
        notes = (*path.notes, *map(minus, _about_the_gap(path, name)))
        details = {
            "at": at,
            "n_steps": n_steps,
            "baseline": name,
            "signed": reduce(path.product, "pos d_model -> pos", "sum").tolist(),
            "change": path.change,
            "completeness_gap": gap,
            "near_zero": {"up_to": NEAR_ZERO, **near},
        }
        answer = aim.answer(row_norms(path.product), path.unchanged, details, notes)
        answer = replace(answer, signed=reduce(path.product, "pos d_model -> pos", "sum"))
        log_probs = path.unchanged[-1].logits[-1].log_softmax(-1)
        results.append(attributed(model, aim.prompt, log_probs, "integrated_gradients", answer))
    return results


def _about_the_gap(path: PathIntegral, baseline: str) -> tuple[str, ...]:
    """The sentence for a completeness gap above 5 % of the change, with what helps against it."""
    gap, near_gap = path.signed_sum - path.change, path.near_sum - path.near_change
    if abs(gap) <= 0.05 * abs(path.change):
        return ()
    says = f"The completeness gap is {gap:.2g} where {path.change:.2g} had to be explained"
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
    """What :func:`integrate_path` found.

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


def integrate_path(
    model: LensModel,
    aim: Aim,
    baseline: Change,
    *,
    n_steps: int,
    at: str,
    batch_size: int,
) -> PathIntegral:
    """Integrated gradients of one prompt, in batches over α."""
    alphas = [0.0, FIRST_REACH, NEAR_ZERO, 1.0]
    prompt = aim.prompt
    ends = run_changed(model, *repeated(model, prompt, len(alphas)), changes=[(at, along(alphas, baseline))], at=at)
    targets = aim.chosen(ends.readings)
    explained = Semantic(targets, aim.of)
    start, first_reached, near, end = aim.values(ends.readings, targets).tolist()
    x = ends.x[-1:]
    difference = (x - baseline(x))[0].cpu().double()
    nodes, weights, n_near = split_rule(n_steps)
    parts = [torch.zeros_like(difference), torch.zeros_like(difference)]
    notes: tuple[str, ...] = ()
    chunks = [
        (part, first, min(first + batch_size, stop))
        for part, (begin, stop) in enumerate(((0, n_near), (n_near, n_steps)))
        for first in range(begin, stop, batch_size)
    ]
    for part, first, last in progress(chunks, unit="batch"):
        run = run_changed(
            model,
            *repeated(model, prompt, last - first),
            changes=[(at, along(nodes[first:last], baseline))],
            direction=explained,
            indices=[*range(len(targets))] * (last - first),
            at=at,
        )
        assert run.gradient is not None
        w = torch.tensor(weights[first:last], dtype=torch.float64)
        parts[part] += einsum(w, run.gradient.cpu().double(), "a, a pos d_model -> pos d_model")
        notes = tuple(dict.fromkeys((*notes, *run.rows[0].notes)))
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
