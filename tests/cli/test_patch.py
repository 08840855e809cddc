"""Invariant: ``patch`` prints and writes what the library recovers by patching the scope that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls
from tl_scopes.demo import DEMO_PROMPTS

PROMPT = "German: der Hund sieht die Katze. English: the"
CORRUPT = PROMPT.replace("Katze", "Kuh")
QUICK = ["-k", "2", "--layer", "0", "--layer", "2", "--n-random", "2"]


def test_it_prints_the_recovery_and_writes_what_was_asked_for(
    answer: Callable[..., str], demo_model: Any, tmp_path: Path
) -> None:
    names = {"html": "--html", "png": "--plot", "csv": "--csv", "json": "--json"}
    files = {name: tmp_path / f"p.{name}" for name in names}
    given = [word for name, option in names.items() for word in (option, str(files[name]))]
    asked = ["--method", "contrast", "--target", " cat", "--foil", " cow", "--component", "attn_out", "--seed", "1"]
    out = answer("patch", f"{PROMPT} dog sees the", f"{CORRUPT} dog sees the", *asked, *QUICK, *given)
    found = tls.contrast_scope(demo_model, f"{PROMPT} dog sees the", target=" cat", foil=" cow")
    prompts = (f"{PROMPT} dog sees the", f"{CORRUPT} dog sees the")
    wanted = tls.patch_top(demo_model, *prompts, found, k=2, layers=[0, 2], n_random=2, component="attn_out", seed=1)
    assert out == f"{wanted}\n"
    assert files["csv"].read_text(encoding="utf-8") == wanted.to_frame().to_csv(index=False)
    assert files["html"].read_text(encoding="utf-8") == wanted.html()
    assert files["png"].stat().st_size > 5000
    assert json.loads(files["json"].read_text(encoding="utf-8")) == json.loads(json.dumps(wanted.to_dict()))


def test_without_prompts_the_demo_and_its_counterpart(answer: Callable[..., str], demo_model: Any) -> None:
    shown = DEMO_PROMPTS["translation"]
    found = tls.semantic_scope(demo_model, shown.prompt, target=shown.target)
    corrupt = shown.prompt.replace("Hund", "Vogel")
    wanted = tls.patch_top(demo_model, shown.prompt, corrupt, found, k=2, layers=[0, 2], n_random=2)
    assert answer("patch", *QUICK) == f"{wanted}\n"


def test_prompts_of_different_lengths_are_one_line(refused: Callable[..., str]) -> None:
    assert "positions must correspond" in refused("patch", PROMPT, "German: der Hund", *QUICK, loads=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([PROMPT], "give two prompts of as many tokens"),
        ([PROMPT, CORRUPT, "--component", "magic"], "--component"),
        ([PROMPT, CORRUPT, "--method", "magic"], "unknown method 'magic'"),
        (["--model", "/no/such/folder"], "give a PROMPT with --model"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("patch", *arguments)
