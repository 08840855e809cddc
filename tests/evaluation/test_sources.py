"""Invariant: the same rows, in whatever they are written, are the same rows; one that cannot be read is named and the others
are read; what has no rows, prompts or named columns is refused before any work."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tl_scopes.evaluation.rows import COLUMNS, Asked, asked, column_names, row_id
from tl_scopes.evaluation.shares import Failed
from tl_scopes.evaluation.sources import STDIN, kept_input, open_source
from tl_scopes.evaluation.survey import Survey, survey, windows

pytestmark = pytest.mark.one_lens
NAMES = column_names(None)
NESTED = json.loads("[" * 120 + "]" * 120)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=8)
ROW = st.fixed_dictionaries(
    {"prompt": TEXT, "target": st.none() | TEXT, "id": st.none() | TEXT},
    optional={"units": st.dictionaries(TEXT, st.tuples(st.integers(0, 4), st.integers(5, 9)).map(list), max_size=2)},
)


def as_jsonl(rows: list[dict[str, Any]], file: Path) -> None:
    file.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")


def as_csv(rows: list[dict[str, Any]], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        written = csv.DictWriter(out, ["id", "prompt", "target", "units", "other"])
        written.writeheader()
        written.writerows({**row, "units": json.dumps(row["units"]) if "units" in row else ""} for row in rows)


def as_parquet(rows: list[dict[str, Any]], file: Path) -> None:
    keys = {k: pa.string() for k in ("id", "prompt", "target", "units")}
    plain = [{**row, "units": json.dumps(row["units"]) if "units" in row else None} for row in rows]
    pq.write_table(pa.Table.from_pylist(plain, pa.schema(keys)), file, row_group_size=3)


FORMATS = {"jsonl": as_jsonl, "csv": as_csv, "parquet": as_parquet}


def surveyed(file: Path) -> Survey:
    return survey(open_source(file, list(NAMES.values())), NAMES, ())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=1, max_size=12))
def test_rows_are_the_same_in_every_format_and_those_that_ask_the_same_are_known(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    found = {}
    for kind, write in FORMATS.items():
        file = tmp_path / f"rows.{kind}"
        write(rows, file)
        found[kind] = surveyed(file)
    assert len({one.sha256 for one in found.values()}) == 1
    plain = [{k: v for k, v in row.items() if k != "id"} for row in rows]
    first = [next(j for j, other in enumerate(plain) if _same(other, row)) for row in plain]
    for one in found.values():
        assert one.n == len(rows)
        assert one.same_as.tolist() == first


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("prompt", "target", "units"))


def test_ids_and_texts_are_part_of_what_a_run_is_of(tmp_path: Path) -> None:
    digests = set()
    for change in ({}, {"id": "b"}, {"prompt": "y"}, {"target": " b"}, {"units": {"a": [0, 1]}}):
        as_jsonl([{"prompt": "x", "target": " a", "id": "a", **change}], tmp_path / "rows.jsonl")
        digests.add(surveyed(tmp_path / "rows.jsonl").sha256)
    assert len(digests) == 5


def test_windows_are_the_rows_in_order_whichever_are_wanted(tmp_path: Path) -> None:
    as_jsonl([{"prompt": str(i)} for i in range(10)], tmp_path / "rows.jsonl")
    source = open_source(tmp_path / "rows.jsonl", COLUMNS)
    found = dict(windows(source, 4, {0, 2}))
    assert {w: [int(row["prompt"]) for _, row in rows] for w, rows in found.items()} == {0: [0, 1, 2, 3], 2: [8, 9]}
    assert [i for i, _ in found[2]] == [8, 9]
    assert list(windows(source, 4, set())) == []


def test_a_line_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\n\n{"prompt"\n[1]\n\xff\n' + b"[" * 100_000 + b'\n{"prompt": "b"}')
    rows = list(open_source(file, COLUMNS).rows())
    assert rows[0] == {"prompt": "a"}
    assert rows[-1] == {"prompt": "b"}
    assert all(isinstance(row, Failed) for row in rows[1:-1])
    assert [row.reason.split(":")[0] for row in rows[1:-1] if isinstance(row, Failed)] == [
        f"line {i}" for i in range(3, 7)
    ]
    file = tmp_path / "rows.csv"
    file.write_bytes(b'id,prompt\n1,"a\nb, ""c"""\n2\n3,x,y\n4,\xff\n5,' + b"z" * 200_000)
    before = csv.field_size_limit()
    rows = list(open_source(file, COLUMNS).rows())
    assert csv.field_size_limit() == before
    assert rows[0] == {"id": "1", "prompt": 'a\nb, "c"'}
    assert rows[1] == Failed("line 4: 1 fields, and the first line names 2")
    assert rows[2] == Failed("line 5: 3 fields, and the first line names 2")
    assert asked(rows[3], NAMES) == Failed("prompt: character 0 is half of a character; the text is not UTF-8")
    assert len(rows[4]["prompt"]) == 200_000  # type: ignore[index]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no prompt: the cell is empty or missing"),
        ({"prompt": ""}, "no prompt: the cell is empty or missing"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "both prompt and messages"),
        ({"messages": "[1"}, "messages: this is not JSON"),
        ({"messages": ["a"]}, "messages: expected a list of messages"),
        ({"prompt": 3}, "prompt: expected a text or a list of token ids, got int"),
        ({"prompt": []}, "no prompt: the list of token ids is empty"),
        ({"prompt": [1, 10**20]}, "prompt: 100000000000000000000 is no token id"),
        ({"prompt": [-1]}, "prompt: -1 is no token id"),
        ({"prompt": [1, True]}, "prompt: expected a text or a list of token ids, got list"),
        ({"prompt": "a", "target": " b", "answer": " c"}, "both target and answer"),
        ({"prompt": "a", "target": True}, "target: expected a text or a token id, got bool"),
        ({"prompt": "a", "target": 1.5}, "target: expected a text or a token id, got float"),
        ({"prompt": "a", "answer": 3}, "answer: expected a text, got int"),
        ({"prompt": "a", "id": [1]}, "id: expected a text or a whole number, got list"),
        ({"prompt": "a", "units": "word"}, "units: this is not JSON"),
        ({"prompt": "a", "units": {"b": 1}}, "units: expected"),
        ({"prompt": "a", "units": [["b", 1]]}, "units: expected"),
        ({"prompt": "a", "units": {"\ud800": [0, 1]}}, "units: character 0 is half of a character"),
        ({"prompt": "a", "units": [["b", "\ud800"]]}, "units: character 0 is half of a character"),
        ({"messages": [{"role": "user", "content": "a\ud800"}]}, "messages: character 1 is half of a character"),
        (
            {"messages": [{"role": "user", "content": "a", "at": date(2024, 1, 1)}]},
            "messages: expected what JSON can hold",
        ),
        ({"messages": [{"role": "user", "content": "a", "of": b"b"}]}, "messages: expected what JSON can hold"),
        ({"messages": [{"role": "user", "content": "a", "x": NESTED}]}, "messages: nested deeper than 100 levels"),
    ],
    ids=lambda value: repr(value)[:80],
)
def test_a_row_that_asks_nothing_says_why(row: dict[str, Any], reason: str) -> None:
    found = asked(row, NAMES)
    assert isinstance(found, Failed)
    assert found.reason.startswith(reason)


