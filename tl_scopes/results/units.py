"""Which tokens make one unit: a word, a sentence, a line, a paragraph, a turn of a chat, or characters that the caller names.

Every token is in exactly one unit. A border between units is a place in the text; a token that lies across one belongs to
the unit of its first character that is no white space. Sentences, lines, paragraphs and turns are made of whole words, so
that words joined into them are the same as tokens joined into them, and sentences and lines lie inside paragraphs, paragraphs
inside turns. What the caller names is made of the tokens that it touches; the text between is units of its own, one for each
stretch, and so is each stretch of a chat's template.

Tokens of an answer are in no unit of the prompt, but for the caller's own. Tokens that were left out are units apart: a
unit's score is that of its shown tokens. Special tokens outside a template and tokens without characters are units of their
own.

Sentences are found by sentencex (rules and lists of abbreviations for about 300 languages, no download), one paragraph at a
time.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.model.units import TEMPLATE, Unit
from tl_scopes.results.words import group_words, shown_spans

UnitKind = Literal["word", "sentence", "line", "paragraph", "turn"]
UnitKinds = Literal["words", "sentences", "lines", "paragraphs", "turns"]
Units = UnitKind | UnitKinds | Mapping[str, tuple[int, int]] | Sequence[tuple[str, str]]
"""A kind, ``{name: (start, end)}`` in characters of the text, or ``[(name, substring)]``."""
_SPAN = "span"
"""The kind of what the caller names."""
REST = "rest"
"""The name of what nobody named."""
_OF_ENTRIES = ("words", "word_score", "units", "unit_score", "names", "interval", "delta_logit", "delta_log_prob")
"""Details of the entries that are joined, which units have otherwise or not at all."""
_INNER = ("sentence", "line", "paragraph")
"""Kinds that a text has by itself."""


class Group(NamedTuple):
    """One unit of a result's entries.

    Attributes:
        text: as it is shown.
        positions: of the entries that it joins.
        span: its characters, ``(0, 0)`` for what is not in the text.
        name: what it is called, where units have names.
    """

    text: str
    positions: tuple[int, ...]
    span: tuple[int, int]
    name: str | None = None


@dataclass(frozen=True)
class Entries:
    """What is grouped: the entries of a result, one for each token or for each unit; fields as there."""

    str_tokens: list[str]
    special: frozenset[int] = frozenset()
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    units: tuple[Unit, ...] = ()
    hidden: frozenset[int] = frozenset()
    answer: tuple[int, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, result: Any) -> Entries:
        """Of an attribution or a matrix."""
        return cls(**{f.name: getattr(result, f.name) for f in fields(cls) if hasattr(result, f.name)})


@dataclass(frozen=True)
class Grouping:
    """Units of a result's entries, in the order of the text; each entry is in one of them.

    Attributes:
        kind: of the units.
        text: what their characters are counted in.
        groups: the units.
    """

    kind: str
    text: str
    groups: tuple[Group, ...]

    @property
    def positions(self) -> list[tuple[int, ...]]:
        """Of the entries of each unit."""
        return [group.positions for group in self.groups]

    def within(self, positions: frozenset[int]) -> frozenset[int]:
        """Units of which all entries are among these."""
        return frozenset(i for i, g in enumerate(self.groups) if positions.issuperset(g.positions))

    def details(self, before: Mapping[str, Any], additive: bool) -> dict[str, Any]:
        """What a result of units says of them: the token positions of each, how scores join, names."""
        old = members(before)
        tokens = [[t for p in g.positions for t in (old[p] if old else [p])] for g in self.groups]
        kept = {k: v for k, v in before.items() if k not in _OF_ENTRIES}
        for key in ("signed", "row_scores"):
            if key in kept:
                values = torch.tensor(kept[key], dtype=torch.float64)
                behind = 1 + max(max(g.positions) for g in self.groups) - values.shape[-1]
                values = torch.nn.functional.pad(values, (0, max(0, behind)))  # what comes later has no influence
                kept[key] = joined(values, self.positions, additive=key == "signed").tolist()
        names = [g.name or "" for g in self.groups]
        how = "sum" if additive else "root of the sum of squares"
        if self.kind == "word":
            kept.pop("unit", None)
            return {**kept, "words": tokens, "word_score": how}
        kept |= {"unit": self.kind, "units": tokens, "unit_score": how}
        return {**kept, "names": names} if any(names) else kept


def members(details: Mapping[str, Any]) -> list[list[int]] | None:
    """Token positions of each entry of a result of units; None for one by token."""
    found: list[list[int]] | None = details.get("words", details.get("units"))
    return found


def kind_of(details: Mapping[str, Any]) -> str | None:
    """The kind of unit that each entry is; None for a token."""
    return "word" if "words" in details else cast("str | None", details.get("unit"))


def joined(
    scores: Float[Tensor, "*row pos"], groups: Sequence[Sequence[int]], additive: bool
) -> Float[Tensor, "*row group"]:
    """One score per group of entries: ``sqrt(Σ score²)``, or ``Σ score`` where scores add."""
    if additive:
        return torch.stack([scores[..., list(group)].sum(-1) for group in groups], dim=-1)
    return torch.stack([torch.linalg.vector_norm(scores[..., list(g)], dim=-1) for g in groups], dim=-1)


def joined_stderr(
    stderr: Float[Tensor, " pos"], scores: Float[Tensor, " pos"], groups: Sequence[Sequence[int]], additive: bool
) -> Float[Tensor, " group"]:
    """The most that a joint score's standard error can be, whatever the correlation of the entries' errors.

    ``Σ_t σ_t`` of a sum; of a root of squares ``Σ_t s_t σ_t / sqrt(Σ_t s_t²)``, to first order.
    """
    if additive:
        return joined(stderr, groups, True)
    whole = joined(scores, groups, False)
    bound = joined(scores * stderr, groups, True) / whole
    return torch.where(whole > 0, bound, joined(stderr, groups, True))


def by_name(names: Mapping[int, str], parts: Float[Tensor, " pos"]) -> dict[str, float]:
    """What the entries of each name have together; names in the order in which they come."""
    found: dict[str, float] = {}
    for place, name in names.items():
        found[name] = found.get(name, 0.0) + float(parts[place])
    return found


def grouping(
    of: Entries, units: Units, *, language: str = "en", runs: bool = False, pos: int | None = None
) -> Grouping | None:
    """The units of a result; None where its entries are such units already.

    Args:
        of: the result's entries.
        units: which units.
        language: of sentences, as a code.
        runs: make each unit of neighbours only, where left-out tokens stand in the middle of it.
        pos: the explained position: units are in the order of their last tokens up to there.
    """
    kind = unit_kind(units)
    if "over_baseline" in of.details:
        raise ValueError(
            "(units=...): ratios to a positional baseline do not join; call by_unit on the attribution itself"
        )
    if kind != _SPAN and kind_of(of.details) == kind:
        return None
    text, offsets = characters_of(of)
    if kind == "word" and kind_of(of.details) is None:
        words = group_words(of.str_tokens, of.special, of.text, of.offsets, cuts=_cuts(of))
        return Grouping(kind, text, tuple(Group(w.text, w.positions, w.span) for w in words))
    if kind == "word":
        raise ValueError(f"(units='word'): this one is by {kind_of(of.details)}; call by_unit on the result by token")
    atoms = _atoms(of, kind)
    keys = [_key_characters(text, offsets, atom) for atom in atoms]
    parts = _parts(of, text, units, kind, language, keys)
    starts = [part.start for part in parts]
    found: dict[tuple[int, bool, bool], list[int]] = {}
    for i, (atom, key) in enumerate(zip(atoms, keys, strict=True)):
        touched = list(dict.fromkeys(bisect_right(starts, c) - 1 for c in key))
        place = next((p for p in touched if parts[p].name not in (TEMPLATE, REST)), touched[0] if touched else -1 - i)
        if kind_of(of.details) is not None and len(touched) > 1:
            raise ValueError(
                f"(units={kind!r}): the {kind_of(of.details)} {of.str_tokens[atom[0]]!r} lies in several of these; call "
                "by_unit on the result by token"
            )
        if touched and kind in _INNER and of.special.issuperset(atom) and parts[place].name != TEMPLATE:
            place = -1 - i
        apart = kind != _SPAN and bool({*of.answer}.intersection(atom))
        found.setdefault((place, of.hidden.issuperset(atom), apart), []).extend(atom)
    return Grouping(
        kind, text, tuple(_groups(of, (text, offsets), parts, found, runs=runs, pos=pos, named=kind == _SPAN))
    )


def unit_kind(units: Units) -> str:
    """The kind of the units that a caller asks for, by one of its two names."""
    return units.removesuffix("s") if isinstance(units, str) else _SPAN


def characters_of(of: Entries) -> tuple[str, Sequence[tuple[int, int]]]:
    """The text of a result and the characters of each entry: the prompt's, or those of the entries one after another."""
    if of.text is not None and of.offsets is not None:
        return of.text, of.offsets
    ends = list(itertools.accumulate(map(len, of.str_tokens)))
    return "".join(of.str_tokens), list(zip([0, *ends], ends, strict=False))


