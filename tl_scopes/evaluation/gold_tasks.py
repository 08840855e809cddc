"""Known causes on any model: prompts of tasks that the model takes as they are meant, and every method scored on them.

For each task in turn

    1  prompts are drawn, n at a time, until n are accepted or MOST_DRAWN × n are drawn;
    2  fewer than 30 accepted: no figures, the task is left at that;
    3  else every method scores the first n accepted ones, a batch at a time, and each prompt's ranks are one record.

Which prompts are scored depends on the model, the seed and n alone. Acceptance is tested by every process of a run that
several share, and kept in the run's folder, ``acceptance-<task's number>.json``; of the accepted prompts each process scores
every WORLD_SIZE-th.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.evaluation.acceptance import LEAST_KEPT, Acceptance, acceptance
from tl_scopes.evaluation.fingerprint import function_fingerprint, model_settings
from tl_scopes.evaluation.gold_methods import TASK_KEYWORDS, Method, attributions, gold_record, places
from tl_scopes.evaluation.questions import question
from tl_scopes.evaluation.records import Kind, RecordStore, process_rank
from tl_scopes.model.lens import LensModel
from tl_scopes.model.vocabulary import pieces
from tl_scopes.numerics.arguments import call_name, integer
from tl_scopes.results.files import write_file
from tl_scopes.results.gold import LEAST_ACCEPTED, GoldAlignment, GoldRecord, TaskAcceptance
from tl_scopes.tasks import TASKS, examples

MOST_DRAWN = 5
"""Prompts drawn of a task for each that is wanted, at most."""
SPARE = 4
"""Tokens that a BOS may take, and an answer that is read by itself."""
Tasks = Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class Wanted:
    """What a run is to score.

    Attributes:
        drawn: the prompts of each task, as many as may be drawn.
        n: accepted prompts wanted of each.
        seed: of prompts and bootstrap.
        batch_size: prompts per forward.
        by_substitution: labels of the methods in the block of their own.
    """

    drawn: Tasks
    n: int
    seed: int
    batch_size: int
    by_substitution: tuple[str, ...] = ()

    def first(self, task: str) -> int:
        """Number of the task's first prompt among all prompts."""
        return sum(len(prompts) for prompts in list(self.drawn.values())[: list(self.drawn).index(task)])


def draw(tasks: Sequence[str] | Mapping[str, Sequence[Example]], n: int, seed: int) -> dict[str, Sequence[Example]]:
    """The prompts of each task, :data:`MOST_DRAWN` × n of them; those of one's own as they are.

    Raises:
        ValueError: an unknown task, none, one twice; one's own without prompts, or a prompt twice; n too small for figures.
    """
    require_enough(n)
    unknown = [] if isinstance(tasks, Mapping) else [t for t in tasks if t not in TASKS]
    if unknown or not tasks or len(set(tasks)) != len(tasks):
        wrong = f"unknown {unknown}" if unknown else "expected different names, at least one"
        raise ValueError(f"(tasks={list(tasks)}): {wrong}; the tasks are {list(TASKS)}, or {{name: examples}}")
    if not isinstance(tasks, Mapping):
        return {task: examples(task, MOST_DRAWN * n, seed) for task in tasks}
    for name, own in tasks.items():
        if not own:
            raise ValueError(f"(tasks=...): {name!r} has no examples")
        if len({e.prompt for e in own}) < len(own):
            raise ValueError(f"(tasks=...): {name!r} has a prompt twice, which would count as two")
    return dict(tasks)


def require_enough(n: int) -> None:
    """Refuse fewer prompts than give a figure."""
    if integer("n", n, least=1) < LEAST_ACCEPTED:
        raise ValueError(
            f"(n={n}): fewer than {LEAST_ACCEPTED} accepted prompts give no figure; ask for {LEAST_ACCEPTED} or more"
        )


def bounds(tasks: Sequence[str], n: int, methods: Sequence[str]) -> str:
    """What a run may cost, said before it."""
    own = {name: ", ".join(f"{k}={v}" for k, v in given.items()) for name, given in TASK_KEYWORDS.items()}
    limits = "".join(f"; {name} with {given}" for name, given in own.items() if name in methods)
    many, by = f"{len(tasks)} task{'s' * (len(tasks) > 1)}", f"{len(methods)} method{'s' * (len(methods) > 1)}"
    tried = f"At most {MOST_DRAWN * n} prompts of each of {many} are tried, until {n} are accepted"
    return f"{tried}; these are scored by {by}{limits}."


