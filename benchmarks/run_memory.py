"""Memory of a long run: ``explain_file`` over many short demo prompts, resident memory every tenth of the way.

The source is read row by row and scores are written window by window, so that what is held does not grow with the rows, but
for 24 bytes each by which rows that ask the same are known. The method is a random one, so that a run of the model is all
that each prompt costs.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import psutil

import tl_scopes as tls
from tl_scopes.demo.corpora import examples
from tl_scopes.evaluation import pace

MIB = 2**20


def prompts(n: int) -> list[str]:
    """Short prompts, no two the same."""
    found = examples("binding", 400, 0)
    return [f"{i}. {found[i % len(found)].prompt[-60:]}" for i in range(n)]


class Watched(logging.Handler):
    """Prints the memory where the run says how far it is."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.next, self.seen = every, every, []  # type: ignore[var-annotated]

    def emit(self, record: logging.LogRecord) -> None:
        """At every so many rows."""
        done = int(record.getMessage().split()[1].replace(",", ""))
        if done >= self.next:
            self.next += self.every
            self.seen.append(psutil.Process().memory_info().rss / MIB)
            print(f"{done:7,} rows  {self.seen[-1]:8.1f} MiB", flush=True)


def main() -> None:
    """Run and watch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000, help="rows")
    n = parser.parse_args().n
    model = tls.load_model("demo")
    watched = Watched(n // 10)
    pace.EVERY = 0.0
    pace.LOGGER.addHandler(watched)
    pace.LOGGER.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "prompts.jsonl"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps({'prompt': prompt})}\n" for prompt in prompts(n))
        began = time.perf_counter()
        report = tls.explain_file(model, source, Path(folder) / "run", ["random"], batch_size=32)
    assert report.explained == n
    seen, half = watched.seen, len(watched.seen) // 2
    print(f"{n:,} rows in {time.perf_counter() - began:.0f} s; {seen[-1] - seen[0]:+.1f} MiB after the first tenth, "
          f"{seen[-1] - seen[half - 1]:+.1f} MiB after the first half")  # fmt: skip


if __name__ == "__main__":
    main()
