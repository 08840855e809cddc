"""Passages have the paper's filters and format, whatever they are read from, and a wrong source is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tl_scopes.demo.corpora import CORPORA
from tl_scopes.evaluation.passages import load_passages, translation_passage

LONG = " ".join(["word"] * 49) + ' end?!"'
PAIR = {"de": "Das ist der Satz.", "en": " ".join(["word"] * 19) + " end."}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_local_format_gives_the_same_passages(tmp_path: Path) -> None:
    texts = ["A short one.", 'Another, "quoted" one!']
    expected = ["A short one", 'Another, "quoted" one']
    assert load_passages(write(tmp_path / "a.txt", "\n".join(texts) + "\n\n")) == expected
    assert load_passages(write(tmp_path / "a.json", json.dumps(texts))) == expected
    lines = "\n".join(json.dumps({"text": t}) for t in texts)
    assert load_passages(write(tmp_path / "a.jsonl", lines)) == expected
    rows = "id,text\n" + "\n".join('{},"{}"'.format(i, t.replace('"', '""')) for i, t in enumerate(texts))
    assert load_passages(write(tmp_path / "a.csv", rows)) == expected
    marks = ["One\u2028two three.", "A\x85b \x0b c \x1c d.", '"In\nlines."']
    cells = "\n".join('"{}"'.format(t.replace('"', '""')) if "\n" in t else t for t in ["text", *marks])
    kept = load_passages(write(tmp_path / "b.csv", cells))
    assert kept == load_passages(write(tmp_path / "b.json", json.dumps(marks))) and len(kept) == 3


def test_prompts_with_answers_are_pairs_as_they_are(tmp_path: Path) -> None:
    lines = [{"prompt": "The dog", "answer": " sat down."}, {"prompt": "A", "answer": " b"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert load_passages(path) == [("The dog", " sat down."), ("A", " b")]
    assert load_passages(path, min_words=4) == [("The dog", " sat down.")]
    both = write(tmp_path / "b.json", json.dumps([{"text": "The cat", "prompt": "p", "answer": "a"}]))
    assert load_passages(both) == ["The cat"], "a text is a text whatever stands beside it"


def test_pairs_get_the_papers_format(tmp_path: Path) -> None:
    expected = "German: Das ist der Satz. English: " + " ".join(["word"] * 19) + " end"
    for record in (PAIR, {"translation": PAIR}):
        path = write(tmp_path / "a.jsonl", json.dumps(record))
        assert load_passages(path) == [expected]
        assert load_passages(path, min_words=20) == [expected]
        with pytest.raises(ValueError, match="no passage of at least 21 words"):
            load_passages(path, min_words=21)
    assert translation_passage("Wie geht's?", "How are you?") == "German: Wie geht's?. English: How are you"


LAMBADA = {"text": ["too short .", LONG], "domain": ["", ""]}
"""Columns of cimec/lambada: the test part's domain is empty."""
IWSLT = {"translation": [{"de": "Kurz.", "en": "Too short."}, PAIR]}
"""Columns of IWSLT/iwslt2017, configuration iwslt2017-de-en."""


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("lambada", LAMBADA, LONG.rstrip('?!"')),
        ("iwslt2017-de-en", IWSLT, translation_passage(PAIR["de"], PAIR["en"])),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_papers_data_sets_are_read_as_parquet_and_filtered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, columns: Any, expected: str, streamed: bool
) -> None:
    """The real ``load_dataset`` reads parquet files of the published schema, here local ones instead of the Hub's."""
    import datasets

    if name == "lambada":
        features = datasets.Features(text=datasets.Value("string"), domain=datasets.Value("string"))
    else:
        features = datasets.Features(translation=datasets.Translation(languages=["de", "en"]))
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "0000.parquet")
    asked: list[Any] = []
    real = datasets.load_dataset

    def local(kind: str, *, data_files: dict[str, str], split: str) -> Any:
        asked.append((kind, data_files, split))
        return real(
            kind,
            data_files={"test": str(tmp_path / "*.parquet")},
            split=split,
            cache_dir=str(tmp_path),
            streaming=streamed,
        )

    monkeypatch.setattr(datasets, "load_dataset", local)
    assert load_passages(name) == [expected]
    ((kind, files, split),) = asked
    assert (kind, split) == ("parquet", "test"), "loading scripts no longer run"
    assert files["test"].startswith("hf://datasets/")
    assert expected[-1].isalnum()
    with pytest.raises(ValueError, match="no passage of at least 51 words"):
        load_passages(name, min_words=51)


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"load_passages\('lambada'\): could not read hf://.*offline"):
        load_passages("lambada")


def test_without_datasets_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        load_passages("lambada")


def test_demo_passages_are_spread_over_the_corpora_and_end_with_one_answer(demo_model: Any) -> None:
    found = load_passages("demo", 8)
    assert len(found) == 8
    assert found[: len(CORPORA)] == load_passages("demo", len(CORPORA))
    assert load_passages("demo:series", 2)[0][0].isdigit()
    assert load_passages("demo", 8, seed=1) != found


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("nothing.txt", None, "no such file, nor one of 'demo'"),
        ("a.xml", "x", "expected .txt, .json, .jsonl or .csv"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", '{"text": "x"}', "expected a JSON list"),
        ("a.json", "[1]", "a record is a text"),
        ("a.txt", "...\n", "no passage of at least 0 words"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str, text: str | None, match: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=match):
        load_passages(path)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="the demo corpora are"):
        load_passages("demo:poems")
    with pytest.raises(ValueError, match="positive integer"):
        load_passages("demo", 0)
