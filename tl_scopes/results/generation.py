"""What a model wrote after a prompt, which every call on prompts takes as a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from tl_scopes.model.prompts import GivenTokens
from tl_scopes.model.units import Unit
from tl_scopes.results.base import Displayable, Serializable


@dataclass(frozen=True, eq=False, repr=False)
class Generation(GivenTokens, Displayable, Serializable):
    """A prompt and the answer to it; ``str()`` is the answer.

    Attributes:
        prompt: as text; of a chat as its template renders it.
        answer: what the model wrote.
        tokens: ``[pos]`` ids of both on the CPU.
        str_tokens: the text of each token.
        answer_start: position of the answer's first token.
        stopped: what ended it: the number of tokens (``"length"``), the end-of-sequence token (``"eos"``) or a stop string
            (``"stop"``); neither of the two is part of it.
        offsets: characters of :attr:`text` that each token stands for, where they are known.
        units: the turns of a chat, the answer's among them.
        settings: number of tokens asked for, temperature, seed, stop strings.
        provenance: class, name, dtype and processing state of the model; library versions.
    """

    _along: ClassVar = {"str_tokens": "pos", "offsets": "pos"}

    prompt: str
    answer: str
    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    answer_start: int
    stopped: Literal["length", "eos", "stop"] = "length"
    offsets: tuple[tuple[int, int], ...] | None = None
    units: tuple[Unit, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = 0 <= self.answer_start <= len(self.tokens)
        self.require(inside, "answer_start", f"{self.answer_start} outside 0..{len(self.tokens)}")

    @property
    def text(self) -> str:
        """Prompt and answer."""
        return self.prompt + self.answer

    @property
    def answer_positions(self) -> range:
        """Of the answer's tokens."""
        return range(self.answer_start, len(self.tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        answer = self.answer if len(self.answer) <= 60 else f"{self.answer[:59]}…"
        return f"Generation({answer!r}, {len(self.answer_positions)} tokens after {self.answer_start}, {self.stopped})"
