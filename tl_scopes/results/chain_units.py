"""A text that a model wrote, and its prompt, each cut into units; a unit that is asked for is cut out of the others.

Units of the written part are stretches of neighbours in their order, so that each rests on earlier ones alone. Special tokens
are in none. How a text is cut: :mod:`tl_scopes.results.units`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.results.units import REST, Entries, Units, characters_of, grouping
from tl_scopes.results.words import shown_spans, word_places


@dataclass(frozen=True)
class TextUnit:
    """One unit of a text.

    Attributes:
        text: its characters.
        positions: of its tokens.
        name: the role of a turn, or what the caller named it; empty for what nobody named.
    """

    text: str
    positions: tuple[int, ...]
    name: str = ""


def require_names(units: Sequence[TextUnit], among: Sequence[str]) -> None:
    """Refuse names that no unit has.

    Raises:
        ValueError: such a name.
    """
    names = {unit.name for unit in units} - {""}
    if unknown := [name for name in among if name not in names]:
        known = ", ".join(map(repr, sorted(names))) or "none has a name"
        raise ValueError(f"(among=...): no unit of the prompt is called {unknown[0]!r}; there are: {known}")


def prompt_units(of: Entries, units: Units, language: str = "en") -> tuple[TextUnit, ...]:
    """Units of the tokens before the written ones, which are ``of.answer``."""
    found = _cut(of, units, language, runs=False)
    return _as_units(of, [([p for p in positions if p < of.answer[0]], name) for positions, name in found])


def written_units(of: Entries, units: Units, language: str = "en", answer: str | None = None) -> tuple[TextUnit, ...]:
    """Units of the written tokens; the last place of ``answer`` among them is a unit by itself.

    Raises:
        ValueError: ``answer`` is not in the written text, or only inside longer words.
    """
    found = [
        ([p for p in positions if p >= of.answer[0]], name) for positions, name in _cut(of, units, language, runs=True)
    ]
    if answer is not None:
        inside = frozenset(answer_positions(of, answer))
        found = [
            (list(run), name)
            for positions, name in found
            for _, run in itertools.groupby(positions, key=inside.__contains__)
        ]
        found = [(p, n) for p, n in found if not inside.issuperset(p)] + [(sorted(inside), "")]
    return _as_units(of, sorted(found, key=lambda unit: list(unit[0])[:1]))


def answer_positions(of: Entries, answer: str) -> list[int]:
    """The written tokens that hold the last place of some words, without the white space around them.

    Raises:
        ValueError: they are not there, or only inside longer words.
    """
    text, offsets = characters_of(of)
    start, said = offsets[of.answer[0]][0], answer.strip()
    written, at, found = text[start:], -1, []
    if places := word_places(written, said):
        at = start + places[-1]
        found = [p for p in of.answer if offsets[p][0] < at + len(said) and at < offsets[p][1] and p not in of.special]
    if not found:
        shown = written if len(written) <= 80 else f"{written[:79]}…"
        if said and at < 0 and said in written:
            raise ValueError(
                f"(answer={answer!r}): in the written text, {shown!r}, this is only inside longer words; give whole words, "
                "or the number of a unit"
            )
        raise ValueError(f"(answer={answer!r}): this is not in the written text, {shown!r}")
    return found


def place_among(of: Entries, positions: Sequence[int], said: str) -> int:
    """Which of the places of some words in the written text these tokens hold, counted from 1; 0 is none of them."""
    text, offsets = characters_of(of)
    start, first, end = offsets[of.answer[0]][0], offsets[positions[0]][0], offsets[positions[-1]][1]
    places = enumerate(word_places(text[start:], said), 1)
    return next((n for n, at in places if first <= start + at and start + at + len(said) <= end), 0)


def _cut(of: Entries, units: Units, language: str, *, runs: bool) -> Iterator[tuple[tuple[int, ...], str]]:
    """Positions and name of each unit of the whole text."""
    found = grouping(replace(of, details={}, hidden=frozenset()), units, language=language, runs=runs)
    assert found is not None, "entries are tokens"
    for group in found.groups:
        yield group.positions, "" if group.name in (None, REST) else str(group.name)


def _as_units(of: Entries, found: Sequence[tuple[Sequence[int], str]]) -> tuple[TextUnit, ...]:
    """With their texts, without special tokens."""
    kept = [(tuple(p for p in positions if p not in of.special), name) for positions, name in found]
    kept = [(positions, name) for positions, name in kept if positions]
    text, offsets = characters_of(of)
    spans = shown_spans(text, offsets, [positions for positions, _ in kept])
    return tuple(
        TextUnit(text[a:b] if b > a else "".join(of.str_tokens[p] for p in positions), positions, name)
        for (positions, name), (a, b) in zip(kept, spans, strict=True)
    )


def step_weights(answer: int | Mapping[int, float], n: int) -> Float[Tensor, " unit"]:
    """Weights of n steps from the number of one, or ``{number: weight}``, which need not add up to 1.

    Raises:
        ValueError: a step that is not there; a weight below 0; none above.
    """
    asked = {answer: 1.0} if isinstance(answer, int) else dict(answer)
    outside: Sequence[int] = [u for u in asked if not -n <= u < n]
    if outside or not asked:
        raise ValueError(f"(answer={answer!r}): there are {n} steps; numbers must be in {-n}..{n - 1}")
    weights = torch.zeros(n, dtype=torch.float64)
    for u, weight in asked.items():
        weights[u] += weight
    total = float(weights.sum())
    if bool((weights < 0).any()) or not 0 < total < float("inf"):
        raise ValueError(f"(answer={answer!r}): weights are 0 or more, and one is above 0")
    return weights / total
