"""What a model makes of the prompts of a task, kept in the run's folder and shared by its processes.

The prompts of a task are tried a block of n at a time, until n are accepted; a block is tried in pieces of :data:`PIECE`
prompts, and what the model makes of a piece is one record of a store of its own, ``FOLDER/acceptance``. Each process begins
at another piece and leaves out those that it finds there, so that several try a block together and none waits for another;
two of them may try the same piece, with the same verdicts. Runs of before kept those of each task in one file,
``acceptance-<task's number>.json``, and go on from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.evaluation.acceptance import LEAST_KEPT, acceptance
from tl_scopes.evaluation.records import Kind, RecordStore
from tl_scopes.evaluation.shares import Share
from tl_scopes.model.lens import LensModel
from tl_scopes.model.vocabulary import pieces
from tl_scopes.results.gold import TaskAcceptance

PIECE = 10
"""Prompts whose verdicts are one record."""
SPARE = 4
"""Tokens that a BOS may take, and an answer that is read by itself."""
FOLDER = "acceptance"
_FIELDS = {"fits": bool, "says": bool, "follows": bool, "kept": int}


@dataclass
class Verdicts:
    """What the model made of prompts of a task, one entry for each.

    Attributes:
        fits: is there room for it?
        says: does the model say the answer?
        follows: and, with each cause swapped, the counterpart's?
        kept: other swaps under which the answer stays.
    """

    fits: list[bool] = field(default_factory=list)
    says: list[bool] = field(default_factory=list)
    follows: list[bool] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def extend(self, other: Mapping[str, Any]) -> None:
        """With those of the prompts that follow."""
        for name in _FIELDS:
            getattr(self, name).extend(other[name])

    def chosen(self, n: int, first: int) -> list[int]:
        """Numbers of the first n accepted prompts."""
        return [first + i for i, kept in enumerate(self.kept) if kept >= LEAST_KEPT][:n]

    def counts(self) -> TaskAcceptance:
        """How many pass each step."""
        n, accepted = len(self.kept), sum(kept >= LEAST_KEPT for kept in self.kept)
        return TaskAcceptance(n, sum(self.says), sum(self.follows), accepted, n - sum(self.fits))


def accepted(
    model: LensModel,
    drawn: Sequence[Example],
    n: int,
    batch_size: int,
    *,
    first: int,
    store: RecordStore,
    share: Share,
    before: Path | None,
) -> Verdicts:
    """Verdicts on a task's prompts, n at a time, until n are accepted.

    ``first`` is the number of the task's first prompt among all of the run, ``before`` where an older run kept verdicts.
    """
    verdicts = Verdicts() if before is None or not before.exists() else verdicts_of_before(before, len(drawn))
    while len(verdicts.chosen(n, 0)) < n and (done := len(verdicts.kept)) < len(drawn):
        starts = range(done, min(done + n, len(drawn)), PIECE)
        own = share.index * len(starts) // share.of
        for start in (*starts[own:], *starts[:own]):
            if first + start not in store.done():
                tried = drawn[start : min(start + PIECE, done + n)]
                store.append({"index": first + start, **vars(_verdicts(model, tried, batch_size))})
        found = store.done()
        for start in starts:
            verdicts.extend(found[first + start])
    return verdicts


def _verdicts(model: LensModel, tried: Sequence[Example], batch_size: int) -> Verdicts:
    """Those of a few prompts; of one that does not fit the context nothing holds."""
    fits = [_fits(model, example) for example in tried]
    short = [example for example, fit in zip(tried, fits, strict=True) if fit]
    found = acceptance(model, short, batch_size=batch_size) if short else None
    said = iter(zip(found.says, found.follows, found.kept, strict=True)) if found is not None else iter(())
    verdicts = Verdicts()
    for fit in fits:
        says, follows, kept = next(said) if fit else (False, False, 0)
        verdicts.extend({"fits": [fit], "says": [says], "follows": [follows], "kept": [kept]})
    return verdicts


def _fits(model: LensModel, example: Example) -> bool:
    """Is there room for the prompt, each of its swaps and their answers, with a BOS?"""
    asked = [
        example.prompt + example.answer,
        *(example.swapped(s) + s.answer for s in (*example.causes, *example.others)),
    ]
    most: int = max(len(pieces(model.tokenizer, text)) for text in asked)
    return most + SPARE <= int(model.cfg.n_ctx)


# -- what is kept ----------------------------------------------------------------------------------


def _require_verdicts(record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse what is no piece's verdicts."""
    rows = zip(*(record[name] for name in _FIELDS), strict=True)
    if not record["kept"] or not all([type(v) for v in row] == [*_FIELDS.values()] for row in rows):
        raise ValueError(f"expected as many of {', '.join(_FIELDS)}, true or false and numbers")


def _require_piece(record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse what is no verdicts on as many prompts as the piece of this number has."""
    _require_verdicts(record, settings)
    first = 0
    for drawn in settings["tasks"].values():
        if (start := record["index"] - first) < drawn:
            break
        first += drawn
    n = settings["n"]
    if len(record["kept"]) != (size := min(PIECE, n - start % n, drawn - start)):
        raise ValueError(f"kept: {len(record['kept'])} verdicts, and this piece has {size} prompts")


ACCEPTANCE = Kind("prompts.n or tasks", lambda settings: isinstance(settings["tasks"], dict), _require_piece)


def verdicts_of_before(file: Path, most: int) -> Verdicts:
    """The verdicts that a run of before kept of one task."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        _require_verdicts(raw, {})
        found = Verdicts(*(list(raw[name]) for name in _FIELDS))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not what a run keeps ({error}). Delete it: it is made anew") from error
    if len(found.kept) > most:
        raise ValueError(
            f"{file} is not what a run keeps (verdicts on at most {most} prompts). Delete it: it is made anew"
        )
    return found
