"""Results that survive a kill: one JSON line per prompt, shards by process, merged on reading.

A run is a folder: ``settings.json`` says what is computed, ``shard-<rank>.jsonl`` holds one line per prompt. A line is
written by one ``write`` to a file opened for appending and forced to disk, so a kill leaves whole lines and at most one
torn tail, which is cut off when the run goes on. A prompt is done when a line of any shard has its number. Processes
share nothing but the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS = "settings.json"


def process_rank() -> tuple[int, int]:
    """This process's number and how many there are, as ``accelerate launch`` and ``torchrun`` set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class RecordStore:
    """The records of one run; without a folder they live in memory only.

    Args:
        folder: of the run; made if it does not exist. None: nothing is stored.
        settings: what defines the numbers. A folder with other settings is refused.
        rank: number of the shard that this process writes.

    Raises:
        ValueError: the folder holds a run with other settings, or something else.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], rank: int) -> None:
        self.folder = folder
        self.memory: dict[int, dict[str, Any]] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(settings))
        path = folder / SETTINGS
        if path.exists():
            found = read_settings(folder)
            other = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
            if other:
                first = other[0]
                raise ValueError(
                    f"(out={str(folder)!r}): holds a run with other settings ({', '.join(other)}; {first} was "
                    f"{_short(found.get(first))}, now {_short(wanted.get(first))}). Choose another folder"
                )
        else:
            if any(folder.glob("shard-*.jsonl")):
                raise ValueError(f"(out={str(folder)!r}): has shards but no {SETTINGS}; choose another folder")
            beside = folder / f"{SETTINGS}.{os.getpid()}"
            with open(beside, "w", encoding="utf-8") as file:
                json.dump(wanted, file, indent=1, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        self.shard = folder / f"shard-{rank:05d}.jsonl"
        _cut_torn_tail(self.shard)

    def done(self) -> dict[int, dict[str, Any]]:
        """Every record so far, of all shards, by prompt number."""
        return dict(self.memory) if self.folder is None else read_records(self.folder)

    def append(self, record: dict[str, Any]) -> None:
        """Add one record; on return it is on the disk."""
        if self.folder is None:
            self.memory[record["index"]] = record
            return
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        descriptor = os.open(self.shard, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(f"{self.shard}: wrote {written} of {len(line)} bytes; is the disk full?")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_settings(folder: Path) -> dict[str, Any]:
    """What a run computes."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} holds no run that can be read ({error})") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{folder / SETTINGS} is not a run's settings")
    return settings


def read_records(folder: Path) -> dict[int, dict[str, Any]]:
    """All whole lines of all shards by prompt number, in order; the first line of a number counts."""
    records: dict[int, dict[str, Any]] = {}
    for shard in sorted(folder.glob("shard-*.jsonl")):
        data = shard.read_bytes()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            record = json.loads(line)
            records.setdefault(record["index"], record)
    return dict(sorted(records.items()))


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
    return text if len(text) <= 60 else text[:57] + "..."
