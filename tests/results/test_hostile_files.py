"""Invariant: any change to a saved file is refused as a ``ValueError`` that names file and field, or gives a result that
still shows itself: nothing that ``load`` accepts fails later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import every_result
import pytest

pytestmark = [pytest.mark.one_lens, pytest.mark.usefixtures("unchecked")]  # as a user runs it

CLASSES = list(every_result.every_result())
GONE = object()


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


OTHERS: dict[str, Any] = {
    "gone": GONE, "null": None, "true": True, "minus": -1, "huge": 10**30, "beyond floats": 10**400, "half": 1.5,
    "text": "x", "NUL": "\0", "no list": [], "object": {}, "ragged": [[1], [2, 3]], "nan": {"$float": "nan"},
    "inf": {"$float": "inf"}, "no float": {"$float": "x"}, "set": {"$set": [1]}, "tag": {"$no": 1}, "deep": deep(400),
    "tensor": {"$tensor": [1.0], "dtype": "float32", "shape": [1]},
    "shape": {"$tensor": [1.0], "dtype": "float32", "shape": [-1]},
    "items": {"$items": [[[1], 2]]},
}  # fmt: skip


def variants(value: Any) -> Iterator[tuple[str, Any]]:
    """Other values in the place of one."""
    yield from OTHERS.items()
    if isinstance(value, list) and value:
        yield "shorter", value[1:]
        yield "longer", [*value, value[0]]
        yield "mixed", [*value[1:], None]


def places(raw: Any, depth: int) -> Iterator[tuple[Any, ...]]:
    """The path of every value of an object, and of a first one of each list, as deep as this."""
    entries = raw.items() if isinstance(raw, dict) else enumerate(raw[:1]) if isinstance(raw, list) else ()
    for key, value in entries:
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in places(value, depth - 1))


def changed(raw: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The same with another value at one place."""
    key, *rest = place
    out = raw.copy()
    if rest:
        out[key] = changed(raw[key], tuple(rest), value)
    elif value is GONE:
        del out[key]
    else:
        out[key] = value
    return out


def mistakes(name: str, folder: Path) -> list[str]:
    """What changed files end in that they must not; of those that load, the first of each field is shown and drawn."""
    before = every_result.every_result()[name]
    path = before.save(folder / "saved.json")
    raw = json.loads(path.read_text(encoding="utf-8"))
    inside = raw.get("attributions", {})
    found, seen, fields = [], {json.dumps(before.to_dict())}, set()
    for place in places(raw, depth=2):
        if len(inside) > 1 and place[:2] == ("attributions", list(inside)[1]):
            continue  # the first of them was changed already
        value: Any = raw
        for key in place:
            value = value[key]
        for kind, other in variants(value):
            path.write_text(json.dumps(changed(raw, place, other)), encoding="utf-8")
            at = ".".join(map(str, place))
            try:
                result = type(before).load(path)
            except ValueError as error:
                _, named, words = str(error).partition(str(path))
                tells = re.search(rf"\b{re.escape(str(place[0]))}\b", words) or f"nothing of {other!r}" in words
                if type(error) is not ValueError or not named or not tells:
                    found.append(f"{at} = {kind}: {type(error).__name__}: {str(error)[:200]}")
                continue
            except Exception as error:
                found.append(f"{at} = {kind}: loading: {type(error).__name__}: {error}")
                continue
            if place[0] in fields or (now := json.dumps(result.to_dict())) in seen:
                continue
            seen.add(now)
            fields.add(place[0])
            try:
                str(result), result.html(), result.plot().draw_without_rendering()
            except Exception as error:
                found.append(f"{at} = {kind}: shown: {type(error).__name__}: {str(error)[:100]}")
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", CLASSES)
def test_a_value_changed_anywhere_is_refused_or_shown_and_drawn(name: str, tmp_path: Path) -> None:
    assert mistakes(name, tmp_path) == []
