"""Invariant: ``spectrum`` prints the library's shares and writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tl_scopes as tls
from tl_scopes.demo import CORPORA

PROMPT = "German: der Hund sieht die Katze. English: the"


def test_it_prints_shares_and_draws_them(answer: Callable[..., str], demo_model: Any, tmp_path: Path) -> None:
    out = answer("spectrum", PROMPT, "-k", "4", "--plot", str(tmp_path / "s.png"), "--csv", str(tmp_path / "s.csv"))
    wanted = tls.fisher_spectrum(demo_model, [PROMPT], k=4)
    assert out == f"{wanted}\n"
    assert (tmp_path / "s.csv").read_text(encoding="utf-8") == wanted.to_frame().to_csv(index=False)
    assert (tmp_path / "s.png").stat().st_size > 10_000


def test_without_a_prompt_it_takes_some_of_every_corpus(answer: Callable[..., str]) -> None:
    assert f"{len(CORPORA)} prompts" in answer("spectrum", "-n", "1", "-k", "2")


def test_no_prompts_at_all_are_refused(refused: Callable[..., str]) -> None:
    assert "greater than or equal to 1" in refused("spectrum", "-n", "0").replace("x>=1", "greater than or equal to 1")
