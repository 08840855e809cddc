"""How well bfloat16 ranks tokens: ``python benchmarks/half_precision.py --model FOLDER``, also ``--device cuda``.

Windows of an English text through the model in float32 and in bfloat16, both exact gradients of the model as it is then. Per
scope: Spearman's correlation of the scores over the tokens of a window (BOS left out), and whether the same token is first.
The target is float32's top prediction in both. Without ``--model``, the bundled Llama on a text of one of its corpora.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from shapes import on_device, prose, real
from torch import Tensor
from transformers import AutoTokenizer

import tl_scopes as tls
from tl_scopes.demo import BUNDLED
from tl_scopes.numerics.statistics import spearman

SCOPES: dict[str, Callable[..., Any]] = {
    "semantic": tls.semantic_scope,
    "temperature": tls.temperature_scope,
    "fisher": tls.fisher_scope,
    "total information": tls.total_information,
    "input x gradient": tls.input_x_gradient,
}
TARGETED = ("semantic", "input x gradient")


def agreement(make: Callable[[], Any], windows: list[Tensor], device: str) -> None:
    """Print one line per scope."""
    full, half = (on_device(make(), device, dtype) for dtype in (torch.float32, torch.bfloat16))
    targets = [tls.semantic_scope(full, tokens).target for tokens in windows]
    for name, scope in SCOPES.items():
        ranks, same = [], 0
        for tokens, target in zip(windows, targets, strict=True):
            keywords = {"target": target} if name in TARGETED else {}
            a, b = (scope(model, tokens, **keywords).scores[1:] for model in (full, half))
            ranks.append(spearman(a.tolist(), b.tolist()))
            same += int(a.argmax()) == int(b.argmax())
        print(
            f"  {name:18} median {statistics.median(ranks):.4f}, least {min(ranks):.4f}; "
            f"the same token first in {same} of {len(windows)}",
            flush=True,
        )


def main() -> None:
    """Print the model and the correlations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a pretrained model; default: the bundled Llama")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--length", type=int, default=100)
    args = parser.parse_args()
    folder = args.model or str(BUNDLED["demo-llama"])
    if args.model:
        ids = prose(folder)
    else:
        text = " ".join(tls.load_passages("demo", 40))
        ids = torch.tensor(AutoTokenizer.from_pretrained(folder)(text)["input_ids"])
    body = ids[1:]
    starts = range(0, min(len(body), args.windows * args.length) - args.length + 1, args.length)
    windows = [torch.cat([ids[:1], body[i : i + args.length]]) for i in starts]
    print(f"torch {torch.__version__}, {args.device}, {folder.rstrip('/').rsplit('/', 1)[-1]}")
    print(f"bfloat16 beside float32, {len(windows)} windows of {args.length} tokens behind BOS")
    agreement(real(folder), windows, args.device)


if __name__ == "__main__":
    main()
