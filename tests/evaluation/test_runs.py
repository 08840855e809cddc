"""Invariant: a run's tables have the scores of each method's own call on each row, every row once, whoever did it and
whatever was killed; rows that cannot be explained and rows that were asked before have tables of their own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import torch

import tl_scopes as tls
from tl_scopes.demo.corpora import CORPORA, examples
from tl_scopes.evaluation import run_windows, runs
from tl_scopes.evaluation.pace import LOGGER, Pace
from tl_scopes.evaluation.records import RecordStore
from tl_scopes.evaluation.runs import explain_file, load_run, run_report
from tl_scopes.evaluation.shares import Share
from tl_scopes.evaluation.survey import survey

FEW = [row for c in CORPORA for row in ({"prompt": e.prompt, "target": e.answer} for e in examples(c, 2, 0))]
CLOSE = 1e-5
"""Of a score: prompts of one batch and one alone are summed in another order."""


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def files(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.glob("*/*.parquet"))}


def scores_of(frame: pd.DataFrame, row: int, method: str) -> pd.DataFrame:
    return frame[(frame.row == row) & (frame.method == method)].reset_index(drop=True)


def test_scores_are_those_of_the_calls_one_by_one(demo_model: Any, tmp_path: Path) -> None:
    prompt, answer = "Anna lives in", " Rome. Tom lives in Rome"
    rows: list[dict[str, Any]] = [
        {**max(FEW, key=lambda row: len(row["prompt"])), "id": "first"},
        {"prompt": prompt, "answer": answer},
        {"prompt": demo_model.to_tokens(FEW[3]["prompt"])[0].tolist(), "target": 7},
        FEW[4],
        {"prompt": FEW[5]["prompt"]},
    ]
    methods = ["semantic", "fisher@2", "temperature", "semantic/all", "input_x_gradient", "leave_one_out", "random"]
    report = explain_file(demo_model, written(tmp_path, rows), tmp_path / "run", methods, batch_size=2)
    assert (report.explained, report.failed, report.complete) == (5, 0, True)
    frame = load_run(tmp_path / "run")
    assert frame.row.is_monotonic_increasing, "in the order of the source, not of lengths"
    calls: dict[str, Callable[..., Any]] = {
        "semantic": tls.semantic_scope,
        "input_x_gradient": tls.input_x_gradient,
        "leave_one_out": tls.leave_one_out,
    }
    for i, row in enumerate(rows):
        given = row["prompt"] if isinstance(row["prompt"], str) else torch.tensor(row["prompt"])
        target = row.get("target", row.get("answer"))
        own: dict[str, Any] = {name: call(demo_model, given, target=target) for name, call in calls.items()}
        own["semantic/all"] = tls.semantic_scope(demo_model, given, target=target, frozen="all")
        if i != 1:  # with an answer these are of all its tokens
            own["fisher@2"] = tls.fisher_scope(demo_model, given, rank=2)
            own["temperature"] = tls.temperature_scope(demo_model, given)
            own["random"] = tls.random_attribution(demo_model, given)
        for name, one in own.items():
            found = scores_of(frame, i, name)
            largest = float(one.scores.max())
            n = len(one)
            assert found.score.to_numpy()[:n] == pytest.approx(one.scores.numpy(), abs=CLOSE * largest), (i, name)
            assert found.text.tolist()[:n] == one.str_tokens
            if name != "random":
                assert found.unit.tolist() == list(range(n))
                assert (found.target.iloc[0] if one.target_str else None) == one.target_str
            if one.signed is not None:
                assert found.signed.to_numpy() == pytest.approx(one.signed.numpy(), abs=CLOSE * largest)
    first = scores_of(frame, 0, "semantic")
    assert set(first.id) == {"first"}
    assert first.special.tolist() == [True] + [False] * (len(first) - 1)
    assert [rows[0]["prompt"][a:b] for a, b in zip(first.start, first.end, strict=True)][1:] == first.text.tolist()[1:]
    answered = scores_of(frame, 1, "semantic")
    assert "".join(answered.text[answered.answer]) == answer
    assert answered.log_prob.iloc[0] == pytest.approx(
        tls.semantic_scope(demo_model, prompt, target=answer).details["log_prob"], abs=1e-4
    )


def test_bad_rows_are_named_and_what_was_asked_before_is_not_explained_again(demo_model: Any, tmp_path: Path) -> None:
    rows = [FEW[0], {"prompt": ""}, FEW[1], {"prompt": "x " * 400, "id": "long"}, {**FEW[0], "id": "again"}]
    rows += [
        {**FEW[0], "target": " cat"},
        {**FEW[2], "target": "no token"},
        {"prompt": "a", "units": {"b": [0, 9]}},
        FEW[1],
    ]
    source = written(tmp_path, rows)
    with source.open("a") as file:
        file.write("not json\n")
    calls: list[int] = []

    def counted(model: Any, prompts: list[Any], targets: list[Any]) -> list[tls.Attribution]:
        calls.extend([len(prompts)])
        return tls.random_attribution(model, prompts)

    report = explain_file(demo_model, source, tmp_path / "run", {"own": counted}, rows_per_shard=3, batch_size=8)
    assert (report.rows, report.explained, report.failed, report.duplicates) == (10, 4, 4, 2)
    assert sum(calls) == 4
    frame = load_run(tmp_path / "run")
    assert frame.row.drop_duplicates().tolist() == [0, 2, 5, 6]
    failed = load_run(tmp_path / "run", "failed")
    assert failed.row.tolist() == [1, 3, 7, 9]
    assert failed.id.tolist()[1] == "long"
    for reason, said in zip(
        failed.reason,
        [
            "no prompt",
            "tokens are more than the model's context",
            "expected 0 <= start < end",
            "line 10: this is not JSON",
        ],
        strict=True,
    ):
        assert said in reason
    again = load_run(tmp_path / "run", "duplicates")
    assert again[["row", "same_as"]].to_numpy().tolist() == [[4, 0], [8, 2]]
    assert again.id.iloc[0] == "again"
    assert "10 rows: 4 explained, 4 failed, 2 asked before" in str(report)


def test_answers_are_explained_whatever_prompts_a_batch_has(demo_model: Any, tmp_path: Path) -> None:
    """A batch of one prompt is asked as one of many: every prompt by itself, and the last one of a window."""
    rows = [{"prompt": f"Anna {'and Tom ' * n}lives in", "answer": " Rome. Tom"} for n in range(3)]
    for batch_size in (1, 2, 3):
        out = tmp_path / str(batch_size)
        methods = ["semantic", "input_x_gradient", "random"]
        report = explain_file(demo_model, written(tmp_path, rows), out, methods, batch_size=batch_size)
        assert (report.explained, report.first_failed) == (3, ())
        found = load_run(out)
        assert set(found.target[found.method == "semantic"]) == {" Rome. Tom"}


@pytest.mark.one_lens
def test_prompts_of_similar_length_run_together(demo_model: Any, tmp_path: Path) -> None:
    batches: list[list[int]] = []

    def watched(model: Any, prompts: list[str], targets: list[Any]) -> list[tls.Attribution]:
        batches.append(list(map(len, prompts)))
        return tls.random_attribution(model, prompts)

    rows = [{"prompt": "the dog sees the cat. " * n} for n in (3, 1, 4, 2, 7, 6)]
    explain_file(
        demo_model, written(tmp_path, rows), tmp_path / "run", {"own": watched}, batch_size=2, rows_per_shard=4
    )
    assert [[n // 22 for n in batch] for batch in batches] == [[1, 2], [3, 4], [6, 7]], "inside their window"


@pytest.mark.one_lens
def test_a_prompt_that_fails_in_its_batch_is_left_out_alone(demo_model: Any, tmp_path: Path) -> None:
    def picky(model: Any, prompts: list[Any], targets: list[Any]) -> list[tls.Attribution]:
        if any("Anna" in p for p in prompts):
            raise ValueError("(prompt=...): not Anna")
        return tls.random_attribution(model, prompts)

    rows = [{"prompt": text} for text in ("Tom", "Anna lives", "Tom lives in", "Rome")]
    report = explain_file(demo_model, written(tmp_path, rows), tmp_path / "run", {"own": picky})
    assert (report.explained, report.failed) == (3, 1)
    assert load_run(tmp_path / "run", "failed").reason.tolist() == ["ValueError: explain_file(prompt=...): not Anna"]


@pytest.mark.one_lens
def test_any_division_and_any_stops_give_the_same_bytes(demo_model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    rows = [*FEW, {"prompt": ""}, FEW[3], {"prompt": "Tom"}]
    source, asked = written(tmp_path, rows), {"methods": ["semantic", "random"], "rows_per_shard": 3, "batch_size": 2}
    whole = explain_file(demo_model, source, tmp_path / "whole", **asked)
    real, stops = run_windows.write_part, iter([2, 4, 1])
    out = tmp_path / "shared"
    for job in (1, 0, 1, 2, 0, 1):
        left = next(stops, None)

        def dies(folder: Path, table: Any, *rest: Any) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            real(folder, table, *rest)

        monkeypatch.setattr(run_windows, "write_part", dies)
        try:
            explain_file(demo_model, source, out, shard=(job, 3), **asked)
        except KeyboardInterrupt:
            with (out / f"shard-{job:05d}.jsonl").open("a") as torn:
                torn.write('{"index": 0')
    assert files(out) == files(tmp_path / "whole")
    assert len(list(out.glob("shard-*.jsonl"))) == 3
    found = run_report(out)
    assert found.complete
    assert replace(found, seconds=whole.seconds) == whole
    assert load_run(out).equals(load_run(tmp_path / "whole"))


@pytest.mark.one_lens
def test_a_run_that_is_not_whole_says_so_and_one_file_that_is_gone_is_made_again(
    demo_model: Any, tmp_path: Path
) -> None:
    source, out = written(tmp_path, FEW), tmp_path / "run"
    part = explain_file(demo_model, source, out, ["random"], rows_per_shard=5, shard=(0, 2))
    assert (part.complete, part.left, part.explained) == (False, 5, len(FEW) - 5)
    assert "Not complete: 5 rows are left" in str(part)
    assert explain_file(demo_model, source, out, ["random"], rows_per_shard=5).complete
    before = files(out)
    (out / "scores" / "part-0000001.parquet").unlink()
    with pytest.raises(
        ValueError, match=r"part-0000001\.parquet: not what a run writes .*the same call makes it again"
    ):
        load_run(out)
    assert explain_file(demo_model, source, out, ["random"], rows_per_shard=5).complete
    assert files(out) == before


def no_room(prompt: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """The methods on a machine where one prompt does not fit the memory, alone or in a batch."""

    def attributed_by(model: Any, methods: Any, given: Any, typed: Any, batch_size: int) -> Any:
        if prompt in typed[0]:
            raise torch.OutOfMemoryError("no room")
        yield from real(model, methods, given, typed, batch_size)

    return attributed_by


@pytest.mark.one_lens
@pytest.mark.parametrize(("jobs", "killed"), [(1, False), (2, False), (2, True)])
def test_rows_that_failed_are_tried_again_once_their_file_is_gone(
    jobs: int, killed: bool, demo_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later outcome counts, whichever process has it, and no file of the earlier one stays."""
    source, out, asked = written(tmp_path, FEW[:5]), tmp_path / "run", {"methods": ["random"], "rows_per_shard": 3}
    explain_file(demo_model, source, tmp_path / "whole", **asked)
    with monkeypatch.context() as patch:
        patch.setattr(run_windows, "attributed_by", no_room(FEW[4]["prompt"], run_windows.attributed_by))
        if killed:
            patch.setattr(RecordStore, "append", stopped)
        for job in range(jobs):
            with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
                explain_file(demo_model, source, out, shard=(job, jobs), **asked)
    failed = out / "failed" / "part-0000001.parquet"
    assert failed.exists()
    if not killed:
        failed.unlink()
    report = explain_file(demo_model, source, out, **asked)
    assert (report.explained, report.failed, report.complete) == (5, 0, True)
    assert files(out) == files(tmp_path / "whole"), "as if nothing had ever failed"
    assert load_run(out).equals(load_run(tmp_path / "whole"))


