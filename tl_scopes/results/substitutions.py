"""Tokens put in another's place: the result of :func:`tl_scopes.substitutions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.numerics.statistics import spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.verification import flag

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Substitutions(Displayable, Serializable):
    """Result of :func:`substitutions`.

    Attributes:
        attribution: whose scalar is explained.
        pos: position of the token that is replaced.
        token: its text.
        tokens: ``[swap]`` ids put in its place, the largest predicted change first.
        str_tokens: their texts.
        predicted: ``[swap]`` first-order change, in ``unit``.
        measured: ``[swap]`` change of the explained scalar.
        delta_logit: ``[swap]`` change of the target's logit.
        delta_log_prob: ``[swap]`` change of its log-probability, nats.
        scalar: what is explained.
        unit: of predicted and measured.
    """

    _shared: ClassVar = ("attribution",)
    _along: ClassVar = {"str_tokens": "swap"}
    _within: ClassVar = {"pos": "pos"}

    attribution: Attribution
    pos: int
    token: str
    tokens: Int[Tensor, " swap"]
    str_tokens: tuple[str, ...]
    predicted: Float[Tensor, " swap"]
    measured: Float[Tensor, " swap"]
    delta_logit: Float[Tensor, " swap"]
    delta_log_prob: Float[Tensor, " swap"]
    scalar: str
    unit: str

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured."""
        return spearman(self.predicted.tolist(), self.measured.tolist())

    @property
    def flags(self) -> tuple[str, ...]:
        """Of each swap ``"sign"`` or ``"size"`` where it was not as predicted, by the rule of :func:`verify`, else ``""``.

        As predicted is what has the predicted sign, and neither of the two more than twice the other.
        """
        return tuple(flag(p, m) for p, m in zip(self.predicted.tolist(), self.measured.tolist(), strict=True))

    @property
    def reading(self) -> str:
        """How many swaps were as predicted, in plain words."""
        flags = self.flags
        parts = [f"{flags.count('')} of {len(flags)} swaps as predicted (same sign, within a factor of 2)"]
        parts += [
            f"{words} {flags.count(f)}" for f, words in (("size", "size off"), ("sign", "wrong sign")) if f in flags
        ]
        return ", ".join(parts)

    def to_frame(self) -> pd.DataFrame:
        """One row per swap: ``id``, ``token``, ``predicted``, ``measured``, ``delta_logit``, ``delta_log_prob``, ``flag``."""
        import pandas as pd

        return pd.DataFrame(
            {
                "id": self.tokens.tolist(),
                "token": list(self.str_tokens),
                "predicted": self.predicted.tolist(),
                "measured": self.measured.tolist(),
                "delta_logit": self.delta_logit.tolist(),
                "delta_log_prob": self.delta_log_prob.tolist(),
                "flag": list(self.flags),
            }
        )

    def __repr__(self) -> str:
        return f"Substitutions({self.token!r} at {self.pos}, {len(self.tokens)} swaps, {self.scalar})"
