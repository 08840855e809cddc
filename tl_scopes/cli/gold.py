"""The command ``gold``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_scopes.cli.support import load_model, quiet, require_folders


def gold(
    model: Annotated[str, typer.Option(help="'demo', or a folder with a model trained on the demo corpora.")] = "demo",
    method: Annotated[
        list[str] | None,
        typer.Option(help="Scope or baseline to score; repeat for several. Default: the three scopes."),
    ] = None,
    corpus: Annotated[list[str] | None, typer.Option(help="Corpus; repeat for several. Default: all.")] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Held-out examples per corpus.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the examples and the bootstrap.")] = 0,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    plot: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
) -> None:
    """How often each scope puts the token first that is known to cause the answer."""
    quiet()
    require_folders("gold", plot, csv)
    lens = load_model(model, kind)
    from tl_scopes.evaluation.gold import SCOPE_METHODS, gold_alignment

    result = gold_alignment(lens, method or SCOPE_METHODS, corpora=corpus, n=n, seed=seed)
    print(result)
    if plot is not None:
        result.plot().savefig(plot)
    if csv is not None:
        result.to_frame().to_csv(csv, index=False)
