"""A prompt under construction: each content word knows its place, and what may stand there instead."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import Formatter

from tl_scopes.demo.corpora.passages import Draft, Example, Span, Swap

N_OTHERS = 3
"""Words of each example that are swapped without the answer changing."""
Word = str | tuple[str, str]
"""A word, or a word and another one that may stand in its place."""


@dataclass(frozen=True)
class Task:
    """Prompts of one kind whose causes are known by construction.

    Attributes:
        name: in :data:`tl_scopes.tasks.TASKS`.
        about: what is asked and what decides it.
        make: one example of a length.
        lengths: the usual ones, taken in turn.
        unit: what a length counts; it stands between the first cause and the end of the prompt.
        least: the smallest length.
        most: the largest length, by the number of different words.
        forms: names of the surface forms, the examples' ``slot``.
    """

    name: str
    about: str
    make: Callable[[random.Random, int], Example]
    lengths: tuple[int, ...]
    unit: str
    least: int
    most: int
    forms: tuple[str, ...]


class Text(Draft):
    """A text that grows by templates; words that come with another one are remembered as swaps that decide nothing."""

    def __init__(self, rng: random.Random) -> None:
        """Start empty; ``rng`` chooses among the remembered words."""
        super().__init__()
        self.rng = rng
        self.others: list[tuple[Span, str]] = []

    def write(self, template: str, **words: Word) -> dict[str, Span]:
        """Append a template with its words; returns where they stand."""
        spans: dict[str, Span] = {}
        for literal, name, _, _ in Formatter().parse(template):
            self.text += literal
            if name is None:
                continue
            if name in spans:
                raise ValueError(f"{template!r} has {name!r} twice, and a swap changes one place")
            word = words[name]
            here, instead = (word, None) if isinstance(word, str) else word
            spans[name] = (len(self.text), len(self.text) + len(here))
            self.text += here
            if instead is not None:
                self.others.append((spans[name], instead))
        return spans

    def example(
        self, task: str, form: str, answer: str, source: Span, causes: Sequence[tuple[Span, str, str]]
    ) -> Example:
        """The finished prompt; ``causes`` as (span, word in its place, its answer), answers without their space."""
        others = sorted(self.rng.sample(self.others, N_OTHERS))
        return Example(
            corpus=task,
            slot=form,
            prompt=self.text,
            answer=f" {answer}",
            source=source,
            causes=tuple(Swap(span, word, f" {other}") for span, word, other in causes),
            others=tuple(Swap(span, word, f" {answer}") for span, word in others),
        )


def as_list(text: str) -> list[str]:
    """The words of a list."""
    return text.split()


def deck(rng: random.Random, cards: Sequence[str]) -> Iterator[str]:
    """The words in a random order, none twice."""
    return iter(rng.sample(list(cards), len(cards)))


def pair(cards: Iterator[str]) -> tuple[str, str]:
    """A word and another one that may stand in its place."""
    return next(cards), next(cards)
