"""Where the prompts of a run come from: a file, standard input or a data set, read row by row and never whole.

=====================  ==================================================================================================
``*.jsonl``            a JSON object per line; blank lines are none
``*.csv``              a header, then a row per record, commas and quotation marks as spreadsheets write them; UTF-8
``*.parquet``          by pyarrow
``-``                  standard input, lines as of ``.jsonl``; with ``format="csv"`` those of ``.csv``
``owner/name``         a data set of the Hugging Face Hub, or a folder that ``datasets.load_dataset`` takes: its ``split``
=====================  ==================================================================================================

A row that cannot be read, a line that is no JSON or a record with too few fields, is a :class:`Failed` with the reason, and
reading goes on.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from tl_scopes.evaluation.rows import Raw
from tl_scopes.evaluation.shares import Failed

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
STDIN = "-"
ROWS_AT_ONCE = 256
"""Rows of a parquet file or data set that are in memory together."""
_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """Rows in their order.

    Attributes:
        name: as it was given.
        columns: that its head names; None where each row has its own.
        rows: reads them, from the first.
    """

    name: str
    columns: tuple[str, ...] | None
    rows: Callable[[], Iterator[Raw]]


def open_source(
    source: str | Path,
    wanted: Sequence[str],
    *,
    format: Format | None = None,
    split: str | None = None,
    subset: str | None = None,
) -> Source:
    """The source of this name; of ``wanted`` columns those that it has are read.

    Raises:
        ValueError: no such file, or one that is none of these formats; a data set that cannot be read; a split or subset of
            what is none.
    """
    path, kind = Path(source), format_of(source, format)
    require_data_set(source, kind, split=split, subset=subset)
    if kind is None:
        return _data_set(str(source), wanted, split or "train", subset)
    return {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[kind](path, wanted)


def format_of(source: str | Path, format: Format | None = None) -> Format | None:
    """A file's format, by its ending; None for a data set.

    Raises:
        ValueError: what is neither.
    """
    name, path = str(source), Path(source)
    if name == STDIN:
        if format == "parquet":
            raise ValueError("(format='parquet'): a parquet file is read from its end; standard input is jsonl or csv")
        return format or "jsonl"
    if path.is_file():
        found = format or FORMATS.get(path.suffix.lower())
        if found is None:
            raise ValueError(f"(source={name!r}): its name ends with none of {', '.join(FORMATS)}; say format=")
        return found
    if path.is_dir() or (_HUB.fullmatch(name) and path.suffix.lower() not in FORMATS):
        if format is not None:
            raise ValueError(f"(format={format!r}): this is for files, and {name!r} is read as a data set")
        return None
    raise ValueError(f"(source={name!r}): no such file, and no name of a data set")


def require_data_set(source: str | Path, kind: Format | None, **asked: str | None) -> None:
    """Refuse the part of a data set where the source is a file."""
    for name, part in asked.items():
        if kind is not None and part is not None:
            raise ValueError(f"({name}={part!r}): this is for data sets, and {str(source)!r} is a file; leave it out")


def kept_input(folder: Path, kind: Format) -> tuple[Path, Path]:
    """Standard input as a file in the folder, and the name that it is to have there once the folder is known to take it."""
    folder.mkdir(parents=True, exist_ok=True)
    beside, kept = folder / f".stdin-{os.getpid()}.{kind}", folder / f"stdin.{kind}"
    with beside.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return beside, kept


def _jsonl(path: Path, wanted: Sequence[str]) -> Source:
    def rows() -> Iterator[Raw]:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield _object(line, number)

    return Source(str(path), None, rows)


def _object(line: bytes, number: int) -> Raw:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Failed(f"line {number}: this is not JSON ({error})")
    return (
        found if isinstance(found, dict) else Failed(f"line {number}: expected an object, got {type(found).__name__}")
    )


def _csv(path: Path, wanted: Sequence[str]) -> Source:
    def lines() -> Any:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")

    try:
        with lines() as file, _fields_of_any_length():
            head = next(csv.reader(file), [])
    except csv.Error as error:
        raise ValueError(f"(source={str(path)!r}): its first line is no head of a CSV file ({error})") from error
    if len(set(head)) < len(head):
        raise ValueError(f"(source={str(path)!r}): its first line names a column twice: {', '.join(head)}")

    def rows() -> Iterator[Raw]:
        with lines() as file, _fields_of_any_length():
            found = csv.reader(file)
            next(found, None)
            for record in found:
                if len(record) == len(head):
                    yield dict(zip(head, record, strict=True))
                elif record:
                    yield Failed(f"line {found.line_num}: {len(record)} fields, and the first line names {len(head)}")

    return Source(str(path), tuple(head), rows)


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """The csv module refuses long fields otherwise; its limit is one for all."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, wanted: Sequence[str]) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            head = tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"(source={str(path)!r}): this is no parquet file ({error})") from error
    columns = [name for name in wanted if name in head]

    def rows() -> Iterator[Raw]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
                yield from batch.to_pylist()

    return Source(str(path), head, rows)


def _data_set(name: str, wanted: Sequence[str], split: str, subset: str | None) -> Source:
    try:
        datasets: Any = import_module("datasets")
    except ImportError:
        raise ValueError(f"(source={name!r}): no such file; data sets need the package datasets") from None
    try:
        data = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # datasets and its file systems raise many types
        raise ValueError(
            f"(source={name!r}): no such file, and as a data set: {' '.join(str(error).split())}"
        ) from error
    columns = [column for column in wanted if column in data.column_names]
    chosen = data.select_columns(columns)

    def rows() -> Iterator[Raw]:
        for start in range(0, len(chosen), ROWS_AT_ONCE):
            some = chosen[start : start + ROWS_AT_ONCE]
            yield from (dict(zip(some, row, strict=True)) for row in zip(*some.values(), strict=True))

    return Source(name, tuple(data.column_names), rows)