def test_what_tables_do_to_a_row_is_undone() -> None:
    gaps = {
        "messages": [{"role": "user", "content": "a", "name": None}],
        "units": {"u": [0, 1], "v": None},
        "target": 7.0,
        "id": 3.0,
    }
    plain = {
        "messages": [{"role": "user", "content": "a"}],
        "units": '{"u": [0, 1]}',
        "target": 7,
        "answer": "",
        "id": 3,
    }
    one, other = asked(gaps, NAMES), asked(plain, NAMES)
    assert isinstance(one, Asked)
    assert isinstance(other, Asked)
    assert one.key == other.key
    assert (one.aim, one.id, other.id, row_id(gaps, NAMES)) == (7, "3", "3", "3")
    assert asked({"prompt": "a", "answer": " b"}, NAMES) == Asked(None, "a", " b")


def test_columns_have_the_names_that_they_are_given() -> None:
    names = column_names({"prompt": "question", "answer": None, "target": "answer"})
    assert asked({"question": "a", "answer": " b", "prompt": 3}, names) == Asked(None, "a", " b")
    with pytest.raises(ValueError, match=r"\(columns=...\): 'text' is none of prompt, messages"):
        column_names({"text": "prompt"})
    with pytest.raises(ValueError, match=r"\(columns=...\): column 'answer' is given twice"):
        column_names({"target": "answer"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"there are no rows"),
        ("a.csv", b"", r"there are no rows"),
        ("a.jsonl", b'[{"prompt": 1}]', r"none of 1 rows can be read; the first: line 1: expected an object, got list"),
        (
            "a.jsonl",
            b'{"text": "x"}',
            r"no column 'prompt' nor 'messages'; its columns are 'text'. Name the one .*'text'",
        ),
        ("a.csv", b"text\nx", r"no column 'prompt' nor 'messages'; its columns are 'text'"),
        ("a.csv", b"prompt,prompt\nx,y", r"its first line names a column twice: prompt, prompt"),
        ("a.parquet", b"prompt", r"this is no parquet file"),
        ("a.txt", b"x", r"its name ends with none of .jsonl, .ndjson, .csv, .parquet; say format="),
        ("missing.jsonl", None, r"no such file, and no name of a data set"),
        ("no/such/thing", None, r"no such file, and no name of a data set"),
    ],
)
def test_a_source_of_nothing_is_refused(
    name: str, content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"\(source='{name}'\): {message}"):
        surveyed(Path(name))


