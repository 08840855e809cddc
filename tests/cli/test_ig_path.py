"""Invariant: ``ig-path`` prints the path, writes the library's page and table, and a mistake is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def test_it_prints_the_path_and_writes_the_page(answer: Callable[..., str], tmp_path: Path) -> None:
    out = answer("ig-path", "--html", str(tmp_path / "p.html"), "--csv", str(tmp_path / "p.csv"), "--points", "11")
    assert "' dog'" in out
    assert "residual" in out
    assert [line.split()[0] for line in out.splitlines()[2:-1]] == [f"{i / 10:.3f}" for i in range(11)]
    assert 'type="range"' in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert len((tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()) == 12


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--points", "1"], "--points"), (["--model", "gpt2"], "give a PROMPT with --model")],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("ig-path", *arguments)


def test_a_target_of_two_tokens_is_one_line(refused: Callable[..., str]) -> None:
    assert "a target is one token" in refused("ig-path", "--target", "doggish", loads=True)
