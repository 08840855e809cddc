"""Invariant: ``run`` is `explain_file` and prints its report; what is wrong is told before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls

ROWS = [{"question": "German: der Hund sieht die Katze. English: the", "label": " dog", "n": i} for i in range(2)]


@pytest.fixture
def source(tmp_path: Path) -> str:
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, [*ROWS, {"question": ""}])), encoding="utf-8")
    return str(file)


def test_it_runs_the_file_prints_the_report_and_goes_on(
    run: Callable[..., tuple[int, str, str]], demo_model: Any, source: str, tmp_path: Path
) -> None:
    out, page = tmp_path / "run", tmp_path / "report.html"
    asked = [
        "run",
        source,
        "--out",
        str(out),
        "--field",
        "prompt=question",
        "--field",
        "target=label",
        "--unit",
        "word",
    ]
    asked += [
        "--field",
        "id=n",
        "--method",
        "semantic",
        "--method",
        "random",
        "--frozen",
        "all",
        "--rows-per-shard",
        "2",
    ]
    code, printed, said = run(*asked, "--shard", "1/2")
    assert (code, printed) == (0, "")
    assert "Not complete: 2 rows are left to other processes" in said
    code, printed, said = run(*asked, "--html", str(page))
    assert code == 0, said
    assert printed == f"{tls.run_report(out)}\n"
    assert "3 rows: 1 explained, 1 failed, 1 asked before" in printed
    frame = tls.load_run(out)
    assert set(frame.method) == {"semantic/all", "random"}
    assert " Hund" in frame.text.tolist()
    assert tls.load_run(out, "duplicates").id.tolist() == ["1"]
    assert "random" in page.read_text(encoding="utf-8")
    assert "3 of 3 rows (100%)" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--method", "magic"], "unknown method 'magic'"),
        (["--field", "prompt"], "--field prompt: expected NAME=COLUMN"),
        (["--field", "text=prompt"], "--field: 'text' is none of prompt, messages"),
        (["--shard", "2/2"], "--shard 2/2: expected I/N, job I of N, counted from 0"),
        (["--shard", "one"], "--shard one: expected I/N"),
        (["--method", "random", "--frozen", "all"], "none of the methods ['random'] is a gradient"),
    ],
)
def test_a_mistake_is_one_line_before_a_model_is_loaded(
    options: list[str], reason: str, refused: Callable[..., str], source: str, tmp_path: Path
) -> None:
    assert reason in refused("run", source, "--out", str(tmp_path / "run"), *options)


def test_a_source_that_is_not_there_is_refused_first(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "no such file" in refused("run", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "run"))
    (tmp_path / "file").touch()
    assert "is a file; give a folder" in refused("run", "-", "--out", str(tmp_path / "file"))


def test_accelerate_that_starts_one_of_several_is_told_of(
    run: Callable[..., tuple[int, str, str]], source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    _, _, said = run("run", source, "--out", str(tmp_path / "run"), "--method", "random", "--field", "prompt=question")
    assert "accelerate started one process; several it starts with --multi_gpu --num_processes N, also on CPUs" in said


def test_jobs_share_aopc_and_gold_through_their_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "give --out FOLDER" in refused("aopc", "--shard", "0/2")
    assert "--shard is for runs of --task" in refused("gold", "--shard", "0/2")
    assert "give --out FOLDER" in refused("gold", "--task", "copying", "--shard", "0/2")
