"""The tables of a run of prompts, as parquet: a file for each window of rows that has any.

===============  ==========================================================================================
``scores``       one row per prompt × method × unit, in that order
``failed``       one per row that could not be explained, with the reason
``duplicates``   one per row that asks what an earlier one asks, with that row's number
===============  ==========================================================================================

Every file carries the run's settings in its metadata, under ``tl_scopes``: versions, the model and its fingerprint, methods.
A file is whole or absent, and its bytes depend on what is asked and computed alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tl_scopes.evaluation.rows import Read
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.files import write_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Table = Literal["scores", "failed", "duplicates"]
METADATA = b"tl_scopes"
REPEATED = ("id", "method", "name", "target", "notes")
"""Texts that come again in many rows, read as categories."""


def schema(table: Table, double: bool = False) -> pa.Schema:
    """Columns of a table; scores of a float64 model are ``double``."""
    import pyarrow as pa

    number = pa.float64() if double else pa.float32()
    head = [("row", pa.int64()), ("id", pa.string())]
    columns = {
        "scores": [
            *(("method", pa.string()), ("unit", pa.int32()), ("text", pa.string())),
            *(("score", number), ("signed", number), ("stderr", number)),
            *(("special", pa.bool_()), ("answer", pa.bool_())),
            *(("start", pa.int32()), ("end", pa.int32()), ("name", pa.string())),
            *(("target", pa.string()), ("target_id", pa.int32()), ("log_prob", pa.float64())),
            ("notes", pa.string()),
        ],
        "failed": [("reason", pa.string())],
        "duplicates": [("same_as", pa.int64())],
    }
    return pa.schema([*head, *columns[table]])


def is_double(settings: Mapping[str, Any]) -> bool:
    """Is it a float64 model, whose scores are?"""
    return bool(settings["model"]["dtype"] == "float64")


def score_rows(row: Read, label: str, found: Attribution, columns: pa.Schema) -> pa.RecordBatch:
    """The scores of one prompt by one method, one row per token or unit."""
    import pyarrow as pa

    n = len(found)
    spans = None if found.offsets is None else list(zip(*found.offsets, strict=True))
    names = found.details.get("names")
    answer = range(row.given.answer_start, n) if row.units is None else found.answer
    values: dict[str, Any] = {
        "unit": range(n),
        "text": found.str_tokens,
        "score": found.scores.numpy(),
        "signed": None if found.signed is None else found.signed.numpy(),
        "stderr": None if found.stderr is None else found.stderr.numpy(),
        "special": [i in found.special for i in range(n)],
        "answer": [i in answer for i in range(n)],
        "start": None if spans is None else spans[0],
        "end": None if spans is None else spans[1],
        "name": None if names is None else [name or None for name in names],
    }
    whole = {
        "row": row.number,
        "id": row.asked.id,
        "method": label,
        "target": found.target_str,
        "target_id": found.target,
        "log_prob": _log_prob(found),
        "notes": " ".join(dict.fromkeys((*row.notes, *found.notes))) or None,
    }
    arrays = []
    for field in columns:
        value = values.get(field.name)
        if field.name in whole:
            arrays.append(pa.repeat(pa.scalar(whole[field.name], field.type), n))
        else:
            arrays.append(pa.nulls(n, field.type) if value is None else pa.array(value, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _log_prob(found: Attribution) -> float | None:
    """Of what is explained, in nats; None where no token is."""
    if "log_prob" in found.details:
        return float(found.details["log_prob"])
    p = found.details.get("target_probability")
    return None if p is None else math.log(p) if p > 0 else -math.inf


# -- files -----------------------------------------------------------------------------------------


def part(folder: Path, table: Table, window: int) -> Path:
    """The file of one window."""
    return folder / table / f"part-{window:07d}.parquet"


def write_part(folder: Path, table: Table, window: int, found: pa.Table, settings: Mapping[str, Any]) -> None:
    """Write the rows of one window; where there are none there is no file, not even one of a run that was killed here."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not len(found):
        part(folder, table, window).unlink(missing_ok=True)
        return
    written = json.dumps(settings, ensure_ascii=False, sort_keys=True).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(found.replace_schema_metadata({METADATA: written}), sink)
    file = part(folder, table, window)
    file.parent.mkdir(exist_ok=True)
    write_file(file, sink.getvalue().to_pybytes())


def counted(record: Mapping[str, Any]) -> dict[Table, int]:
    """How many rows each table of a window has, by its record."""
    return {"scores": record["units"], "failed": record["failed"], "duplicates": record["duplicates"]}


def is_whole(folder: Path, record: Mapping[str, Any]) -> bool:
    """Do the files of a finished window have the rows that its record says?"""
    return all(_rows_of(part(folder, table, record["index"])) == n for table, n in counted(record).items())


def _rows_of(file: Path) -> int | None:
    """How many rows a file has; none where it is not there, None where it is not one of a run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.exists():
        return 0
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException):
        return None


def parts(folder: Path, table: Table, records: Iterable[Mapping[str, Any]]) -> Iterator[pa.Table]:
    """The tables of the finished windows, in order.

    Raises:
        ValueError: a file that is not there, or is not one of a run.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for record in records:
        if not counted(record)[table]:
            continue
        file = part(folder, table, record["index"])
        try:
            found = pq.ParquetFile(file, read_dictionary=[c for c in REPEATED if c in schema(table).names]).read()
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{file}: not what a run writes ({error}). Delete it: the same call makes it again"
            ) from error
        if len(found) != counted(record)[table]:
            raise ValueError(
                f"{file}: {len(found)} rows, and the run wrote {counted(record)[table]}. The same call makes it again"
            )
        yield found


def whole_table(folder: Path, table: Table, records: Sequence[Mapping[str, Any]], double: bool) -> pa.Table:
    """All windows of one table together."""
    import pyarrow as pa

    found = [t.replace_schema_metadata(None) for t in parts(folder, table, records)]
    return pa.concat_tables(found).unify_dictionaries() if found else schema(table, double).empty_table()


def to_frame(found: pa.Table) -> pd.DataFrame:
    """As pandas has it; whole numbers stay whole where some rows have none."""
    import pandas as pd
    import pyarrow as pa

    frame = cast("pd.DataFrame", found.to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get))
    return frame.astype({"unit": "int32"}) if "unit" in frame else frame
