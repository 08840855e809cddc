"""Results that survive a kill: one JSON line per piece of work, shards by process, merged on reading.

A run is a folder: ``settings.json`` says what is computed, ``shard-<rank>.jsonl`` holds one line per piece: a prompt, or a
window of a file's rows whose tables lie beside. A line is written by one ``write`` to a file opened for appending and
forced to disk, so a kill leaves whole lines and at most one torn tail, which is cut off when the run goes on. A piece is done
when a line of any shard has its number; one that is done again says so by ``again``, how often, and the line that says most
counts. Processes share nothing but the folder; which pieces are whose says
:mod:`tl_scopes.evaluation.shares`. What settings and records hold is for the kind of run to say, a :class:`Kind`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_scopes.results.aopc import require_record
from tl_scopes.results.files import write_file

SETTINGS = "settings.json"
AGAIN = "again"
"""In a record: how many times its piece was done before."""


@dataclass(frozen=True)
class Kind:
    """What the files of one kind of run hold.

    Attributes:
        what: such a folder's settings must say, for the message that they do not.
        fits: is this so? ``KeyError`` and ``TypeError`` say no too.
        require: refuses, by ``ValueError``, what is not a measured record of a run with these settings.
        pieces: how many records such a run has when it is complete.
        errors: may a record say, in place of what was measured, why nothing was?
    """

    what: str
    fits: Callable[[Mapping[str, Any]], bool]
    require: Callable[[Mapping[str, Any], Mapping[str, Any]], None]
    pieces: Callable[[Mapping[str, Any]], int] = lambda settings: int(settings["prompts"]["n"])
    errors: bool = False


AOPC_RUN = Kind(
    "prompts.n, methods or protocol.fractions",
    lambda settings: isinstance(settings["methods"], dict) and isinstance(settings["protocol"]["fractions"], list),
    lambda record, settings: require_record(record, tuple(settings["methods"]), settings["protocol"]["fractions"]),
    errors=True,
)


class RecordStore:
    """The records of one run; without a folder they live in memory only.

    Args:
        folder: of the run; made if it does not exist. None: nothing is stored.
        settings: what defines the numbers. A folder with other settings is refused.
        rank: number of the shard that this process writes.
        kind: of the run.

    Raises:
        ValueError: the folder holds a run with other settings, or something else.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], rank: int, kind: Kind = AOPC_RUN) -> None:
        self.folder = folder
        self.kind = kind
        self.memory: dict[int, dict[str, Any]] = {}
        if folder is None:
            return
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"(out={str(folder)!r}): this is a file; give a folder")
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(settings))
        self.settings = wanted
        path = folder / SETTINGS
        if path.exists():
            for at, was, now in _differences(read_settings(folder, kind), wanted):
                raise ValueError(
                    f"(out={str(folder)!r}): holds a run with other settings: {at} was {was}, now {now}. Choose another "
                    "folder, or go on with what that run was started with"
                )
        else:
            if any(folder.glob("shard-*.jsonl")):
                raise ValueError(f"(out={str(folder)!r}): has shards but no {SETTINGS}; choose another folder")
            write_file(path, json.dumps(wanted, indent=1, ensure_ascii=False))
        self.shard = folder / f"shard-{rank:05d}.jsonl"
        _cut_torn_tail(self.shard)

    def done(self) -> dict[int, dict[str, Any]]:
        """Every record so far, of all shards, by prompt number."""
        return dict(self.memory) if self.folder is None else read_records(self.folder, self.settings, self.kind)

    def append(self, record: dict[str, Any], earlier: Mapping[str, Any] | None = None) -> None:
        """Add one record, in place of the one ``earlier``; on return it is on the disk."""
        if earlier is not None:
            record = {**record, AGAIN: earlier.get(AGAIN, 0) + 1}
        if self.folder is None:
            self.memory[record["index"]] = record
            return
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        descriptor = os.open(self.shard, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            written = os.write(descriptor, line)
            if written != len(line):
                os.ftruncate(descriptor, before)
                raise OSError(f"{self.shard}: wrote {written} of {len(line)} bytes; is the disk full?")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_settings(folder: Path, kind: Kind = AOPC_RUN) -> dict[str, Any]:
    """What a run computes."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder} holds no run that can be read ({error})") from error
    try:
        fits = type(settings["prompts"]["n"]) is int and kind.fits(settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / SETTINGS} is not a run's settings ({type(error).__name__}: {error})") from error
    if not fits:
        raise ValueError(f"{folder / SETTINGS} is not a run's settings ({kind.what})")
    return dict(settings)


def read_records(folder: Path, settings: Mapping[str, Any], kind: Kind = AOPC_RUN) -> dict[int, dict[str, Any]]:
    """All whole lines of all shards by number, in order; of a number's lines the first of those with the most ``again``.

    Raises:
        ValueError: a line that no run with these settings wrote, with its file and number.
    """
    records: dict[int, dict[str, Any]] = {}
    for shard in sorted(folder.glob("shard-*.jsonl")):
        data = shard.read_bytes()
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
            try:
                record = _record(json.loads(line), settings, kind)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{shard}, line {number}: not a record of this run ({error}). Delete this line: what it stands for is "
                    "computed again when the run goes on, and all other lines count"
                ) from error
            before = records.get(record["index"])
            if before is None or record.get(AGAIN, 0) > before.get(AGAIN, 0):
                records[record["index"]] = record
    return dict(sorted(records.items()))


def _record(record: Any, settings: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """One piece's record, as a run with these settings writes it."""
    n = kind.pieces(settings)
    index = record.get("index") if isinstance(record, dict) else None
    if type(index) is not int or not 0 <= index < n:
        raise ValueError(f"index: {index!r} is not one of 0..{n - 1}")
    if type(record.get(AGAIN, 0)) is not int:
        raise ValueError(f"{AGAIN}: not a whole number")
    if not kind.errors or "error" not in record:
        kind.require(record, settings)
    elif not isinstance(record["error"], str):
        raise ValueError("error: not text")
    return dict(record)


def _differences(was: Any, now: Any, at: str = "") -> Iterator[tuple[str, str, str]]:
    """Where settings differ: the place, and what stands there."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            if key not in was or key not in now or was[key] != now[key]:
                yield from _differences(was.get(key), now.get(key), f"{at}.{key}" if at else key)
    elif was != now:
        yield at, _short(was), _short(now)


def _cut_torn_tail(shard: Path) -> None:
    """Drop what stands after the last newline: a line that a kill interrupted."""
    if not shard.exists():
        return
    with open(shard, "r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
