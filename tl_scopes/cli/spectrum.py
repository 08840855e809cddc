"""The command ``spectrum``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_scopes.cli.support import load_model, quiet, require_folders


def spectrum(
    prompt: Annotated[list[str] | None, typer.Argument(help="Texts; without any, held-out demo prompts.")] = None,
    model: Annotated[str, typer.Option(help="'demo', a Hub name, or a local Hugging Face folder.")] = "demo",
    n: Annotated[int, typer.Option("--n", "-n", help="Demo prompts per corpus, when no PROMPT is given.")] = 10,
    k: Annotated[int | None, typer.Option("--k", "-k", help="Leading eigenvalues; default: all.")] = None,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
) -> None:
    """Eigenvalues of the Fisher information of next-token distributions, and the tokens each direction moves."""
    quiet()
    require_folders("spectrum", plot, csv)
    lens = load_model(model, kind, device)
    import tl_scopes as tls
    from tl_scopes import demo

    texts = prompt or [e.prompt for corpus in demo.CORPORA for e in demo.examples(corpus, n)]
    result = tls.fisher_spectrum(lens, texts, k=k)
    print(result)
    if plot is not None:
        result.plot().savefig(plot)
    if csv is not None:
        result.to_frame().to_csv(csv, index=False)