def test_a_long_head_is_read_and_parts_of_files_are_refused(tmp_path: Path) -> None:
    file, long = tmp_path / "rows.csv", "z" * 200_000
    file.write_text(f"prompt,{long}\na,b\n")
    assert open_source(file, COLUMNS).columns == ("prompt", long)
    for part in ("split", "subset"):
        with pytest.raises(ValueError, match=rf"\({part}='test'\): this is for data sets, and .*rows\.csv' is a file"):
            open_source(file, COLUMNS, **{part: "test"})  # type: ignore[arg-type]


def test_a_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    as_jsonl([{"prompt": "a", "label": " b"}], tmp_path / "rows.jsonl")
    names = column_names({"target": "lable"})
    source = open_source(tmp_path / "rows.jsonl", list(names.values()))
    with pytest.raises(ValueError, match=r"no column 'lable' for target; its columns are 'prompt', 'label'"):
        survey(source, names, ["target"])


def test_standard_input_is_kept_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "a"}\n')))
    beside, kept = kept_input(tmp_path / "run", "jsonl")
    assert kept == tmp_path / "run" / "stdin.jsonl"
    assert list(open_source(beside, COLUMNS, format="jsonl").rows()) == [{"prompt": "a"}]
    with pytest.raises(ValueError, match=r"\(format='parquet'\): a parquet file is read from its end"):
        open_source(STDIN, COLUMNS, format="parquet")


def test_a_folder_is_read_as_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    as_parquet([{"prompt": str(i), "target": None, "id": "x"} for i in range(300)], tmp_path / "train.parquet")
    found = open_source(tmp_path, ["prompt", "id", "nothing"])
    rows = list(found.rows())
    assert rows[299] == {"prompt": "299", "id": "x"}
    assert len(rows) == 300
    with pytest.raises(ValueError, match=r"no such file, and as a data set: .*validation"):
        open_source(tmp_path, ["prompt"], split="validation")
    with pytest.raises(ValueError, match=r"\(format='csv'\): this is for files"):
        open_source(tmp_path, ["prompt"], format="csv")


def test_keys_of_rows_with_zero_bytes_at_their_end_differ() -> None:
    """NumPy strips such bytes from its texts; as all keys are as long, none becomes another."""
    keys = np.frombuffer(b"a" * 15 + b"\0" + b"a" * 14 + b"\0\0" + b"a" * 16, dtype="S16")
    assert len(np.unique(keys)) == 3
