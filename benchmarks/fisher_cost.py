"""What the Fisher Scope and total information cost over the Semantic Scope: ``python benchmarks/fisher_cost.py``.

Shape M3 (d=2048, V=128,256, T=128), random weights with an unembedding scaled so that p has a few nats of entropy.
``--authors`` adds the algorithm of the paper's released code, reimplemented: F built in full by chunks of the
vocabulary, then its singular value decomposition, then one vector-Jacobian product (minutes). Its scores are compared with
ours first; then it is timed against *lean* (``scope_cost.py``) and against ``fisher_scope``. ``--total`` adds total
information, and what comparing the weights with those of the last call costs. ``--model FOLDER`` takes a trained model and
the first ``--length`` tokens of a text instead; ``--dtype bfloat16`` has the weights in half precision; ``--threads 1 2``
measures with one thread and with two.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from scope_cost import lean
from shapes import describe, gpt2_small, llama_wide, on_device, prose, real
from timing import report

import tl_scopes as tls
from tl_scopes.model.state import ModelState, model_state


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


def measure(bridge: Any, tokens: torch.Tensor, pairs: int, total: bool) -> None:
    """Print the ratios to the Semantic Scope."""

    def semantic() -> object:
        return tls.semantic_scope(bridge, tokens, target=7)

    for tol in (1e-4, 1e-2):
        report(
            f"fisher_scope(tol={tol:g})",
            lambda tol=tol: tls.fisher_scope(bridge, tokens, tol=tol),
            semantic,
            pairs,
            "semantic_scope",
        )
    if not total:
        return
    for n in (16, 64):
        found = tls.total_information(bridge, tokens, n_samples=n)
        error = float((found.stderr / found.scores).max())
        report(
            f"total_information(n_samples={n})",
            lambda n=n: tls.total_information(bridge, tokens, n_samples=n),
            semantic,
            pairs,
            f"semantic_scope, standard error at most {error:.1%} with {found.details['n_samples']} probes",
        )
    for title, state in (("comparing the weights", model_state), ("computing what they say", ModelState)):
        report(title, lambda state=state: state(bridge).row_squares.read(), semantic, pairs, "semantic_scope")


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shape", choices=["M1", "M3"], default="M3")
    parser.add_argument("--model", metavar="FOLDER", help="a trained model instead of the shape")
    parser.add_argument("--length", type=int, help="tokens; else 64 on M1, 128 on M3 and on a trained model")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--peak", type=float, default=3.0)
    parser.add_argument("--total", action="store_true", help="also total information")
    parser.add_argument("--authors", action="store_true")
    args = parser.parse_args()
    if args.authors and args.dtype != "float32":
        parser.error("--authors is in float32: torch has no SVD in half precision")
    torch.set_num_threads(args.threads[0])
    shape = gpt2_small if args.shape == "M1" else lambda: llama_wide(peak=args.peak)
    make = real(args.model) if args.model else shape
    length = args.length or (64 if args.shape == "M1" else 128)
    dtype = getattr(torch, args.dtype)
    hf, bridge = make().to(dtype), on_device(make(), "cpu", dtype)
    if args.model:
        tokens = prose(args.model)[:length]
    else:
        tokens = torch.randint(bridge.W_U.shape[1], (length,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        log_p = bridge(tokens[None])[0, -1].float().log_softmax(-1)
    entropy = -float((log_p.exp() * log_p).sum())
    fisher = tls.fisher_scope(bridge, tokens)
    print(
        f"torch {torch.__version__}, {describe(hf) if args.model else 'shape ' + args.shape}, T={length}, {args.dtype}"
    )
    print(
        f"entropy {entropy:.2f} nats, p_top {float(log_p.max().exp()):.3f}, products with F "
        f"{fisher.details['products']}, relative residual {fisher.details['relative_residual'][0]:.1e}, "
        f"lambda_2/lambda_1 {fisher.details['next_eigenvalue'] / fisher.details['eigenvalues'][0]:.3f}"
    )
    if args.authors:
        reference = authors_fisher(hf, tokens)
        agreement = float((fisher.scores - reference).abs().max() / reference.max())
        print(f"scores agree with the dense algorithm to {agreement:.1e} of the largest")
        assert agreement < 1e-4

    def dense() -> object:
        return authors_fisher(hf, tokens)

    for threads in args.threads:
        torch.set_num_threads(threads)
        print(f"{threads} thread(s):", flush=True)
        measure(bridge, tokens, args.pairs, args.total)
        if args.authors:
            report("dense F and full SVD", dense, lambda: lean(hf, tokens, 7), args.pairs)
            report("dense F and full SVD", dense, lambda: tls.fisher_scope(bridge, tokens), args.pairs, "fisher_scope")


if __name__ == "__main__":
    main()
