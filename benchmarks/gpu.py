"""What this package costs on a CUDA device: ``python benchmarks/gpu.py``, ``--model FOLDER``; ten minutes at most.

The floor, *lean*, is a bare Hugging Face forward with one position's logits and fused attention, and one vector-Jacobian
product at the embeddings, in the same precision on the same card. Shapes M1 and M3 (``shapes.py``), random weights, or the
model in the folder, in float32 and bfloat16: one Semantic, Temperature and Fisher Scope, the attribution matrix per target, a
span of 100 predictions. Medians of the ratios of interleaved pairs, each timed until the card is idle. Then long contexts in
bfloat16 on M1's shape: time and peak memory beside the weights, the estimate made before the run, or its refusal. Last, how
well bfloat16 ranks these tokens (``half_precision.py``; of interest with ``--model``).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from half_precision import agreement
from shapes import describe, gpt2_small, llama_wide, on_device, prose, real
from torch import Tensor

import tl_scopes as tls
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import Run

SCOPES: dict[str, Callable[..., Any]] = {
    "semantic": tls.semantic_scope,
    "temperature": tls.temperature_scope,
    "fisher": tls.fisher_scope,
}


def seconds(work: Callable[[], object]) -> float:
    """Until the card is idle."""
    gc.collect()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(name: str, subject: Callable[[], object], floor: Callable[[], object], pairs: int, per: int = 1) -> None:
    """Print the median ratio of interleaved pairs after two that are not counted, for one of ``per`` results."""
    found = []
    for i in range(pairs + 2):
        times = [seconds(work) for work in ((subject, floor) if i % 2 else (floor, subject))]
        mine, bare = times if i % 2 else reversed(times)
        if i >= 2:
            found.append((mine / per, bare))
    ratios = sorted(a / b for a, b in found)
    quarter = len(ratios) // 4
    print(
        f"  {name}: {statistics.median(ratios):.2f} x lean (middle half {ratios[quarter]:.2f} to "
        f"{ratios[-quarter - 1]:.2f}; {1000 * statistics.median(a for a, _ in found):.1f} ms over "
        f"{1000 * statistics.median(b for _, b in found):.1f} ms)",
        flush=True,
    )


def lean(hf: Any, tokens: Tensor) -> Callable[[], object]:
    """Bare Hugging Face with fused attention."""
    tokens = tokens.to(hf.device)

    def run() -> Tensor:
        x = hf.get_input_embeddings()(tokens[None]).detach().requires_grad_(True)
        logits = hf(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[0, -1]
        (gradient,) = torch.autograd.grad(logits[1234], x)
        return gradient[0].norm(dim=-1).cpu()

    return run


def costs(make: Callable[[], Any], tokens: Tensor, dtype: torch.dtype, pairs: int) -> None:
    """One shape in one precision."""
    hf = make().to("cuda", dtype)
    hf.set_attn_implementation("sdpa")
    bridge, floor = on_device(make(), "cuda", dtype), lean(hf, tokens)
    print(f"{describe(hf)}, T={len(tokens)}, {str(dtype).removeprefix('torch.')}", flush=True)
    for name, scope in SCOPES.items():
        keywords = {"target": 1234} if name == "semantic" else {}
        ratio(f"{name}_scope", lambda s=scope, k=keywords: s(bridge, tokens, **k), floor, pairs)  # type: ignore[misc]
    few = tokens[:64]
    ratio(
        f"attribution_matrix, {len(few)} targets, per target",
        lambda: tls.attribution_matrix(bridge, few),
        lean(hf, few),
        max(2, pairs // 2),
        len(few),
    )
    m = min(100, len(tokens) // 2)
    span = range(len(tokens) - m - 1, len(tokens) - 1)
    ratio(f"a span of {m} predictions", lambda: tls.semantic_scope(bridge, tokens, pos=span), floor, pairs)


def long_context(length: int) -> None:
    """Time and memory of one scope on a long text in bfloat16."""
    bridge = on_device(gpt2_small(n_ctx=length), "cuda", torch.bfloat16)
    tokens = torch.randint(50257, (length,), generator=torch.Generator().manual_seed(1))
    memory = Memory(bridge, checkpoint=True)
    with differentiable(bridge):
        estimate = memory.peak(Run(1, length, 1, 1, True))
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        took = seconds(lambda: tls.semantic_scope(bridge, tokens, target=1234, checkpoint=True))
    except (ValueError, torch.OutOfMemoryError) as refused:
        print(f"  {length:,} tokens, estimate {estimate / 2**30:.1f} GiB: refused: {str(refused)[:300]}", flush=True)
        return
    peak = torch.cuda.max_memory_allocated() - before
    print(
        f"  {length:,} tokens, checkpointed: {took:.1f} s, {peak / 2**30:.2f} GiB beside the weights, estimated as "
        f"{estimate / 2**30:.2f}",
        flush=True,
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a pretrained model; None: random weights")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--context", type=int, nargs="*", default=[8192, 32768])
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device here")
    torch.set_float32_matmul_precision("highest")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}", flush=True)
    random = torch.randint(1000, 50_000, (args.length,), generator=torch.Generator().manual_seed(1))
    tokens = prose(args.model)[: args.length] if args.model else random
    makes = [real(args.model)] if args.model else [gpt2_small, llama_wide]
    for make in makes:
        for dtype in (torch.float32, torch.bfloat16):
            costs(make, tokens, dtype, args.pairs)
    if args.context:
        print("long contexts, M1's shape, bfloat16")
        for length in args.context:
            long_context(length)
    print(f"rank correlation of bfloat16 with float32 over {len(tokens) - 1} tokens")
    agreement(makes[0], [tokens], "cuda")


if __name__ == "__main__":
    main()
