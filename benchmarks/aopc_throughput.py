"""The AOPC protocol against the authors' loop: ``python benchmarks/aopc_throughput.py``.

Both measure one passage with six methods and three fractions under the released protocol, on the same random weights.
The loop is what the released scripts do, on bare Hugging Face: each method its own passes, all logits of every
position, Fisher from the dense matrix by a full decomposition, then one forward of batch 1 per method and fraction. The
subject is ``aopc(..., preset="paper")`` on ``TransformerBridge``. One process, interleaved pair by pair; the figure is
the median of the pairs' ratios, in processor time of one thread, or wall time of several. Both must agree on every Δ.
With ``--model FOLDER`` the weights are a trained model's, and the passages consecutive pieces of a text.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from shapes import as_bridge, describe, gpt2_small, llama_medium, llama_wide, prose, real

from tl_scopes.evaluation.aopc import aopc
from tl_scopes.evaluation.protocol import AOPC_METHODS

FRACTIONS = (0.05, 0.1, 0.2)
SHAPES = {"m1": gpt2_small, "m2": llama_medium, "m3": llama_wide}


def authors_loop(
    hf: Any, ids: torch.Tensor, random: list[list[int]], clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Δ by method, and the seconds of scoring and of ablating."""
    n = len(ids)
    read, truth = n - 2, int(ids[-1])
    E = hf.get_input_embeddings()(ids).detach()
    W = hf.get_output_embeddings().weight.detach()
    start = clock()

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = hf(inputs_embeds=x[None], use_cache=False, output_hidden_states=True)
        return out.logits[0], out.hidden_states[-1][0, read]

    def grad(scalar: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(scalar(*run(x)), x)[0]

    def ce(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits[read][None], ids[-1:])

    scores = {"semantic": grad(lambda z, y: z[read, truth], E).norm(dim=-1)}
    with torch.no_grad():
        logits, _ = run(E)
        p = logits[read].softmax(-1)
        F = torch.zeros(W.shape[1], W.shape[1])
        for rows, q in zip(W.split(4096), p.split(4096), strict=True):
            F += rows.T @ (q[:, None] * rows)
        mean = W.T @ p
        u = torch.linalg.svd(F - torch.outer(mean, mean)).U[:, 0]
    scores["fisher"] = grad(lambda z, y: y @ u, E).norm(dim=-1)
    scores["temperature"] = grad(lambda z, y: y.norm(), E).norm(dim=-1)
    scores["input_x_gradient"] = (E * grad(ce, E)).norm(dim=-1)
    path = sum(a * grad(ce, a * E) for a in (0.2, 0.4, 0.6, 0.8, 1.0))
    scores["integrated_gradients"] = (E * path / 5).norm(dim=-1)
    scored = clock()
    clean = logits[read].log_softmax(-1)
    top = int(clean.argmax())
    deltas: dict[str, list[float]] = {}
    for method in AOPC_METHODS:
        deltas[method] = []
        for i, k in enumerate(FRACTIONS):
            if method == "random":
                chosen = random[i]
            else:
                values = scores[method].tolist()
                chosen = sorted(range(n), key=lambda t: (-values[t], t))[: max(1, int(k * n))]
            x = E.clone()
            x[chosen] = 0
            with torch.no_grad():
                z = hf(inputs_embeds=x[None], use_cache=False).logits[0]
            deltas[method].append(float(z[read].log_softmax(-1)[top] - clean[top]))
    return deltas, {"scoring": scored - start, "ablating": clock() - scored}


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="m1", help="see shapes.py")
    parser.add_argument("--model", metavar="FOLDER", help="a trained model instead of a shape")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    make = real(args.model) if args.model else SHAPES[args.shape]
    hf = make()
    bridge = as_bridge(make())
    text = prose(args.model) if args.model else torch.empty(0)
    generator = torch.Generator().manual_seed(1)
    times: tuple[list[float], list[float]] = ([], [])
    parts: dict[str, list[float]] = {"scoring": [], "ablating": []}
    worst = 0.0
    for i in range(args.pairs + 1):
        if args.model:
            ids = text[i * args.length : (i + 1) * args.length]
        else:
            ids = torch.randint(hf.config.vocab_size - 1, (args.length,), generator=generator)
        random = [
            torch.randperm(args.length, generator=generator)[: max(1, int(k * args.length))].tolist() for k in FRACTIONS
        ]
        gc.collect()
        for which in (0, 1) if i % 2 else (1, 0):
            start = clock()
            if which == 0:
                table = aopc(bridge, [ids], AOPC_METHODS, preset="paper", random_positions=[random])
                assert not table.failures, table.failures
            else:
                deltas, spent = authors_loop(hf, ids, random, clock)
            if i > 0:
                times[which].append(clock() - start)
        if i > 0:
            for name, seconds in spent.items():
                parts[name].append(seconds)
        for method in AOPC_METHODS:
            found = table.records[0]["deltas"][method]
            worst = max(worst, *(abs(a - b) for a, b in zip(found, deltas[method], strict=True)))
    ratios = sorted(b / a for a, b in zip(*times, strict=True))
    name = f"{args.threads} thread(s), {describe(hf) if args.model else args.shape.upper()}"
    print(f"torch {torch.__version__}, {name}, T={args.length}, float32")
    print(f"largest difference of any delta: {worst:.1e} nats")
    print(
        f"AOPC, six methods, three fractions: {statistics.median(ratios):.2f} x faster than the authors' loop "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}; {1000 * statistics.median(times[0]):.0f} ms against "
        f"{1000 * statistics.median(times[1]):.0f} ms: scoring {1000 * statistics.median(parts['scoring']):.0f}, "
        f"ablating {1000 * statistics.median(parts['ablating']):.0f})"
    )


if __name__ == "__main__":
    main()