def _cuts(of: Entries) -> frozenset[int]:
    """Where words end though nothing in the text says so: at the borders of a chat's turns, and where an answer begins."""
    if of.offsets is None:
        return frozenset()
    answer = {of.offsets[p][0] for p in of.answer[:1]}
    return frozenset(c for unit in of.units for c in (unit.start, unit.end)) | answer


def _atoms(of: Entries, kind: str) -> list[tuple[int, ...]]:
    """What is never divided: words; for the caller's own characters, tokens; in a result of units, those."""
    if kind == _SPAN or kind_of(of.details) is not None:
        return [(p,) for p in range(len(of.str_tokens))]
    return [w.positions for w in group_words(of.str_tokens, of.special, of.text, of.offsets, cuts=_cuts(of))]


def _key_characters(text: str, offsets: Sequence[tuple[int, int]], atom: tuple[int, ...]) -> list[int]:
    """Characters that decide where something belongs: those that are no white space, else the first."""
    every = [c for p in atom for c in range(*offsets[p])]
    return [c for c in every if not text[c].isspace()] or every[:1]


def _parts(of: Entries, text: str, units: Units, kind: str, language: str, keys: Sequence[Sequence[int]]) -> list[Unit]:
    """The text cut into units; names are empty where they have none."""
    if kind == "turn":
        if not of.units or of.offsets is None:
            raise ValueError(
                "(units='turn'): the turns of this prompt are not known; give the prompt as a list of messages, "
                "[{'role': 'user', 'content': '…'}], or name characters of the text, {name: (start, end)}"
            )
        return _filled(of.units, text, TEMPLATE)
    if kind == _SPAN:
        named = _named(text, cast("Mapping[str, tuple[int, int]] | Sequence[tuple[str, str]]", units))
        for unit in named:
            if not any(unit.start <= c < unit.end for key in keys for c in key):
                raise ValueError(f"(units=...): {unit.name!r}, {text[unit.start : unit.end]!r}, holds no token")
        return _filled(named, text, REST)
    outer = _filled(of.units, text, TEMPLATE) if of.units and of.offsets is not None else [Unit("", 0, len(text))]
    found = []
    for part in outer:
        if part.name == TEMPLATE:
            found.append(part)
            continue
        borders = sorted({0, *_borders(text[part.start : part.end], kind, language), part.end - part.start})
        found += [Unit("", part.start + a, part.start + b) for a, b in itertools.pairwise(borders)]
    return found