def score_tasks(
    model: LensModel, methods: Mapping[str, Method | str], wanted: Wanted, out: str | Path | None
) -> GoldAlignment:
    """Accepted prompts of every task, and the rank of their causes under every method."""
    rank, world = process_rank() if out is not None else (0, 1)
    settings = _settings(model, methods, wanted, stored=out is not None)
    store = RecordStore(None if out is None else Path(out), settings, rank, TASKS_RUN)
    finished, accepted = store.done(), {}
    chosen: dict[int, Example] = {}
    total = wanted.n * len(wanted.drawn)
    with tqdm(total=total, desc=call_name(), unit="prompt", disable=None) as bar:
        for number, (task, drawn) in enumerate(wanted.drawn.items()):
            bar.set_postfix_str(f"{task}: accepting")
            kept = None if out is None else Path(out) / f"acceptance-{number}.json"
            with _naming(task):
                verdicts = _accepted(model, drawn, wanted, kept)
            accepted[task] = verdicts.counts()
            own = verdicts.chosen(wanted.n, wanted.first(task)) if accepted[task].accepted >= LEAST_ACCEPTED else []
            chosen |= {i: drawn[i - wanted.first(task)] for i in own}
            total -= wanted.n - len(own[rank::world])
            bar.total = max(total, 1)
            mine = [i for i in own[rank::world] if i not in finished]
            bar.set_postfix_str(task)
            bar.update(len(own[rank::world]) - len(mine))
            for batch in _batches(mine, chosen, wanted.batch_size):
                for record in _scored(model, methods, task, {i: chosen[i] for i in batch}, wanted.batch_size):
                    store.append(record)
                bar.update(len(batch))
    return _result(store.done(), chosen, accepted, wanted, settings)


def _batches(mine: Sequence[int], chosen: Mapping[int, Example], size: int) -> Iterator[list[int]]:
    """Prompts of similar length together, of a few batches at a time: what a stopped run has is not of short ones alone."""
    window = 4 * size
    for start in range(0, len(mine), window):
        near = sorted(mine[start : start + window], key=lambda i: len(chosen[i].prompt))
        yield from (near[first : first + size] for first in range(0, len(near), size))


