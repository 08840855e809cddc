"""Other packages' attributions beside ours on known causes: ``gold.py --model demo-llama``, ``--model FOLDER --task hint``.

Every method is scored on the same prompts: of the demo's corpora those that the model answers, of tasks those that it takes
as they are meant (``tl_scopes.gold_alignment``). The other packages run the plain Hugging Face model of the same folder, a
copy of its own, on the same ids; ``with_*.py`` in this folder say what each of their methods computes. Before anything is
scored, each is compared with an oracle. Packages that are not installed are named and left out: ``README.md`` says how to
install them.

Ours are ranked as their results are, by a norm; and, since most others sum embedding times gradient with its sign,
``signed/...`` ranks ``Attribution.signed`` of :func:`tl_scopes.input_x_gradient`.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import with_captum
import with_flashtrace
import with_inseq
import with_lxt
from plain import Peer, folder_of, plain_model, read

import tl_scopes as tls
from tl_scopes import tasks
from tl_scopes.demo.corpora import ALL_CORPORA, CHAINS, CORPORA, examples

PEERS: tuple[Peer, ...] = (with_captum.PEER, with_lxt.PEER, with_flashtrace.PEER, with_inseq.PEER)
OURS = (
    "semantic",
    "fisher",
    "temperature",
    "input_x_gradient",
    "semantic/all",
    "input_x_gradient/all",
    "input_x_gradient/attention",
    "integrated_gradients",
    "attention_rollout",
    "leave_one_out",
    "random",
)


FARTHEST = 2e-3
"""An adapter and its oracle apart, in the largest score: float32, and an epsilon that FlashTrace does not read."""
SIGNED: dict[str, Any] = {"signed/input_x_gradient": (), "signed/attention": "attention", "signed/all": "all"}
"""What the gradient holds constant."""


def signed(frozen: Any, model: Any, prompts: list[str], targets: list[str]) -> list[tls.Attribution]:
    """Our own Σ_d x_td g_td, highest first."""
    found = []
    for one in tls.input_x_gradient(model, prompts, target=targets, frozen=frozen):
        scores = torch.zeros_like(one.scores)
        scores[: len(one.signed)] = one.signed
        found.append(replace(one, method="signed", scores=scores))
    return found


def main() -> None:
    """Check, score, print."""
    args = arguments()
    torch.set_num_threads(args.threads)
    folder, model = folder_of(args.model), tls.load_model(args.model)
    corpora = None if args.task else args.corpus or [*CORPORA, *(CHAINS if args.model == "demo-llama" else ())]
    peers = [peer for peer in PEERS if peer.package not in args.without]
    left_out = {peer.package: reason for peer in peers if (reason := peer.why_not(folder))}
    peers = [peer for peer in peers if peer.package not in left_out]
    theirs = {label: method for peer in peers for label, method in peer.methods(folder).items()}
    theirs = {label: method for label, method in theirs.items() if label not in args.without}
    print(head(args, model, peers))
    for package, reason in left_out.items():
        print(f"{package} left out: {reason}")
    example = (examples(corpora[0], 1, args.seed) if corpora else tasks.examples(args.task[0], 1, args.seed))[0]
    (one,) = read(model, [example.prompt], [example.answer])
    for peer in peers:
        for what, error in peer.check(model, plain_model(folder), one).items():
            print(f"{peer.package}: {what}, to {error:.0e}", flush=True)
            if not error < FARTHEST:
                raise SystemExit(f"{peer.package} is not what with_{peer.package}.py says: {what}, only to {error:.0e}")
    ours: dict[str, Any] = {name: name for name in args.method or OURS}
    if not args.method:
        ours |= {label: partial(signed, frozen) for label, frozen in SIGNED.items()}
    methods = ours | theirs
    apart = [label for peer in peers for label in peer.substitutes if label in theirs]
    asked: dict[str, Any] = {"tasks": args.task, "out": args.out} if args.task else {"corpora": corpora}
    result = tls.gold_alignment(model, methods, n=args.n, seed=args.seed, by_substitution=apart, **asked)
    print(f"\n{result}\n")
    print(by_task(result))
    print(f"\n{against_ours(result, theirs)}")


def arguments() -> argparse.Namespace:
    """What is asked for, refused where it is not known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo-llama", help="'demo-llama', 'demo', or a folder of a trained model")
    parser.add_argument("--task", action="append", choices=tuple(tasks.TASKS), help="several times; else the corpora")
    parser.add_argument("--corpus", action="append", choices=tuple(ALL_CORPORA), help="of a bundled model; else all")
    parser.add_argument("--method", action="append", help="of ours; several times")
    parser.add_argument(
        "--without", action="append", default=[], help="a package, or one of its methods, not to be run"
    )
    parser.add_argument("-n", type=int, default=200, help="prompts of each corpus, accepted prompts of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="of tasks: a folder that keeps what is scored; a stopped run goes on")
    args = parser.parse_args()
    if args.task and args.corpus:
        parser.error("--corpus is of the bundled models, --task of any; give one of them")
    if args.out and not args.task:
        parser.error("--out is for runs of --task; the corpora take minutes")
    known = {name for peer in PEERS for name in (peer.package, *peer.scores)}
    if unknown := [name for name in args.without if name not in known]:
        parser.error(f"--without {unknown[0]}: expected one of {', '.join(sorted(known))}")
    return args


def head(args: argparse.Namespace, model: Any, peers: list[Peer]) -> str:
    """Model, versions, machine."""
    libraries = ("tl_scopes", "torch", "transformers", "transformer_lens")
    versions = [f"{name} {version(name)}" for name in libraries] + [f"{p.package} {p.version}" for p in peers]
    name = args.model if args.model in ("demo", "demo-llama") else Path(args.model).name
    return (
        f"{name}, {model.cfg.n_layers} layers, d={model.cfg.d_model}, float32, n={args.n}, seed {args.seed}; "
        f"{', '.join(versions)}; {platform.machine()}, {args.threads} thread(s)"
    )


def by_task(result: Any) -> str:
    """Top-1 of every method in per cent, a column for each corpus or task."""
    frame = result.to_frame()
    table = frame.pivot(index="method", columns=result.kind, values="top1").loc[list(result.methods)]
    rounded = (100 * table[[*result.accuracy, "all"]]).round().map(lambda v: "-" if pd.isna(v) else f"{v:.0f}")
    return f"Top-1, per cent\n{rounded.rename_axis(index=None, columns=None).to_string()}"


def against_ours(result: Any, theirs: Mapping[str, Any]) -> str:
    """Over all prompts: each of the others less the Semantic Scope, and less the best of ours, which these prompts chose."""
    values = result.per_prompt("top1")
    ours = [m for m in result.methods if m not in theirs and len(values[m])]
    first = max(ours, key=lambda m: values[m].mean())
    rows = {}
    for label in (label for label in theirs if len(values[label])):
        pairs = {own: result.compare(label, own) for own in dict.fromkeys([ours[0], first])}
        rows[label] = {
            f"less {own}": f"{100 * d.difference:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
            for own, d in pairs.items()
        }
    return f"Top-1 of all prompts, points [95 % of the pair by itself]\n{pd.DataFrame(rows).T.to_string()}"


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")
        main()
