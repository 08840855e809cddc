"""What the Fisher Scope costs over the Semantic Scope: ``python benchmarks/fisher_cost.py``.

Shape M3 (d=2048, V=128,256, T=128), random weights with an unembedding scaled so that p has a few nats of entropy.
``--authors`` adds the algorithm of the paper's released code, reimplemented: F built in full by chunks of the
vocabulary, then its singular value decomposition, then one vector-Jacobian product (minutes). Its scores are compared with
ours first; then it is timed against *lean* (``scope_cost.py``) and against ``fisher_scope``.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from scope_cost import lean
from shapes import as_bridge, gpt2_small, llama_wide
from timing import report

import tl_scopes as tls


def authors_fisher(hf: Any, tokens: torch.Tensor, chunk: int = 4096) -> torch.Tensor:
    """Dense F in float32 by vocabulary chunks, full SVD, one VJP along the first singular vector; two forwards."""
    with torch.no_grad():
        logits = hf(tokens[None], use_cache=False).logits[0, -1]
        p, W = logits.softmax(-1), hf.lm_head.weight
        mean = p @ W
        F = -torch.outer(mean, mean)
        for start in range(0, len(p), chunk):
            rows = W[start : start + chunk]
            F += rows.T @ (p[start : start + chunk, None] * rows)
        u = torch.linalg.svd(F)[0][:, 0]
    x = hf.get_input_embeddings()(tokens[None]).detach().requires_grad_(True)
    y = hf.base_model(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
    (gradient,) = torch.autograd.grad(y @ u, x)
    return gradient[0].norm(dim=-1)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", choices=["M1", "M3"], default="M3")
    parser.add_argument("--peak", type=float, default=3.0)
    parser.add_argument("--authors", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make = gpt2_small if args.shape == "M1" else (lambda: llama_wide(peak=args.peak))
    length = 64 if args.shape == "M1" else 128
    bridge = as_bridge(make())
    vocabulary = bridge.W_U.shape[1]
    tokens = torch.randint(vocabulary, (length,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        log_p = bridge(tokens[None])[0, -1].log_softmax(-1)
    entropy = -float((log_p.exp() * log_p).sum())
    fisher = tls.fisher_scope(bridge, tokens)
    print(f"torch {torch.__version__}, {args.threads} thread(s), shape {args.shape}, T={length}, float32")
    print(
        f"entropy {entropy:.2f} nats, p_top {float(log_p.max().exp()):.3f}, products with F "
        f"{fisher.details['products']}, relative residual {fisher.details['relative_residual'][0]:.1e}, "
        f"lambda_2/lambda_1 {fisher.details['next_eigenvalue'] / fisher.details['eigenvalues'][0]:.3f}"
    )

    def semantic() -> object:
        return tls.semantic_scope(bridge, tokens, target=7)

    for tol in (1e-4, 1e-2):
        report(
            f"fisher_scope(tol={tol:g})",
            lambda tol=tol: tls.fisher_scope(bridge, tokens, tol=tol),
            semantic,
            args.pairs,
            "semantic_scope",
        )
    if args.authors:
        hf = make()
        reference = authors_fisher(hf, tokens)
        agreement = float((fisher.scores - reference).abs().max() / reference.max())
        print(f"scores agree with the dense algorithm to {agreement:.1e} of the largest")
        assert agreement < 1e-4

        def dense() -> object:
            return authors_fisher(hf, tokens)

        report("dense F and full SVD", dense, lambda: lean(hf, tokens, 7), args.pairs)
        report("dense F and full SVD", dense, lambda: tls.fisher_scope(bridge, tokens), args.pairs, "fisher_scope")


if __name__ == "__main__":
    main()
