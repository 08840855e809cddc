"""Invariant: ``gold`` prints and writes the library's table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import every_result
import pytest

import tl_scopes as tls
from tl_scopes.tasks import TASKS

LOAD_MODEL = tls.load_model
ARGUMENTS = ["gold", "--corpus", "translation", "-n", "6", "--method", "semantic"]


def test_it_prints_the_table_and_writes_what_was_asked_for(
    answer: Callable[..., str], demo_model: Any, tmp_path: Path
) -> None:
    out = answer(*ARGUMENTS, "--plot", str(tmp_path / "g.png"), "--csv", str(tmp_path / "g.csv"))
    wanted = tls.gold_alignment(demo_model, ["semantic"], corpora=["translation"], n=6)
    assert out == f"{wanted}\n"
    assert (tmp_path / "g.csv").read_text(encoding="utf-8") == wanted.to_frame().to_csv(index=False)
    assert (tmp_path / "g.png").stat().st_size > 5000


def test_frozen_gradients_are_called_so(answer: Callable[..., str]) -> None:
    assert "semantic/all" in answer(*ARGUMENTS, "--frozen", "all")


def test_the_table_on_standard_output_is_alone_there(answer: Callable[..., str]) -> None:
    out = answer(*ARGUMENTS, "--csv", "-")
    assert out.startswith("corpus,method,n,")
    assert len(out.splitlines()) == 3


def test_the_second_model_answers_its_chains(answer: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "load_model", LOAD_MODEL)
    out = answer("gold", "--model", "demo-llama", "--corpus", "chain_2", "-n", "6", "--method", "random", "--csv", "-")
    assert out.splitlines()[1].startswith("chain_2,random,6,")


def test_an_unknown_method_is_refused_before_a_model_is_loaded(refused: Callable[..., str]) -> None:
    assert "unknown method 'magic'; expected semantic, fisher" in refused("gold", "--method", "magic")


def test_an_unknown_corpus_is_one_line(refused: Callable[..., str]) -> None:
    assert "unknown corpus 'magic'; expected translation" in refused("gold", "--corpus", "magic")


# -- tasks -----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the library is asked for, which answers with the sample of a result."""
    given: list[dict[str, Any]] = []

    def gold_alignment(model: Any, methods: Any = ("semantic",), **options: Any) -> tls.GoldAlignment:
        given.append({"methods": methods, **options})
        left = 3 if options.get("seed") == 9 else 0
        return replace(every_result.gold(), left=left)

    monkeypatch.setattr(tls, "gold_alignment", gold_alignment)
    return given


def test_tasks_are_passed_on_and_what_they_may_cost_is_said_before(
    run: Callable[..., tuple[int, str, str]], asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    given = ["gold", "--task", "copying", "--task", "hint", "--out", str(tmp_path / "run"), "--batch-size", "7"]
    code, out, err = run(*given)
    assert (code, out) == (0, f"{every_result.gold()}\n")
    assert (
        err
        == "At most 500 prompts of each of 2 tasks are tried, until 100 are accepted; these are scored by 1 method.\n"
    )
    wanted = {"methods": ("semantic",), "tasks": ["copying", "hint"], "out": tmp_path / "run", "n": 100, "seed": 0}
    assert asked == [{**wanted, "batch_size": 7, "frozen": (), "shard": None}]


def test_all_is_every_task_and_without_one_it_is_the_corpora(
    answer: Callable[..., str], asked: list[dict[str, Any]]
) -> None:
    answer("gold", "--task", "all", "-n", "40")
    answer("gold")
    assert (asked[0]["tasks"], asked[0]["n"]) == (list(TASKS), 40)
    assert (asked[1]["corpora"], asked[1]["n"]) == (None, 200)
    assert "tasks" not in asked[1]


def test_the_last_process_prints(answer: Callable[..., str], asked: list[dict[str, Any]]) -> None:
    assert answer("gold", "--task", "hint", "--seed", "9") == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--task", "poems"], "unknown task 'poems'; expected copying, retrieval"),
        (["--task", "hint", "--task", "hint"], "task 'hint' is given twice"),
        (["--task", "all", "--task", "hint"], "unknown task 'all'"),
        (["--task", "hint", "--corpus", "bias"], "--corpus is of the demo, --task of any model; give one of them"),
        (["--task", "hint", "-n", "29"], "fewer than 30 accepted prompts give no figure"),
        (["--out", "folder"], "--out is for runs of --task"),
        (["--task", "hint", "--out", __file__], "is a file; give a folder"),
    ],
)
def test_mistakes_about_tasks_are_one_line_before_a_model_is_loaded(
    arguments: list[str], reason: str, refused: Callable[..., str]
) -> None:
    assert reason in refused("gold", *arguments)


def test_several_processes_need_a_folder(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "give --out FOLDER" in refused("gold", "--task", "hint")


def test_a_run_that_others_are_to_end_says_so(run: Callable[..., tuple[int, str, str]], asked: list[Any]) -> None:
    code, out, err = run("gold", "--task", "hint", "--seed", "9")
    assert (code, out) == (0, "")
    assert "Not complete: 3 accepted prompts are left to other processes" in err
