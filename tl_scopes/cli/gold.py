"""The command ``gold``."""

from __future__ import annotations

import sys
from typing import Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files, require_folder
from tl_scopes.cli.support import (
    default_methods,
    library,
    load_model,
    own_gpu,
    require_names,
    require_own_folder,
    shard_of,
)


def gold(
    method: options.GoldMethods = None,
    corpus: options.Corpora = None,
    task: options.Tasks = None,
    n: options.GoldN = None,
    seed: options.Seed = 0,
    frozen: options.Frozen = None,
    batch_size: options.BatchSize = None,
    shard: options.Shard = None,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    out: options.Out = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """How often each scope ranks first a token that is known to cause the answer.

    With --task, --model is any model, and only prompts that it reads as intended are scored. Otherwise --model is a bundled
    one, or one trained on the demo corpora; without --corpus these are the six of 'demo'.

    Several processes, a GPU each: accelerate launch --multi_gpu --num_processes N -m tl_scopes gold --task ... --out FOLDER,
    or an array of jobs with --shard I/N.
    """
    files = Files(html=html, plot=plot, csv=csv, json=json)
    if out is not None:
        require_folder("--out", out)
    if task and corpus:
        raise ValueError("--corpus is of the demo, --task of any model; give one of them")
    jobs = shard_of(shard)
    if not task and (out is not None or jobs is not None):
        raise ValueError(f"--{'out' if jobs is None else 'shard'} is for runs of --task")
    tls = library()
    from tl_scopes.demo.corpora import ALL_CORPORA
    from tl_scopes.evaluation.gold import CORPUS_N, TASK_N
    from tl_scopes.evaluation.gold_methods import known_methods
    from tl_scopes.evaluation.gold_tasks import bounds, require_enough
    from tl_scopes.results.variants import named_methods
    from tl_scopes.tasks import TASKS

    held: Any = frozen or ()
    methods = tuple(method or default_methods(tls.gold_alignment))
    named_methods(methods, held, known_methods())
    require_names(corpus or (), ALL_CORPORA, "corpus")
    tasks = [*TASKS] if task == ["all"] else task
    require_names(tasks or (), TASKS, "task")
    size = n or (TASK_N if tasks else CORPUS_N)
    if tasks:
        require_own_folder(out, jobs)
        require_enough(size)
        print(bounds(tasks, size, methods), file=sys.stderr)
    lens = load_model(model, kind, device or own_gpu())
    asked = {"tasks": tasks, "out": out, "shard": jobs} if tasks else {"corpora": corpus or None}
    rows = {} if batch_size is None else {"batch_size": batch_size}
    result = tls.gold_alignment(lens, methods, n=size, seed=seed, frozen=held, **asked, **rows)
    if result.complete:
        files.answer(result)
    else:
        print(
            f"Not complete: {result.left} accepted prompts are left to other processes; the last one prints. If none is at "
            "work any more, the same command goes on",
            file=sys.stderr,
        )
