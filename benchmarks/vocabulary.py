"""What a large vocabulary costs: ``python benchmarks/vocabulary.py``, also ``--model FOLDER``.

A Llama with the vocabulary of Gemma 3 on a narrow body (``shapes.llama_narrow``, random weights), so that what is measured
is the read-out; or the model of a folder. Every call runs twice in one process: where the model makes all logits
as one table, and where they are read off final hidden states in blocks of the vocabulary
(:mod:`tl_scopes.model.predictions`), as the package does beyond 16 MiB of logits. The Fisher Scope needs whole
distributions: its peak, at as many positions as share their passes, stands beside the estimate by which runs are planned.
Peaks are bytes of the tensors alive, by :class:`tl_scopes.model.probe_runs.BytesAlive`; times are CPU times of another run.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shapes import as_bridge, llama_narrow, real

import tl_scopes as tls
from tl_scopes.directions.base import held_by
from tl_scopes.directions.fisher import Fisher
from tl_scopes.kernel.pull_back import VJP_CHUNK
from tl_scopes.model import forward
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import BytesAlive, Run
from tl_scopes.numerics.fisher_information import TOGETHER

T, SPAN, SHORT, FISHER = 120, 100, 20, 40


def calls(lens: Any, tokens: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    few, span = tokens[:64], range(T - SPAN, T)
    judged = tls.semantic_scope(lens, few, pos=range(44, 64), of="log_prob")
    return {
        f"span of {SPAN}, logits": lambda: tls.semantic_scope(lens, tokens, pos=span, of="logit").scores,
        f"span of {SPAN}, log p": lambda: tls.semantic_scope(lens, tokens, pos=span, of="log_prob").scores,
        f"input x gradient, {SPAN}": lambda: tls.input_x_gradient(lens, tokens, pos=span, of="log_prob").scores,
        f"leave one out, span of {SHORT}": lambda: tls.leave_one_out(lens, few, pos=range(44, 64)).scores,
        f"verdict, span of {SHORT}": lambda: tls.verdict(lens, judged).drawn,
    }


def measured(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, MiB at the worst moment, CPU seconds."""
    gc.collect()
    with BytesAlive() as watch:
        result = call()
    peak, start = max(watch.timeline) / 2**20, time.process_time()
    call()
    return result, peak, time.process_time() - start


def main() -> None:
    """One line per call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FOLDER", help="a trained model instead of the narrow one")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lens = as_bridge(real(args.model)() if args.model else llama_narrow())
    of = Path(args.model).name if args.model else "narrow Llama"
    print(f"torch {torch.__version__}, {args.threads} thread(s), {of}, V={lens.cfg.d_vocab:,}, T={T}, float32")
    tokens = torch.randint(1, lens.cfg.d_vocab, (T,), generator=torch.Generator().manual_seed(1))
    in_blocks = forward.TABLE
    for name, call in calls(lens, tokens).items():
        found = []
        for most in (2**62, in_blocks):
            forward.TABLE = most
            found.append(measured(call))
        (whole, before, slow), (parts, after, quick) = found
        off = float((whole - parts).abs().max() / whole.abs().max()) if whole.abs().max() else math.nan
        print(
            f"{name:26} table {before:7.1f} MiB {slow:6.2f} s   blocks {after:6.1f} MiB {quick:6.2f} s   "
            f"differ by {off:.0e}",
            flush=True,
        )
    prompt, asked = tokens[:FISHER], range(FISHER - TOGETHER, FISHER)
    with differentiable(lens):
        held = held_by([Fisher(1, 1e-4)], lens.W_U)
        estimate = Memory(lens, held=held).peak(Run(1, FISHER, TOGETHER, VJP_CHUNK)) / 2**20
    _, peak, seconds = measured(lambda: tls.fisher_scope(lens, prompt, pos=asked))
    name = f"fisher, span of {TOGETHER}"
    print(f"{name:26} table {peak:7.1f} MiB {seconds:6.2f} s   estimated {estimate:.1f} MiB")


if __name__ == "__main__":
    main()
