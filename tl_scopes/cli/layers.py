"""The command ``layers``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_scopes.cli.options import Method
from tl_scopes.cli.support import given_prompt, load_model, prepare, write_result

if TYPE_CHECKING:
    from tl_scopes.results.influence import HeadInfluence, LayerInfluence


def layers(
    prompt: Annotated[str | None, typer.Argument(help="Text to explain; without it, a demo.")] = None,
    model: Annotated[str, typer.Option(help="'demo', a Hub name, or a local Hugging Face folder.")] = "demo",
    method: Annotated[Method, typer.Option(help="Scope to follow through the layers.")] = Method.semantic,
    target: Annotated[str | None, typer.Option(help="Explained token, e.g. ' dog'; default: top prediction.")] = None,
    foil: Annotated[str | None, typer.Option(help="Token to contrast the target with (method contrast).")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank (fisher, total_information).")] = None,
    pos: Annotated[int, typer.Option(help="Position whose next-token prediction is explained.")] = -1,
    raw: Annotated[bool, typer.Option(help="Per unit of the residual stream, not per relative change of it.")] = False,
    heads: Annotated[bool, typer.Option(help="Attention heads instead of layers.")] = False,
    sensitivity: Annotated[bool, typer.Option(help="With --heads: norms instead of signed influence.")] = False,
    bos: Annotated[bool, typer.Option(help="Colour and rank special tokens (BOS) too.")] = False,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that works offline here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here; - for stdout.")] = None,
) -> None:
    """Where in the model the influence on a prediction runs: by layer and token, or through each attention head."""
    prepare("layers", html, plot, json_file)
    if raw and heads:
        raise ValueError("layers: --raw is about layers; leave it out with --heads")
    if sensitivity and not heads:
        raise ValueError("layers: --sensitivity is about heads; give --heads too")
    prompt, target = given_prompt("layers", prompt, model, target, method in (Method.semantic, Method.contrast))
    lens = load_model(model, kind, device)
    import tl_scopes as tls

    result: LayerInfluence | HeadInfluence
    if heads:
        result = tls.head_influence(
            lens,
            prompt,
            method=method.value,
            kind="sensitivity" if sensitivity else "signed",
            target=target,
            foil=foil,
            rank=rank,
            pos=pos,
        )
    else:
        result = tls.layer_influence(
            lens, prompt, method=method.value, relative=not raw, target=target, foil=foil, rank=rank, pos=pos
        )
    result = result if bos else result.without("special")
    write_result(result, html, plot, json_file)
    if str(json_file) != "-":
        from rich.console import Console

        from tl_scopes.views.influence import influence_view

        Console().print(influence_view(result))
