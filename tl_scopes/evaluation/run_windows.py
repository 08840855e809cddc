"""One window of a run's rows: read, sorted, explained in batches, written.

Rows that ask what an earlier one asks are left out, those that cannot be read are recorded; where a batch fails each of its
prompts is tried by itself, and one that fails alone is recorded. Tables are written in the order of the source.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_scopes.evaluation.gold_methods import Method, attributed_by
from tl_scopes.evaluation.pace import Pace
from tl_scopes.evaluation.records import RecordStore
from tl_scopes.evaluation.rows import Asked, Raw, Read, Reading, asked, key_of, read, row_id
from tl_scopes.evaluation.run_tables import Table, is_double, schema, score_rows, write_part
from tl_scopes.evaluation.shares import Failed, attempted
from tl_scopes.evaluation.survey import Survey
from tl_scopes.model.lens import LensModel

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Windows:
    """What all windows of a run have in common, and how one is computed."""

    model: LensModel
    methods: Mapping[str, Method | str]
    names: Mapping[str, str]
    found: Survey
    reading: Reading
    batch_size: int
    folder: Path
    store: RecordStore

    def size(self, window: int) -> int:
        """Rows of a window."""
        size: int = self.store.settings["rows_per_shard"]
        return min(size, self.found.n - window * size)

    def window(self, window: int, raw: Sequence[tuple[int, Raw]], pace: Pace) -> dict[str, Any]:
        """Write the tables of a window; gives its record."""
        import pyarrow as pa

        started = time.perf_counter()
        raw = raw[: self.size(window)]
        asks = self._asks(window, raw)
        ready: list[Read] = []
        failed: dict[int, str] = {}
        same = {i: int(self.found.same_as[i]) for i, _ in raw if self.found.same_as[i] != i}
        ids = {i: row_id(row, self.names) for i, row in raw}
        for i, _ in raw:
            if i in same:
                continue
            try:
                ready.append(self._read(i, asks[i]))
            except ValueError as error:
                failed[i] = str(error)
        pace.step(len(raw) - len(ready))
        columns = schema("scores", is_double(self.store.settings))
        scores: dict[int, list[pa.RecordBatch]] = {}
        ready.sort(key=lambda row: len(row.given.tokens))
        for first in range(0, len(ready), self.batch_size):
            batch = ready[first : first + self.batch_size]
            for one, explained in zip(batch, attempted(self._explained, batch), strict=True):
                if isinstance(explained, Failed):
                    failed[one.number] = explained.reason
                else:
                    scores[one.number] = [score_rows(one, label, a, columns) for label, a in explained.items()]
            pace.step(len(batch))
        tables: dict[Table, pa.Table] = {
            "scores": pa.Table.from_batches([b for i in sorted(scores) for b in scores[i]], columns),
            "failed": _listed("failed", {i: failed[i] for i in sorted(failed)}, ids),
            "duplicates": _listed("duplicates", same, ids),
        }
        for table, rows in tables.items():
            write_part(self.folder, table, window, rows, self.store.settings)
        n = {"rows": len(raw), "explained": len(scores), "failed": len(failed), "duplicates": len(same)}
        seconds = round(time.perf_counter() - started, 3)
        return {"index": window, **n, "units": len(tables["scores"]), "seconds": seconds}

    def _asks(self, window: int, raw: Sequence[tuple[int, Raw]]) -> dict[int, Asked | Failed]:
        """What the rows of a window ask.

        Raises:
            ValueError: not what they asked when the source was read first. Rows that it got since then do not count.
        """
        found = {i: asked(row, self.names) for i, row in raw}
        changed = [i for i, row in found.items() if key_of(i, row) != self.found.key(i)]
        if changed or len(found) < self.size(window):
            row = changed[0] if changed else window * self.store.settings["rows_per_shard"] + len(found)
            raise ValueError(
                f"(source=...): row {row} is not what it was when this call read the source first; something writes to it. "
                "Start again in another folder when it is finished"
            )
        return found

    def _read(self, number: int, row: Asked | Failed) -> Read:
        """A row as the model reads it.

        Raises:
            ValueError: what is wrong with it.
        """
        if not isinstance(row, Asked):
            raise ValueError(row.reason)
        return read(self.model, number, row, self.reading)

    def _explained(self, batch: Sequence[Read]) -> list[dict[str, Any]]:
        """The results of every method on some rows, by unit."""
        found: list[dict[str, Any]] = [{} for _ in batch]
        given: tuple[list[Any], list[int | None]] = ([row.given for row in batch], [row.target for row in batch])
        typed = [row.asked.prompt for row in batch], [row.asked.aim for row in batch]
        for label, results in attributed_by(self.model, self.methods, given, typed, self.batch_size):
            for own, row, result in zip(found, batch, results, strict=True):
                own[label] = result if row.units is None else result.by_unit(row.units)
        return found


def _listed(table: Table, values: Mapping[int, Any], ids: Mapping[int, str | None]) -> pa.Table:
    """A row for each of some rows of the source, with what is to be said of it."""
    import pyarrow as pa

    columns = schema(table)
    arrays = [list(values), [ids[i] for i in values], list(values.values())]
    return pa.Table.from_arrays([pa.array(a, f.type) for a, f in zip(arrays, columns, strict=True)], schema=columns)
