"""The frozen result for many targets at once: which tokens caused the prediction of each token.

Row i explains the prediction made at ``positions[i]``, that is of the token that follows it; column t is the input
token that is asked about. Rows share forwards, but each has its own target, so only scores within one row
can be compared without care (Fisher rows are each divided by their own ``λ_1``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.methods import is_known, legend
from tl_scopes.results.words import group_words, joined

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
        text: the prompt as text, where it is known.
        offsets: ``(start, end)`` of each token in ``text``, where the tokenizer gives it; empty for special tokens.
        top_predictions: the model's most probable next tokens at each explained position, with probabilities; empty
            where they were not kept.
    """

    _along: ClassVar = {
        "str_tokens": "pos",
        "offsets": "pos",
        "positions": "target",
        "targets": "target",
        "target_strs": "target",
        "top_predictions": "target?",
    }
    _later: ClassVar = ("text", "offsets")
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
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None

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
            details={key: value[i] if self._by_row(key) else value for key, value in self.details.items()},
            notes=self.notes,
            provenance=self.provenance,
            special=self.special,
            hidden=self.hidden,
            text=self.text,
            offsets=self.offsets,
        )

    def _by_row(self, key: str) -> bool:
        """Has this detail one entry per row?"""
        value = self.details[key]
        return key != "words" and isinstance(value, list | tuple) and len(value) == len(self)

    @public_call
    def without(self, tokens: Literal["special", "sinks", "nothing"] | Iterable[int]) -> AttributionMatrix:
        """The same matrix with some source positions left out of views; as :meth:`Attribution.without`.

        A matrix does not look for secondary sinks: ``"sinks"`` leaves out special tokens and the token at position 0.
        """
        if not len(self):
            return self
        own = self.row(0)
        first = own._without_sinks(shares=False) if tokens == "sinks" else own.without(tokens)
        return replace(self, hidden=first.hidden, notes=first.notes)

    def by_word(self) -> AttributionMatrix:
        """The same matrix with a row per target word and a column per source word.

        Columns join as in :meth:`Attribution.by_word`: ``sqrt(Σ_{t in w} score_t²)``. The rows that explain the tokens of
        one word join by the norm of their gradients together: ``sqrt(Σ_m score_m²)``, the size of a first-order change of
        them all under one perturbation. Both are plain sums where scores add (total information). Fisher rows, each
        divided by its own ``λ_1``, are weighted by it: ``sqrt(Σ_m λ_{1,m} score_m² / Σ_m λ_{1,m})``.

        A word is no source of itself: the influence of its first tokens on its later ones, by the same formula, is in
        ``details["self"]``. So that no row is lost, squares (or sums) of a row and its ``self`` are those of the tokens'
        rows. Words of which some tokens are not explained are joined from those that are.

        Returns:
            An :class:`AttributionMatrix` in words: ``positions`` is the word before the target, ``str_tokens`` the words,
            ``details["words"]`` the token positions of each, ``details["rows"]`` the token rows that each row joins;
            other details by row become one list per row. ``targets`` is the id of a word of one token, and None of
            others. ``top_predictions`` are those where the word's first token was predicted. Rows of the first word of a
            text, before which there is nothing, are left out, and a note says so. Words of words are the same words.
        """
        if "words" in self.details:
            return self
        words = group_words(self.str_tokens, self.special, self.text, self.offsets)
        groups = [w.positions for w in words]
        of = {p: i for i, group in enumerate(groups) for p in group} | {len(self.tokens): len(words)}
        rows: dict[int, list[int]] = {}
        for i in sorted(range(len(self)), key=lambda i: self.positions[i]):
            rows.setdefault(of[self.positions[i] + 1], []).append(i)
        lost = rows.pop(0, [])
        targets = sorted(rows, key=lambda w: min(rows[w]))
        additive = legend(self.method).additive
        scores = self._joined_rows([rows[w] for w in targets], additive)
        scores = joined(scores, groups, additive) if targets else scores.new_zeros(0, len(words))
        own = [float(scores[i, w]) if w < len(words) else 0.0 for i, w in enumerate(targets)]
        for i, w in enumerate(targets):
            scores[i, w:] = 0.0
        first = [rows[w][0] for w in targets]
        one = [len(rows[w]) == 1 and (w == len(words) or len(groups[w]) == 1) for w in targets]
        details: dict[str, Any] = {
            key: [[value[i] for i in rows[w]] for w in targets] if self._by_row(key) else value
            for key, value in self.details.items()
        }
        note = "The rows of the first word are left out: no word stands before it."
        return replace(
            self,
            scores=scores,
            tokens=self.tokens[[group[0] for group in groups]],
            str_tokens=[w.text for w in words],
            positions=tuple(w - 1 for w in targets),
            targets=tuple(self.targets[i] if alone else None for i, alone in zip(first, one, strict=True)),
            target_strs=tuple(
                words[w].text if w < len(words) else self.target_strs[i] for i, w in zip(first, targets, strict=True)
            ),
            details={
                **details,
                "words": [list(group) for group in groups],
                "word_score": "sum" if additive else "root of the sum of squares",
                "rows": [rows[w] for w in targets],
                "self": own,
            },
            notes=(*self.notes, note) if lost else self.notes,
            special=frozenset(i for i, group in enumerate(groups) if self.special.issuperset(group)),
            hidden=frozenset(i for i, group in enumerate(groups) if self.hidden.issuperset(group)),
            top_predictions=tuple(self.top_predictions[i] for i in first) if self.top_predictions else (),
            text=None,
            offsets=None,
        )

    def _joined_rows(self, groups: list[list[int]], additive: bool) -> Tensor:
        """One row for each group of rows, by source token."""
        if not groups:
            return self.scores[:0]
        weights = self.details.get("first_eigenvalue")
        if weights is None:
            return joined(self.scores.T, groups, additive).T.contiguous()
        shares = self.scores.new_tensor(weights)
        total = torch.stack([shares[group].sum() for group in groups]).sqrt()[:, None]
        return joined((self.scores * shares.sqrt()[:, None]).T, groups, additive).T / total

    def to_frame(self) -> pd.DataFrame:
        """Scores with one row per target and one column per source position."""
        import pandas as pd

        return pd.DataFrame(self.scores.numpy(), index=pd.Index(self.positions, name="pos"))
