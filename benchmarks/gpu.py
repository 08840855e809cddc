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
import functools
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from half_precision import agreement
from long_context import SPACING, checkpoint_blocks, hugging_face
from shapes import describe, gpt2_small, llama_wide, on_device, prose, real
from torch import Tensor

import tl_scopes as tls
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import Run
from tl_scopes.numerics.statistics import spearman

SCOPES: dict[str, Callable[..., Any]] = {
    "semantic": tls.semantic_scope,
    "temperature": tls.temperature_scope,
    "fisher": tls.fisher_scope,
}


def built(make: Callable[[], Any]) -> Callable[[], Any]:
    """Random weights drawn on the card: at once."""

    def on_card() -> Any:
        with torch.device("cuda"):
            return make()

    return on_card


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


def peak(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """The work's result, its seconds, and the most bytes that it held on the card."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, found = torch.cuda.memory_allocated(), []
    took = seconds(lambda: found.append(work()))
    return found[0], took, torch.cuda.max_memory_allocated() - before


def long_context(length: int) -> None:
    """Time and memory of one scope on a long text in bfloat16, beside bare Hugging Face, both without and with
    checkpointed blocks."""
    tokens = torch.randint(50257, (length,), generator=torch.Generator().manual_seed(1))
    make = built(lambda: gpt2_small(n_ctx=length))
    hf, bridge = make().to(torch.bfloat16), on_device(make(), "cuda", torch.bfloat16)
    for checkpoint in (False, True):
        name = f"  {length:,} tokens, {'checkpointed' if checkpoint else 'plain'}"
        if checkpoint:
            checkpoint_blocks(hf)
        memory = Memory(bridge, checkpoint=checkpoint)
        with differentiable(bridge):
            estimate = memory.peak(Run(1, length, 1, 1, checkpoint))
        scope = functools.partial(tls.semantic_scope, bridge, tokens, target=SPACING, checkpoint=checkpoint)
        try:
            ours, bare = [
                [peak(work) for _ in range(4)][1:]
                for work in (scope, lambda: hugging_face(hf, tokens.cuda()).float().cpu())
            ]
        except (ValueError, torch.OutOfMemoryError) as refused:
            print(f"{name}: estimate {estimate / 2**30:.2f} GiB: refused: {str(refused)[:300]}", flush=True)
            continue
        attr, scores = ours[0][0], bare[0][0]
        took, floor = (statistics.median(run[1] for run in runs) for runs in (ours, bare))
        paths = attr.details.get("attention", ["eager"])
        print(
            f"{name}: {took:.2f} s, {took / floor:.2f} x Hugging Face's {floor:.2f} s; "
            f"{ours[0][2] / 2**30:.2f} GiB beside the weights, estimated as {estimate / 2**30:.2f}, Hugging Face's "
            f"{bare[0][2] / 2**30:.2f}; {', '.join(f'{paths.count(p)} {p}' for p in dict.fromkeys(paths))}; "
            f"rank correlation of the scores {spearman(attr.scores.tolist(), scores.tolist()):.4f}",
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
    makes = [real(args.model)] if args.model else [built(lambda: gpt2_small(peak=9)), built(llama_wide)]
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
