"""The command ``ig-path``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_scopes.cli.support import quiet, require_folders, working


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

    quiet()
    require_folders("ig-path", html, plot, csv)
    if points < 2:
        raise ValueError(f"ig-path: --points {points}: a path has at least 2")
    with working("loading torch and TransformerLens"):
        import tl_scopes as tls
        from tl_scopes.analysis.ig_path import ig_path as measure
        from tl_scopes.demo import DEMO_PROMPTS
    if prompt is None:
        if model != "demo":
            raise ValueError("ig-path: give a PROMPT with --model; the built-in prompt is for the demo model")
        shown = DEMO_PROMPTS["translation"]
        prompt, target = shown.prompt, target or shown.target
    with working(f"loading {model}"):
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
