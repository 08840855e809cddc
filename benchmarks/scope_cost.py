"""What one scope costs over the bare work: ``python benchmarks/scope_cost.py``.

*Lean* is the floor: a bare Hugging Face forward (eager attention, parameters frozen, unembedding at one position) and
one vector-Jacobian product at the embeddings. The subject is the public API on ``TransformerBridge``, from tokens to
``Attribution``. Shape M1, random weights, or a trained model by ``--model FOLDER``; the figure is the median of the ratios of
interleaved pairs.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from shapes import as_bridge, describe, gpt2_small, real
from timing import report

import tl_scopes as tls


def lean(hf: Any, tokens: torch.Tensor, target: int | None) -> torch.Tensor:
    """Forward, logits at the last position, one VJP of a logit (or of ‖y‖) at the embeddings, norms."""
    x = hf.get_input_embeddings()(tokens[None]).detach().requires_grad_(True)
    y = hf.base_model(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
    logits = hf.lm_head(y)
    (gradient,) = torch.autograd.grad(y.norm() if target is None else logits[target], x)
    return gradient[0].norm(dim=-1)


def four_methods(bridge: Any, tokens: torch.Tensor, target: int) -> dict[str, torch.Tensor]:
    """Scores of three scopes and Input × Gradient on one prompt: one forward, three VJPs, the Fisher eigenpair."""
    found = tls.scopes(bridge, tokens, target=target, keep_gradient=True, cache="hook_embed")
    gradient, cache = found["semantic"].gradient, found["semantic"].cache
    scores = {name: attribution.scores for name, attribution in found.items()}
    return scores | {"input_x_gradient": (cache["hook_embed"][0] * gradient).norm(dim=-1)}


def captum_gradient(hf: Any, tokens: torch.Tensor, target: int) -> torch.Tensor:
    """The same gradient by Captum, as its users call it: all logits of the model, one position picked."""
    import captum.attr

    x = hf.get_input_embeddings()(tokens[None]).detach()
    saliency = captum.attr.Saliency(lambda e: hf(inputs_embeds=e, use_cache=False).logits[:, -1])
    return saliency.attribute(x.requires_grad_(True), target=target, abs=False)[0].norm(dim=-1)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", type=float, default=9.0, help="scale of the logits: Fisher costs more on flat p")
    parser.add_argument("--model", metavar="FOLDER", help="a trained model instead of the shape")
    parser.add_argument("--frozen", action="store_true", help="time frozen parts against the exact scope, nothing else")
    parser.add_argument("--captum", action="store_true", help="also time Captum's Saliency")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make = real(args.model) if args.model else lambda: gpt2_small(peak=args.peak)
    hf, bridge = make(), as_bridge(make())
    tokens = torch.randint(50257, (args.length,), generator=torch.Generator().manual_seed(1))
    target = 1234
    reference = lean(hf, tokens, target)
    ours = tls.semantic_scope(bridge, tokens, target=target).scores
    agreement = float((ours - reference).abs().max() / reference.max())
    print(f"torch {torch.__version__}, {args.threads} thread(s), {describe(hf)}, T={args.length}, float32")
    with torch.no_grad():
        log_p = bridge(tokens[None])[0, -1].log_softmax(-1)
    print(f"scores agree to {agreement:.1e} of the largest; entropy {-float((log_p.exp() * log_p).sum()):.2f} nats")
    assert agreement < 1e-5
    if args.frozen:
        for part in ("norms", "attention", "activations", "all"):
            report(
                f"semantic_scope(frozen={part!r})",
                lambda part=part: tls.semantic_scope(bridge, tokens, target=target, frozen=part),
                lambda: tls.semantic_scope(bridge, tokens, target=target),
                args.pairs,
                "exact",
            )
        return
    report(
        "semantic_scope",
        lambda: tls.semantic_scope(bridge, tokens, target=target),
        lambda: lean(hf, tokens, target),
        args.pairs,
    )
    report(
        "temperature_scope", lambda: tls.temperature_scope(bridge, tokens), lambda: lean(hf, tokens, None), args.pairs
    )
    report(
        "Semantic, Fisher, Temperature, Input x Gradient together",
        lambda: four_methods(bridge, tokens, target),
        lambda: lean(hf, tokens, target),
        args.pairs,
    )
    if args.captum:
        theirs = captum_gradient(hf, tokens, target)
        print(
            f"captum's scores agree to {float((theirs - reference).abs().max() / reference.max()):.1e} of the largest"
        )
        report(
            "captum Saliency",
            lambda: captum_gradient(hf, tokens, target),
            lambda: tls.semantic_scope(bridge, tokens, target=target),
            args.pairs,
            "semantic_scope",
        )


if __name__ == "__main__":
    main()
