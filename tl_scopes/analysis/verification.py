"""Verify an attribution by intervention: what the first-order prediction says, and what really happens.

Legend: ``x_t`` the activation of token t at the source hook, ``x'_t`` what takes its place (zero, the mean, another
token's), ``s`` the explained scalar, ``g_t = ∂s/∂x_t``. For a set S of tokens

    predicted = Σ_{t∈S} ⟨g_t, x'_t − x_t⟩      measured = s(x with x_t → x_t + step·(x'_t − x_t), t ∈ S) − s(x)

The two agree to second order as ``step`` shrinks. At ``step=1`` they need not: that is what this module is for. Fisher
and total information have no signed scalar; there both columns are KL divergences, see
:mod:`tl_scopes.analysis.explained_scalar`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tl_scopes.analysis.explained_scalar import Explained, explained_by, linearise, noise_floor, prompt_of
from tl_scopes.kernel.ablation import Ablation, Reading, require_ablation, run_ablated, substitutes
from tl_scopes.kernel.interventions import rows_per_forward
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.prompts import token_strings
from tl_scopes.model.state import refuse_unusable
from tl_scopes.numerics.ranking import most_influential, number_removed
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.verification import Verification

MOST_SINGLE = 20
"""Tokens that are removed one by one where the caller names no number."""


def verify(
    model: LensModel,
    attribution: Attribution,
    *,
    fractions: Sequence[float] = (0.05, 0.1, 0.2),
    ablation: Ablation = "zero",
    top: int = MOST_SINGLE,
    step: float = 1.0,
    bound: float = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
) -> Verification:
    """Measured effect of removing the top tokens, beside the first-order prediction of the gradient.

    ``predicted = Σ_{t∈S} ⟨∂s/∂x_t, step·(x'_t − x_t)⟩``, ``measured = s(changed) − s(unchanged)``, in units of the
    explained scalar s: the logit, the difference of logits, ``‖y‖``, ``vᵀh``. Fisher and total information: both are
    ``KL(p ‖ p′)`` in nats, predicted to second order. Several rows of ``jacobian_scope``: the norm of their changes.

    Args:
        model: the model that made the attribution.
        attribution: of any scope or baseline of this package; its hidden tokens and special tokens stay in place.
        fractions: of the tokens that may be removed, the highest scores first, jointly; as in :func:`aopc`.
        ablation: what takes a token's place: ``"zero"``, the ``"mean"`` row of the tokens that may be removed, or
            ``"resample"``, another one's row.
        top: how many of the highest-scored tokens are removed one by one; ``linearity`` is over these.
        step: ``x_t + step·(x'_t − x_t)``: 1 removes the token, less shows where the prediction begins to hold.
        bound: relative error above which a removal is flagged, of the larger of predicted and measured.
        seed: of the resampling; the global RNG is not used.
        batch_size: removals per forward; None lets the package choose.

    Returns:
        A :class:`Verification`; print it, ``.linearity``, ``.to_frame()``, ``.plot()``, ``.html()``.

    Raises:
        ValueError: an attribution by word, of another model, or of an unknown method; no token to remove; fractions,
            step, bound or top out of range; an unknown ablation.
        TypeError: not a TransformerLens model.

    Cost: two forwards, one vector-Jacobian product per row of V, and one forward per ``batch_size`` removals.

    >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> result = verify(model, attr, top=4, step=0.01)
    >>> result.linearity.n, result.linearity.r2 > 0.9
    (4, True)

    Reference: this package; the removals are those of paper section 5.1.
    """
    call = "verify"
    model = require_lens_model(model, call)
    refuse_unusable(model, call)
    require_ablation(ablation, call)
    shares = _checked(fractions, top, step, bound, call)
    prompt = prompt_of(attribution, call)
    candidates = [p for p in attribution.shown if p not in attribution.special]
    if not candidates:
        raise ValueError(f"{call}(attribution=...): every token is special or hidden, so there is none to remove")
    explained = explained_by(model, attribution, call)
    at = str(attribution.details.get("at", "hook_embed"))
    ranked = most_influential(attribution.scores.tolist(), candidates, len(candidates))
    singles = [(p,) for p in ranked[:top]]
    removals = [*singles, *(tuple(ranked[: number_removed(k, len(ranked))]) for k in shares)]
    replaced = substitutes(ablation, candidates, prompt.tokens, seed)

    def moved(x: Tensor) -> Tensor:
        return x + step * (replaced(x) - x)

    line = linearise(model, prompt, explained, at, call)
    slopes = line.along(moved(line.x) - line.x)
    predicted = line.predicted(torch.stack([slopes[:, list(s)].sum(-1) for s in removals], dim=-1))
    size = rows_per_forward(model, [prompt], batch_size, call, at=at)
    runs = run_ablated(
        model, prompt, [(), *removals], moved, batch_size=size, at=at, target_hook=explained.target_hook, call=call
    )
    return _result(model, attribution, explained, runs, removals, shares, predicted, ablation, step, bound)


def _result(
    model: LensModel,
    attribution: Attribution,
    explained: Explained,
    runs: Reading,
    removals: list[tuple[int, ...]],
    shares: tuple[float, ...],
    predicted: Tensor,
    ablation: Ablation,
    step: float,
    bound: float,
) -> Verification:
    """Changes against the first run, flagged."""
    dtype = runs.logits.dtype
    base, changed = Reading(runs.logits[:1], runs.hidden[:1]), Reading(runs.logits[1:], runs.hidden[1:])
    measured = explained.measured(base, changed)
    log_probs = runs.logits.log_softmax(-1)[:, explained.target].cpu()
    logits = runs.logits[:, explained.target].cpu()
    noise, signed = noise_floor(model, explained, base), explained.measure == "signed"
    return Verification(
        attribution=attribution,
        positions=tuple(removals),
        fractions=(*[None] * (len(removals) - len(shares)), *shares),
        predicted=predicted.to(dtype),
        measured=measured.to(dtype),
        delta_logit=logits[1:] - logits[0],
        delta_log_prob=log_probs[1:] - log_probs[0],
        flags=tuple(
            _flag(p, m, noise, bound, signed) for p, m in zip(predicted.tolist(), measured.tolist(), strict=True)
        ),
        scalar=explained.name,
        unit=explained.unit,
        signed=signed,
        ablation=ablation,
        step=step,
        bound=bound,
        noise=noise,
        target_str=token_strings(model, torch.tensor([explained.target]))[0],
    )


def _flag(predicted: float, measured: float, noise: float, bound: float, signed: bool) -> str:
    largest = max(abs(predicted), abs(measured))
    if abs(measured - predicted) <= noise or largest <= noise:
        return ""
    if signed and predicted * measured < 0 and abs(measured) > noise:
        return "sign"
    return "size" if abs(measured - predicted) > bound * largest else ""


def _checked(fractions: Sequence[float], top: int, step: float, bound: float, call: str) -> tuple[float, ...]:
    """The fractions; refuse numbers that make no sense."""
    shares = tuple(float(k) for k in fractions)
    if any(not 0 < k <= 1 for k in shares) or any(b <= a for a, b in pairwise(shares)):
        raise ValueError(f"{call}(fractions={tuple(fractions)}): expected increasing numbers in (0, 1]")
    if isinstance(top, bool) or top < 1:
        raise ValueError(f"{call}(top={top!r}): expected at least 1 token")
    if not (math.isfinite(step) and step != 0):
        raise ValueError(f"{call}(step={step!r}): expected a finite number other than 0; 1 removes the token")
    if not bound > 0:
        raise ValueError(f"{call}(bound={bound!r}): expected a positive relative error, e.g. 0.5")
    return shares
