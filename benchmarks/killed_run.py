"""A run of many prompts by two processes, killed again and again, against one that nothing disturbed: ``killed_run.py``.

    1  ``tl-scopes run`` on the demo prompts by one process, undisturbed;
    2  the same by ``accelerate launch --multi_gpu --num_processes 2`` into another folder; the launcher and both processes
       are killed by SIGKILL at random moments, each time after some progress; then it is let finish;
    3  every file of the tables must have the same bytes in both folders.

Among the prompts are some that are asked twice, and some that cannot be explained.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tl_scopes.demo.corpora import CORPORA, examples

METHODS = ("semantic", "random")


def prompts(n: int) -> list[dict[str, object]]:
    """So many rows: demo prompts, every 100th asked before, every 250th without a prompt."""
    each = -(-n // len(CORPORA))
    columns = [[{"prompt": e.prompt, "target": e.answer} for e in examples(corpus, each, 0)] for corpus in CORPORA]
    rows: list[dict[str, object]] = [row for several in zip(*columns, strict=True) for row in several][:n]
    for i in range(n):
        rows[i] = rows[i - 50] if i % 100 == 99 else {"prompt": ""} if i % 250 == 200 else rows[i]
        rows[i] = {**rows[i], "id": f"row-{i}"}
    return rows


def command(source: Path, out: Path, shard: int) -> list[str]:
    """What both runs are asked for."""
    asked = ["-m", "tl_scopes", "run", str(source), "--out", str(out), "--rows-per-shard", str(shard)]
    return [*asked, *(word for method in METHODS for word in ("--method", method))]


def start(arguments: list[str], *, two: bool) -> subprocess.Popen[bytes]:
    """The command by one process, or by two as the documentation says."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *(launch if two else []), *arguments], env=env, **quiet)  # type: ignore[call-overload]


def kill(process: subprocess.Popen[bytes]) -> int:
    """The launcher and all that it started; how many there were."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family)
    return len(family)


def finished(out: Path) -> int:
    """Windows that are done."""
    return sum(shard.read_bytes().count(b"\n") for shard in out.glob("shard-*.jsonl"))


def digests(out: Path) -> dict[str, str]:
    """Of every file of the tables."""
    files = sorted(out.glob("*/part-*.parquet"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def killed(arguments: list[str], out: Path, kills: int, windows: int, seed: int) -> list[int]:
    """Kill the run so often, each time after some progress; windows done at each kill."""
    rng, seen = random.Random(seed), []
    while len(seen) < kills:
        before, process = finished(out), start(arguments, two=True)
        more = rng.randint(1, max(1, 2 * (windows - before) // (kills + 2 - len(seen)) - 1))
        while finished(out) < before + more and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random())
        if process.poll() is not None:
            raise SystemExit(f"the run ended before kill {len(seen) + 1}; ask for more prompts")
        n = kill(process)
        seen.append(finished(out))
        print(f"kill {len(seen):2}: {n} processes, {seen[-1]} of {windows} windows done", flush=True)
    return seen


def main() -> None:
    """Run, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="prompts")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rows-per-shard", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, one, two = (Path(folder) / name for name in ("prompts.jsonl", "one", "two"))
        source.write_text("".join(f"{json.dumps(row)}\n" for row in prompts(asked.n)), encoding="utf-8")
        began = time.perf_counter()
        assert start(command(source, one, asked.rows_per_shard), two=False).wait() == 0
        print(f"{asked.n} prompts, one process, undisturbed: {time.perf_counter() - began:.0f} s", flush=True)
        arguments = command(source, two, asked.rows_per_shard)
        killed(arguments, two, asked.kills, -(-asked.n // asked.rows_per_shard), asked.seed)
        assert start(arguments, two=True).wait() == 0
        by_process = [shard.read_bytes().count(b"\n") for shard in sorted(two.glob("shard-*"))]
        print(f"finished; windows by process: {by_process}")
        whole, other = digests(one), digests(two)
        print(f"files of the tables: {len(whole)} and {len(other)}; with other bytes: "
              f"{sum(whole.get(name) != other.get(name) for name in {**whole, **other})}")  # fmt: skip
        import tl_scopes

        reports = [tl_scopes.run_report(out) for out in (one, two)]
        assert whole == other
        assert all(report.complete for report in reports)
        print(f"equal bit for bit: {reports[1].explained} explained, {reports[1].failed} failed, "
              f"{reports[1].duplicates} asked before")  # fmt: skip
        scores = tl_scopes.load_run(two)
        assert not scores.duplicated(["row", "method", "unit"]).any()
        print(f"{len(scores)} rows of scores, none twice")


if __name__ == "__main__":
    main()