def _filled(named: Sequence[Unit], text: str, between: str) -> list[Unit]:
    """The named parts of a text, in order, and what stands between them."""
    parts: list[Unit] = []
    last = 0
    for unit in sorted(named, key=lambda u: u.start):
        if unit.start > last:
            parts.append(Unit(between, last, unit.start))
        parts.append(unit)
        last = unit.end
    return [*parts, Unit(between, last, len(text))] if last < len(text) else parts


def _named(text: str, units: Mapping[str, tuple[int, int]] | Sequence[tuple[str, str]]) -> list[Unit]:
    """The caller's own characters, checked."""
    if not units:
        raise ValueError(f"(units={units!r}): name at least one part of the text")
    found: list[Unit] = []
    for name, given in units.items() if isinstance(units, Mapping) else units:
        if isinstance(given, str):
            times = text.count(given) if given else 0
            if times != 1:
                said = f"is {times} times in the text" if times else "is not in the text"
                raise ValueError(
                    f"(units=...): {name!r}, {given!r}, {said}; give {{{name!r}: (start, end)}} in characters"
                )
            given = (text.index(given), text.index(given) + len(given))
        start, end = given
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"(units={{{name!r}: ({start}, {end})}}): expected 0 <= start < end <= {len(text)} characters"
            )
        found.append(Unit(name, start, end))
    found.sort(key=lambda unit: unit.start)
    for a, b in itertools.pairwise(found):
        if b.start < a.end:
            raise ValueError(f"(units=...): {a.name!r} and {b.name!r} overlap; a token is in one unit")
    return found


