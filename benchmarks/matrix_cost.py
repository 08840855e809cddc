"""What ``attribution_matrix`` costs per target, and the memory it takes: ``python benchmarks/matrix_cost.py``.

*Lean* is a bare Hugging Face forward with one position's logits and one vector-Jacobian product at the embeddings
(``scope_cost.py``). Shape M1, T=64, all 64 targets; first the matrix is compared with row-by-row calls of the scope. The
ratio per target is that of the interleaved pairs' times, divided by the number of targets; beside it a plain algorithm on
bare Hugging Face, which tells the package's share from the machine's. Memory is the bytes alive beside the weights, counted
operation by operation, without a budget and within stated ones. The Fisher matrix, whose directions need the unembedding too,
is compared with the semantic one and with *lean*. ``--model FOLDER`` takes a trained model and a piece of a text instead.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from scope_cost import lean
from shapes import as_bridge, describe, gpt2_small, prose, real
from timing import paired, report

import tl_scopes as tls
from tl_scopes.model.probe_runs import BytesAlive


def bare_matrix(hf: Any, tokens: torch.Tensor, blocks: int = 8) -> torch.Tensor:
    """On bare Hugging Face: a forward per prefix, the rows of a block vmapped all the way; semantic targets."""
    n, d = len(tokens), hf.lm_head.weight.shape[1]
    following = torch.cat([tokens[1:], tokens[:1]])  # the last row's target does not matter here
    scores = torch.zeros(n, n)
    for rows in torch.arange(n).chunk(blocks):
        end = int(rows[-1]) + 1
        x = hf.get_input_embeddings()(tokens[None, :end]).detach().requires_grad_(True)
        y = hf.base_model(inputs_embeds=x, use_cache=False).last_hidden_state[0, rows]
        hf.lm_head(y).argmax(-1)  # the predictions are part of the result
        V = torch.zeros(len(rows), len(rows), d)
        V[range(len(rows)), range(len(rows))] = hf.lm_head.weight[following[rows]]
        (gradients,) = torch.autograd.grad(y, x, V, is_grads_batched=True)
        scores[rows, :end] = gradients[:, 0].norm(dim=-1)
    return scores


def per_target(method: str, bridge: Any, hf: Any, tokens: torch.Tensor, pairs: int) -> None:
    """Print one target of the matrix against one lean scope: both sides of a pair see the same machine."""
    mine, floor = paired(
        lambda: tls.attribution_matrix(bridge, tokens, method=method),
        lambda: [lean(hf, tokens, 1234) for _ in range(10)],
        pairs,
        warm_up=1,
    )
    ratios = sorted((a / len(tokens)) / (b / 10) for a, b in zip(mine, floor, strict=True))
    quarter = len(ratios) // 4
    print(
        f"attribution_matrix, {method}: {statistics.median(ratios):.3f} x lean per target (middle half "
        f"{ratios[quarter]:.3f} to {ratios[-quarter - 1]:.3f}; {statistics.median(mine):.2f} s for {len(tokens)} targets "
        f"over {100 * statistics.median(floor):.0f} ms, {pairs} pairs)",
        flush=True,
    )


def main() -> None:
    """Print the ratio and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", metavar="FOLDER", help="a trained model instead of the shape")
    parser.add_argument("--budgets", type=float, nargs="*", default=[60, 30], help="MiB")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # peaked as a language model's predictions are
    make = real(args.model) if args.model else lambda: gpt2_small(peak=9.0)
    hf, bridge = make(), as_bridge(make())
    if args.model:
        tokens = prose(args.model)[: args.length]
    else:
        tokens = torch.randint(50257, (args.length,), generator=torch.Generator().manual_seed(1))
    name = describe(hf) if args.model else "GPT-2 small shape"
    print(f"torch {torch.__version__}, {args.threads} thread(s), {name}, T={args.length}, float32")
    matrix = tls.attribution_matrix(bridge, tokens).scores
    worst = 0.0
    for s in (0, args.length // 3, args.length - 2):
        alone = tls.semantic_scope(bridge, tokens, pos=s, target=int(tokens[s + 1])).scores
        worst = max(worst, float((matrix[s] - alone).abs().max() / alone.max()))
    print(f"rows agree with single calls to {worst:.1e} of the largest score", flush=True)
    assert worst < 1e-5
    for method in ("semantic", "fisher"):
        per_target(method, bridge, hf, tokens, args.pairs)
    bare = bare_matrix(hf, tokens)
    worst = float((matrix[:-1] - bare[:-1]).abs().max() / matrix.max())
    print(f"bare Hugging Face gives the same scores to {worst:.1e} of the largest")
    assert worst < 1e-5
    report(
        "attribution_matrix",
        lambda: tls.attribution_matrix(bridge, tokens),
        lambda: bare_matrix(hf, tokens),
        args.pairs,
        "prefixes and vmapped rows on bare Hugging Face",
    )
    report(
        "Fisher attribution_matrix",
        lambda: tls.attribution_matrix(bridge, tokens, method="fisher"),
        lambda: tls.attribution_matrix(bridge, tokens),
        args.pairs,
        "the semantic one",
    )
    for budget in (None, *args.budgets):
        allowed = None if budget is None else int(budget * 2**20)
        tls.attribution_matrix(bridge, tokens, memory_budget=allowed)  # measuring runs come once, before the first
        with BytesAlive() as watch:
            found = tls.attribution_matrix(bridge, tokens, memory_budget=allowed).scores
        worst = float((found - matrix).abs().max() / matrix.max())
        stated = "no budget" if budget is None else f"budget {budget:.0f} MiB"
        print(f"{stated}: at most {max(watch.timeline) / 2**20:.0f} MiB; scores move by {worst:.1e}", flush=True)


if __name__ == "__main__":
    main()
