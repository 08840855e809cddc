"""Which tokens make one word.

A token continues the word before it when no white space stands between them and letters, digits or the pieces of one
character meet at the border; punctuation and special tokens are words of their own, and so is each Chinese or Japanese
token. A character is what a reader takes for one (Unicode's grapheme cluster: a flag, a family, a letter with its marks)
and is never split. With character offsets two tokens that share one (the bytes of an emoji) are never separated; without
them the replacement character ``�``, which stands for such a piece, is taken as a letter.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import regex

_INSIDE_WORDS = "_\ufffd\u00ad\u200c\u200d"
"""Taken as letters: the underscore, a piece of a character, the soft hyphen and the joiners of Persian and Indic words."""
_APOSTROPHES = "'’"


class Word(NamedTuple):
    """One word: its text, the positions of its tokens, and its characters in the prompt (``(0, 0)``: none)."""

    text: str
    positions: tuple[int, ...]
    span: tuple[int, int] = (0, 0)


def group_words(
    str_tokens: Sequence[str],
    special: frozenset[int],
    text: str | None = None,
    offsets: Sequence[tuple[int, int]] | None = None,
    cuts: frozenset[int] = frozenset(),
) -> list[Word]:
    """The words of a prompt, in order; every position is in exactly one of them.

    Args:
        str_tokens: the text of each token.
        special: positions that are words of their own.
        text: the prompt; with ``offsets``, the borders are read in it, and the words' texts are cut from it.
        offsets: ``(start, end)`` of each token in ``text``; empty for a token that is not in it.
        cuts: characters before which a word ends, whatever stands there.
    """
    if text is None or offsets is None:
        text, ends = "".join(str_tokens), list(itertools.accumulate(len(t) for t in str_tokens))
        offsets = list(zip([0, *ends], ends, strict=False))
    starts = frozenset(itertools.accumulate(map(len, characters(text)), initial=0))
    groups: list[list[int]] = []
    for p, (start, end) in enumerate(offsets):
        alone = p == 0 or p in special or p - 1 in special or start == end
        alone = alone or (start in cuts and start >= offsets[p - 1][1])
        if not alone and _joined(text, starts, offsets[p - 1], start):
            groups[-1].append(p)
        else:
            groups.append([p])
    spans = shown_spans(text, offsets, groups)
    return [
        Word(text[start:end] if end > start else str_tokens[group[0]], tuple(group), (start, end))
        for group, (start, end) in zip(groups, spans, strict=True)
    ]


def shown_spans(
    text: str, offsets: Sequence[tuple[int, int]], groups: Sequence[Sequence[int]]
) -> list[tuple[int, int]]:
    """The characters that stand for each group of tokens; ``(0, 0)`` for tokens that are no neighbours or have none."""
    spans, last = [], 0
    for group in groups:
        found = [offsets[p] for p in group if offsets[p][1] > offsets[p][0]]
        if not found or group[-1] - group[0] >= len(group):
            spans.append((0, 0))
            continue
        start, end = found[0][0], found[-1][1]
        if start > last and text[start - 1] == " ":  # some tokenizers leave the space between tokens
            start -= 1
        last = max(last, end)
        spans.append((start, end))
    return spans


def characters(text: str) -> list[str]:
    """What a reader takes for one character each."""
    found: list[str] = regex.findall(r"\X", text)
    return found


def word_places(text: str, said: str) -> list[int]:
    """Where some words begin in a text, in order: the same letters inside longer words are none of their places."""
    found, at = [], text.find(said) if said else -1
    while at >= 0:
        if not any(_divides(text, border) for border in (at, at + len(said))):
            found.append(at)
        at = text.find(said, at + 1)
    return found


def _divides(text: str, i: int) -> bool:
    """Would a word be cut in two before character ``i``?"""
    return 0 < i < len(text) and _one_word(text[i - 1], text[i])


def _joined(text: str, starts: frozenset[int], before: tuple[int, int], i: int) -> bool:
    """Whether the token that starts at ``i`` continues the one at ``before``; ``starts``: of characters."""
    if before[0] == before[1] or i > before[1]:
        return False
    if i < before[1] or i not in starts:
        return True
    a, b = text[i - 1], text[i]
    if text[before[0] : before[1]] == " ":  # a space of its own leads the word after it
        return not b.isspace()
    if b in _APOSTROPHES:
        return a.isalpha() and text[i + 1 : i + 2].isalpha()
    if a in _APOSTROPHES:
        return text[i - 2 : i - 1].isalpha() and b.isalpha()
    if a == "\ufffd":
        return _wordlike(b) or unicodedata.category(b) == "So"
    return _one_word(a, b)


def _one_word(a: str, b: str) -> bool:
    """Do neighbours belong to one word?"""
    return _wordlike(a) and _wordlike(b) and not (_ideograph(a) or _ideograph(b))


def _wordlike(c: str) -> bool:
    """Letters, digits, and the marks that are written on them."""
    return c.isalnum() or c in _INSIDE_WORDS or unicodedata.category(c).startswith("M")


def _ideograph(c: str) -> bool:
    return "\u3040" <= c <= "\u30ff" or "\u3400" <= c <= "\u9fff" or "\U00020000" <= c <= "\U0003ffff"
