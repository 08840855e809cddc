"""One row of a source, from its columns to what is asked of the model.

=============  ========================================================================================================
column         holds
=============  ========================================================================================================
``prompt``     a text, or a list of token ids
``messages``   in its place a chat, ``[{"role": …, "content": …}]``, also as JSON text
``target``     what is explained: a token as text or id, or a text of several; nothing: the model's top prediction
``answer``     in its place a text that follows the prompt; explained as a whole
``units``      units of its own, ``{name: [start, end]}`` or ``[[name, substring]]``, also as JSON text
``id``         what the row is called in the tables, a text or a number
=============  ========================================================================================================

An empty cell is nothing, as null is. Two rows ask the same if all but their ids is equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import torch

from tl_scopes.evaluation.questions import ReadPrompt
from tl_scopes.evaluation.shares import Failed
from tl_scopes.model.answers import with_targets
from tl_scopes.model.chats import is_chat
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import encode_prompts
from tl_scopes.results.units import Entries, Units, grouping

COLUMNS = ("prompt", "messages", "target", "answer", "units", "id")
KEY = 16
"""Bytes by which rows that ask the same are known."""
MOST_IDS = 2**31
"""Ids are 0 or more and less than this in every vocabulary."""
MOST_LEVELS = 100
"""Of lists and objects in a message; Python reads some hundreds."""
Raw = Mapping[str, Any] | Failed
"""A row as its source has it, or why it has none."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Asked:
    """What one row asks.

    Attributes:
        id: what it is called.
        prompt: text, token ids or messages.
        aim: the target or the answer; None is the model's top prediction.
        units: of its own; None are those of the run.
    """

    id: str | None
    prompt: Any
    aim: str | int | None = None
    units: Units | None = None

    @cached_property
    def key(self) -> bytes:
        """The same for rows that ask the same.

        Raises:
            TypeError: messages of what JSON has not.
        """
        written = json.dumps([self.prompt, self.aim, self.units], sort_keys=True)
        return blake2b(written.encode(), digest_size=KEY).digest()


def column_names(columns: Mapping[str, str | None] | None) -> dict[str, str]:
    """The source's column for each of :data:`COLUMNS`; those set to None are not read.

    Raises:
        ValueError: an unknown name, a column given twice.
    """
    given = dict(columns or {})
    if unknown := [name for name in given if name not in COLUMNS]:
        raise ValueError(f"(columns=...): {unknown[0]!r} is none of {', '.join(COLUMNS)}")
    named = {name: given.get(name, name) for name in COLUMNS}
    found = {name: column for name, column in named.items() if column}
    if twice := [c for i, c in enumerate(found.values()) if c in list(found.values())[:i]]:
        raise ValueError(f"(columns=...): column {twice[0]!r} is given twice; set the one that is not meant to None")
    return found


def asked(raw: Raw, names: Mapping[str, str]) -> Asked | Failed:
    """What a row asks, or why it asks nothing."""
    if isinstance(raw, Failed):
        return raw
    try:
        found = _asked({name: _cell(raw, column) for name, column in names.items()})
        _ = found.key
    except ValueError as error:
        return Failed(str(error))
    except TypeError as error:
        return Failed(f"messages: expected what JSON can hold ({error})")
    return found


def key_of(number: int, found: Asked | Failed) -> bytes:
    """By what a row is known: that of what it asks; where it asks nothing, one that no other row has."""
    return found.key if isinstance(found, Asked) else blake2b(f"row {number}".encode(), digest_size=KEY).digest()


def row_id(raw: Raw, names: Mapping[str, str]) -> str | None:
    """What a row is called, also one that asks nothing."""
    found = None if isinstance(raw, Failed) or "id" not in names else _whole(_cell(raw, names["id"]))
    return None if found is None else _SURROGATE.sub("\ufffd", str(found))


def _cell(raw: Mapping[str, Any], column: str) -> Any:
    found = raw.get(column)
    return None if isinstance(found, str) and not found else found


