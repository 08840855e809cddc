"""Integrated gradients: gradients averaged along the straight path from a baseline to the prompt.

Legend: ``x`` ``[pos, d_model]`` the prompt's embeddings, ``x'`` the baseline, ``x(α) = x' + α(x − x')``; ``s`` the
explained scalar at the explained position; ``g(α) = ∂s/∂x`` at ``x(α)``.

    IG    (x − x') ⊙ ∫₀¹ g(α) dα    by the rules of :mod:`tl_scopes.numerics.quadrature`

Completeness: ``∫₀¹ ⟨x − x', g(α)⟩ dα = s(x) − s(x')``. What a rule misses of it is reported, never hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum, reduce
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.baselines.gradients import explained_scalar
from tl_scopes.directions.base import target_note
from tl_scopes.directions.logits import Of
from tl_scopes.kernel.ablation import substitutes
from tl_scopes.kernel.attributed import Answer, attributed
from tl_scopes.kernel.batching import repeated, rows_per_forward
from tl_scopes.kernel.calls import encode, prompt_call
from tl_scopes.kernel.interventions import Change, along, run_changed
from tl_scopes.kernel.options import SourceKeywords, run_options
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, Prompt, Target, encode_targets
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.quadrature import NEAR_ZERO, split_rule
from tl_scopes.results.attribution import Attribution


@prompt_call
def integrated_gradients(
    model: LensModel,
    prompt: Prompt,
    *,
    n_steps: int = 50,
    baseline: Literal["zero", "mean", "pad"] | Tensor = "zero",
    target: Target = None,
    of: Of = "logit",
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
            ``"pad"``, the padding token's rows; or a tensor that broadcasts to ``[pos, d_model]``.
        of: the explained scalar.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list. ``details``: ``signed``; ``change``, which is
        ``s(x) − s(x')``; ``completeness_gap``, the signed sum − change; and of the part [0, 0.05] alone ``near_zero``:
        its ``signed_sum``, ``change`` and ``gap``. A note is added when the gap is above 5 % of the change.

    Raises:
        ValueError: as :func:`semantic_scope`; fewer than 2 steps; a baseline that does not fit; no padding token.

    Cost: ``n_steps`` forwards and backwards in batches over α, and three forwards for the ends.

    >>> attr = integrated_gradients(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> abs(sum(attr.details["signed"]) - attr.details["change"] - attr.details["completeness_gap"]) < 1e-9
    True

    Reference: paper eq. 13, 14; Sundararajan et al. 2017 (arXiv 1703.01365). Differs from the released code, which
    takes five points of the cross-entropy's gradient and keeps a factor α.
    """
    chosen = run_options(**options)
    model, prompts = encode(model, prompt, chosen)
    if integer("n_steps", n_steps) < 2:
        raise ValueError(f"(n_steps={n_steps!r}): expected an integer of at least 2, one for each part of the path")
    if isinstance(baseline, Tensor):
        if not baseline.is_floating_point():
            raise TypeError(f"(baseline=...): expected a floating-point tensor, got {baseline.dtype}")
        if not bool(torch.isfinite(baseline).all()):
            raise ValueError("(baseline=...): holds NaN or infinity")
    at, results = chosen.at, []
    targets = encode_targets(model, target, len(prompts))
    size = rows_per_forward(model, prompts, chosen.batch_size, at=at)
    for given, wanted in zip(prompts, targets, strict=True):
        start = path_baseline(model, given, baseline, at)
        path = integrate_path(model, given, start, of, wanted, n_steps=n_steps, at=at, batch_size=size)
        gap = path.signed_sum - path.change
        near = {"signed_sum": path.near_sum, "change": path.near_change, "gap": path.near_sum - path.near_change}
        notes = path.notes
        if abs(gap) > 0.05 * abs(path.change):
            notes += (
                f"The completeness gap is {gap:.2g} where {path.change:.2g} had to be explained; {near['gap']:.2g} "
                f"of it arises on α < {NEAR_ZERO}, next to the baseline. Raise n_steps or choose another baseline.",
            )
        details = {
            "of": of,
            "at": at,
            "n_steps": n_steps,
            "baseline": baseline if isinstance(baseline, str) else "given",
            "signed": reduce(path.product, "pos d_model -> pos", "sum").tolist(),
            "change": path.change,
            "completeness_gap": gap,
            "near_zero": {"up_to": NEAR_ZERO, **near},
        }
        answer = Answer(row_norms(path.product), path.target, details, notes)
        results.append(attributed(model, given, path.log_probs, "integrated_gradients", answer))
    return results


