"""What integrated gradients on α ∈ [0.05, 1] cost at captum's accuracy: ``python benchmarks/ig_cost.py``.

Captum's default is Gauss–Legendre with 50 nodes, one forward and backward each, here on the path from 0.05 x to x (its
rule is written out; captum itself is not needed). The error is that of the token *scores*, ``‖s − s_ref‖ / ‖s_ref‖``,
against a rule of 2,000 nodes, median over prompts of the bundled demo model. Ours are batched nodes with logits at one
position; *lean* is a bare Hugging Face forward with one position's logits and one vector-Jacobian product. All in one
process.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import transformers
from torch import Tensor

import tl_scopes as tls
from tl_scopes.demo import CORPORA, DEMO_PATH, examples
from tl_scopes.directions import Semantic
from tl_scopes.interventions import repeated, run_changed
from tl_scopes.jacobian_scopes import encode
from tl_scopes.model import LensModel
from tl_scopes.paths import NEAR_ZERO, along, gauss_legendre
from tl_scopes.prompts import EncodedPrompt


def scores(model: LensModel, prompt: EncodedPrompt, target: int, n: int, batch_size: int) -> Tensor:
    """IG scores ``[pos]`` of the part [0.05, 1] with n nodes, through this package's path machinery."""
    nodes, weights = gauss_legendre(n, NEAR_ZERO, 1.0)
    total: Tensor | float = 0.0
    for first in range(0, n, batch_size):
        part = nodes[first : first + batch_size]
        run = run_changed(
            model,
            *repeated(prompt, len(part)),
            change=along(part, torch.zeros_like),
            explanandum=Semantic((target,)),
            indices=[0] * len(part),
            call="ig_cost",
        )
        assert run.gradient is not None
        w = torch.tensor(weights[first : first + batch_size], dtype=torch.float64)
        total = total + torch.einsum("a,apd->pd", w, run.gradient.double())
        x = run.x[-1].double() / part[-1]
    return (x * total).norm(dim=-1)


def lean(hf: transformers.GPT2LMHeadModel, tokens: Tensor, target: int, scale: float = 1.0) -> Tensor:
    """One bare gradient at the scaled embeddings."""
    x = (scale * hf.transformer.wte(tokens[None])).detach().requires_grad_(True)
    y = hf.transformer(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
    return torch.autograd.grad(hf.lm_head.weight[target] @ y, x)[0][0]


def captum_rule(hf: transformers.GPT2LMHeadModel, tokens: Tensor, target: int) -> Tensor:
    """50 Gauss–Legendre nodes, one after the other, in float32 as captum accumulates them."""
    nodes, weights = gauss_legendre(50, NEAR_ZERO, 1.0)
    total = sum(w * lean(hf, tokens, target, a) for a, w in zip(nodes, weights, strict=True))
    return (hf.transformer.wte(tokens).detach() * total).norm(dim=-1)


def main() -> None:
    """Print errors and costs by number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--nodes", type=int, nargs="+", default=[24, 36, 44, 50])
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = tls.load_model()
    hf = transformers.AutoModelForCausalLM.from_pretrained(DEMO_PATH, attn_implementation="eager").eval()
    for parameter in hf.parameters():
        parameter.requires_grad_(False)
    each = -(-args.prompts // len(CORPORA))
    chosen = [e for c in CORPORA for e in examples(c, each)][: args.prompts]
    errors: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    for example in chosen:
        (prompt,) = encode(model, example.prompt, -1, None, "ig_cost")[1]
        target = int(model.to_tokens(example.answer, prepend_bos=False)[0, 0])
        reference = scores(model, prompt, target, args.reference, 64)

        def error(found: Tensor, reference: Tensor = reference) -> float:
            return float((found.double() - reference).norm() / reference.norm())

        start = time.perf_counter()
        for _ in range(5):
            lean(hf, prompt.tokens, target).norm(dim=-1)
        unit = (time.perf_counter() - start) / 5
        start = time.perf_counter()
        found = captum_rule(hf, prompt.tokens, target)
        costs.setdefault("captum rule, 50 nodes", []).append((time.perf_counter() - start) / unit)
        errors.setdefault("captum rule, 50 nodes", []).append(error(found))
        for n in args.nodes:
            start = time.perf_counter()
            found = scores(model, prompt, target, n, args.batch)
            costs.setdefault(f"ours, {n} nodes", []).append((time.perf_counter() - start) / unit)
            errors.setdefault(f"ours, {n} nodes", []).append(error(found))
    print(f"torch {torch.__version__}, {args.threads} threads, demo model, {len(chosen)} prompts, float32; medians")
    bound = statistics.median(errors["captum rule, 50 nodes"])
    for name in errors:
        median = statistics.median(errors[name])
        mark = " <= captum's error" if name.startswith("ours") and median <= bound else ""
        print(f"{name:<24} score error {median:.1e}   cost {statistics.median(costs[name]):5.1f} x lean{mark}")


if __name__ == "__main__":
    main()
