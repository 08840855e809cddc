"""Which part of a text the model wrote, and which was its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from tl_scopes.kernel.calls import encode
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.answers import answered
from tl_scopes.model.chats import is_chat
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, GivenTokens, OnePrompt, refuse_surrogates
from tl_scopes.model.vocabulary import pieces

_EXPECTED = (
    "expected what generate() gave, a pair (prompt, text), or a chat whose last message is the assistant's: nothing else "
    "says which part the model wrote"
)
_BY_MODEL = ("assistant", "thinking")


def written_text(model: LensModel, given: OnePrompt, options: RunOptions) -> tuple[LensModel, EncodedPrompt]:
    """The text up to the last written token; ``answer`` has the written ones.

    Raises:
        TypeError: nothing says what was written.
        ValueError: nothing was written, or nothing stands before it.
    """
    if isinstance(given, GivenTokens):
        model, (found,) = encode(model, given, options, "text")
        return model, _checked(replace(found, answer=tuple(range(given.answer_start, len(found.tokens)))))
    if isinstance(given, str | Tensor) or not isinstance(given, Sequence):
        raise TypeError(f"(text=...): {_EXPECTED}; got {type(given).__name__}")
    if is_chat(given):
        return _of_chat(model, given, options)
    if (
        len(given) != 2
        or not isinstance(given[1], str)
        or not (isinstance(given[0], str | Tensor) or is_chat(given[0]))
    ):
        raise TypeError(f"(text=...): {_EXPECTED}; got {type(given).__name__} of {len(given)}")
    prompt, text = cast("OnePrompt", given[0]), str(given[1])
    model, (found,) = encode(model, prompt, options, "text")
    refuse_surrogates("text", text)
    if model.tokenizer is None:
        raise ValueError("(text=(prompt, text)): this model has no tokenizer; pass what generate() gave")
    return model, _checked(answered(model, found, text, pieces(model.tokenizer, text), "text"))


def _of_chat(model: LensModel, chat: Sequence[Any], options: RunOptions) -> tuple[LensModel, EncodedPrompt]:
    """Of a chat: the last message with its thinking; what the template writes after it is left off."""
    if chat[-1].get("role") != "assistant":
        raise ValueError(
            f"(text=[{{...}}]): the last message is the {chat[-1].get('role')}'s; pass what generate() gave for the chat, or "
            "put the assistant's message behind it"
        )
    asked: Mapping[str, Any] = {"add_generation_prompt": False, **(options.chat_options or {})}
    model, (found,) = encode(model, chat, replace(options, chat_options=asked), "text")
    last = [unit for unit in found.units]
    while last and last[-1].name not in _BY_MODEL:
        last.pop()
    first = len(last)
    while first and last[first - 1].name in _BY_MODEL:
        first -= 1
    spans = [(unit.start, unit.end) for unit in last[first:]]
    inside = [p for p, (a, b) in enumerate(found.offsets or ()) if any(a < end and start < b for start, end in spans)]
    if not inside:
        raise ValueError(
            "(text=[{...}]): the template does not show where the assistant's message is; pass (prompt, text)"
        )
    end = inside[-1] + 1
    return model, _checked(
        replace(
            found,
            tokens=found.tokens[:end],
            str_tokens=found.str_tokens[:end],
            special=frozenset(p for p in found.special if p < end),
            text=(found.text or "")[: found.offsets[end - 1][1]] if found.offsets else found.text,
            offsets=None if found.offsets is None else found.offsets[:end],
            units=tuple(last),
            answer=tuple(range(inside[0], end)),
        )
    )


def _checked(found: EncodedPrompt) -> EncodedPrompt:
    if not found.answer:
        raise ValueError(
            "(text=...): nothing was written after the prompt (a model may end it at once): nothing to follow"
        )
    if found.answer[0] == 0:
        raise ValueError("(text=...): no token stands before what was written, so nothing can have caused it")
    return replace(found, pos=len(found.tokens) - 1, span=())
