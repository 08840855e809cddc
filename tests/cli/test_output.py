"""Invariant: a stream of any encoding takes all that a command says; data on it stay data."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

import pytest

from tl_scopes.cli import output

pytestmark = pytest.mark.one_lens
TEXT = "a → b █▏ ± ² ‖y‖ … ü 😀 \udcff"


class Result:
    """A result whose table and JSON hold every kind of character."""

    def to_dict(self) -> Any:
        return {"text": TEXT}

    def to_frame(self) -> Any:
        import pandas as pd

        return pd.DataFrame({"text": [TEXT[:-1]]})  # pandas takes no lone surrogate

    def __str__(self) -> str:
        return TEXT


def written(monkeypatch: pytest.MonkeyPatch, encoding: str, errors: str, files: output.Files) -> str:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline=""))
    output.any_terminal()
    files.answer(Result())
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape", "backslashreplace"])
def test_marks_become_ascii_and_other_characters_escapes(errors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = written(monkeypatch, "ascii", errors, output.Files())
    assert said == "a -> b #| +- ^2 ||y|| ... \\u00fc \\ud83d\\ude00 \\udcff\n"


def test_what_the_encoding_has_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, "cp1252", "strict", output.Files()).startswith("a -> b #| ± ² ||y|| … ü ")
    assert written(monkeypatch, "utf-8", "strict", output.Files()).startswith(TEXT[:-1])


def test_a_way_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, "ascii", "replace", output.Files()).startswith("a ? b ??")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_data_on_standard_output_stay_data(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = written(monkeypatch, encoding, "strict", output.Files(json=output.STDOUT))
    assert json.loads(said) == Result().to_dict()
    (_, row) = csv.reader(written(monkeypatch, encoding, "strict", output.Files(csv=output.STDOUT)).splitlines())
    assert json.loads(f'"{row[0]}"') == TEXT[:-1]
