"""The command ``aopc``."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from tl_scopes.cli.support import quiet, require_folders, working


class Preset(str, Enum):
    """Published protocols."""

    paper = "paper"
    text = "text"


class Token(str, Enum):
    """Which token is explained or scored."""

    truth = "truth"
    argmax = "argmax"


class Ablation(str, Enum):
    """What a removed embedding becomes."""

    zero = "zero"
    mean = "mean"
    resample = "resample"


class Beside(str, Enum):
    """What is measured beside AOPC."""

    sufficiency = "sufficiency"
    leave_one_out = "leave_one_out"


def aopc(
    data: Annotated[
        str, typer.Argument(help="'demo', 'demo:<corpus>', 'lambada', 'iwslt2017-de-en', or a .txt/.json/.jsonl/.csv.")
    ] = "demo",
    model: Annotated[
        list[str] | None,
        typer.Option(help="'demo', a Hub name, a local folder, or 'paper' for its six; repeat for several."),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method, e.g. fisher@16; repeat. Default: Table 1.")] = None,
    rank: Annotated[list[int] | None, typer.Option(help="Add the Fisher Scope of this rank; repeat.")] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Passages.")] = 120,
    preset: Annotated[Preset | None, typer.Option(help="The released scripts' protocol, or the paper's text.")] = None,
    target: Annotated[Token, typer.Option(help="Explained token.")] = Token.truth,
    scored: Annotated[Token | None, typer.Option(help="Scored token; default: the explained one.")] = None,
    ablation: Annotated[Ablation, typer.Option(help="What a removed embedding becomes.")] = Ablation.zero,
    fraction: Annotated[list[float] | None, typer.Option(help="Share removed; repeat. Default: .05 .1 .2.")] = None,
    beside: Annotated[list[Beside] | None, typer.Option(help="Also measure this; repeat.")] = None,
    min_words: Annotated[int | None, typer.Option(help="Fewest words of a passage.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of Random, resampling and the demo's passages.")] = 0,
    batch_size: Annotated[int | None, typer.Option(help="Ablated inputs per forward.")] = None,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default under accelerate: one GPU each.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command continues it.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    rank_plot: Annotated[Path | None, typer.Option(help="With --rank: AOPC against the rank, a figure.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write curves and table as a page that works offline.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
) -> None:
    """Remove the tokens each method calls important: how much does the prediction suffer?

    With --out, every passage is on the disk before the next begins. Several processes: accelerate launch -m tl_scopes
    aopc ... --out FOLDER.
    """

    quiet()
    models = model or ["demo"]
    require_folders("aopc", plot, rank_plot, html, csv)
    if len(models) > 1 and (plot or rank_plot or html or csv):
        raise ValueError("aopc: --plot, --rank-plot, --html and --csv take one --model; read the runs in --out instead")
    if rank_plot and not rank:
        raise ValueError("aopc: --rank-plot shows AOPC against the Fisher Scope's rank; give --rank, several times")
    if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("aopc: several processes share a run through a folder; give --out FOLDER")
    with working("loading torch and TransformerLens"):
        import tl_scopes as tls
        from tl_scopes.evaluation.aopc import aopc as measure
        from tl_scopes.evaluation.passages import PAPER_MODELS, load_passages
        from tl_scopes.evaluation.protocol import AOPC_METHODS

    models = [name for given in models for name in (PAPER_MODELS if given == "paper" else (given,))]
    passages = load_passages(data, n, min_words=min_words, seed=seed)
    methods = [*(method or AOPC_METHODS), *(f"fisher@{r}" for r in rank or ())]
    for name in models:
        with working(f"loading {name}"):
            lens = tls.load_model(name, kind=kind, device=device or _own_gpu())  # type: ignore[arg-type]
        table = measure(
            lens,
            passages,
            methods,
            fractions=tuple(fraction or (0.05, 0.1, 0.2)),
            target=target.value,
            scored=None if scored is None else scored.value,
            ablation=ablation.value,
            preset=None if preset is None else preset.value,
            beside=tuple(b.value for b in beside or ()),
            seed=seed,
            batch_size=batch_size,
            out=out if out is None or len(models) == 1 else out / name.replace("/", "--"),
        )
        del lens
        if not table.complete:
            continue  # another process is still at work; the last one prints
        if len(models) > 1:
            print(f"\n{name}")
        print(table)
        if plot is not None:
            table.plot().savefig(plot)
        if rank_plot is not None:
            table.plot_ranks().savefig(rank_plot)
        if html is not None:
            html.write_text(table.html(), encoding="utf-8")
        if csv is not None:
            table.to_frame().to_csv(csv, index=False)


def _own_gpu() -> str | None:
    """Under accelerate each process takes the GPU of its number; None elsewhere."""
    local: Any = os.environ.get("LOCAL_RANK")
    if local is None:
        return None
    import torch

    return f"cuda:{int(local)}" if torch.cuda.is_available() else None
