"""A source read once before a run: how many rows, what they ask, which ask the same.

What is kept of a row is :data:`tl_scopes.evaluation.rows.KEY` bytes and one number. The rows then come again in windows,
each of so many rows in the order of the source, whatever process they are for: what is computed of a window depends on its
rows alone.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tl_scopes.evaluation.rows import KEY, Asked, Raw, asked, key_of, row_id
from tl_scopes.evaluation.shares import Failed
from tl_scopes.evaluation.sources import Source

MOST_NAMED = 20
"""Columns that a message names."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What a source holds.

    Attributes:
        n: rows.
        sha256: of all that they ask, with their ids.
        same_as: of each row the number of the first that asks the same; its own, where it is that.
        keys: of all rows, one after the other, :data:`tl_scopes.evaluation.rows.KEY` bytes each.
    """

    n: int
    sha256: str
    same_as: np.ndarray
    keys: bytearray

    def key(self, row: int) -> bytes:
        """That of one row."""
        return bytes(self.keys[KEY * row : KEY * (row + 1)])


def survey(source: Source, names: Mapping[str, str], given: Collection[str]) -> Survey:
    """Read the source once. ``given`` are the columns that the caller named, which must be there.

    Raises:
        ValueError: no rows, none that can be read, no column of prompts, or not one that was named.
    """
    digest, keys, seen = hashlib.sha256(), bytearray(), dict.fromkeys(source.columns or ())
    n, readable, reason = 0, 0, ""
    for n, raw in enumerate(source.rows(), start=1):
        if isinstance(raw, Failed):
            reason = reason or raw.reason
        else:
            readable += 1
            if source.columns is None:
                seen |= dict.fromkeys(raw)
        found = asked(raw, names)
        key = key_of(n - 1, found)
        keys += key
        said = key if isinstance(found, Asked) else found.reason.encode("utf-8", "backslashreplace")
        digest.update(b"%b\0%b\n" % (said, repr(row_id(raw, names)).encode()))
    _require_columns(source, names, given, list(seen), n, readable, reason)
    _, first, inverse = np.unique(np.frombuffer(keys, dtype=f"S{KEY}"), return_index=True, return_inverse=True)
    return Survey(n, digest.hexdigest(), first[inverse], keys)


def _require_columns(
    source: Source,
    names: Mapping[str, str],
    given: Collection[str],
    seen: list[str],
    n: int,
    readable: int,
    reason: str,
) -> None:
    """Refuse a source of which nothing could be explained."""
    if not n:
        raise ValueError(f"(source={source.name!r}): there are no rows")
    if not readable:
        raise ValueError(f"(source={source.name!r}): none of {n} rows can be read; the first: {reason}")
    there = f"its columns are {', '.join(map(repr, seen[:MOST_NAMED]))}{', …' * (len(seen) > MOST_NAMED)}"
    for name in given:
        if name in names and names[name] not in seen:
            raise ValueError(f"(columns=...): there is no column {names[name]!r} for {name}; {there}")
    if not {names.get("prompt"), names.get("messages")}.intersection(seen):
        said = "' nor '".join(names[name] for name in ("prompt", "messages") if name in names)
        raise ValueError(
            f"(source={source.name!r}): no column {said!r}".replace('"', "'")
            + f"; {there}. Name the one that holds the prompts: columns={{'prompt': {seen[0]!r}}}"
        )


def windows(source: Source, size: int, wanted: Collection[int]) -> Iterator[tuple[int, list[tuple[int, Raw]]]]:
    """Window ``w`` has the rows ``w·size … (w + 1)·size − 1``; the wanted ones in order, with their rows' numbers."""
    rows, last = enumerate(source.rows()), max(wanted, default=-1)
    for number in range(last + 1):
        found = list(islice(rows, min(size, sys.maxsize)))
        if number in wanted:
            yield number, found
