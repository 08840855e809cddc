"""A chat as text, by the tokenizer's own template, and which characters of that text are whose.

Nothing is known of a template but what it renders. To find a part of a message, a mark is put behind it and the chat is
rendered again; where the mark stands, the part ends, provided that the rest of the text is as before. A part that a template
leaves out or changes beyond that has no place. What stands between the parts is the template's own.

Parts are the strings of messages, documents and tools, wherever they are nested; those of one message that nothing else
stands between are one unit, with what the template wrote inside (the JSON of a tool call). Thinking is a unit of its own: a
field of that name, or what stands between ``<think>`` and ``</think>`` in a content.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tl_scopes.model.encodings import is_encoding
from tl_scopes.model.units import Unit

Message = Mapping[str, Any]
Chat = Sequence[Message]
_OWN = {
    "tokenize",
    "return_dict",
    "return_tensors",
    "return_assistant_tokens_mask",
    "padding",
    "truncation",
    "max_length",
    "tokenizer_kwargs",
    "sanitize_control_tokens",
    "conversation",
}
"""Arguments of ``apply_chat_template`` that say what it gives back, which is for this package to say."""
_THINKING = frozenset(("thinking", "reasoning", "reasoning_content"))
_INLINE = re.compile(r"<(think|thinking|reasoning)>(.*?)</\1>", re.DOTALL)
_THOUGHT = re.compile(r".*?</(?:think|thinking|reasoning)>", re.DOTALL)
_UNSEEN = frozenset(("role", "type"))
"""What templates branch on, and write as their own words."""
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class RenderedChat:
    """A chat as text, and its turns."""

    text: str
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class _Part:
    """A stretch of a string in messages, documents or tools: where the string is, and which characters of it.

    ``before`` and ``after`` are the marks of a thinking block in a content, which belong to it where they are written.
    """

    path: Path
    start: int
    end: int
    name: str
    before: str = ""
    after: str = ""

    @property
    def owner(self) -> tuple[Path, str]:
        """What it is joined by: the message or document, or all tools, and its name."""
        return self.path[: 1 if self.path[0] == "tools" else 2], self.name


def is_chat(prompt: object) -> bool:
    """Is it a list of messages?"""
    return (
        isinstance(prompt, list | tuple)
        and bool(prompt)
        and all(isinstance(m, Mapping) and not is_encoding(m) for m in prompt)
    )


def rendered_chat(tokenizer: Any, chat: Chat, options: Mapping[str, Any] | None, name: str) -> RenderedChat:
    """The chat as its template writes it, the generation prompt added.

    Raises:
        ValueError: no template, or one that does not take these messages; options that are not the template's.
    """
    given = dict(options or {})
    if own := sorted(_OWN.intersection(given)):
        raise ValueError(f"(chat_options=...): {own[0]!r} says what apply_chat_template gives back; it is always text")
    if tokenizer is None:
        raise ValueError(
            f"({name}=[{{...}}]): this model has no tokenizer, so no chat template; pass token ids as a tensor"
        )
    if getattr(tokenizer, "chat_template", None) is None and given.get("chat_template") is None:
        raise ValueError(
            f"({name}=[{{...}}]): this model's tokenizer has no chat template (that of a base model has none): pass the "
            "text as the model was trained to read it, or a template: chat_options={'chat_template': '…'}, or "
            "model.tokenizer.chat_template = '…'"
        )
    for i, message in enumerate(chat):
        if not isinstance(message.get("role"), str):
            raise ValueError(
                f"({name}[{i}]={dict(message)!r}): a message is {{'role': '…', 'content': '…'}}; it has no role"
            )
    data: dict[str, Any] = {"messages": [dict(message) for message in chat]}
    data |= {key: _plain(key, given.pop(key)) for key in ("tools", "documents") if given.get(key) is not None}
    if not given.get("continue_final_message"):
        given.setdefault("add_generation_prompt", True)

    def render(changed: Mapping[str, Any]) -> str:
        text: str = tokenizer.apply_chat_template(
            changed["messages"],
            tools=changed.get("tools"),
            documents=changed.get("documents"),
            tokenize=False,
            **given,
        )
        return text

    try:
        text = render(data)
    except Exception as error:  # a template may raise anything
        raise ValueError(f"({name}=[{{...}}]): the chat template does not take these messages: {error}") from error
    return RenderedChat(text, tuple(_units(render, data, text)))


def answer_units(answer: str, start: int) -> tuple[Unit, ...]:
    """Turn and thinking of an answer that stands at ``start``; what it thinks may have been begun by the template."""
    blocks = [m.span() for m in _INLINE.finditer(answer)]
    if not blocks and (ended := _THOUGHT.match(answer)):
        blocks = [ended.span()]
    found: list[Unit] = []
    last = 0
    for a, b in [*blocks, (len(answer), len(answer))]:
        if answer[last:a].strip():
            found.append(Unit("assistant", start + last, start + a))
        if b > a:
            found.append(Unit("thinking", start + a, start + b))
        last = b
    return tuple(found)


def _plain(key: str, items: Any) -> list[Any]:
    """Tools and documents as the template sees them: functions by their signatures."""
    from transformers.utils import get_json_schema

    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TypeError(f"(chat_options={{{key!r}: ...}}): expected a list, got {type(items).__name__}")
    found = []
    for i, item in enumerate(items):
        try:
            found.append(get_json_schema(item) if callable(item) else item)
        except Exception as error:  # of its own types, by the version of Transformers
            raise ValueError(
                f"(chat_options={{{key!r}: ...}}): number {i}, {getattr(item, '__name__', item)!r}, cannot be described to "
                f"the template: {error}. Give a function with type hints and a docstring, or its JSON schema as a dict"
            ) from error
    return found


def _units(render: Callable[[Mapping[str, Any]], str], data: Mapping[str, Any], text: str) -> Iterator[Unit]:
    """The located parts in order; neighbours of one owner are one."""
    parts = list(_parts(data))
    ends = _places(render, data, text, parts, behind=True)
    spans: list[tuple[int, int, _Part]] = []
    changed: list[_Part] = []
    for part in parts:
        said = _string(data, part.path)[part.start : part.end]
        for end in ends.get(part, ()):
            if text[max(0, end - len(said)) : end] == said:
                start = end - len(said)
                if text[:start].endswith(part.before) and text[end:].startswith(part.after):
                    start, end = start - len(part.before), end + len(part.after)
                spans.append((start, end, part))
            elif part not in changed:  # written in other characters: escaped, say
                changed.append(part)
    starts = _places(render, data, text, changed, behind=False)
    for part in changed:
        if len(starts.get(part, ())) == len(ends[part]):
            spans += [(start, end, part) for start, end in zip(starts[part], ends[part], strict=True)]
    spans.sort(key=lambda span: span[:2])
    last = 0
    for _, run in itertools.groupby(spans, key=lambda span: span[2].owner):
        members = list(run)
        start, end = max(last, members[0][0]), max(span[1] for span in members)
        if end > start:
            yield Unit(members[0][2].name, start, end)
            last = end


def _parts(data: Mapping[str, Any]) -> Iterator[_Part]:
    """Every string that a template may write, without the white space around it."""
    for path, value in _strings(data, ()):
        if path[0] == "messages":
            role = str(data["messages"][path[1]]["role"])
            name = "thinking" if _THINKING.intersection(map(str, path[2:])) else role
        else:
            name = {"documents": "document"}.get(str(path[0]), str(path[0]))
        blocks = list(_INLINE.finditer(value)) if path[0] == "messages" else []
        for block in blocks:
            if (inner := _trimmed(value, *block.span(2))) is not None:
                around = value[block.start() : inner[0]], value[inner[1] : block.end()]
                yield _Part(path, *inner, "thinking", *around)
        outside = zip([0, *(b.end() for b in blocks)], [*(b.start() for b in blocks), len(value)], strict=True)
        yield from (_Part(path, *inner, name) for span in outside if (inner := _trimmed(value, *span)) is not None)


def _trimmed(value: str, start: int, end: int) -> tuple[int, int] | None:
    """A stretch without the white space around it."""
    said = value[start:end]
    start += len(said) - len(said.lstrip())
    return (start, start + len(said.strip())) if said.strip() else None


def _strings(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Strings in nested lists and mappings, with their places."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _UNSEEN:
                yield from _strings(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _strings(inner, (*path, i))


def _string(data: Any, path: Path) -> str:
    for key in path:
        data = data[key]
    return str(data)


def _places(
    render: Callable[[Mapping[str, Any]], str],
    data: Mapping[str, Any],
    text: str,
    parts: Sequence[_Part],
    *,
    behind: bool,
) -> dict[_Part, list[int]]:
    """Where each part ends, or begins, in the text; all at once if their marks change nothing else, else by halves."""
    if not parts:
        return {}
    stamp = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    marks = {f"zq{stamp}{i:06d}qz": part for i, part in enumerate(parts)}
    try:
        pieces = re.split("(" + "|".join(marks) + ")", render(_marked(data, marks, behind)), flags=re.IGNORECASE)
    except Exception:  # a template may raise anything about a text that it does not expect
        pieces = []
    if "".join(pieces[::2]) == text:
        found: dict[_Part, list[int]] = {}
        ends = itertools.accumulate(map(len, pieces[::2]))
        for mark, at in zip(pieces[1::2], ends, strict=False):
            found.setdefault(marks[mark.lower()], []).append(at)
        return found
    if len(parts) == 1:
        return {}
    half = len(parts) // 2
    first, second = (_places(render, data, text, some, behind=behind) for some in (parts[:half], parts[half:]))
    return first | second


def _marked(data: Mapping[str, Any], marks: Mapping[str, _Part], behind: bool) -> dict[str, Any]:
    """The messages with a mark behind, or before, each part."""
    changed: dict[str, Any] = copy.deepcopy({key: _lists(value) for key, value in data.items()})
    for mark, part in sorted(marks.items(), key=lambda pair: -pair[1].start):  # the last of a string first
        *path, key = part.path
        holder: Any = changed
        for step in path:
            holder = holder[step]
        at = part.end if behind else part.start
        holder[key] = holder[key][:at] + mark + holder[key][at:]
    return changed


def _lists(value: Any) -> Any:
    """With mappings and lists that can be written to."""
    if isinstance(value, Mapping):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, list | tuple) else value