@pytest.mark.one_lens
def test_records_that_no_window_has_are_refused(demo_model: Any, tmp_path: Path) -> None:
    explain_file(demo_model, written(tmp_path, FEW[:3]), tmp_path / "run", ["random"], rows_per_shard=2)
    (shard,) = (tmp_path / "run").glob("shard-*.jsonl")
    last = json.loads(shard.read_text().splitlines()[1])
    for change, said in (
        ({"rows": 2, "explained": 2}, "rows: 2, and this window has 1"),
        ({"seconds": float("nan")}, "expected numbers of rows"),
        ({"again": "yes"}, "again: not a whole number"),
    ):
        shard.write_text(json.dumps(last | change) + "\n")
        with pytest.raises(ValueError, match=rf"line 1: not a record of this run \({said}"):
            run_report(tmp_path / "run")
    shard.write_text('{"index": 0, "error": "no room"}\n')
    with pytest.raises(ValueError, match=r"line 1: not a record of this run \('rows'\)"):
        run_report(tmp_path / "run")


@pytest.mark.one_lens
def test_a_source_may_grow_but_not_change_while_it_is_read(
    demo_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(to: list[dict[str, Any]]) -> None:
        def surveyed(*given: Any) -> Any:
            found = survey(*given)
            written(tmp_path, to)
            return found

        source = written(tmp_path, FEW[:3])
        monkeypatch.setattr(runs, "survey", surveyed)
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        assert explain_file(demo_model, source, out, ["random"], rows_per_shard=2).complete
        assert load_run(out).row.max() == 2

    changed(FEW[:5])
    for other in (FEW[:2], FEW[:1], [*FEW[:2], FEW[3]], [*FEW[:2], {"prompt": ""}]):
        with pytest.raises(ValueError, match=rf"explain_file\(source=.*row {min(len(other), 2)} is not what it was"):
            changed(other)


def stopped(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.one_lens
def test_another_call_on_the_folder_is_refused_with_what_differs(demo_model: Any, tmp_path: Path) -> None:
    source, out = written(tmp_path, FEW[:2]), tmp_path / "run"
    explain_file(demo_model, source, out, ["random"])
    written(tmp_path, FEW[:2])
    assert explain_file(demo_model, source, out, ["random"], batch_size=1, columns={"answer": None}).complete
    for change, said in (
        ({"methods": ["random", "semantic"]}, r"methods\.semantic was null, now \"semantic\""),
        ({"unit": "word"}, r"unit was \"token\", now \"word\""),
        ({"rows_per_shard": 7}, r"rows_per_shard was 128, now 7"),
        ({"prepend_bos": False}, r"prepend_bos was null, now false"),
    ):
        with pytest.raises(ValueError, match=rf"explain_file\(out=.*other settings: {said}"):
            explain_file(demo_model, source, out, **{"methods": ["random"], **change})
    with pytest.raises(ValueError, match=r"other settings: prompts\.n was 2, now 3"):
        explain_file(demo_model, written(tmp_path, FEW[:3]), out, ["random"])
    with pytest.raises(ValueError, match="is not a run's settings"):
        tls.aopc(demo_model, ["Anna lives in Rome"], ["random"], out=out)


def test_scores_are_joined_by_unit_and_by_a_row_s_own_units(demo_model: Any, tmp_path: Path) -> None:
    text = "German: der Hund sieht die Katze. English: the"
    rows = [{"prompt": text, "target": " dog"}, {"prompt": text, "target": " dog", "units": [["source", "der Hund"]]}]
    explain_file(demo_model, written(tmp_path, rows), tmp_path / "run", ["semantic"], unit="sentence")
    frame = load_run(tmp_path / "run")
    attr = tls.semantic_scope(demo_model, text, target=" dog")
    for i, units in enumerate(("sentence", [("source", "der Hund")])):
        own, found = attr.by_unit(units), scores_of(frame, i, "semantic")
        assert found.text.tolist() == own.str_tokens
        assert found.score.to_numpy() == pytest.approx(own.scores.numpy(), rel=1e-4)
    assert found.name.tolist() == own.details["names"] or found.name.isna().any()
    assert found.name[found.text == "source"].tolist() == ["source"]


def test_chats_are_rows_too_and_their_turns_have_names(demo_model: Any, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    messages = [{"role": "user", "content": "the dog sees"}, {"role": "assistant", "content": "the cat"}]
    source = written(tmp_path, [{"messages": messages}, {"prompt": "the dog"}])
    options = {"chat_options": {"chat_template": template}, "unit": "turn"}
    report = explain_file(demo_model, source, tmp_path / "run", ["semantic"], **options)
    assert (report.explained, report.failed) == (1, 1)
    found = load_run(tmp_path / "run")
    assert {"user", "assistant", "template"} <= set(found.name.dropna())
    assert "turns of this prompt are not known" in load_run(tmp_path / "run", "failed").reason.item()


@pytest.mark.one_lens
def test_every_file_says_what_it_is_of(demo_model: Any, tmp_path: Path) -> None:
    explain_file(demo_model, written(tmp_path, FEW[:1]), tmp_path / "run", ["random"])
    said = json.loads(pq.read_schema(tmp_path / "run" / "scores" / "part-0000000.parquet").metadata[b"tl_scopes"])
    assert said == json.loads((tmp_path / "run" / "settings.json").read_text())
    assert said["model"]["weights"]
    assert {"torch", "transformer_lens", "transformers", "pyarrow"} <= set(said["versions"])


@pytest.mark.one_lens
def test_a_run_of_an_earlier_version_is_read_and_not_continued(demo_model: Any, tmp_path: Path) -> None:
    source = written(tmp_path, FEW[:1])
    explain_file(demo_model, source, tmp_path / "run", ["random"])
    before, settings = load_run(tmp_path / "run"), tmp_path / "run" / "settings.json"
    now = f'"tl_scopes": "{tls.__version__}"'
    assert now in settings.read_text(encoding="utf-8")
    settings.write_text(settings.read_text(encoding="utf-8").replace(now, '"tl_scopes": "0.1.0"'), encoding="utf-8")
    pd.testing.assert_frame_equal(load_run(tmp_path / "run"), before)
    assert "tl_scopes 0.1.0" in run_report(tmp_path / "run").html()
    with pytest.raises(ValueError, match=rf'model\.tl_scopes was "0\.1\.0", now "{re.escape(tls.__version__)}"'):
        explain_file(demo_model, source, tmp_path / "run", ["random"])


@pytest.mark.one_lens
def test_standard_input_stays_in_the_folder_and_the_run_goes_on_from_it(
    demo_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = written(tmp_path, FEW[:2]).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert explain_file(demo_model, "-", tmp_path / "run", ["random"]).complete
    assert (tmp_path / "run" / "stdin.jsonl").read_bytes() == lines
    assert explain_file(demo_model, tmp_path / "run" / "stdin.jsonl", tmp_path / "run", ["random"]).complete
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "other"}')))
    with pytest.raises(ValueError, match="other settings"):
        explain_file(demo_model, "-", tmp_path / "run", ["random"])
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if "stdin" in p.name) == ["stdin.jsonl"]
    assert (tmp_path / "run" / "stdin.jsonl").read_bytes() == lines
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"explain_file\(source='-'\): one process reads standard input"):
        explain_file(demo_model, "-", tmp_path / "run", ["random"])


@pytest.mark.one_lens
def test_the_report_is_its_definition(demo_model: Any, tmp_path: Path) -> None:
    explain_file(demo_model, written(tmp_path, FEW), tmp_path / "run", ["semantic", "random"], rows_per_shard=5)
    report, frame = run_report(tmp_path / "run"), load_run(tmp_path / "run")
    for own in report.methods:
        rows = frame[(frame.method == own.method) & ~frame.special]
        share = [g.score.astype(float) / g.score.sum() for _, g in rows.groupby("row")]
        best = [g.text.to_numpy()[s.to_numpy().argmax()] for (_, g), s in zip(rows.groupby("row"), share, strict=True)]
        assert own.top_share == pytest.approx(sum(s.max() for s in share) / len(share), rel=1e-5)
        assert own.units == len(rows)
        fine = [
            np.repeat(s.to_numpy() / 10, 10).reshape(10, len(s)).sum(axis=1) for s in share
        ]  # n pieces in each tenth
        np.testing.assert_allclose(own.by_position, np.mean(fine, axis=0), rtol=1e-5, atol=1e-9)
        assert sum(own.by_position) == pytest.approx(1)
        assert {s.text: s.times for s in own.strongest}.items() <= pd.Series(best).value_counts().to_dict().items()
        assert own.strongest[0].times == pd.Series(best).value_counts().iloc[0]
    back = tls.RunReport.load(report.save(tmp_path / "report.json"))
    assert back == report
    assert "semantic" in report.html()


@pytest.mark.one_lens
def test_where_nobody_looks_the_pace_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    clock = iter([0.0, 10.0, 61.0, 70.0, 90.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(LOGGER, "level", 20)
    with caplog.at_level("INFO", LOGGER.name), Pace(1000, 100, Share(1, 2)) as pace:
        for _ in range(3):
            pace.step(100)
        pace.step(600)
    assert [record.getMessage() for record in caplog.records] == [
        "run 1/2: 300 of 1,000 rows (30%), 3.28 rows/s, 3.6 min left",
        "run 1/2: 1,000 of 1,000 rows (100%), 10 rows/s",
    ]


@pytest.mark.slow
@pytest.mark.one_lens
@pytest.mark.timeout(1200)
def test_two_real_processes_killed_once_make_the_files_of_one(demo_model: Any, tmp_path: Path) -> None:
    """By ``accelerate launch`` as the documentation writes it; more prompts and kills are ``benchmarks/killed_run.py``."""
    source = written(tmp_path, FEW * 3 + [{"prompt": ""}, {"prompt": "Tom"}])
    one, two = tmp_path / "one", tmp_path / "two"
    explain_file(demo_model, source, one, ["semantic", "random"], rows_per_shard=4)
    asked = [
        "-m",
        "tl_scopes",
        "run",
        str(source),
        "--rows-per-shard",
        "4",
        "--method",
        "semantic",
        "--method",
        "random",
    ]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    shared = [sys.executable, *launch, *asked, "--out", str(two)]
    process = subprocess.Popen(shared, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(two.glob("shard-*.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) == 3, "the launcher and two processes"
    for member in family:
        member.kill()
    process.wait()
    psutil.wait_procs(family)
    assert not run_report(two).complete
    done = subprocess.run(shared, env=env, check=True, capture_output=True, text=True)
    assert len(list(two.glob("shard-*.jsonl"))) == 2
    assert files(two) == files(one)
    assert "38 rows: 13 explained, 1 failed, 24 asked before" in done.stdout, "the last process prints the report"


@pytest.mark.one_lens
def test_answers_of_several_tokens_are_explained_by_words(demo_model: Any, tmp_path: Path) -> None:
    text = "German: der Hund sieht die Katze. English: the"
    source = tmp_path / "answers.jsonl"
    source.write_text("\n".join(json.dumps({"prompt": text, "target": t}) for t in (" dog", " dog sees")))
    methods = ["semantic", "input_x_gradient", "integrated_gradients"]
    found = explain_file(demo_model, source, tmp_path / "run", methods, unit="word")
    assert (found.explained, found.failed) == (2, 0)


@pytest.mark.one_lens
def test_reasons_are_cut_at_words_and_blank_tokens_can_be_seen(demo_model: Any, tmp_path: Path) -> None:
    source = tmp_path / "bad.jsonl"
    chat = [{"role": "user", "content": "the dog"}]
    source.write_text("\n".join(map(json.dumps, ({"messages": chat}, {"prompt": "the dog"}))))
    found = explain_file(demo_model, source, tmp_path / "run", ["random"])
    (reason,) = found.reasons
    assert len(reason) <= 100 and reason.endswith(" …")
    assert "tls-long" in found.html()
    blank = replace(found.methods[0], strongest=(replace(found.methods[0].strongest[0], text="  "),))
    assert "␣␣" in replace(found, methods=(blank,)).html()
