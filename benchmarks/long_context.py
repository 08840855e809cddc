"""What a long context takes, with and without checkpointing: ``python benchmarks/long_context.py``.

Shape M1 with a context of 8,192, random weights, ``semantic_scope`` at the last position through the bridge, whose own
eager attention makes ``[heads, pos, pos]`` tensors. Every run is a process of its own; its peak is the highest resident size
less that with the model loaded, beside the estimate made before the run. ``MALLOC_MMAP_THRESHOLD_`` makes the C library give
freed memory back at once: without it the resident size counts up to a GiB that is free already. A run whose estimate exceeds
``--limit`` GiB is refused by the package, and the refusal is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

N_CTX = 8192


def resident() -> int:
    """Bytes of this process in memory now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


class Peak(threading.Thread):
    """Watches the resident size from a thread of its own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.going = 0, True

    def run(self) -> None:
        """Every 5 ms."""
        while self.going:
            self.most = max(self.most, resident())
            time.sleep(0.005)


def one(length: int, checkpoint: bool, limit: float, threads: int) -> None:
    """One run; prints a line of JSON."""
    import torch
    from shapes import as_bridge, gpt2_small

    import tl_scopes as tls
    from tl_scopes.kernel import explain as kernel
    from tl_scopes.model.hooks import differentiable
    from tl_scopes.model.memory import Memory
    from tl_scopes.model.probe_runs import Run

    torch.set_num_threads(threads)
    bridge = as_bridge(gpt2_small(n_ctx=N_CTX))
    tokens = torch.randint(50257, (length,), generator=torch.Generator().manual_seed(1))
    memory = Memory(bridge, checkpoint=checkpoint, budget=1)
    with differentiable(bridge):
        estimate = memory.peak(Run(1, length, 1, 1, checkpoint))
    seconds = {"forward": 0.0, "backward": 0.0}

    def timed(name: str, work):  # type: ignore[no-untyped-def]
        def call(*args, **options):  # type: ignore[no-untyped-def]
            start = time.perf_counter()
            result = work(*args, **options)
            result = iter(list(result)) if name == "backward" else result
            seconds[name] += time.perf_counter() - start
            return result

        return call

    kernel.forward_pass = timed("forward", kernel.forward_pass)
    kernel.pull_back = timed("backward", kernel.pull_back)
    before, watch = resident(), Peak()
    watch.start()
    row: dict[str, object] = {"length": length, "checkpoint": checkpoint, "estimate": estimate}
    try:
        attr = tls.semantic_scope(
            bridge, tokens, target=1234, checkpoint=checkpoint, memory_budget=int(limit * 2**30), keep_gradient=True
        )
        watch.going = False
        row |= seconds | {"peak": watch.most - before}
        row["digest"] = hashlib.sha256(attr.gradient.numpy().tobytes()).hexdigest()[:16]
    except ValueError as error:
        row["refused"] = str(error)
    print(json.dumps(row))


def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 8192])
    parser.add_argument("--limit", type=float, default=16, help="GiB beside the weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one[0], bool(args.one[1]), args.limit, args.threads)
        return
    import torch

    print(f"torch {torch.__version__}, {args.threads} thread(s), GPT-2 small shape, float32, limit {args.limit:g} GiB")
    for length in args.lengths:
        digests = []
        for checkpoint in (False, True):
            command = [sys.executable, str(Path(__file__)), "--one", str(length), str(int(checkpoint))]
            command += ["--limit", str(args.limit), "--threads", str(args.threads)]
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            name = f"T={length:<5} {'checkpointed' if checkpoint else 'plain':<13}"
            if done.returncode:
                print(f"{name} failed: {done.stderr[-300:]}", flush=True)
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            estimate = row["estimate"] / 2**30
            if "refused" in row:
                print(f"{name} estimate {estimate:6.2f} GiB  refused: {row['refused']}", flush=True)
                continue
            digests.append(row["digest"])
            print(
                f"{name} estimate {estimate:6.2f} GiB  peak {row['peak'] / 2**30:6.2f} GiB  forward "
                f"{row['forward']:7.1f} s  backward {row['backward']:7.1f} s  gradient {row['digest']}",
                flush=True,
            )
        if len(digests) == 2:
            print(
                f"T={length}: gradients {'identical bit for bit' if len(set(digests)) == 1 else 'DIFFER'}", flush=True
            )


if __name__ == "__main__":
    main()
