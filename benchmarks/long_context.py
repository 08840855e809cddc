"""What a long context takes: ``python benchmarks/long_context.py``, also ``--model FOLDER``.

Shape M1 with a long context, random weights, ``semantic_scope`` at the last position through the bridge; or the model of a
folder. Every run is a process of its own; its peak is the highest resident size less that with the model loaded, beside the
estimate made before the run. ``MALLOC_MMAP_THRESHOLD_`` makes the C library give freed memory back at once: without it the
resident size counts up to a GiB that is free already. A run whose estimate exceeds ``--limit`` GiB is refused by the package,
and the refusal is printed. The last line is the slope of the checkpointed peaks over the length, both as logarithms.
``--estimate`` prints the estimates alone, and whether they are within the limit: a few seconds at any length.

With ``--against`` the checkpointed run is followed, in the same process, by bare Hugging Face: a forward with fused
attention, every block checkpointed, one position's logits, and one vector-Jacobian product. With one thread times are CPU
times.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPACING = 64


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
        """Every 20 ms."""
        while self.going:
            self.most = max(self.most, resident())
            time.sleep(0.02)


def measured(work: Callable[[], Any], threads: int) -> tuple[Any, dict[str, float]]:
    """The work's result, its seconds and its peak."""
    clock = time.process_time if threads == 1 else time.perf_counter
    before, watch, start = resident(), Peak(), clock()
    watch.start()
    result = work()
    watch.going = False
    return result, {"seconds": clock() - start, "peak": watch.most - before}


def checkpoint_blocks(hf: Any) -> None:
    """From now on every block of a Hugging Face model is computed again in the backward."""
    import torch
    from torch.utils.checkpoint import checkpoint

    stacks = [m for m in hf.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == hf.config.num_hidden_layers]
    for block in stacks[0]:
        whole = block.forward
        block.forward = lambda *args, _whole=whole, **named: checkpoint(_whole, *args, use_reentrant=False, **named)


def hugging_face(hf: Any, tokens: Any) -> Any:
    """Scores by bare Hugging Face with fused attention."""
    import torch

    hf.set_attn_implementation("sdpa")
    x = hf.get_input_embeddings()(tokens[None]).detach().requires_grad_(True)
    y = hf.base_model(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
    (gradient,) = torch.autograd.grad(hf.lm_head(y)[SPACING], x)
    return gradient[0].norm(dim=-1)


def one(length: int, checkpoint: bool, args: argparse.Namespace) -> None:
    """One run; prints a line of JSON."""
    import torch
    from shapes import as_bridge, gpt2_small, real

    import tl_scopes as tls
    from tl_scopes.model.hooks import differentiable
    from tl_scopes.model.memory import Memory
    from tl_scopes.model.probe_runs import Run

    torch.set_num_threads(args.threads)
    make = real(args.model) if args.model else lambda: gpt2_small(n_ctx=max(length, 1024))
    bridge = as_bridge(make())
    tokens = torch.randint(bridge.cfg.d_vocab, (length,), generator=torch.Generator().manual_seed(1))
    memory = Memory(bridge, checkpoint=checkpoint, budget=1)
    with differentiable(bridge):
        estimate = memory.peak(Run(1, length, 1, 1, checkpoint))
    limit = int(args.limit * 2**30)
    if args.estimate:
        print(json.dumps({"estimate": estimate, "fits": estimate <= limit}))
        return
    tls.semantic_scope(bridge, tokens[:32], target=SPACING, memory_budget=2**45)  # what is made once
    row: dict[str, Any] = {"estimate": estimate}
    try:
        attr, figures = measured(
            lambda: tls.semantic_scope(
                bridge, tokens, target=SPACING, checkpoint=checkpoint, memory_budget=limit, keep_gradient=True
            ),
            args.threads,
        )
        row |= figures | {"attention": attr.details.get("attention", [])}
    except ValueError as error:
        print(json.dumps(row | {"refused": str(error)}))
        return
    if args.against and checkpoint:
        hf = make()
        checkpoint_blocks(hf)
        scores, row["plain"] = measured(lambda: hugging_face(hf, tokens), args.threads)
        row["difference"] = float((scores - attr.scores).abs().max() / scores.abs().max())
    print(json.dumps(row))


def said(row: dict[str, Any]) -> str:
    """A run in words."""
    estimate = f"estimate {row['estimate'] / 2**30:6.2f} GiB"
    if "fits" in row:
        return f"{estimate}  {'within' if row['fits'] else 'above'} the limit"
    if "refused" in row:
        return f"{estimate}  refused: {row['refused']}"
    paths = row["attention"] or ["eager"]
    text = f"{estimate}  peak {row['peak'] / 2**30:6.2f} GiB  {row['seconds']:7.1f} s  "
    text += ", ".join(f"{paths.count(path)} {path}" for path in dict.fromkeys(paths))
    if "plain" in row:
        plain = row["plain"]
        ratio = row["seconds"] / plain["seconds"]
        text += (
            f"\n{'':28}Hugging Face, checkpointed   peak {plain['peak'] / 2**30:6.2f} GiB  {plain['seconds']:7.1f} s"
        )
        text += f"  ratio {ratio:.2f}  scores differ by {row['difference']:.0e}"
    return text


def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FOLDER", help="a trained model instead of the shape")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--checkpointed", action="store_true", help="only that")
    parser.add_argument("--against", action="store_true", help="and bare Hugging Face, checkpointed")
    parser.add_argument("--estimate", action="store_true", help="the estimate alone; nothing of that length is run")
    parser.add_argument("--limit", type=float, default=16, help="GiB beside the weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one[0], bool(args.one[1]), args)
        return
    import torch

    of = Path(args.model).name if args.model else "GPT-2 small shape"
    print(f"torch {torch.__version__}, {args.threads} thread(s), {of}, float32, limit {args.limit:g} GiB")
    peaks = {}
    for length in args.lengths:
        for checkpoint in (True,) if args.checkpointed else (False, True):
            command = [sys.executable, str(Path(__file__)), "--one", str(length), str(int(checkpoint))]
            command += ["--limit", str(args.limit), "--threads", str(args.threads)]
            command += ["--model", args.model] if args.model else []
            command += ["--against"] * args.against + ["--estimate"] * args.estimate
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            name = f"T={length:<5} {'checkpointed' if checkpoint else 'plain':<13}"
            if done.returncode:
                print(f"{name} failed: {done.stderr[-300:]}", flush=True)
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            print(name, said(row), flush=True)
            if checkpoint and "peak" in row:
                peaks[length] = row["peak"]
    if len(peaks) > 1:
        (low, first), (high, last) = min(peaks.items()), max(peaks.items())
        slope = math.log(last / first) / math.log(high / low)
        print(f"slope of the peak from T={low} to T={high}, checkpointed: {slope:.2f}")


if __name__ == "__main__":
    main()
