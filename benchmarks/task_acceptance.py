"""How many prompts of each task a model takes as they are meant: ``python benchmarks/task_acceptance.py --model FOLDER``.

Of ``n`` examples of each task, the shares that the model answers, that it also answers with each cause swapped, and that it
accepts (the answer stays under three other swaps), with a 95 % Wilson interval of the last: an outcome, not a cost.
"""

from __future__ import annotations

import argparse

import torch

import tl_scopes as tls
from tl_scopes import tasks
from tl_scopes.demo.card import Rate
from tl_scopes.evaluation.acceptance import acceptance


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="folder of a pretrained model")
    parser.add_argument("-n", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="the surface forms were chosen on prompts of seed 0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="these tasks alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = tls.load_model(args.model)
    print(
        f"torch {torch.__version__}, {model.cfg.architecture or model.cfg.model_name}, {args.n} prompts, seed {args.seed}"
    )
    print(f"{'task':16} {'says':>6} {'follows':>8}  accepted, % [95 %] (n)")
    for name in args.only or tasks.TASKS:
        found = acceptance(model, tasks.examples(name, args.n, args.seed))
        rates = found.rates
        accepted = Rate(len(found.accepted), args.n)
        print(f"{name:16} {100 * rates['says']:5.0f}% {100 * rates['follows']:7.0f}%  {accepted}", flush=True)


if __name__ == "__main__":
    main()
