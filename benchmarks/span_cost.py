"""What many predictions together cost: ``python benchmarks/span_cost.py``, and ``--model FOLDER`` for a real model.

M = 100 predictions of a text of T = 200 tokens, explained by one call with ``pos=range(...)``, against: one scope at that T
and the logits of the M positions on bare Hugging Face, which is the floor of a call that says what each token's probability
was; M calls of the scope; the M rows of ``attribution_matrix``. First the sum is compared with that of the single calls'
gradients. Shape M1 with random weights, or the model in the folder; medians of the ratios of interleaved pairs.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from shapes import as_bridge, describe, gpt2_small, prose, real
from timing import report

import tl_scopes as tls


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a pretrained model; None: GPT-2 small's shape, random weights")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--predictions", type=int, default=100)
    parser.add_argument(
        "--singles", type=int, default=10, help="single calls that are timed, of as many as predictions"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make = real(args.model) if args.model else gpt2_small
    hf, bridge = make(), as_bridge(make())
    generator = torch.Generator().manual_seed(1)
    tokens = prose(args.model) if args.model else torch.randint(1000, 50_000, (args.length,), generator=generator)
    tokens, m = tokens[: args.length], args.predictions
    span = range(len(tokens) - m - 1, len(tokens) - 1)
    print(
        f"torch {torch.__version__}, {args.threads} thread(s), {describe(hf)}, T={len(tokens)}, M={m}, float32",
        flush=True,
    )
    few = list(span)[:: max(1, m // 5)]
    joint = tls.semantic_scope(bridge, tokens, pos=few, keep_gradient=True).gradient
    each = [tls.semantic_scope(bridge, tokens, pos=p, target=int(tokens[p + 1]), keep_gradient=True) for p in few]
    apart = sum(one.gradient for one in each if one.gradient is not None)
    assert joint is not None
    assert isinstance(apart, torch.Tensor)
    difference = float((joint - apart).abs().max() / apart.abs().max())
    print(f"the gradient of a sum is the sum of {len(few)} single calls' to {difference:.1e}")
    assert difference < 1e-4

    def together(**options: Any) -> object:
        return tls.semantic_scope(bridge, tokens, pos=span, **options)

    y = torch.randn(m, hf.lm_head.weight.shape[1])

    def one_and_logits() -> object:
        with torch.no_grad():
            hf.lm_head(y)
        return tls.semantic_scope(bridge, tokens, target=1234)

    positions = list(span)[:: max(1, m // args.singles)]

    def singles() -> object:
        return [tls.semantic_scope(bridge, tokens, pos=p, target=int(tokens[p + 1])) for p in positions]

    report(f"{m} predictions, sum of logits", together, one_and_logits, args.pairs, "one scope and its logits", 1)
    report(
        f"{m} predictions, log-probability", lambda: together(of="log_prob"), together, args.pairs, "sum of logits", 1
    )
    report(f"{m} predictions, combine='norm'", lambda: together(combine="norm"), together, args.pairs, "the sum", 1)
    ratio = report(f"{len(positions)} single calls", singles, together, args.pairs, f"{m} predictions together", 1)
    print(f"so {m} single calls cost {ratio * m / len(positions):.0f} x the span")
    report(
        f"attribution_matrix, the same {m} rows",
        lambda: tls.attribution_matrix(bridge, tokens, positions=list(span)),
        together,
        1,
        "the span",
        0,
    )


if __name__ == "__main__":
    main()
