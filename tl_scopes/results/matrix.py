"""The frozen result for many targets at once: which tokens caused the prediction of each token.

Row i explains the prediction made at ``positions[i]``, that is of the token that follows it; column t is the input
token that is asked about. Rows share forwards, but each has its own target, so only scores within one row
can be compared without care (Fisher rows are each divided by their own ``λ_1``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.methods import is_known

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class AttributionMatrix(Displayable, Serializable):
    """Scores of all input tokens for the predictions at several positions.

    Attributes:
        scores: ``[target, pos]`` on the CPU; row i is exactly 0 after ``positions[i]``.
        tokens: ``[pos]`` int64 token ids on the CPU.
        str_tokens: the text of each token.
        positions: the explained position of each row, non-negative.
        method: name of the scope or baseline.
        targets: id of the explained token of each row, or None where no single token is explained.
        target_strs: their texts, or None.
        top_target_flagged: whether the last row's target is the model's top prediction, because no token follows it.
        details: plain numbers by method, JSON-ready; a list with one entry per row is given to :meth:`row` by entry.
        notes: sentences a reader must know before trusting the scores.
        provenance: class, name, dtype and processing state of the model; library versions.
        special: positions of special tokens in the prompt.
        hidden: positions that views leave out; see :meth:`without`.
        top_predictions: the model's most probable next tokens at each explained position, with probabilities; empty
            where they were not kept.
    """

    _along: ClassVar = {
        "str_tokens": "pos",
        "positions": "target",
        "targets": "target",
        "target_strs": "target",
        "top_predictions": "target?",
    }
    _within: ClassVar = dict.fromkeys(("positions", "special", "hidden"), "pos")
    _finite: ClassVar = ("scores", "top_predictions")

    scores: Float[Tensor, "target pos"]
    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    positions: tuple[int, ...]
    method: str
    targets: tuple[int | None, ...]
    target_strs: tuple[str | None, ...]
    top_target_flagged: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    special: frozenset[int] = frozenset()
    hidden: frozenset[int] = frozenset()
    top_predictions: tuple[list[tuple[str, float]], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(len(set(self.positions)) == len(self), "positions", f"{self.positions} must be different")
        if is_known(self.method):
            self.require(not bool((self.scores < 0).any()), "scores", f"{self.method} has none below 0")

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"AttributionMatrix({self.method}, {len(self)} targets, {len(self.tokens)} tokens)"

    @public_call
    def row(self, i: int) -> Attribution:
        """Row ``i`` (negative counts from the end) as an :class:`Attribution`."""
        if not -len(self) <= i < len(self):
            raise ValueError(f"AttributionMatrix.row({i}): there are {len(self)} rows")
        i %= len(self)
        return Attribution(
            scores=self.scores[i].clone(),
            tokens=self.tokens,
            str_tokens=self.str_tokens,
            pos=self.positions[i],
            method=self.method,
            target=self.targets[i],
            target_str=self.target_strs[i],
            top_predictions=self.top_predictions[i] if self.top_predictions else [],
            details={
                key: value[i] if isinstance(value, list | tuple) and len(value) == len(self) else value
                for key, value in self.details.items()
            },
            notes=self.notes,
            provenance=self.provenance,
            special=self.special,
            hidden=self.hidden,
        )

    @public_call
    def without(self, tokens: Literal["special", "sinks"] | Iterable[int]) -> AttributionMatrix:
        """The same matrix with some source positions left out of views; as :meth:`Attribution.without`.

        A matrix does not look for secondary sinks: ``"sinks"`` leaves out special tokens and the first token.
        """
        if not len(self):
            return self
        first = self.row(0).without(tokens)
        return replace(self, hidden=first.hidden, notes=first.notes)

    def to_frame(self) -> pd.DataFrame:
        """Scores with one row per target and one column per source position."""
        import pandas as pd

        return pd.DataFrame(self.scores.numpy(), index=pd.Index(self.positions, name="pos"))
