"""What integrated gradients on α ∈ [0.05, 1] cost at captum's accuracy: ``python benchmarks/ig_cost.py``.

Captum's ``IntegratedGradients`` with its default of 50 Gauss–Legendre nodes runs on the bare Hugging Face model, on the
path from 0.05 x to x. The error is that of the token *scores*, ``‖s − s_ref‖ / ‖s_ref‖``, against a Gauss–Legendre rule
of 2,000 nodes. Ours is the rule that ``integrated_gradients`` uses on this part of the path, through the package's own
forward: nodes in batches, logits at one position. *Lean* is a bare Hugging Face forward with one position's logits and
one vector-Jacobian product at batch 1. Medians over prompts of the bundled demo model; costs are processor time, side by
side in one process; memory is the peak of what one batch allocates, divided by its nodes.

Captum is in the ``dev`` extra. The exit code is 1 if no number of nodes has at most captum's error at 20 × lean.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import captum.attr
import torch
import transformers
from torch import Tensor
from tqdm.auto import tqdm

import tl_scopes as tls
from tl_scopes.demo import DEMO_PATH
from tl_scopes.demo.corpora import CORPORA, examples
from tl_scopes.directions.logits import Semantic
from tl_scopes.kernel.batching import repeated
from tl_scopes.kernel.calls import encode
from tl_scopes.kernel.interventions import along, run_changed
from tl_scopes.kernel.options import DEFAULT_BATCH, RunOptions
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.numerics.quadrature import NEAR_ZERO, carried_rule, gauss_legendre

Rule = tuple[list[float], list[float]]
LIMIT = 20.0


def scores(model: LensModel, prompt: EncodedPrompt, target: int, rule: Rule, batch_size: int) -> Tensor:
    """IG scores ``[pos]`` of the part [0.05, 1] by a rule, through this package's path machinery."""
    nodes, weights = rule
    total: Tensor | float = 0.0
    for first in range(0, len(nodes), batch_size):
        part = nodes[first : first + batch_size]
        run = run_changed(
            model,
            *repeated(prompt, len(part)),
            changes=[("hook_embed", along(part, torch.zeros_like))],
            direction=Semantic((target,)),
            indices=[0] * len(part),
        )
        assert run.gradient is not None
        w = torch.tensor(weights[first : first + batch_size], dtype=torch.float64)
        total = total + torch.einsum("a,apd->pd", w, run.gradient.double())
        x = run.x[-1].double() / part[-1]
    return (x * total).norm(dim=-1)


def lean(hf: transformers.GPT2LMHeadModel, tokens: Tensor, target: int) -> Tensor:
    """One bare gradient norm per token."""
    x = hf.transformer.wte(tokens[None]).detach().requires_grad_(True)
    y = hf.transformer(inputs_embeds=x, use_cache=False).last_hidden_state[0, -1]
    return torch.autograd.grad(hf.lm_head.weight[target] @ y, x)[0][0].norm(dim=-1)


def captum_scores(hf: transformers.GPT2LMHeadModel, tokens: Tensor, target: int) -> Tensor:
    """Captum with its defaults, from 0.05 x to x."""
    x = hf.transformer.wte(tokens[None]).detach()
    method = captum.attr.IntegratedGradients(lambda e: hf(inputs_embeds=e, use_cache=False).logits[:, -1])
    found = method.attribute(x, NEAR_ZERO * x, target, n_steps=50, internal_batch_size=1)
    return found[0].norm(dim=-1)


def seconds(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Result and processor time."""
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


def peak(work: Callable[[], object]) -> int:
    """Most bytes alive at a time of what the work allocates."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    result = profile.profiler.kineto_results  # type: ignore[union-attr]
    events = sorted((e.start_ns(), e.nbytes()) for e in result.events() if e.name() == "[memory]")
    alive = most = 0
    for _, size in events:
        alive += size
        most = max(most, alive)
    return most


def main() -> int:
    """Print errors and costs by number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--nodes", type=int, nargs="+", default=[28, 32, 36, 40, 44])
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=DEFAULT_BATCH, help="nodes per forward")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = tls.load_model()
    hf = transformers.AutoModelForCausalLM.from_pretrained(DEMO_PATH, attn_implementation="eager").eval()
    hf.requires_grad_(False)
    each = -(-args.prompts // len(CORPORA))
    columns = [examples(c, each) for c in CORPORA]
    chosen = [e for row in zip(*columns, strict=True) for e in row][: args.prompts]
    errors: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    memory = []
    reference_rule = gauss_legendre(args.reference, NEAR_ZERO, 1.0)
    for example in tqdm(chosen, desc="ig_cost", disable=None):
        (prompt,) = encode(model, example.prompt, RunOptions())[1]
        tokens, target = prompt.tokens, int(model.to_tokens(example.answer, prepend_bos=False)[0, 0])
        reference = scores(model, prompt, target, reference_rule, 100)
        unit = statistics.median(seconds(lambda t=tokens, i=target: lean(hf, t, i))[1] for _ in range(9))
        work = {"captum, 50 nodes": lambda t=tokens, i=target: captum_scores(hf, t, i)}
        for n in args.nodes:
            work[f"ours, {n} nodes"] = lambda p=prompt, i=target, n=n: scores(
                model, p, i, carried_rule(n, NEAR_ZERO, 1.0), args.batch
            )
        for name, run in work.items():
            found, spent = seconds(run)
            errors.setdefault(name, []).append(float((found.double() - reference).norm() / reference.norm()))
            costs.setdefault(name, []).append(spent / unit)
        if len(memory) < len(CORPORA):
            rule = carried_rule(args.batch, NEAR_ZERO, 1.0)
            mine = peak(lambda p=prompt, i=target, r=rule: scores(model, p, i, r, args.batch))
            memory.append(mine / args.batch / peak(lambda t=tokens, i=target: lean(hf, t, i)))
    print(f"torch {torch.__version__}, 1 thread, demo model, {len(chosen)} prompts, float32; medians")
    theirs = errors["captum, 50 nodes"]
    bound, passed = statistics.median(theirs), False
    for name, found in errors.items():
        median, cost = statistics.median(found), statistics.median(costs[name])
        line = f"{name:<18} score error {median:.1e}   cost {cost:5.1f} x lean"
        if name.startswith("ours"):
            better = sum(a <= b for a, b in zip(found, theirs, strict=True))
            line += f"   at most captum's error on {better} of {len(found)} prompts"
            if median <= bound:
                line += ", and in the median"
                passed |= cost <= LIMIT
        print(line)
    print(f"memory per node, {args.batch} nodes in a batch: {statistics.median(memory):.2f} x lean")
    print(f"at most captum's median error at {LIMIT:.0f} x lean or less: {'yes' if passed else 'NO'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
