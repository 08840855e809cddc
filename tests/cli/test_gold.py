"""Invariant: ``gold`` prints and writes the library's table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls

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
