"""Memory as it is estimated before a run, and as it was: ``python benchmarks/estimates.py``, also ``--model FOLDER``.

Calls of every kind on a Llama with a large vocabulary on a narrow body (``shapes.llama_narrow``, random weights), where what
is made of logits counts for most, or on the model of a folder. Measured are the bytes of the tensors alive at the worst
moment, weights left out (:class:`tl_scopes.model.probe_runs.BytesAlive`); the estimate is the largest of those by which the
call planned its runs. The resident size of a process is measured by ``long_context.py``.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shapes import llama_narrow, on_device, real

import tl_scopes as tls
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import BytesAlive, Run

T, SPAN, FEW = 100, range(30, 100), range(90, 100)
PATTERN = ["blocks.1.attn.hook_pattern"]


def calls(m: Any, t: torch.Tensor, long: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    several = [t.roll(i) for i in range(6)]
    return {
        "semantic": lambda: tls.semantic_scope(m, t),
        "semantic, 10 positions": lambda: tls.semantic_scope(m, t, pos=FEW),
        "semantic, 70 positions": lambda: tls.semantic_scope(m, t, pos=SPAN),
        "log-probabilities, 10": lambda: tls.semantic_scope(m, t, pos=FEW, of="log_prob"),
        "log-probabilities, 70": lambda: tls.semantic_scope(m, t, pos=SPAN, of="log_prob"),
        "temperature, 70": lambda: tls.temperature_scope(m, t, pos=SPAN),
        "contrast, 10": lambda: tls.contrast_scope(m, t, foil=3, pos=FEW),
        "fisher": lambda: tls.fisher_scope(m, t),
        "fisher, rank 4, 10": lambda: tls.fisher_scope(m, t, rank=4, pos=FEW),
        "fisher, 70": lambda: tls.fisher_scope(m, t, pos=SPAN),
        "total information": lambda: tls.total_information(m, t),
        "several scopes": lambda: tls.scopes(m, t),
        "matrix, semantic": lambda: tls.attribution_matrix(m, t[:40]),
        "matrix, fisher": lambda: tls.attribution_matrix(m, t[:40], method="fisher"),
        "six prompts, semantic": lambda: tls.semantic_scope(m, several),
        "six prompts, fisher": lambda: tls.fisher_scope(m, several),
        "integrated gradients": lambda: tls.integrated_gradients(m, t, n_steps=16),
        "IG path": lambda: tls.ig_path(m, t),
        "smoothgrad": lambda: tls.smoothgrad(m, t, n_samples=32),
        "layers": lambda: tls.layer_influence(m, t),
        "heads": lambda: tls.head_influence(m, t),
        "a pattern cached": lambda: tls.semantic_scope(m, t, cache=PATTERN),
        "its gradient": lambda: tls.semantic_scope(m, t, cache=PATTERN, grads_at=PATTERN),
        "attention frozen": lambda: tls.semantic_scope(m, t, frozen="attention"),
        "32 directions": lambda: tls.jacobian_scope(m, t, direction=torch.randn(32, m.cfg.d_model, dtype=m.cfg.dtype)),
        "checkpointed": lambda: tls.semantic_scope(m, t, checkpoint=True),
        f"{len(long)} tokens": lambda: tls.semantic_scope(m, long, checkpoint=False),
        f"{len(long)} tokens, checkpointed": lambda: tls.semantic_scope(m, long, checkpoint=True),
        f"{len(long)} tokens, a pattern cached": lambda: tls.semantic_scope(m, long, cache=PATTERN),
    }


def planned(call: Callable[[], Any]) -> list[tuple[Memory, Run]]:
    """The runs that a call planned."""
    found: list[tuple[Memory, Run]] = []
    first, rows = Memory.first_that_fits, Memory.rows_at_once

    def first_that_fits(self: Memory, runs: Any) -> Run:
        run = first(self, runs)
        found.append((self, run))
        return run

    def rows_at_once(self: Memory, run: Run, most: int) -> int:
        n = rows(self, run, most)
        found.append((self, replace(run, rows=n)))
        return n

    Memory.first_that_fits, Memory.rows_at_once = first_that_fits, rows_at_once  # type: ignore[method-assign]
    try:
        call()
    finally:
        Memory.first_that_fits, Memory.rows_at_once = first, rows  # type: ignore[method-assign]
    return found


def main() -> None:
    """One line per call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FOLDER", help="a trained model instead of the narrow one")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--length", type=int, default=1024, help="tokens of the long runs")
    args = parser.parse_args()
    lens = on_device(real(args.model)() if args.model else llama_narrow(), "cpu", getattr(torch, args.dtype))
    of = Path(args.model).name if args.model else "narrow Llama"
    print(f"torch {torch.__version__}, {of}, {lens.cfg.n_layers} layers, V={lens.cfg.d_vocab:,}, T={T}, {args.dtype}")
    long = torch.randint(1, lens.cfg.d_vocab, (args.length,), generator=torch.Generator().manual_seed(1))
    ratios = []
    for name, call in calls(lens, long[:T], long).items():
        runs = planned(call)  # and what is made once
        gc.collect()
        with BytesAlive() as watch:
            call()
        peak = max(watch.timeline)
        with differentiable(lens):
            estimate = max(memory.peak(run) for memory, run in runs)
        ratios.append(estimate / peak)
        print(
            f"{name:32} estimated {estimate / 2**20:8.1f} MiB   measured {peak / 2**20:8.1f} MiB   {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"estimated over measured: {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
