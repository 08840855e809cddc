"""The rows of a chain on the disk, one line each, so that a long text goes on after a kill."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tl_scopes.directions.by_name import SCOPES, named_directions
from tl_scopes.evaluation.fingerprint import function_fingerprint, model_settings
from tl_scopes.evaluation.records import Kind, RecordStore
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.chain_units import TextUnit
from tl_scopes.results.completeness import without_sum

_PLAIN = (bool, int, float, str, type(None))


def _require(record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse what is not the row of one of the units."""
    span = settings["spans"][record["index"]]
    scores = record["scores"]
    if not isinstance(scores, list) or len(scores) != span[-1]:
        raise ValueError(f"scores: expected {span[-1]} numbers")
    if not all(type(s) in (int, float) and 0 <= s < math.inf for s in scores):
        raise ValueError("scores: not all of them are numbers, 0 or more")
    if record["method"] != settings["row_method"]:
        raise ValueError(f"method: {str(record['method'])[:40]!r}, and the rows are of {settings['row_method']!r}")
    if not isinstance(record["details"], dict):
        raise ValueError("details: not as written")
    if not isinstance(record["notes"], list) or not all(isinstance(note, str) for note in record["notes"]):
        raise ValueError("notes: not text")


CHAIN_RUN = Kind(
    "prompts.n, spans or row_method",
    lambda settings: len(settings["spans"]) == settings["prompts"]["n"] and isinstance(settings["row_method"], str),
    _require,
)


def run_settings(
    model: LensModel,
    text: EncodedPrompt,
    steps: Sequence[TextUnit],
    method: str,
    keywords: Mapping[str, Any],
    *,
    stored: bool,
) -> dict[str, Any]:
    """What defines the rows; a run whose settings differ is another run."""
    if not stored:
        return {}
    plain = (*_PLAIN, list, tuple)
    return {
        "call": "chain",
        "prompts": {"n": len(steps)},
        "tokens": text.tokens.tolist(),
        "spans": [list(step.positions) for step in steps],
        "method": method,
        "row_method": _row_method(model, method, keywords),
        "keywords": {
            name: value if isinstance(value, plain) else function_fingerprint(value)
            for name, value in keywords.items()
            if name not in ("memory_budget", "checkpoint") and value is not None
        },
        "model": model_settings(model, stored=True),
    }


def _row_method(model: LensModel, method: str, keywords: Mapping[str, Any]) -> str:
    """What the rows of a method call it: those of ``"moment"`` say which moment."""
    if method not in SCOPES:
        return method
    own = {name: value for name, value in keywords.items() if name in SCOPES[method].keywords}
    return named_directions(model, [method], 1, own, "method")[0].method


def store_of(out: str | Path | None, settings: Mapping[str, Any]) -> RecordStore:
    """The folder of the rows, or memory."""
    return RecordStore(None if out is None else Path(out), settings, 0, CHAIN_RUN)


def row_record(index: int, row: Attribution, kept: Sequence[str]) -> dict[str, Any]:
    """One unit's row: scores up to its last token, and what is said of it; not what its signed scores add up to."""
    details, notes = without_sum(row.details, row.notes)
    return {
        "index": index,
        "method": row.method,
        "scores": row.scores[: row.pos + 1].to(torch.float64).tolist(),
        "details": {name: details[name] for name in kept if name in details},
        "notes": list(notes),
    }
