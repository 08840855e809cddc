"""What a verdict costs: ``python benchmarks/verdict_cost.py``, and ``--model FOLDER`` for a real model.

The floor is bare Hugging Face on the same rows: forwards of the prompt with embeddings zeroed, the unembedding at one
position, log-softmax, in batches as large as the package's. The subject is ``verdict`` from an ``Attribution`` to the
sentence. The same against ``semantic_scope``, which made the attribution. Shape M1 with random weights, or the model in
the folder; the figure is the median of the ratios of interleaved pairs.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from shapes import as_bridge, describe, gpt2_small, real
from timing import report

import tl_scopes as tls
from tl_scopes.analysis.verdict import Removal, plan_of
from tl_scopes.kernel.options import DEFAULT_BATCH


def bare(hf: Any, tokens: torch.Tensor, sets: list[tuple[int, ...]], target: int) -> torch.Tensor:
    """log p of the target without each set of positions."""
    kept = torch.ones(len(sets), len(tokens), 1)
    for row, positions in enumerate(sets):
        kept[row, list(positions)] = 0
    found = []
    with torch.no_grad():
        x = hf.get_input_embeddings()(tokens[None])
        for part in kept.split(DEFAULT_BATCH):
            y = hf.base_model(inputs_embeds=x * part, use_cache=False).last_hidden_state[:, -1]
            found.append(hf.lm_head(y).log_softmax(-1)[:, target])
    return torch.cat(found)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a pretrained model; None: GPT-2 small's shape, random weights")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--length", type=int, default=120)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make = real(args.model) if args.model else gpt2_small
    hf, bridge = make(), as_bridge(make())
    generator = torch.Generator().manual_seed(1)
    tokens, target = torch.randint(1000, 50_000, (args.length,), generator=generator), 1234
    attribution = tls.semantic_scope(bridge, tokens, target=target)
    sets = list(dict.fromkeys([(), *plan_of(attribution, Removal(3, 20, "token", "zero", 0)).sets]))
    print(
        f"torch {torch.__version__}, {args.threads} thread(s), {describe(hf)}, T={args.length}, {len(sets)} rows, float32"
    )
    judged = tls.verdict(bridge, attribution)
    log_p = bare(hf, tokens, sets, target)
    difference = float((judged.drawn - (log_p[2:22] - log_p[0])).abs().max())
    print(f"changes of log p agree to {difference:.1e} nats, the largest is {float(judged.drawn.abs().max()):.2g}")
    assert difference < 1e-4
    report(
        "verdict",
        lambda: tls.verdict(bridge, attribution),
        lambda: bare(hf, tokens, sets, target),
        args.pairs,
        "its forwards",
        warm_up=1,
    )
    report(
        "verdict",
        lambda: tls.verdict(bridge, attribution),
        lambda: tls.semantic_scope(bridge, tokens, target=target),
        args.pairs,
        "semantic_scope",
        warm_up=1,
    )
    three = [
        function(bridge, tokens, **aim)
        for function, aim in (
            (tls.semantic_scope, {"target": target}),
            (tls.fisher_scope, {}),
            (tls.temperature_scope, {}),
        )
    ]
    report(
        "verdicts on three scopes of one prompt",
        lambda: tls.verdict(bridge, three),
        lambda: tls.verdict(bridge, attribution),
        args.pairs,
        "one",
    )


if __name__ == "__main__":
    main()
