"""Verify an attribution by intervention: a verdict, and what the first-order prediction says beside what really happens.

Legend: ``x_t`` the activation of token t at the source hook, ``x'_t`` what takes its place (zero, the mean, another
token's), ``s`` the explained scalar, ``g_t = ∂s/∂x_t``. For a set S of tokens

    predicted = Σ_{t∈S} ⟨g_t, x'_t − x_t⟩      measured = s(x with x_t → x_t + step·(x'_t − x_t), t ∈ S) − s(x)

The two agree to second order as ``step`` shrinks. At ``step=1`` they need not: that is what this module is for. Fisher
and total information have no signed scalar; there both columns are KL divergences, see
:mod:`tl_scopes.directions.base`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tl_scopes.analysis.explained_scalar import base_run
from tl_scopes.analysis.verdict import Removal, judge, plan_of
from tl_scopes.kernel.ablation import Ablation, run_ablated, substitutes
from tl_scopes.kernel.batching import rows_per_forward
from tl_scopes.model.lens import LensModel
from tl_scopes.model.lock import model_call
from tl_scopes.numerics.arguments import Seed, integer
from tl_scopes.numerics.ranking import most_influential, number_removed, require_fractions
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.verification import BOUND, Verification, flag

MOST_SINGLE = 20
"""Tokens that are removed one by one where the caller names no number."""


@model_call
def verify(
    model: LensModel,
    attribution: Attribution,
    *,
    fractions: Sequence[float] = (0.05, 0.1, 0.2),
    ablation: Ablation = "zero",
    top: int = MOST_SINGLE,
    step: float = 1.0,
    bound: float = BOUND,
    k: int = 3,
    n_random: int = 20,
    seed: Seed = 0,
    batch_size: int | None = None,
) -> Verification:
    """Do the strongest tokens matter, and how far is the model linear here? Removals beside the gradient's prediction.

    First the :func:`verdict`. Then, for each of the top tokens and top fractions:

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
        k: tokens removed together for the verdict.
        n_random: random sets beside them.
        seed: of the resampling; the global RNG is not used.
        batch_size: removals per forward; None lets the package choose.

    Returns:
        A :class:`Verification`; print it, ``.verdict``, ``.linearity``, ``.to_frame()``, ``.plot()``, ``.html()``.

    Raises:
        ValueError: an attribution by word, of another model, or of an unknown method; no token to remove; fractions,
            step, bound or top out of range; an unknown ablation.
        TypeError: not a TransformerLens model.

    Cost: one forward, one vector-Jacobian product per row of V, and one forward per ``batch_size`` removals, some 60 with
        those of the verdict.

    >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> result = verify(model, attr, top=4, step=0.01)
    >>> result.linearity.n, result.linearity.r2 > 0.9
    (4, True)

    Reference: this package; the removals are those of paper section 5.1.
    """
    integer("k", k, least=1)
    integer("n_random", n_random, least=1)
    shares = require_fractions(fractions, least=0)
    integer("top", top, least=1)
    if step == 0:
        raise ValueError(f"(step={step!r}): expected a finite number other than 0; 1 removes the token")
    if not bound > 0:
        raise ValueError(f"(bound={bound!r}): expected a positive relative error, e.g. 0.5")
    stay = {*attribution.special, *attribution.answer}
    candidates = [p for p in attribution.shown if p not in stay]
    if not candidates:
        raise ValueError("(attribution=...): every token is special or hidden, so there is none to remove")
    plan = plan_of(attribution, Removal(k, n_random, "token", ablation, seed))
    base = base_run(model, attribution)
    ranked = most_influential(attribution.scores.tolist(), candidates, len(candidates))
    singles = [(p,) for p in ranked[:top]]
    removals = [*singles, *(tuple(ranked[: number_removed(k, len(ranked))]) for k in shares)]
    replaced = substitutes(ablation, candidates, base.prompt.tokens, seed)

    def moved(x: Tensor) -> Tensor:
        return x + step * (replaced(x) - x)

    slopes = base.along(moved(base.x) - base.x)
    predicted = base.predicted(torch.stack([slopes[:, list(s)].sum(-1) for s in removals], dim=-1))
    at = str(attribution.details.get("at", "hook_embed"))
    size = rows_per_forward(model, [base.prompt], batch_size, at=at)
    hook = base.question.target_hook
    dtype, scalar = base.readings[0].predictions.dtype, base.question
    runs = run_ablated(model, base.prompt, removals, moved, batch_size=size, at=at, target_hook=hook)
    changes = [(base.measured(run), *base.target_changes(run)) for run in runs]
    measured, delta_logit, delta_log_prob = map(torch.cat, zip(*changes, strict=True))
    (judged,) = judge(model, [attribution], [plan], batch_size, (base.readings, base.question))
    noise, signed = base.noise_floor(model), scalar.measure == "signed"
    return Verification(
        attribution=attribution,
        positions=tuple(removals),
        fractions=(*[None] * len(singles), *shares),
        predicted=predicted.to(dtype),
        measured=measured.to(dtype),
        delta_logit=delta_logit,
        delta_log_prob=delta_log_prob,
        flags=tuple(
            flag(p, m, noise=noise, bound=bound, signed=signed)
            for p, m in zip(predicted.tolist(), measured.tolist(), strict=True)
        ),
        scalar=scalar.name,
        unit=scalar.unit,
        signed=signed,
        ablation=ablation,
        step=step,
        bound=bound,
        noise=noise,
        target_str=base.question.text,
        verdict=judged,
    )
