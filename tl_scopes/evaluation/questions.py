"""What is measured of a passage: its last token, or an answer that follows a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from tl_scopes.model.answers import with_targets
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, GivenTokens, encode_prompts
from tl_scopes.model.units import Unit

Passage = str | Tensor | tuple[str | Tensor, str]
"""A whole passage, whose last token is predicted; or a prompt and the answer to it."""


@dataclass(frozen=True, eq=False)
class Question:
    """One passage, read where its truth is predicted.

    Attributes:
        given: the tokens, with the positions that are read.
        truth: the token that follows at each of them.
    """

    given: EncodedPrompt
    truth: tuple[int, ...]

    @property
    def removable(self) -> range:
        """Positions that may be removed, but for special tokens: an answer stays, only its prompt is touched."""
        return range(self.given.answer[0] if self.given.answer else self.given.pos + 1)


@dataclass(frozen=True, eq=False)
class ReadPrompt(GivenTokens):
    """A prompt that was read already; every method explains its answer as a whole, also those that take no target."""

    tokens: Tensor
    answer_start: int
    offsets: tuple[tuple[int, int], ...] | None = None
    units: tuple[Unit, ...] = ()
    written: str = ""

    @property
    def text(self) -> str:
        """As it was written; not known where there are no offsets."""
        return self.written

    @classmethod
    def of(cls, given: EncodedPrompt) -> ReadPrompt:
        """The same tokens, as what a public call takes."""
        start = given.answer[0] if given.answer else len(given.tokens)
        return cls(given.tokens, start, given.offsets, given.units, given.text or "")


def question(model: LensModel, passage: Passage, prepend_bos: bool | None) -> Question:
    """A passage as tokens, an answer's behind its prompt's.

    Raises:
        ValueError: nothing stands before what is predicted; what reading a prompt and a target refuses.
    """
    text, answer = passage if isinstance(passage, tuple) else (passage, None)
    (whole,) = encode_prompts(model, text, pos=-1, prepend_bos=prepend_bos)
    if answer is not None:
        (given,), targets, _ = with_targets(model, [whole], answer)
        return Question(given, tuple(t for t in targets if t is not None))
    if len(whole.tokens) < 2:
        raise ValueError("the passage is one token, so nothing stands before the prediction")
    return Question(replace(whole, pos=len(whole.tokens) - 2), (int(whole.tokens[-1]),))


def with_own_bos(model: LensModel, passage: Passage, asked: Question) -> Question | None:
    """The passage with the BOS that the model's own default puts in front, where the protocol left it out."""
    text = passage[0] if isinstance(passage, tuple) else passage
    if not isinstance(text, str) or len(asked.given.tokens) >= model.cfg.n_ctx:
        return None
    own = question(model, passage, None)
    return None if len(own.given.tokens) <= len(asked.given.tokens) else own


def as_typed(passage: Passage) -> str:
    """What tells passages apart."""
    parts: Sequence[str | Tensor] = passage if isinstance(passage, tuple) else (passage,)
    plain = tuple(part.tolist() if isinstance(part, Tensor) else part for part in parts)
    return repr(plain if isinstance(passage, tuple) else plain[0])