@dataclass(frozen=True, eq=False)
class PathIntegral:
    """What :func:`integrate_path` found.

    Attributes:
        product: ``(x − x') ⊙ ∫ g dα``, ``[pos, d_model]``, float64 on the CPU.
        signed_sum: its sum over everything.
        change: ``s(x) − s(x')``.
        near_sum: the part of ``signed_sum`` from α ≤ NEAR_ZERO.
        near_change: ``s(x(NEAR_ZERO)) − s(x')``.
        log_probs: of the unchanged prompt.
        target: the explained token.
        notes: of the direction.
    """

    product: Float[Tensor, "pos d_model"]
    signed_sum: float
    change: float
    near_sum: float
    near_change: float
    log_probs: Float[Tensor, " d_vocab"]
    target: int
    notes: tuple[str, ...]


def path_baseline(
    model: LensModel, prompt: EncodedPrompt, baseline: Literal["zero", "mean", "pad"] | Tensor, at: str
) -> Change:
    """x' as a function of the activation ``[batch, pos, d_model]``."""
    if isinstance(baseline, Tensor):
        shape = (prompt.pos + 1, model.cfg.d_model)
        try:
            given = (
                baseline.detach()[..., : shape[0], :] if baseline.ndim == 2 and len(baseline) > 1 else baseline.detach()
            )
            rows = given.expand(shape)
        except (RuntimeError, IndexError):
            raise ValueError(
                f"(baseline=tensor of shape {list(baseline.shape)}): expected [d_model] or [pos, d_model] with "
                f"d_model={shape[1]} and at least {shape[0]} positions"
            ) from None
        return lambda x: rows.to(x).expand_as(x)
    if baseline == "pad":
        pad = getattr(model.tokenizer, "pad_token_id", None)
        if pad is None:
            raise ValueError("(baseline='pad'): this model's tokenizer has no padding token; use 'zero' or 'mean'")
        tokens, read = repeated(prompt, 1)
        rows = run_changed(model, torch.full_like(tokens, pad), read, at=at).x[0]
        return lambda x: rows.to(x).expand_as(x)
    if baseline == "zero":
        return torch.zeros_like
    if baseline == "mean":
        kept = [p for p in range(prompt.pos + 1) if p not in prompt.special] or list(range(prompt.pos + 1))
        values = substitutes("mean", kept, prompt.tokens, 0)
        return lambda x: values(x[0]).expand_as(x)
    raise ValueError(f"(baseline={baseline!r}): expected 'zero', 'mean', 'pad' or a tensor")


def integrate_path(
    model: LensModel,
    prompt: EncodedPrompt,
    baseline: Change,
    of: Of,
    target: int | None,
    *,
    n_steps: int,
    at: str,
    batch_size: int,
) -> PathIntegral:
    """Integrated gradients of one prompt, in batches over α."""
    ends = run_changed(model, *repeated(prompt, 3), changes=[(at, along([0.0, NEAR_ZERO, 1.0], baseline))], at=at)
    chosen = int(ends.logits[2].argmax()) if target is None else target
    explained = explained_scalar(of, [chosen])
    table = ends.logits if of == "logit" else ends.log_probs
    start, near, end = table[:, chosen].tolist()
    x = ends.x[2:]
    difference = (x - baseline(x))[0].cpu().double()
    nodes, weights, n_near = split_rule(n_steps)
    parts = [torch.zeros_like(difference), torch.zeros_like(difference)]
    notes = target_note(target)
    for part, chunk in enumerate((range(n_near), range(n_near, n_steps))):
        for first in range(chunk.start, chunk.stop, batch_size):
            last = min(first + batch_size, chunk.stop)
            run = run_changed(
                model,
                *repeated(prompt, last - first),
                changes=[(at, along(nodes[first:last], baseline))],
                direction=explained,
                indices=[0] * (last - first),
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
        log_probs=ends.log_probs[2],
        target=chosen,
        notes=notes,
    )
