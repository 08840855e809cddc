"""The commands ``layers`` and ``sinks``; :func:`register` adds them to the command line.

Heavy imports wait until the arguments are parsed. A user's mistake is raised as ``ValueError``, which ``tl-scopes``
prints as one line with exit code 2.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tl_scopes.inside import HeadInfluence, LayerInfluence


class Method(str, Enum):
    """Scopes whose influence can be followed through the model from the command line."""

    semantic = "semantic"
    contrast = "contrast"
    fisher = "fisher"
    temperature = "temperature"
    total_information = "total_information"
    moment = "moment"


def register(app: typer.Typer) -> None:
    """Add both commands to the application."""
    app.command("layers")(layers)
    app.command("sinks")(sinks)


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
    _prepare("layers", html, plot, json_file)
    if raw and heads:
        raise ValueError("layers: --raw is about layers; leave it out with --heads")
    if sensitivity and not heads:
        raise ValueError("layers: --sensitivity is about heads; give --heads too")
    prompt, target = _prompt("layers", prompt, model, target, method in (Method.semantic, Method.contrast))
    lens = _load(model, kind, device)
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
    _write(result, html, plot, json_file)
    if str(json_file) != "-":
        from rich.console import Console

        from tl_scopes.views.terminal import influence_view

        Console().print(influence_view(result))


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
    _prepare("sinks", html, plot, json_file)
    methods: Any = [m.value for m in method or (Method.semantic, Method.fisher, Method.temperature)]
    prompt, target = _prompt("sinks", prompt, model, target, bool({"semantic", "contrast"} & set(methods)))
    lens = _load(model, kind, device)
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
    _write(result, html, plot, json_file)
    if str(json_file) != "-":
        print(result)


def _prepare(command: str, *files: Path | None) -> None:
    """Quiet libraries, and no work for a file that could not be written."""
    from tl_scopes.cli import _quiet, _require_folders

    _quiet()
    _require_folders(command, *(None if str(file) == "-" else file for file in files))


def _prompt(command: str, prompt: str | None, model: str, target: str | None, targeted: bool) -> tuple[str, str | None]:
    """The given text, or the demo's with its target where the method has one."""
    if prompt is not None:
        return prompt, target
    if model != "demo":
        raise ValueError(f"{command}: give a PROMPT with --model; the built-in prompt is for the demo model")
    from tl_scopes import demo

    shown = demo.DEMO_PROMPTS[demo.DEFAULT_PROMPT]
    return shown.prompt, target or (shown.target if targeted else None)


def _load(model: str, kind: str, device: str | None) -> Any:
    from tl_scopes.cli import _load as load

    return load(model, kind, device)


def _write(result: Any, html: Path | None, plot: Path | None, json_file: Path | None) -> None:
    """The files that were asked for."""
    if html is not None:
        html.write_text(result.html(), encoding="utf-8")
    if plot is not None:
        result.plot().savefig(plot)
    if str(json_file) == "-":
        print(json.dumps(result.to_dict(), ensure_ascii=False, indent=1))
    elif json_file is not None:
        result.save(json_file)
