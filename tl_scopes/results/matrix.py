"""The frozen result for many targets at once: which tokens caused the prediction of each token.

Row i explains the prediction made at ``positions[i]``, that is of the token that follows it; column t is the input
token that is asked about. Rows share forwards, but each has its own target, so only scores within one row
can be compared without care (Fisher rows are each divided by their own ``λ_1``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.model.units import Unit
from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.methods import is_known, legend
from tl_scopes.results.units import Entries, Grouping, Units, grouping, joined, kind_of

if TYPE_CHECKING:
    import pandas as pd


_NOT_BY_ROW = ("words", "units", "names", "frozen")
"""Details that have no entry for each row, though they may be lists of as many, in files that do not say which have."""


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
        details: plain numbers by method, JSON-ready; those named in ``details["by_row"]`` have one entry per row, which is
            what :meth:`row` gives.
        notes: sentences a reader must know before trusting the scores.
        provenance: class, name, dtype and processing state of the model; library versions.
        special: positions of special tokens in the prompt.
        hidden: positions that views leave out; see :meth:`without`.
        text: the prompt as text, where it is known.
        offsets: ``(start, end)`` of each token in ``text``, where the tokenizer gives it; empty for special tokens.
        top_predictions: the model's most probable next tokens at each explained position, with probabilities; empty
            where they were not kept.
        units: parts of ``text`` that have names: the turns of a chat, by role.
        direction: the caller's own rows ``[k, ...]``, which all rows of the matrix explain; None where the method makes them.
    """

    _beside: ClassVar = ("direction",)
    _along: ClassVar = {
        "str_tokens": "pos",
        "offsets": "pos",
        "positions": "target",
        "targets": "target",
        "target_strs": "target",
        "top_predictions": "target?",
    }
    _later: ClassVar = ("text", "offsets", "units", "direction")
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
    units: tuple[Unit, ...] = ()
    direction: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        different = len(set(self.positions)) == len(self) or self.details.get("axis") == "columns"
        self.require(different, "positions", f"{self.positions} must be different")
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
            raise ValueError(f"(i={i}): there are {len(self)} rows")
        i %= len(self)
        details = {k: v[i] if self._by_row(k) else v for k, v in self.details.items() if k != "by_row"}
        own = tuple(dict.fromkeys(details.pop("notes", ())))
        together = len(details.get("rows", ()))
        if together > 1 and not legend(self.method).additive:
            details |= {"together": together, "combine": "norm"}
        elsewhere = together > 1 and details.get("axis") == "rows"  # where the first of them is predicted
        return Attribution(
            scores=self.scores[i].clone(),
            tokens=self.tokens,
            str_tokens=self.str_tokens,
            pos=self.positions[i],
            method=self.method,
            target=self.targets[i],
            target_str=self.target_strs[i],
            top_predictions=self.top_predictions[i] if self.top_predictions and not elsewhere else [],
            direction=self.direction,
            details=details,
            notes=(*self.notes, *own),
            provenance=self.provenance,
            special=self.special,
            hidden=self.hidden,
            text=self.text,
            offsets=self.offsets,
            units=self.units,
        )

    def _by_row(self, key: str) -> bool:
        """Has this detail one entry per row?"""
        value = self.details[key]
        if "by_row" in self.details:
            return key in self.details["by_row"]
        return key not in _NOT_BY_ROW and isinstance(value, list | tuple) and len(value) == len(self)

    def _named(self, *more: str) -> dict[str, list[str]]:
        """Which details have one entry per row, with more of them; nothing in what does not say it."""
        named = self.details.get("by_row")
        return {} if named is None else {"by_row": list(dict.fromkeys((*named, *more)))}

    @public_call
    def without(self, tokens: Literal["special", "sinks", "nothing"] | Iterable[int]) -> AttributionMatrix:
        """The same matrix with some source positions left out of views; as :meth:`Attribution.without`.

        A matrix does not look for secondary sinks: ``"sinks"`` leaves out special tokens and the token at position 0.
        """
        if not len(self):
            return self
        own = replace(self.row(0), notes=self.notes)
        first = own._without_sinks(shares=False) if tokens == "sinks" else own.without(tokens)
        return replace(self, hidden=first.hidden, notes=first.notes)

    def by_word(self) -> AttributionMatrix:
        """The same matrix with a row per target word and a column per source word: ``by_unit("word")``."""
        return self.by_unit("word")

    @public_call
    def by_unit(
        self, units: Units, *, axis: Literal["both", "rows", "columns"] = "both", language: str = "en"
    ) -> AttributionMatrix:
        """The same matrix with a row per target unit and a column per source unit, or one of the two.

        Columns join as in :meth:`Attribution.by_unit`: ``sqrt(Σ_{t in u} score_t²)``. The rows that explain the tokens of
        one unit join by the norm of their gradients together: ``sqrt(Σ_m score_m²)``, the size of a first-order change of
        them all under one perturbation. Both are plain sums where scores add (total information). Fisher rows, each
        divided by its own ``λ_1``, are weighted by it: ``sqrt(Σ_m λ_{1,m} score_m² / Σ_m λ_{1,m})``.

        A unit is no source of itself: the influence of its first tokens on its later ones, by the same formula, is in
        ``details["self"]``. So that no row is lost, squares (or sums) of a row and its ``self`` are those of the tokens'
        rows. Units of which some tokens are not explained are joined from those that are. Where only rows or only columns
        are joined, nothing is set apart: columns by token include those of the target unit, and so does a column by unit.

        Args:
            units: as in :meth:`Attribution.by_unit`.
            axis: what is joined: ``"rows"`` (targets), ``"columns"`` (sources), or ``"both"``.
            language: of sentences.

        Returns:
            An :class:`AttributionMatrix` in units: ``positions`` is the unit before the target, ``str_tokens`` the units,
            ``details["units"]`` (of words ``details["words"]``) the token positions of each, ``details["rows"]`` the token
            rows that each row joins; other details by row become one list per row. ``targets`` is the id of a unit of one
            token, and None of others. ``top_predictions`` are those where the unit's first token was predicted. Rows of the
            first unit of a text, before which there is nothing, are left out, and a note says so. Hidden tokens are units
            apart, but for those inside a word. Units of the same kind are the same units. With rows alone ``positions`` is
            the last one that a row reads; with columns alone it is the unit of the one that is read.
        """
        done = self.details.get("axis", "both" if kind_of(self.details) else None)
        if done is not None and done != axis:
            raise ValueError(
                f"(axis={axis!r}): the {done} of this matrix are joined already; start from the one by token"
            )
        if axis == "rows" and done is not None:
            raise ValueError("(axis='rows'): its rows are joined already; start from the matrix by token")
        found = grouping(Entries.of(self), units, language=language, runs=True)
        if found is None:
            return self
        if axis == "columns":
            return self._with_columns(found)
        of = {p: i for i, group in enumerate(found.positions) for p in group} | {len(self.tokens): len(found.groups)}
        rows: dict[int, list[int]] = {}
        for i in sorted(range(len(self)), key=lambda i: self.positions[i]):
            rows.setdefault(of[self.positions[i] + 1], []).append(i)
        rows = {u: rows[u] for u in sorted(rows, key=lambda u: min(rows[u]))}
        if axis == "rows":
            return self._with_rows(found, rows)
        first = rows.pop(0, [])
        note = f"The rows of the first {found.kind} are left out: no {found.kind} stands before it."
        return replace(
            self._with_own()._with_rows(found, rows)._with_columns(found, list(rows)),
            notes=(*self.notes, note) if first else self.notes,
        )

    def _with_own(self) -> AttributionMatrix:
        """With the influence of each unit on itself in its place again."""
        if "self" not in self.details:
            return self
        scores = self.scores.clone()
        for i, (position, own) in enumerate(zip(self.positions, self.details["self"], strict=True)):
            if position + 1 < len(self.tokens):
                scores[i, position + 1] = own
        details = {k: v for k, v in self.details.items() if k != "self"}
        if "by_row" in details:
            details["by_row"] = [name for name in details["by_row"] if name != "self"]
        return replace(self, scores=scores, details=details)

    def _with_rows(self, found: Grouping, rows: Mapping[int, list[int]]) -> AttributionMatrix:
        """With one row for the rows that explain the tokens of each unit."""
        targets, of = list(rows), found.groups
        nested = "rows" in self.details
        details: dict[str, Any] = {}
        for key, value in self.details.items():
            parts = [[value[i] for i in rows[u]] for u in targets] if self._by_row(key) else value
            flat = self._by_row(key) and (nested or key == "notes")
            details[key] = [[*chain(*part)] for part in parts] if flat else parts
        firsts = [rows[u][0] for u in targets]
        alone = [len(rows[u]) == 1 and (u == len(of) or len(of[u].positions) == 1) for u in targets]
        return replace(
            self,
            scores=self._joined_rows([rows[u] for u in targets], legend(self.method).additive),
            positions=tuple(max(self.positions[i] for i in rows[u]) for u in targets),
            targets=tuple(self.targets[i] if one else None for i, one in zip(firsts, alone, strict=True)),
            target_strs=tuple(
                of[u].text if u < len(of) else self.target_strs[i] for i, u in zip(firsts, targets, strict=True)
            ),
            details={"rows": [rows[u] for u in targets], **details, "row_unit": found.kind, "axis": "rows"}
            | self._named("rows"),
            top_predictions=tuple(self.top_predictions[i] for i in firsts) if self.top_predictions else (),
        )

    def _with_columns(self, found: Grouping, targets: Sequence[int] | None = None) -> AttributionMatrix:
        """With one column for each unit; ``targets``: the unit that each row explains, which is no source of itself."""
        additive, groups = legend(self.method).additive, found.positions
        scores = joined(self.scores, groups, additive) if len(self) else self.scores.new_zeros(0, len(groups))
        details = {k: v for k, v in self.details.items() if k not in ("row_unit", "axis")}
        details = {**found.details(details, additive), "axis": "columns"}
        positions = tuple(next(i for i, g in enumerate(groups) if p in g) for p in self.positions)
        if targets is not None:
            del details["axis"]
            details |= self._named("self")
            details["self"] = [float(scores[i, u]) if u < len(groups) else 0.0 for i, u in enumerate(targets)]
            positions = tuple(u - 1 for u in targets)
            for i, u in enumerate(targets):
                scores[i, u:] = 0.0
        return replace(
            self,
            scores=scores,
            tokens=self.tokens[[group[0] for group in groups]],
            str_tokens=[group.text for group in found.groups],
            positions=positions,
            details=details,
            special=found.within(self.special),
            hidden=found.within(self.hidden),
            text=found.text,
            offsets=tuple(group.span for group in found.groups),
        )

    def _joined_rows(self, groups: list[list[int]], additive: bool) -> Tensor:
        """One row for each group of rows, by source token."""
        if not groups:
            return self.scores[:0]
        weights = self.details.get("first_eigenvalue")
        if weights is None:
            return joined(self.scores.T, groups, additive).T.contiguous()
        shares = self.scores.new_tensor([sum(w) if isinstance(w, list) else w for w in weights])
        total = torch.stack([shares[group].sum() for group in groups]).sqrt()[:, None]
        return joined((self.scores * shares.sqrt()[:, None]).T, groups, additive).T / total

    def to_frame(self) -> pd.DataFrame:
        """Scores with one row per target and one column per source position."""
        import pandas as pd

        return pd.DataFrame(self.scores.numpy(), index=pd.Index(self.positions, name="pos"))
