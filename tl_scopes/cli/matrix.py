"""The command ``matrix``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_scopes.cli.support import load_model, quiet, require_folders


def matrix(
    prompt: Annotated[str | None, typer.Argument(help="Text to explain; without it, a demo.")] = None,
    model: Annotated[str, typer.Option(help="'demo', a Hub name, or a local Hugging Face folder.")] = "demo",
    method: Annotated[
        str, typer.Option(help="semantic, fisher, temperature, contrast, total_information.")
    ] = "semantic",
    foil: Annotated[str | None, typer.Option(help="Token to contrast with (method contrast).")] = None,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    bos: Annotated[bool, typer.Option(help="Show special tokens (BOS) as sources too.")] = False,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write an interactive page here.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores here, one row per target.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Save the matrix here.")] = None,
) -> None:
    """For every token of PROMPT, the earlier tokens that caused its prediction."""
    quiet()
    require_folders("matrix", html_file, csv, json_file)
    if prompt is None:
        from tl_scopes import demo

        shown = demo.DEMO_PROMPTS[demo.DEFAULT_PROMPT]
        prompt = shown.prompt + shown.target
    lens = load_model(model, kind, device)
    import tl_scopes as tls

    result = tls.attribution_matrix(lens, prompt, method=method, foil=foil)
    result = result if bos else result.without("special")
    if html_file is not None:
        html_file.write_text(result.html(), encoding="utf-8")
    if csv is not None:
        result.to_frame().to_csv(csv)
    if json_file is not None:
        result.save(json_file)
    from rich.console import Console

    from tl_scopes.views.matrix import matrix_view

    Console().print(matrix_view(result))
