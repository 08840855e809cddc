"""Invariant: ``check`` prints the library's report, and its exit code says whether all is in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import tl_scopes as tls


def test_it_prints_the_report(answer: Callable[..., str], demo_model: Any) -> None:
    assert answer("check", "--seed", "3") == f"{tls.check_model(demo_model, seed=3)}\n"


def test_a_finding_that_is_not_in_order_is_exit_code_1(
    run: Callable[..., tuple[int, str, str]], demo_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tls.check_model(demo_model)
    bad = replace(report, findings=(replace(report.findings[0], ok=False), *report.findings[1:]))
    monkeypatch.setattr(tls, "check_model", lambda model, seed: bad)
    code, out, err = run("check")
    assert (code, out, err) == (1, f"{bad}\n", "")
