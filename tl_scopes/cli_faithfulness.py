"""The commands ``aopc`` and ``ig-path``; :func:`register` adds them to the command line.

Heavy imports wait until the arguments are parsed. A user's mistake is raised as ``ValueError``, which ``tl-scopes``
prints as one line with exit code 2.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


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


def register(app: typer.Typer) -> None:
    """Add both commands to the application."""
    app.command("aopc")(aopc)
    app.command("ig-path")(ig_path)


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
    from tl_scopes.cli import _quiet, _working

    _quiet()
    models = model or ["demo"]
    _require_folders("aopc", plot, rank_plot, html, csv)
    if len(models) > 1 and (plot or rank_plot or html or csv):
        raise ValueError("aopc: --plot, --rank-plot, --html and --csv take one --model; read the runs in --out instead")
    if rank_plot and not rank:
        raise ValueError("aopc: --rank-plot shows AOPC against the Fisher Scope's rank; give --rank, several times")
    if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("aopc: several processes share a run through a folder; give --out FOLDER")
    with _working("loading torch and TransformerLens"):
        import tl_scopes as tls
        from tl_scopes.faithfulness import aopc as measure
        from tl_scopes.passages import PAPER_MODELS, load_passages
        from tl_scopes.protocol import AOPC_METHODS

    models = [name for given in models for name in (PAPER_MODELS if given == "paper" else (given,))]
    passages = load_passages(data, n, min_words=min_words, seed=seed)
    methods = [*(method or AOPC_METHODS), *(f"fisher@{r}" for r in rank or ())]
    for name in models:
        with _working(f"loading {name}"):
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


def ig_path(
    prompt: Annotated[str | None, typer.Argument(help="Text to explain; without it, a demo.")] = None,
    model: Annotated[str, typer.Option(help="'demo', a Hub name, or a local Hugging Face folder.")] = "demo",
    target: Annotated[str | None, typer.Option(help="Explained token, e.g. ' dog'; default: top prediction.")] = None,
    points: Annotated[int, typer.Option(help="Points on the path from 0 to 1.")] = 51,
    scale_positions: Annotated[bool, typer.Option(help="Scale additive position embeddings too.")] = False,
    sink_tokens: Annotated[int, typer.Option(help="First tokens that count as attention sink.")] = 1,
    pos: Annotated[int, typer.Option(help="Position whose next-token prediction is explained.")] = -1,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a slider here; works offline.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the path here.")] = None,
) -> None:
    """Gradients on the way from the zero input to PROMPT, which integrated gradients average."""
    from tl_scopes.cli import _quiet, _working

    _quiet()
    _require_folders("ig-path", html, plot, csv)
    if points < 2:
        raise ValueError(f"ig-path: --points {points}: a path has at least 2")
    with _working("loading torch and TransformerLens"):
        import tl_scopes as tls
        from tl_scopes.demo import DEMO_PROMPTS
        from tl_scopes.paths import ig_path as measure
    if prompt is None:
        if model != "demo":
            raise ValueError("ig-path: give a PROMPT with --model; the built-in prompt is for the demo model")
        shown = DEMO_PROMPTS["translation"]
        prompt, target = shown.prompt, target or shown.target
    with _working(f"loading {model}"):
        lens = tls.load_model(model, kind=kind, device=device)  # type: ignore[arg-type]
    path = measure(
        lens,
        prompt,
        target,
        alphas=[i / (points - 1) for i in range(points)],
        scale_positions=scale_positions,
        sink_tokens=sink_tokens,
        pos=pos,
    )
    frame = path.to_frame()
    strongest = path.grad_norms[:, : path.pos + 1].argmax(dim=1).tolist()
    print(f"Logit of {path.target_str!r} on the path from the zero input to the prompt")
    print(f"{'alpha':>6}{'logit':>9}{'entropy':>9}{'sink':>7}  largest gradient")
    for i in sorted({round(j * (points - 1) / 10) for j in range(11)}):
        row, t = frame.iloc[i], strongest[i]
        print(
            f"{row.alpha:>6.2f}{row.logit:>9.2f}{row.entropy:>9.2f}{row.sink_share:>7.0%}  {t} {path.str_tokens[t]!r}"
        )
    print(f"Completeness residual of the trapezoid rule on this grid: {path.completeness_residual:.2g} logits.")
    if html is not None:
        html.write_text(path.html(), encoding="utf-8")
    if plot is not None:
        path.plot().savefig(plot)
    if csv is not None:
        frame.to_csv(csv, index=False)


def _require_folders(command: str, *files: Path | None) -> None:
    """Refuse, before any work, a file whose folder does not exist."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"{command}: {file}: there is no folder {file.parent}")


def _own_gpu() -> str | None:
    """Under accelerate each process takes the GPU of its number; None elsewhere."""
    local: Any = os.environ.get("LOCAL_RANK")
    if local is None:
        return None
    import torch

    return f"cuda:{int(local)}" if torch.cuda.is_available() else None
