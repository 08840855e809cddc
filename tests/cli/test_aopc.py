"""Invariant: ``aopc`` prints the library's table, continues a stopped run, and a mistake is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tl_scopes.evaluation.aopc import load_aopc


def test_it_prints_the_table_and_continues_the_same_run(answer: Callable[..., str], tmp_path: Path) -> None:
    arguments = ["aopc", "demo:translation", "-n", "3", "--method", "semantic", "--method", "random", "--rank", "2"]
    arguments += ["--out", str(tmp_path / "run")]
    files = ["--csv", str(tmp_path / "t.csv"), "--plot", str(tmp_path / "t.svg"), "--html", str(tmp_path / "t.html")]
    first = answer(*arguments, *files, "--rank-plot", str(tmp_path / "r.svg"))
    for text in ("semantic", "random", "fisher@2", "3 prompts"):
        assert text in first
    assert answer(*arguments) == first
    table = load_aopc(tmp_path / "run")
    assert first == f"{table}\n"
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == table.to_frame().to_csv(index=False)
    assert (tmp_path / "t.html").read_text(encoding="utf-8") == table.html()
    for name in ("t.svg", "r.svg"):
        assert (tmp_path / name).stat().st_size > 1000


def test_several_models_have_a_folder_each(answer: Callable[..., str], tmp_path: Path) -> None:
    out = answer("aopc", "-n", "6", "--model", "a/b", "--model", "demo", "--method", "random", "--out", str(tmp_path))
    assert "a/b" in out
    assert {p.name for p in tmp_path.iterdir()} == {"a--b", "demo"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no-such-data"], "no such file"),
        (["--method", "magic"], "unknown method 'magic'; expected semantic, fisher"),
        (["--rank-plot", "/no/such/folder/x.png", "--rank", "2"], "there is no folder"),
        (["--rank-plot", "x.png"], "give --rank"),
        (["--model", "demo", "--model", "gpt2", "--csv", "x.csv"], "take one --model"),
        (["--model", "paper", "--plot", "x.png"], "take one --model"),
        (["--method", "fisher@0"], "unknown method 'fisher@0'"),
        (["--method", "random@2"], "unknown method 'random@2'"),
        (["--method", "random", "--method", "random"], "given twice"),
        (["--rank", "2", "--rank", "2"], "is given twice"),
        (["--fraction", "0.5"], "expected at least two increasing numbers"),
        (["--fraction", "0.1", "--fraction", "nan"], "expected at least two increasing numbers"),
        (["--preset", "paper", "--ablation", "mean"], "contradicts"),
        (["--min-words", "-1"], "--min-words"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("aopc", *arguments)


def test_a_run_that_measured_nothing_is_a_mistake_with_the_reasons(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "passages.txt"
    file.write_text("the dog " * 300, encoding="utf-8")
    said = refused("aopc", str(file), "--method", "random", "--json", str(tmp_path / "t.json"), loads=True)
    assert "the one prompt was not measured" in said
    assert "more than the model's context" in said
    assert not (tmp_path / "t.json").exists()
    both = refused("aopc", str(file), "--method", "random", "--model", "a", "--model", "b", loads=True)
    assert "a: AOPC: the one prompt was not measured: prompt 0: " in both
    assert "; b: AOPC: the one prompt was not measured" in both


def test_several_processes_need_a_folder(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "give --out FOLDER" in refused("aopc")


def test_frozen_gradients_are_called_so_and_their_ranks_drawn(answer: Callable[..., str], tmp_path: Path) -> None:
    picture = tmp_path / "rank.png"
    asked = ["--method", "fisher", "--rank", "2", "--method", "random", "--frozen", "all", "--rank-plot", str(picture)]
    out = answer("aopc", "demo:binding", "-n", "2", *asked)
    assert {"fisher/all", "fisher@2/all", "random"} <= set(out.split())
    assert picture.stat().st_size > 5000
