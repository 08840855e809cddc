"""Known causes on any model: prompts of tasks that the model takes as they are meant, and every method scored on them.

For each task in turn

    1  prompts are drawn, n at a time, until n are accepted or MOST_DRAWN × n are drawn;
    2  fewer than 30 accepted: no figures, the task is left at that;
    3  else every method scores the first n accepted ones, a batch at a time, and each prompt's ranks are one record.

Which prompts are scored depends on the model, the seed and n alone. The processes of a run that several share test acceptance
together (:mod:`tl_scopes.evaluation.accepted`); of the accepted prompts each scores every WORLD_SIZE-th. A prompt that cannot
be scored is a record too, with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.evaluation.accepted import ACCEPTANCE, FOLDER, accepted
from tl_scopes.evaluation.fingerprint import function_fingerprint, model_settings
from tl_scopes.evaluation.gold_methods import TASK_KEYWORDS, Method, attributions, gold_record, places
from tl_scopes.evaluation.questions import question
from tl_scopes.evaluation.records import Kind, RecordStore
from tl_scopes.evaluation.shares import Failed, Shard, Share, attempted, share_of
from tl_scopes.model.lens import LensModel
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.progress import progress
from tl_scopes.results.gold import LEAST_ACCEPTED, GoldAlignment, GoldRecord, TaskAcceptance
from tl_scopes.tasks import TASKS, examples

MOST_DRAWN = 5
"""Prompts drawn of a task for each that is wanted, at most."""
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

    def task(self, number: int) -> str:
        """The task of the prompt of this number."""
        return next(task for task, drawn in self.drawn.items() if number < self.first(task) + len(drawn))


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
    model: LensModel,
    methods: Mapping[str, Method | str],
    wanted: Wanted,
    out: str | Path | None,
    shard: Shard | None = None,
) -> GoldAlignment:
    """Accepted prompts of every task, and the rank of their causes under every method."""
    share = share_of(shard) if out is not None else Share()
    settings = _settings(model, methods, wanted, stored=out is not None)
    folder = None if out is None else Path(out)
    store = RecordStore(folder, settings, share.index, TASKS_RUN)
    verdicts = RecordStore(None if folder is None else folder / FOLDER, settings, share.index, ACCEPTANCE)
    finished, counts = store.done(), {}
    chosen: dict[int, Example] = {}
    total = wanted.n * len(wanted.drawn)

    def scored(batch: Sequence[int]) -> list[dict[str, Any]]:
        return _scored(model, methods, wanted, {i: chosen[i] for i in batch})

    with progress(total=total, unit="prompt", leave=True) as bar:
        for number, (task, drawn) in enumerate(wanted.drawn.items()):
            bar.set_postfix_str(f"{task}: accepting")
            first = wanted.first(task)
            before = None if folder is None else folder / f"acceptance-{number}.json"
            kept: dict[str, Any] = {"first": first, "store": verdicts, "share": share, "before": before}
            with _naming(task):
                found = accepted(model, drawn, wanted.n, wanted.batch_size, **kept)
            counts[task] = found.counts()
            own = found.chosen(wanted.n, first) if counts[task].accepted >= LEAST_ACCEPTED else []
            chosen |= {i: drawn[i - first] for i in own}
            mine = share.mine(own)
            total -= wanted.n - len(mine)
            bar.total = max(total, 1)
            todo = [i for i in mine if i not in finished]
            bar.set_postfix_str(task)
            bar.update(len(mine) - len(todo))
            for batch in _batches(todo, chosen, wanted.batch_size):
                for i, record in zip(batch, attempted(scored, batch), strict=True):
                    store.append({"index": i, "error": record.reason} if isinstance(record, Failed) else record)
                bar.update(len(batch))
    return _result(store.done(), chosen, counts, wanted, settings)


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


# -- scores, and what is kept of them --------------------------------------------------------------


def _scored(
    model: LensModel, methods: Mapping[str, Method | str], wanted: Wanted, batch: Mapping[int, Example]
) -> list[dict[str, Any]]:
    """One record for each prompt: its causes' ranks under each method."""
    found = list(batch.values())
    asked = [question(model, (e.prompt, e.answer), None) for e in found]
    where = [places(model.tokenizer, e) for e in found]
    records: list[dict[str, Any]] = [{"index": i, "task": wanted.task(i), "methods": {}} for i in batch]
    for label, attributed in attributions(model, methods, found, asked, wanted.batch_size, TASK_KEYWORDS):
        for record, attribution, example, own in zip(records, attributed, found, where, strict=True):
            scored = gold_record(label, methods[label], record["index"], attribution, example, own)
            record |= {"chance": scored.chance, "chance_in_source": scored.chance_in_source}
            record["methods"][label] = [scored.rank, scored.rank_in_source, scored.recall]
    return records


def records_of(record: Mapping[str, Any], first: int) -> list[GoldRecord]:
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
    records_of(record, 0)


TASKS_RUN = Kind(
    "prompts.n, methods or tasks",
    lambda settings: isinstance(settings["methods"], dict) and isinstance(settings["tasks"], dict),
    _require_record,
    errors=True,
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
    """All that was scored, in the order of the prompts, and why the others were not."""
    scored = [done[i] for i in sorted(chosen) if i in done and "error" not in done[i]]
    failures: dict[str, dict[int, str]] = {}
    for i in sorted(chosen):
        if "error" in done.get(i, {}):
            task = wanted.task(i)
            failures.setdefault(task, {})[i - wanted.first(task)] = done[i]["error"]
    return GoldAlignment(
        records=tuple(r for record in scored for r in records_of(record, wanted.first(record["task"]))),
        accuracy={task: found.says / found.drawn for task, found in accepted.items()},
        n=wanted.n,
        seed=wanted.seed,
        answers="whole",
        acceptance=dict(accepted),
        by_substitution=wanted.by_substitution,
        settings=settings,
        left=len(chosen) - len(scored) - sum(map(len, failures.values())),
        failures=failures,
    )
