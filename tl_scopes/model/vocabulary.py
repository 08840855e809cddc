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


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What a tokenizer's tokens are as text.

    Attributes:
        before: tokens that the others are decoded after.
        prefix: their text.
        special: special tokens, as they are written.
        ids: of the tokens with each text, filled when first asked for.
    """

    before: tuple[int, ...]
    prefix: str
    special: dict[int, str]
    ids: dict[str, list[int]] = field(default_factory=dict)

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
        if not self.ids:
            for i, shown in enumerate(self.texts(tokenizer, range(size))):
                self.ids.setdefault(shown, []).append(i)
        return self.ids.get(text, [])


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
