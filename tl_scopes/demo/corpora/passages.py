"""Texts whose answers have known causes.

A `Passage` is one generated text. An `Example` is the passage cut just before one answer word, together with
the words that decide that answer *by construction*:

    causes   swapping one of them for its counterpart turns the right answer into `swap.answer`;
    others   content words whose swap for a word of the same class leaves the right answer as it is.

Words that are neither (function words, the key a queried name is matched with, ...) have no well-defined
answer after a swap and belong to no list. All places are character spans ``(start, end)`` without the leading
space; `token_positions` turns them into the positions of TransformerLens' tokens, BOS being position 0.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

Span = tuple[int, int]
Split = Literal["train", "held_out"]

HELD_OUT_SHARE = 8  # one combination in eight is never seen in training


@dataclass(frozen=True)
class Swap:
    """Replace the word at `span` by `replacement`: the right answer is then `answer`."""

    span: Span
    replacement: str
    answer: str


@dataclass(frozen=True)
class Example:
    """A prompt, what follows it, and the words of the prompt that decide it.

    Attributes:
        corpus: name of the corpus or task.
        slot: the kind of answer ("noun", "verb", "place"), whose answers are alternatives of each other; of a task, the
            surface form.
        prompt: the text.
        answer: with its leading space, as GPT-2's tokens have it.
        source: characters that hold the evidence (the foreign sentence, the statements): the candidates of a comparison
            inside the source only.
        causes: the deciding words, each with its counterpart; the first is the one that holds the answer.
        others: content words that do not decide, each with one that may stand in its place.
        determined: False where nothing in the prompt fixes the answer, and there are no causes.
    """

    corpus: str
    slot: str
    prompt: str
    answer: str
    source: Span
    causes: tuple[Swap, ...] = ()
    others: tuple[Swap, ...] = ()
    determined: bool = True

    def swapped(self, swap: Swap) -> str:
        """The prompt after one swap."""
        start, end = swap.span
        return self.prompt[:start] + swap.replacement + self.prompt[end:]

    @property
    def counterpart(self) -> str:
        """The prompt with its first cause swapped: its right answer is ``causes[0].answer``."""
        return self.swapped(self.causes[0])

    @property
    def distance(self) -> int:
        """Words between the first cause and the end of the prompt."""
        return len(self.prompt[self.causes[0].span[1] :].split())

    def with_source(self, source: str) -> str:
        """The prompt with another source region in place of its own."""
        start, end = self.source
        return self.prompt[:start] + source + self.prompt[end:]


@dataclass(frozen=True)
class Passage:
    """One text; `targets` are the spans whose words a reader of the text before them can predict."""

    corpus: str
    text: str
    targets: tuple[Span, ...]
    examples: tuple[Example, ...]


def to_the_end(passage: Passage, example: Example) -> Example:
    """The example with all that follows as its answer, up to the passage's last one, and the causes of all its words."""
    start = len(example.prompt)
    later = [e for e in passage.examples if len(e.prompt) >= start and e.determined]
    end = max(len(e.prompt + e.answer) for e in later)
    causes = {swap.span: swap for e in later for swap in e.causes if swap.span[1] <= start}
    return replace(example, answer=passage.text[start:end], causes=tuple(causes.values()), others=())


class Draft:
    """A text under construction that remembers where each word went."""

    def __init__(self, text: str = "") -> None:
        """Start from `text`."""
        self.text = text

    def add(self, words: str) -> Span:
        """Append `words`, which bring their own leading space; returns their span without it."""
        start = len(self.text) + len(words) - len(words.lstrip(" "))
        self.text += words
        return start, len(self.text)


def is_held_out(*combination: str) -> bool:
    """Whether a combination of words is never trained on: a fixed hash, the same on every machine."""
    return zlib.crc32("|".join(combination).encode()) % HELD_OUT_SHARE == 0


def in_split(corpus: str, split: Split, facts: list[tuple[str, str]], asked: int) -> bool:
    """Whether statements of `facts`, one of them asked for, belong to a split.

    The combination that is held out is two consecutive facts. (A single fact would leak: who is never seen in Paris
    in training must live in the other city, and the model would learn that instead of reading.)
    """
    held_out = [is_held_out(corpus, *first, *second) for first, second in pairwise(facts)]
    return any(held_out[max(0, asked - 1) : asked + 1]) if split == "held_out" else not any(held_out)


def token_positions(tokenizer: Any, text: str, spans: Iterable[Span], prepend_bos: bool = True) -> list[int]:
    """Positions of the tokens that overlap any of the character `spans` of `text`, in order.

    Args:
        tokenizer: a fast Hugging Face tokenizer; it is asked for no special tokens.
        text: the prompt, e.g. `Example.prompt`.
        spans: character spans, e.g. ``[swap.span for swap in example.causes]``.
        prepend_bos: count a BOS token as position 0, TransformerLens' default.
    """
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    wanted = list(spans)
    first = 1 if prepend_bos else 0
    return [
        first + index
        for index, (start, end) in enumerate(offsets)
        if any(start < stop and begin < end for begin, stop in wanted)
    ]
