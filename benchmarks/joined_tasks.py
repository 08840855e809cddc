"""Runs of ``tl-scopes gold --task ... --out FOLDER`` as one table: ``python benchmarks/joined_tasks.py FOLDER ...``.

Each folder is a run of its own, of other tasks with the same methods, complete or stopped; the table says how many accepted
prompts are not scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_scopes.evaluation.accepted import ACCEPTANCE, FOLDER, Verdicts, verdicts_of_before
from tl_scopes.evaluation.gold_tasks import TASKS_RUN, records_of
from tl_scopes.evaluation.records import read_records, read_settings
from tl_scopes.results.gold import LEAST_ACCEPTED, GoldAlignment


def kept_verdicts(folder: Path, settings: Mapping[str, Any], number: int) -> Verdicts:
    """What the folder of a run has of its task of this number, as far as it goes without a gap."""
    drawn = list(settings["tasks"].values())
    first, before = sum(drawn[:number]), folder / f"acceptance-{number}.json"
    verdicts = verdicts_of_before(before, drawn[number]) if before.exists() else Verdicts()
    found = read_records(folder / FOLDER, settings, ACCEPTANCE)
    while (record := found.get(first + len(verdicts.kept))) is not None and len(verdicts.kept) < drawn[number]:
        verdicts.extend(record)
    return verdicts


def main() -> None:
    """Read, join, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    folders = parser.parse_args().folders
    records, accepted, left = [], {}, 0
    settings: dict[str, Any] = {}
    for folder in folders:
        settings = read_settings(folder, TASKS_RUN)
        done, first = read_records(folder, settings, TASKS_RUN), 0
        for number, (task, drawn) in enumerate(settings["tasks"].items()):
            verdicts = kept_verdicts(folder, settings, number)
            accepted[task] = verdicts.counts()
            wanted = verdicts.chosen(settings["n"], first) if accepted[task].accepted >= LEAST_ACCEPTED else []
            measured = [done[i] for i in wanted if i in done and "error" not in done[i]]
            records += [r for record in measured for r in records_of(record, first)]
            left += sum(i not in done for i in wanted)
            first += drawn
    accuracy = {task: found.says / found.drawn for task, found in accepted.items()}
    apart = tuple(settings["by_substitution"])
    print(
        GoldAlignment(
            tuple(records), accuracy, settings["n"], settings["seed"], "whole", accepted, apart, settings, left
        )
    )


if __name__ == "__main__":
    main()
