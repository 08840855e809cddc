"""Measured removals beside the first-order prediction: the result of :func:`tl_scopes.verify`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.statistics import spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.verdict import Ablation, Verdict
from tl_scopes.results.written import minus

if TYPE_CHECKING:
    import pandas as pd

HOLDS = 0.8
"""R² from which the prediction describes the removals."""
ORDERS = 0.5
"""Rank correlation from which it orders them."""
BOUND = 0.5
"""Difference of predicted and measured, relative to the larger, up to which a change counts as predicted."""


def flag(predicted: float, measured: float, *, noise: float = 0.0, bound: float = BOUND, signed: bool = True) -> str:
    """``"sign"`` where the two differ in it, ``"size"`` where they differ by more than ``bound`` times the larger, or ``""``.

    With the default bound neither of two that agree is more than twice the other. What is below ``noise`` is not flagged.
    """
    largest = max(abs(predicted), abs(measured))
    if abs(measured - predicted) <= noise or largest <= noise:
        return ""
    if signed and predicted * measured < 0 and abs(measured) > noise:
        return "sign"
    return "size" if abs(measured - predicted) > bound * largest else ""


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

    @property
    def reading(self) -> str:
        """In plain words."""
        if math.isnan(self.slope):
            return "what was removed moves the scalar by no more than rounding; take a larger step, or load in float64"
        if math.isnan(self.r2):
            return "one removal alone does not tell; take more of the strongest tokens (top)"
        if self.r2 >= HOLDS:
            return "the gradient predicts what removals do"
        if self.spearman >= ORDERS:
            return "the gradient orders removals, and misses their size"
        return (
            "the gradient does not predict removals, which are large steps; the ranking can hold all the same, and a part of "
            "the way to removal (step below 1) shows where the prediction begins to hold"
        )

    def __str__(self) -> str:
        sign = "" if math.isnan(self.wrong_sign) else f", wrong sign {self.wrong_sign:.0%}"
        return minus(
            f"slope {self.slope:.2f}, R² {self.r2:.2f}, Spearman {self.spearman:.2f}{sign}, "
            f"flagged {self.wrong:.0%} of {self.n} tokens"
        )


@dataclass(frozen=True, eq=False)
class Verification(Displayable, Serializable):
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
        verdict: do the strongest tokens matter, more than random ones; None in older files.
    """

    _later: ClassVar = ("verdict",)
    _shared: ClassVar = ("attribution",)
    _along: ClassVar = dict.fromkeys(("positions", "fractions", "flags"), "removal")
    _within: ClassVar = {"positions": "pos"}

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
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        alone = [p for p, f in zip(self.positions, self.fractions, strict=True) if f is None]
        self.require(
            all(len(p) == 1 for p in alone), "positions", "a removal of no fraction (fractions) is of one token"
        )
        self.require(set(self.flags) <= {"", "size", "sign"}, "flags", "expected 'size', 'sign' or ''")

    @property
    def linearity(self) -> Linearity:
        """Over the tokens that were removed alone; NaN where all changes may be rounding, and look so."""
        single = [i for i, f in enumerate(self.fractions) if f is None]
        p, m = (v[single].double() for v in (self.predicted, self.measured))
        flags = [self.flags[i] for i in single]
        spread, power = float((m - m.mean()).square().sum()), float(p.square().sum())
        missed = float((m - p).square().sum())
        if float(torch.maximum(p.abs(), m.abs()).max()) <= self.noise and missed > (1 - HOLDS) * spread:
            spread = power = 0.0
        return Linearity(
            slope=float((p * m).sum()) / power if power > 0 else math.nan,
            r2=1 - missed / spread if spread > 0 else math.nan,
            spearman=spearman(p.tolist(), m.tolist()) if power else math.nan,
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

    def __repr__(self) -> str:
        return f"Verification({self.scalar}, {self.ablation}, {self.linearity})"
