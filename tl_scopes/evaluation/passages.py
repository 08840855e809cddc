"""Passages to measure faithfulness on: the paper's two data sets, the demo corpora, or a local file.

=========================  ================================================================================
``"demo"``                 held-out passages of the six demo corpora, offline; ``"demo:translation"`` of one
``"lambada"``              LAMBADA test passages of at least 50 words, trailing punctuation removed
``"iwslt2017-de-en"``      ``German: [source]. English: [translation]`` of at least 20 English words, the same
a path                     ``.txt`` (a passage per line), ``.json``, ``.jsonl``, ``.csv``
=========================  ================================================================================

The last token of a passage is what is predicted. The two data sets are read with Hugging Face ``datasets`` (an optional
dependency) from the Hub's parquet conversions, since their loading scripts no longer run. In a local file a record is a
text, or has ``text``, or ``de`` and ``en`` (by themselves or under ``translation``), which get the format above, or
``prompt`` and ``answer``, which stay as they are: there the answer is what is predicted.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from tl_scopes.numerics.arguments import Seed, integer, public_call

PARQUET = {
    "lambada": "hf://datasets/cimec/lambada@refs/convert/parquet/plain_text/test/*.parquet",
    "iwslt2017-de-en": "hf://datasets/IWSLT/iwslt2017@refs/convert/parquet/iwslt2017-de-en/test/*.parquet",
}
"""Where the paper's data sets lie as parquet."""
FEWEST_WORDS = {"lambada": 50, "iwslt2017-de-en": 20}
"""The paper's filters: words of the passage, and of the English translation."""
PAPER_MODELS = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B",
    "Qwen/Qwen2.5-1.5B",
    "Qwen/Qwen2.5-3B",
    "google/gemma-3-1b-pt",
    "google/gemma-3-4b-pt",
)
"""The six models of the paper's Table 1."""


@public_call
def load_passages(
    source: str | Path, n: int = 1000, *, min_words: int | None = None, seed: Seed = 0
) -> list[str | tuple[str, str]]:
    """Passages whose last token is to be predicted, or prompts with their answers.

    Args:
        source: ``"demo"``, ``"demo:<corpus>"``, ``"lambada"``, ``"iwslt2017-de-en"``, or a path; see the top of this
            module.
        n: at most so many, from the beginning of the file or data set; of the demo, spread evenly over the corpora.
        min_words: fewest words of a passage (of the English side of a pair); None is the paper's filter for its data
            sets and 0 for everything else.
        seed: of the demo's passages.

    Returns:
        A list of strings without trailing white space and, but for the demo, without trailing punctuation; pairs
        ``(prompt, answer)`` from records with both, as they are.

    Raises:
        ValueError: an unknown source or corpus, a file that cannot be read, nothing left after the filter, ``datasets``
            not installed or the Hub not reachable.

    Cost: reads the file; the two data sets are downloaded once (a few MB).

    >>> len(load_passages("demo:translation", 3))
    3

    Reference: paper section A.1.
    """
    integer("n", n, least=1)
    if min_words is not None:
        integer("min_words", min_words, least=0)
    name = str(source)
    if name == "demo" or name.startswith("demo:"):
        return _demo(name.partition(":")[2], n, seed)
    fewest = FEWEST_WORDS.get(name, 0) if min_words is None else min_words
    records = _downloaded(name) if name in PARQUET else _local(Path(source))
    found = list(islice((text for r in records if (text := _passage(r, fewest))), n))
    if not found:
        raise ValueError(f"({name!r}): no passage of at least {fewest} words")
    return found


def without_trailing_punctuation(text: str) -> str:
    """The text up to the last letter, digit or combining mark."""
    end = len(text)
    while end and not text[end - 1].isalnum():
        end -= 1
    return text[:end]


def translation_passage(german: str, english: str) -> str:
    """The paper's format; a full stop that the source has already is not doubled."""
    return f"German: {german.strip().removesuffix('.')}. English: {without_trailing_punctuation(english.strip())}"


def _passage(record: Any, fewest: int) -> str | tuple[str, str] | None:
    """One record as a passage, or a prompt and its answer; None where it is too short."""
    if isinstance(record, dict):
        prompt, answer = record.get("prompt"), record.get("answer")
        if record.get("text") is None and isinstance(prompt, str) and isinstance(answer, str):
            return (prompt, answer) if prompt and answer and len((prompt + answer).split()) >= fewest else None
        pair = record.get("translation", record)
        if isinstance(pair, dict) and "de" in pair and "en" in pair:
            long_enough = len(str(pair["en"]).split()) >= fewest
            return translation_passage(str(pair["de"]), str(pair["en"])) if long_enough else None
        record = record.get("text")
    if not isinstance(record, str):
        raise ValueError(
            f"a record is a text, or has 'text', 'de' and 'en', or 'prompt' and 'answer'; found {str(record)[:80]!r}"
        )
    text = without_trailing_punctuation(record.strip())
    return text if text and len(text.split()) >= fewest else None


def _demo(corpus: str, n: int, seed: int) -> list[str | tuple[str, str]]:
    """Held-out examples of the demo corpora with their answers, corpora in turn."""
    from tl_scopes.demo.corpora import ALL_CORPORA, CORPORA, examples

    if corpus and corpus not in ALL_CORPORA:
        raise ValueError(f"('demo:{corpus}'): the demo corpora are {', '.join(ALL_CORPORA)}")
    names = [corpus] if corpus else list(CORPORA)
    each = -(-n // len(names))
    columns = [[e.prompt + e.answer for e in examples(name, each, seed)] for name in names]
    return [text for row in zip(*columns, strict=True) for text in row][:n]


def _downloaded(name: str) -> Iterable[Any]:
    """Records of one of the paper's data sets."""
    try:
        datasets: Any = import_module("datasets")
    except ImportError:
        raise ValueError(f"({name!r}): needs the package datasets; pip install datasets") from None
    try:
        data: Iterable[Any] = datasets.load_dataset("parquet", data_files={"test": PARQUET[name]}, split="test")
    except Exception as error:  # datasets and its file systems raise many types
        raise ValueError(f"({name!r}): could not read {PARQUET[name]}: {error}") from error
    return data


def _local(path: Path) -> Iterator[Any]:
    """Records of a local file."""
    if not path.is_file():
        raise ValueError(f"({str(path)!r}): no such file, nor one of 'demo', {', '.join(map(repr, PARQUET))}")
    kind = path.suffix.lower()
    if kind not in (".txt", ".json", ".jsonl", ".csv"):
        raise ValueError(f"({str(path)!r}): expected .txt, .json, .jsonl or .csv")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if kind == ".txt":
            yield from (line for line in text.split("\n") if line.strip())
        elif kind == ".jsonl":
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
        elif kind == ".json":
            records = json.loads(text)
            if not isinstance(records, list):
                raise ValueError(f"({str(path)!r}): expected a JSON list of passages")
            yield from records
        else:
            yield from csv.DictReader(io.StringIO(text, newline=""))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"({str(path)!r}): {error}") from error
