"""Invariant: ``verify`` prints and writes what the library measures of the scope that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS

PROMPT = "German: der Hund sieht die Katze. English: the"


@pytest.mark.slow
@pytest.mark.one_lens
def test_it_prints_the_table_and_writes_what_was_asked_for(
    answer: Callable[..., str], demo_model: Any, tmp_path: Path
) -> None:
    files = {name: str(tmp_path / f"v.{name}") for name in ("html", "png", "csv")}
    arguments = ["--html", files["html"], "--plot", files["png"], "--csv", files["csv"]]
    out = answer("verify", PROMPT, "--target", " dog", "--top", "3", "--step", "0.01", *arguments)
    found = tls.semantic_scope(demo_model, PROMPT, target=" dog")
    wanted = tls.verify(demo_model, found, top=3, step=0.01)
    assert out == f"{wanted}\n"
    assert Path(files["csv"]).read_text(encoding="utf-8") == wanted.to_frame().to_csv(index=False)
    assert Path(files["html"]).read_text(encoding="utf-8") == wanted.html()
    assert Path(files["png"]).stat().st_size > 5000


def test_the_demo_with_another_method(answer: Callable[..., str], demo_model: Any) -> None:
    found = tls.fisher_scope(demo_model, DEMO_PROMPTS[DEFAULT_PROMPT].prompt, rank=2)
    wanted = tls.verify(demo_model, found, ablation="resample", seed=1)
    assert (
        answer("verify", "--method", "fisher", "--rank", "2", "--ablation", "resample", "--seed", "1") == f"{wanted}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--method", "magic"], "unknown method 'magic'"),
        (["--top", "0"], "--top"),
        (["--ablation", "magic"], "--ablation"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("verify", PROMPT, *arguments)