@contextmanager
def _naming(task: str) -> Iterator[None]:
    """What is wrong with prompts is wrong with this task's."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"(tasks=...): {task!r}: {error}") from error


# -- acceptance ------------------------------------------------------------------------------------


@dataclass
class Verdicts:
    """What the model made of the first prompts of a task, as it is kept."""

    fits: list[bool] = field(default_factory=list)
    says: list[bool] = field(default_factory=list)
    follows: list[bool] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def add(self, fits: Sequence[bool], found: Acceptance | None) -> None:
        """Those of further prompts; ``found`` is of the ones that fit the context, and the others are not said."""
        said = iter(zip(found.says, found.follows, found.kept, strict=True)) if found is not None else iter(())
        for fit in fits:
            says, follows, kept = next(said) if fit else (False, False, 0)
            self.fits.append(fit)
            self.says.append(says)
            self.follows.append(follows)
            self.kept.append(kept)

    def chosen(self, n: int, first: int) -> list[int]:
        """Numbers of the first n accepted prompts."""
        return [first + i for i, kept in enumerate(self.kept) if kept >= LEAST_KEPT][:n]

    def counts(self) -> TaskAcceptance:
        """How many pass each step."""
        n, accepted = len(self.kept), sum(kept >= LEAST_KEPT for kept in self.kept)
        return TaskAcceptance(n, sum(self.says), sum(self.follows), accepted, n - sum(self.fits))


def _accepted(model: LensModel, drawn: Sequence[Example], wanted: Wanted, kept: Path | None) -> Verdicts:
    """Verdicts on the prompts, n at a time, until n are accepted; those that the file has are not made again."""
    verdicts = Verdicts() if kept is None or not kept.exists() else _read(kept, len(drawn))
    while len(verdicts.chosen(wanted.n, 0)) < wanted.n and (done := len(verdicts.kept)) < len(drawn):
        tried = drawn[done : done + wanted.n]
        fits = [_fits(model, example) for example in tried]
        short = [example for example, fit in zip(tried, fits, strict=True) if fit]
        verdicts.add(fits, acceptance(model, short, batch_size=wanted.batch_size) if short else None)
        if kept is not None:
            write_file(kept, json.dumps(vars(verdicts)))
    return verdicts


def _fits(model: LensModel, example: Example) -> bool:
    """Is there room for the prompt, each of its swaps and their answers, with a BOS?"""
    asked = [
        example.prompt + example.answer,
        *(example.swapped(s) + s.answer for s in (*example.causes, *example.others)),
    ]
    most: int = max(len(pieces(model.tokenizer, text)) for text in asked)
    return most + SPARE <= int(model.cfg.n_ctx)


def _read(file: Path, most: int) -> Verdicts:
    """The verdicts that a run kept."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        found = Verdicts(raw["fits"], raw["says"], raw["follows"], raw["kept"])
        rows = zip(found.fits, found.says, found.follows, found.kept, strict=True)
        fits = all([type(v) for v in row] == [bool, bool, bool, int] for row in rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is not what a run keeps ({error}). Delete it: it is made anew") from error
    if not fits or not 0 < len(found.kept) <= most:
        raise ValueError(
            f"{file} is not what a run keeps (verdicts on 1 to {most} prompts). Delete it: it is made anew"
        )
    return found


# -- scores, and what is kept of them --------------------------------------------------------------


def _scored(
    model: LensModel, methods: Mapping[str, Method | str], task: str, batch: Mapping[int, Example], batch_size: int
) -> list[dict[str, Any]]:
    """One record for each prompt: its causes' ranks under each method."""
    found = list(batch.values())
    asked = [question(model, (e.prompt, e.answer), None) for e in found]
    where = [places(model.tokenizer, e) for e in found]
    records: list[dict[str, Any]] = [{"index": i, "task": task, "methods": {}} for i in batch]
    for label, attributed in attributions(model, methods, found, asked, batch_size, TASK_KEYWORDS):
        for record, attribution, example, own in zip(records, attributed, found, where, strict=True):
            scored = gold_record(label, record["index"], attribution, example, own)
            record |= {"chance": scored.chance, "chance_in_source": scored.chance_in_source}
            record["methods"][label] = [scored.rank, scored.rank_in_source, scored.recall]
    return records


def _records(record: Mapping[str, Any], first: int) -> list[GoldRecord]:
    """What a stored record says of each method."""
    task, index, chance, inside = record["task"], record["index"] - first, record["chance"], record["chance_in_source"]
    return [
        GoldRecord(task, index, label, rank, rank_in_source, float(chance), float(inside), share)
        for label, (rank, rank_in_source, share) in record["methods"].items()
    ]


def _require_record(record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse what is not one prompt's record of a run with these settings."""
    if record["task"] not in settings["tasks"]:
        raise ValueError(f"task: {str(record['task'])[:40]!r} is none of this run")
    if list(record["methods"]) != list(settings["methods"]):
        raise ValueError(f"methods: expected {list(settings['methods'])}, got {str(list(record['methods']))[:80]}")
    for label, ranks in record["methods"].items():
        if [type(r) for r in ranks] not in ([int, int, float], [int, int, int]) or not 0 <= ranks[2] <= 1:
            raise ValueError(f"methods.{label}: expected two ranks and a share, got {str(ranks)[:40]!r}")
    if not all(type(record[name]) in (int, float) for name in ("chance", "chance_in_source")):
        raise ValueError("chance: expected numbers")
    _records(record, 0)


TASKS_RUN = Kind(
    "prompts.n, methods or tasks",
    lambda settings: isinstance(settings["methods"], dict) and isinstance(settings["tasks"], dict),
    _require_record,
)


def _settings(model: LensModel, methods: Mapping[str, Method | str], wanted: Wanted, *, stored: bool) -> dict[str, Any]:
    """What defines the numbers of a run."""
    digest = hashlib.sha256()
    for task, drawn in wanted.drawn.items():
        digest.update(repr((task, drawn)).encode())
    return {
        "format": 1,
        "model": model_settings(model, stored=stored),
        "prompts": {"n": sum(map(len, wanted.drawn.values())), "sha256": digest.hexdigest()},
        "methods": {k: m if isinstance(m, str) else function_fingerprint(m, model) for k, m in methods.items()},
        "keywords": {name: dict(given) for name, given in TASK_KEYWORDS.items()},
        "tasks": {task: len(drawn) for task, drawn in wanted.drawn.items()},
        "n": wanted.n,
        "seed": wanted.seed,
        "by_substitution": list(wanted.by_substitution),
    }


def _result(
    done: Mapping[int, Mapping[str, Any]],
    chosen: Mapping[int, Example],
    accepted: Mapping[str, TaskAcceptance],
    wanted: Wanted,
    settings: Mapping[str, Any],
) -> GoldAlignment:
    """All that was scored, in the order of the prompts."""
    scored = [done[i] for i in sorted(chosen) if i in done]
    return GoldAlignment(
        records=tuple(r for record in scored for r in _records(record, wanted.first(record["task"]))),
        accuracy={task: found.says / found.drawn for task, found in accepted.items()},
        n=wanted.n,
        seed=wanted.seed,
        answers="whole",
        acceptance=dict(accepted),
        by_substitution=wanted.by_substitution,
        settings=settings,
        left=len(chosen) - len(scored),
    )