def _borders(text: str, kind: str, language: str) -> Iterator[int]:
    """Where units of a kind begin in a text."""
    lines = text.splitlines(keepends=True)
    starts = list(itertools.accumulate(map(len, lines), initial=0))
    blank = [not line.strip() for line in lines]  # white space belongs to what stands before it
    if kind == "line":
        yield from (s for i, s in enumerate(starts[:-1]) if not blank[i] and not all(blank[:i]))
        return
    paragraphs = [
        0,
        *(s for i, s in enumerate(starts[1:-1], 1) if blank[i - 1] and not blank[i] and not all(blank[:i])),
    ]
    if kind == "paragraph":
        yield from paragraphs
        return
    for a, b in itertools.pairwise([*paragraphs, len(text)]):
        yield a
        yield from (a + border for border in _sentence_borders(text[a:b], language))


def _sentence_borders(text: str, language: str) -> Iterator[int]:
    """Where the second and later sentences of a paragraph begin; white space ends the sentence before it."""
    import sentencex

    for sentence in sentencex.get_sentence_boundaries(language, text):
        start = int(sentence["start_index"])
        start += len(text[start:]) - len(text[start:].lstrip())
        if text[:start].strip() and start < len(text):
            yield start


def _groups(
    of: Entries,
    characters: tuple[str, Sequence[tuple[int, int]]],
    parts: Sequence[Unit],
    found: Mapping[tuple[int, bool, bool], list[int]],
    *,
    runs: bool,
    pos: int | None,
    named: bool,
) -> Iterator[Group]:
    """Units from the entries of each place, in order; shown by their names or as the text."""
    text, offsets = characters
    places = [(place, entries) for (place, *_), entries in found.items()]
    if runs:
        places = [(place, run) for place, entries in places for run in _runs(entries)]
    end = len(offsets) if pos is None else pos
    places.sort(key=lambda pair: max((p for p in pair[1] if p <= end), default=min(pair[1])))
    spans = shown_spans(text, offsets, [entries for _, entries in places])
    for (place, entries), span in zip(places, spans, strict=True):
        name = parts[place].name if place >= 0 else ""
        shown = text[slice(*span)] if span[1] > span[0] else "".join(of.str_tokens[p] for p in entries)
        yield Group(name if named and name != REST and name else shown, tuple(entries), span, name or None)


def _runs(entries: Sequence[int]) -> list[list[int]]:
    """Stretches of neighbours."""
    found = itertools.groupby(enumerate(entries), key=lambda pair: pair[1] - pair[0])
    return [[p for _, p in run] for _, run in found]
