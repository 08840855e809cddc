"""Tokens as text and text as tokens, by one rule.

    text(token) = decode([*before, token]) less decode(before)        ``before``: the tokens of a letter

A token's text is what it adds to a text that it follows, so it has the space that its piece has (``▁dog`` is " dog"), also
where a tokenizer drops the space of the first piece that it decodes. Special tokens are shown as they are written. What
stands for no text of its own keeps a name that is read back: ``<0x41>`` for a byte whose character is a piece too,
``<32001>`` for an id that the tokenizer does not know.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_BYTE = re.compile(r"<0x([0-7][0-9A-F])>")
"""A piece that stands for one ASCII character, by SentencePiece's byte fallback."""
_WORD = re.compile(r"[A-Za-z0-9]+")
FEW = 32
"""Texts that are looked up one by one; from then on all of a vocabulary is decoded, once."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What a tokenizer's tokens are as text.

    Attributes:
        before: tokens that the others are decoded after.
        prefix: their text.
        special: special tokens, as they are written.
        ids: of the tokens below a size with each text, as far as they were asked for.
        walked: sizes whose tokens are all in ``ids``.
        names: the piece of each id below a size, once they were looked through.
    """

    before: tuple[int, ...]
    prefix: str
    special: dict[int, str]
    ids: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    walked: set[int] = field(default_factory=set)
    names: dict[int, list[str | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Of a tokenizer."""
        before = tuple(pieces(tokenizer, "a"))
        special = {i: t.content for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        return cls(before, _decoded(tokenizer, [list(before)])[0], special)

    def texts(self, tokenizer: Any, ids: Sequence[int]) -> list[str]:
        """Text of each token."""
        names = tokenizer.convert_ids_to_tokens(list(ids))
        known = [i for i, name in zip(ids, names, strict=True) if name is not None]
        after = dict(zip(known, _decoded(tokenizer, [[*self.before, i] for i in known]), strict=True))
        return [self._text(tokenizer, i, name, after.get(i, "")) for i, name in zip(ids, names, strict=True)]

    def _text(self, tokenizer: Any, i: int, name: str | None, after: str) -> str:
        """Of a token with its piece, and what the tokens before it and it are decoded to."""
        if i in self.special:
            return self.special[i]
        if name is None:
            return f"<{i}>"
        if (byte := _BYTE.fullmatch(name)) and _is_piece(tokenizer, chr(int(byte[1], 16)), i):
            return name
        if not after.startswith(self.prefix):
            after = self.prefix + _decoded(tokenizer, [[i]])[0]
        return after[len(self.prefix) :] or f"<{i}>"

    def continuation(self, tokenizer: Any, ids: Sequence[int]) -> str:
        """Tokens one after another, as what they add to a text."""
        after = _decoded(tokenizer, [[*self.before, *ids]])[0]
        return after[len(self.prefix) :] if after.startswith(self.prefix) else _decoded(tokenizer, [list(ids)])[0]

    def shown_as(self, tokenizer: Any, text: str, size: int) -> list[int]:
        """Ids below ``size`` of all tokens with a text, ascending."""
        known = self.ids.setdefault(size, {})
        if text in known or size in self.walked:
            return known.get(text, [])
        chosen = self._with_the_letters_of(tokenizer, text, size) if len(known) < FEW else range(size)
        shown = self.texts(tokenizer, chosen)
        if len(chosen) < size:
            known[text] = [i for i, own in zip(chosen, shown, strict=True) if own == text]
        else:
            known.clear()
            for i, own in enumerate(shown):
                known.setdefault(own, []).append(i)
            self.walked.add(size)
            self.names.clear()
        return known.get(text, [])

    def _with_the_letters_of(self, tokenizer: Any, text: str, size: int) -> Sequence[int]:
        """Ids that alone can have a text: a piece keeps ASCII letters and digits, however a tokenizer writes all else.

        Decoding all of a large vocabulary takes longer than a small model's forward.
        """
        words = _WORD.findall(text)
        if not words or text.startswith("<") or not getattr(tokenizer, "is_fast", False):
            return range(size)
        if size not in self.names:
            self.names[size] = tokenizer.convert_ids_to_tokens(list(range(size)))
        word = max(words, key=len)
        return [i for i, name in enumerate(self.names[size]) if name is None or word in name or name.startswith("<0x")]


_KNOWN: weakref.WeakKeyDictionary[Any, tuple[int, Vocabulary]] = weakref.WeakKeyDictionary()


def vocabulary(tokenizer: Any) -> Vocabulary:
    """Of a tokenizer, made once for as long as no token is added to it."""
    size, known = _KNOWN.get(tokenizer, (-1, None))
    if known is None or size != len(tokenizer):
        known = Vocabulary.of(tokenizer)
        _KNOWN[tokenizer] = (len(tokenizer), known)
    return known


def pieces(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text by itself, without special tokens added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return ids


def _decoded(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    """Each row as text, nothing tidied."""
    if getattr(tokenizer, "is_fast", False):
        texts: list[str] = tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)
    else:
        texts = tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return texts


def _is_piece(tokenizer: Any, character: str, i: int) -> bool:
    """Is a character a piece other than byte ``i``?"""
    other = tokenizer.convert_tokens_to_ids("▁" if character == " " else character)
    return other is not None and other not in (i, tokenizer.unk_token_id)
