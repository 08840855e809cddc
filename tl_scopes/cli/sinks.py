"""The command ``sinks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tl_scopes.cli.options import Method
from tl_scopes.cli.support import given_prompt, load_model, prepare, write_result


def sinks(
    prompt: Annotated[str | None, typer.Argument(help="Text to look at; without it, a demo.")] = None,
    model: Annotated[str, typer.Option(help="'demo', a Hub name, or a local Hugging Face folder.")] = "demo",
    method: Annotated[
        list[Method] | None, typer.Option(help="Scope whose share of influence on sinks is wanted; repeat for several.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Explained token, e.g. ' dog'; default: top prediction.")] = None,
    foil: Annotated[str | None, typer.Option(help="Token to contrast the target with (method contrast).")] = None,
    n_first: Annotated[int, typer.Option(help="First tokens that count as sink.")] = 1,
    multiple: Annotated[float, typer.Option(help="Times the median from which a later token is a sink.")] = 5.0,
    unrelated: Annotated[int, typer.Option(help="Random prompts of the positional baseline; 0 for none.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of those prompts.")] = 0,
    pos: Annotated[int, typer.Option(help="Position whose next-token prediction is explained.")] = -1,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that works offline here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a figure here (.png, .svg, .pdf).")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here; - for stdout.")] = None,
) -> None:
    """Attention sinks: how much attention the first tokens and a few others take, and each scope's influence on them."""
    prepare("sinks", html, plot, json_file)
    methods: Any = [m.value for m in method or (Method.semantic, Method.fisher, Method.temperature)]
    prompt, target = given_prompt("sinks", prompt, model, target, bool({"semantic", "contrast"} & set(methods)))
    lens = load_model(model, kind, device)
    import tl_scopes as tls

    result = tls.attention_sinks(
        lens,
        prompt,
        methods=methods,
        n_first=n_first,
        multiple=multiple,
        unrelated=unrelated,
        seed=seed,
        target=target,
        foil=foil,
        pos=pos,
    )
    write_result(result, html, plot, json_file)
    if str(json_file) != "-":
        print(result)
