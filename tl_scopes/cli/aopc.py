"""The command ``aopc``."""

from __future__ import annotations

from typing import Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files, require_folder, show
from tl_scopes.cli.support import (
    default_methods,
    library,
    load_model,
    own_gpu,
    require_models,
    require_own_folder,
    shard_of,
)


def aopc(
    data: options.Passages = "demo",
    method: options.AopcMethods = None,
    rank: options.Ranks = None,
    n: options.N = 120,
    preset: options.Protocol = None,
    target: options.TargetToken = options.Token.truth,
    scored: options.ScoredToken = None,
    ablation: options.Ablation = options.Ablated.zero,
    fraction: options.Fractions = None,
    beside: options.Beside = None,
    frozen: options.Frozen = None,
    min_words: options.MinWords = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = None,
    shard: options.Shard = None,
    model: options.AopcModels = None,
    kind: options.Kind = "auto",
    device: options.Device = None,
    out: options.Out = None,
    rank_plot: options.RankPlot = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Remove the tokens each method calls important: how much does the prediction suffer?

    With --out, every passage is saved before the next begins.

    Several processes, a GPU each: accelerate launch --multi_gpu --num_processes N -m tl_scopes aopc ... --out FOLDER, or an
    array of jobs with --shard I/N.
    """
    files = Files(html=html, plot=plot, csv=csv, json=json, rank_plot=rank_plot)
    if out is not None:
        require_folder("--out", out)
    models = model or ["demo"]
    several = len(models) > 1 or "paper" in models
    if several and files.asked:
        raise ValueError(
            "--plot, --rank-plot, --html, --csv and --json take one --model; read the runs in --out instead"
        )
    if rank_plot and not rank:
        raise ValueError("--rank-plot shows AOPC against the Fisher Scope's rank; give --rank, several times")
    jobs = shard_of(shard)
    require_own_folder(out, jobs)
    tls = library()
    from tl_scopes.evaluation.aopc import checked_protocol
    from tl_scopes.evaluation.passages import PAPER_MODELS
    from tl_scopes.evaluation.protocol import known_methods
    from tl_scopes.numerics.ranking import PAPER_FRACTIONS
    from tl_scopes.results.variants import named_methods

    methods = [*(method or default_methods(tls.aopc)), *(f"fisher@{r}" for r in rank or ())]
    asked: dict[str, Any] = {
        "fractions": tuple(fraction or PAPER_FRACTIONS),
        "target": target.value,
        "scored": None if scored is None else scored.value,
        "ablation": ablation.value,
        "preset": None if preset is None else preset.value,
        "beside": tuple(b.value for b in beside or ()),
        "seed": seed,
    }
    held: Any = frozen or ()
    named_methods(methods, held, known_methods())
    checked_protocol(**asked)
    passages = tls.load_passages(data, n, min_words=min_words, seed=seed)
    names = [name for given in models for name in (PAPER_MODELS if given == "paper" else (given,))]
    require_models(names, kind, device)
    unmeasured = []
    for name in names:
        lens = load_model(name, kind, device or own_gpu())
        table = tls.aopc(
            lens,
            passages,
            methods,
            batch_size=batch_size,
            frozen=held,
            shard=jobs,
            out=out / name.replace("/", "--") if out is not None and several else out,
            **asked,
        )
        del lens
        if not table.complete:
            continue  # another process is still at work; the last one prints
        if not table.records:
            unmeasured.append(f"{name}: {table}" if several else str(table))
            continue
        if several:
            show(f"\n{name}")
        files.answer(table)
    if unmeasured:
        raise ValueError("; ".join(unmeasured))
