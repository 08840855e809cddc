"""What one scope costs over the bare work: ``python benchmarks/scope_cost.py``.

*Lean* is the floor: a bare Hugging Face forward (eager attention, parameters frozen, unembedding at one position) and one
vector-Jacobian product at the embeddings. The subject is ``semantic_scope`` and ``temperature_scope`` through the public
API on ``TransformerBridge``, tokens to ``Attribution``. Both run in one process, interleaved pair by pair on the same
weights; the figure is the median of the pairs' ratios. Shape M1: GPT-2 small with random weights.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable

import torch
import transformers

import tl_scopes as tls
from tl_scopes.model import bridge_class


def gpt2_small(seed: int = 0) -> transformers.GPT2LMHeadModel:
    """Random weights in the shape of GPT-2 small (d=768, 12 layers, V=50,257)."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(n_ctx=1024, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).eval()
    # Fresh norms have one gain for all units, which makes ‖y‖ constant: the Temperature Scope would be refused.
    torch.nn.init.normal_(model.transformer.ln_f.weight, 1.0, 0.3)
    return model


def lean_semantic(hf: transformers.GPT2LMHeadModel, tokens: torch.Tensor, target: int) -> torch.Tensor:
    """Forward to the final hidden state, one position's logits, one VJP at the embeddings, norms."""
    x = hf.transformer.wte(tokens[None]).detach().requires_grad_(True)
    y = hf.transformer(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
    (gradient,) = torch.autograd.grad(hf.lm_head(y)[target], x)
    return gradient[0].norm(dim=-1)


def lean_temperature(hf: transformers.GPT2LMHeadModel, tokens: torch.Tensor) -> torch.Tensor:
    """The same for ‖y‖; logits at one position are computed too, since the scope reports predictions."""
    x = hf.transformer.wte(tokens[None]).detach().requires_grad_(True)
    y = hf.transformer(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
    hf.lm_head(y.detach())
    (gradient,) = torch.autograd.grad(y.norm(), x)
    return gradient[0].norm(dim=-1)


def paired(subject: Callable[[], object], floor: Callable[[], object], pairs: int) -> tuple[list[float], list[float]]:
    """Interleaved wall times of both, after two warm-up pairs; the order flips from pair to pair."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(pairs + 2):
        gc.collect()
        order = ((0, subject), (1, floor)) if i % 2 else ((1, floor), (0, subject))
        for which, run in order:
            start = time.perf_counter()
            run()
            if i >= 2:
                times[which].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hf = gpt2_small()
    for parameter in hf.parameters():
        parameter.requires_grad_(False)
    bridge = bridge_class().boot_transformers("gpt2", hf_model=gpt2_small(), device="cpu", tokenizer=_no_tokenizer())
    tokens = torch.randint(50257, (args.length,), generator=torch.Generator().manual_seed(1))
    target = 1234
    reference = lean_semantic(hf, tokens, target)
    ours = tls.semantic_scope(bridge, tokens, target=target).scores
    agreement = float((ours - reference).abs().max() / reference.max())
    print(f"torch {torch.__version__}, {args.threads} threads, GPT-2 small shape, T={args.length}, float32")
    print(f"scores agree to {agreement:.1e} of the largest")
    assert agreement < 1e-5
    for name, subject, floor in (
        (
            "semantic_scope",
            lambda: tls.semantic_scope(bridge, tokens, target=target),
            lambda: lean_semantic(hf, tokens, target),
        ),
        ("temperature_scope", lambda: tls.temperature_scope(bridge, tokens), lambda: lean_temperature(hf, tokens)),
        (
            "scopes (semantic, temperature, fisher)",
            lambda: tls.scopes(bridge, tokens, target=target),
            lambda: lean_semantic(hf, tokens, target),
        ),
    ):
        mine, bare = paired(subject, floor, args.pairs)
        ratios = sorted(a / b for a, b in zip(mine, bare, strict=True))
        quarter = len(ratios) // 4
        print(
            f"{name}: {statistics.median(ratios):.3f} x lean (middle half {ratios[quarter]:.3f} to "
            f"{ratios[-quarter - 1]:.3f}; {1000 * statistics.median(mine):.0f} ms over "
            f"{1000 * statistics.median(bare):.0f} ms)"
        )


def _no_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A stand-in, since the benchmark feeds token ids: one word per id."""
    from tokenizers import Tokenizer, models

    words = {f"w{i}": i for i in range(50256)} | {"<|endoftext|>": 50256}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>")),
        name_or_path="stand-in",
        add_bos_token=True,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


if __name__ == "__main__":
    main()
