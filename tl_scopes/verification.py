"""Verify an attribution by intervention: what the first-order prediction says, and what really happens.

Legend: ``x_t`` the activation of token t at the source hook, ``x'_t`` what takes its place (zero, the mean, another
token's), ``s`` the explained scalar, ``g_t = ∂s/∂x_t``. For a set S of tokens

    predicted = Σ_{t∈S} ⟨g_t, x'_t − x_t⟩      measured = s(x with x_t → x_t + step·(x'_t − x_t), t ∈ S) − s(x)

The two agree to second order as ``step`` shrinks. At ``step=1`` they need not: that is what this module is for. Fisher
and total information have no signed scalar; there both columns are KL divergences, see :mod:`tl_scopes.explained`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.attribution import Attribution
from tl_scopes.explained import Explained, explained_by, linearise, noise_floor, prompt_of
from tl_scopes.interventions import (
    Ablation,
    Reading,
    require_ablation,
    rows_per_forward,
    run_ablated,
    substitutes,
)
from tl_scopes.model import LensModel, refuse_unusable, require_lens_model
from tl_scopes.perturbation import most_influential, number_removed
from tl_scopes.prompts import token_strings
from tl_scopes.shown import Shown
from tl_scopes.statistics import spearman

if TYPE_CHECKING:
    import pandas as pd

    from tl_scopes.views import View

MOST_SINGLE = 20
"""Tokens that are removed one by one where the caller names no number."""


@dataclass(frozen=True)
class Linearity:
    """How well the prediction describes single removals.

    Attributes:
        slope: of measured on predicted, through the origin; 1 where the model is linear.
        r2: ``1 − Σ(measured − predicted)²/Σ(measured − mean)²``: of the prediction as it stands, not of a fitted line;
            below 0 where the mean would have been a better guess.
        spearman: rank correlation.
        wrong_sign: share of tokens whose measured change has the other sign; NaN where changes have no sign.
        wrong: share of tokens that are flagged.
        n: tokens.
    """

    slope: float
    r2: float
    spearman: float
    wrong_sign: float
    wrong: float
    n: int

    def __str__(self) -> str:
        sign = "" if math.isnan(self.wrong_sign) else f", wrong sign {self.wrong_sign:.0%}"
        return (
            f"slope {self.slope:.2f}, R² {self.r2:.2f}, Spearman {self.spearman:.2f}{sign}, "
            f"flagged {self.wrong:.0%} of {self.n} tokens"
        )


@dataclass(frozen=True, eq=False)
class Verification(Shown):
    """Predicted and measured effects of removing tokens; the result of :func:`verify`.

    Attributes:
        attribution: what was verified.
        positions: of each removal; the top tokens alone first, then the top fractions jointly.
        fractions: of each removal, None where it is one token alone.
        predicted: ``[removal]``, in ``unit``; float64 for a float64 model, float32 for every other.
        measured: ``[removal]`` change of the explained scalar.
        delta_logit: ``[removal]`` change of the target's logit.
        delta_log_prob: ``[removal]`` change of its log-probability, nats.
        flags: of each removal: ``"sign"`` (the measured change has the other sign), ``"size"`` (it differs from the
            prediction by more than ``bound`` times the larger of the two), or ``""``.
        scalar: what is measured.
        unit: of predicted and measured.
        signed: whether they have a sign.
        ablation: what took the tokens' place.
        step: how far towards it they were moved.
        bound: see flags.
        noise: changes below it are rounding, and never flagged.
        target_str: the token of ``delta_logit`` and ``delta_log_prob``.
    """

    attribution: Attribution
    positions: tuple[tuple[int, ...], ...]
    fractions: tuple[float | None, ...]
    predicted: Float[Tensor, " removal"]
    measured: Float[Tensor, " removal"]
    delta_logit: Float[Tensor, " removal"]
    delta_log_prob: Float[Tensor, " removal"]
    flags: tuple[str, ...]
    scalar: str
    unit: str
    signed: bool
    ablation: Ablation
    step: float
    bound: float
    noise: float
    target_str: str

    @property
    def linearity(self) -> Linearity:
        """Over the tokens that were removed alone."""
        single = [i for i, f in enumerate(self.fractions) if f is None]
        p, m = (v[single].double() for v in (self.predicted, self.measured))
        flags = [self.flags[i] for i in single]
        spread, power = float((m - m.mean()).square().sum()), float(p.square().sum())
        return Linearity(
            slope=float((p * m).sum()) / power if power > 0 else math.nan,
            r2=1 - float((m - p).square().sum()) / spread if spread > 0 else math.nan,
            spearman=spearman(p.tolist(), m.tolist()),
            wrong_sign=flags.count("sign") / len(flags) if self.signed else math.nan,
            wrong=sum(map(bool, flags)) / len(flags),
            n=len(single),
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per removal: ``pos``, ``token``, ``fraction``, ``n``, ``score`` and what was predicted and measured."""
        import pandas as pd

        a = self.attribution
        return pd.DataFrame(
            {
                "pos": [s[0] if f is None else None for s, f in zip(self.positions, self.fractions, strict=True)],
                "token": [
                    a.str_tokens[s[0]] if f is None else f"top {f:.0%}"
                    for s, f in zip(self.positions, self.fractions, strict=True)
                ],
                "fraction": [math.nan if f is None else f for f in self.fractions],
                "n": [len(s) for s in self.positions],
                "score": [
                    float(a.scores[s[0]]) if f is None else math.nan
                    for s, f in zip(self.positions, self.fractions, strict=True)
                ],
                "predicted": self.predicted.tolist(),
                "measured": self.measured.tolist(),
                "delta_logit": self.delta_logit.tolist(),
                "delta_log_prob": self.delta_log_prob.tolist(),
                "flag": list(self.flags),
            }
        ).astype({"pos": "Int64"})

    def plot(self) -> Any:
        """A matplotlib figure: measured against predicted, with the identity line; flagged removals are marked."""
        from tl_scopes.views.scatter import verification_figure

        return verification_figure(self)

    def view(self) -> View:
        """The same as an interactive view, and the table."""
        from tl_scopes.views.scatter import verification_view

        return verification_view(self)

    def __str__(self) -> str:
        columns = ["pos", "token", "score", "predicted", "measured", "delta_logit", "delta_log_prob", "flag"]
        table = self.to_frame()[columns].to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep="")
        moved = self.ablation if self.step == 1 else f"{self.step:g} of the way to {self.ablation}"
        return f"{self.scalar} ({self.unit}), tokens replaced: {moved}\n{table}\n{self.linearity}"

    def __repr__(self) -> str:
        return f"Verification({self.scalar}, {self.ablation}, {self.linearity})"


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