def _asked(cells: Mapping[str, Any]) -> Asked:
    """The cells of a row, checked against each other."""
    for name, value in cells.items():
        _require_characters(name, value)
    prompt, messages = cells.get("prompt"), _decoded("messages", cells.get("messages"))
    if (prompt is None) == (messages is None):
        raise ValueError(
            "both prompt and messages" if prompt is not None else "no prompt: the cell is empty or missing"
        )
    if messages is not None:
        if not is_chat(messages):
            raise ValueError('messages: expected a list of messages, [{"role": "user", "content": "..."}]')
        prompt = [_without_gaps(message) for message in messages]
        _require_characters("messages", prompt)
    elif not isinstance(prompt, str):
        prompt = _ids(prompt)
    target, answer = _whole(cells.get("target")), cells.get("answer")
    if target is not None and answer is not None:
        raise ValueError("both target and answer; one of them says what is explained")
    if target is not None and (isinstance(target, bool) or not isinstance(target, str | int)):
        raise ValueError(f"target: expected a text or a token id, got {type(target).__name__}")
    if answer is not None and not isinstance(answer, str):
        raise ValueError(f"answer: expected a text, got {type(answer).__name__}")
    own = _whole(cells.get("id"))
    if own is not None and not isinstance(own, str | int):
        raise ValueError(f"id: expected a text or a whole number, got {type(own).__name__}")
    aim = target if target is not None else answer
    units = _units(_decoded("units", cells.get("units")))
    _require_characters("units", units)
    return Asked(None if own is None else str(own), prompt, aim, units)


def _require_characters(name: str, value: Any) -> None:
    """Refuse halves of characters, in a text or anywhere in what holds texts."""
    if isinstance(value, str):
        if found := _SURROGATE.search(value):
            raise ValueError(f"{name}: character {found.start()} is half of a character; the text is not UTF-8")
    elif isinstance(value, Mapping):
        for part in (*value, *value.values()):
            _require_characters(name, part)
    elif isinstance(value, list | tuple):
        for part in value:
            _require_characters(name, part)


def _whole(value: Any) -> Any:
    """A whole number as one: a column with gaps has 7.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _decoded(name: str, value: Any) -> Any:
    """A list or mapping; JSON text of one is read."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: this is not JSON ({error})") from None


def _without_gaps(value: Any, levels: int = MOST_LEVELS) -> Any:
    """Without the fields that a table fills with null because other rows have them."""
    if not levels:
        raise ValueError(f"messages: nested deeper than {MOST_LEVELS} levels")
    if isinstance(value, Mapping):
        return {str(k): _without_gaps(v, levels - 1) for k, v in value.items() if v is not None}
    return [_without_gaps(v, levels - 1) for v in value] if isinstance(value, list | tuple) else value


def _ids(prompt: Any) -> list[int]:
    """Token ids."""
    if not isinstance(prompt, list | tuple) or any(type(token) is not int for token in prompt):
        raise ValueError(f"prompt: expected a text or a list of token ids, got {type(prompt).__name__}")
    if not prompt:
        raise ValueError("no prompt: the list of token ids is empty")
    if outside := [token for token in prompt if not 0 <= token < MOST_IDS]:
        raise ValueError(f"prompt: {outside[0]} is no token id")
    return list(prompt)


def _units(value: Any) -> Units | None:
    """Units of the row's own."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        spans = {str(name): span for name, span in value.items() if span is not None}
        if all(isinstance(s, list | tuple) and len(s) == 2 and all(type(c) is int for c in s) for s in spans.values()):
            return {name: (start, end) for name, (start, end) in spans.items()}
    elif isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        for pair in value
    ):
        return [(name, substring) for name, substring in value]
    raise ValueError('units: expected {"name": [start, end]} or [["name", "substring"]]')


# -- as the model reads it -------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How the prompts of a run are read.

    Attributes:
        unit: what scores are joined into, where a row has no units of its own.
        prepend_bos: as everywhere.
        chat_options: of the rows that are chats.
    """

    unit: str = "token"
    prepend_bos: bool | None = None
    chat_options: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Read:
    """A row as the model reads it.

    Attributes:
        number: of the row in its source.
        asked: what it asks.
        given: the prompt, with its answer.
        target: the one token that is explained; None where it is an answer, or the model's top prediction.
        units: what its scores are joined into; None: tokens.
        notes: for the reader.
    """

    number: int
    asked: Asked
    given: ReadPrompt
    target: int | None
    units: Units | None
    notes: tuple[str, ...]


def read(model: LensModel, number: int, row: Asked, reading: Reading) -> Read:
    """A row as tokens, its answer behind it.

    Raises:
        ValueError: what reading a prompt and a target refuses; units that the text does not have.
    """
    prompt = torch.tensor(row.prompt, dtype=torch.int64) if row.prompt and type(row.prompt[0]) is int else row.prompt
    (whole,) = encode_prompts(
        model,
        prompt,
        pos=-1,
        prepend_bos=reading.prepend_bos,
        chat_options=reading.chat_options if is_chat(prompt) else None,
    )
    (given,), targets, _ = with_targets(model, [whole], row.aim)
    own: Units | None = row.units or (None if reading.unit == "token" else reading.unit)  # type: ignore[assignment]
    if own is not None:
        grouping(Entries(given.str_tokens, given.special, given.text, given.offsets, given.units), own, pos=given.pos)
    target = None if given.answer else targets[0]
    return Read(number, row, ReadPrompt.of(given), target, own, given.notes)
