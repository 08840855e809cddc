"""The command ``trace``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tl_scopes.cli.options import Scope
from tl_scopes.cli.support import load_model, quiet, require_folders, working

if TYPE_CHECKING:
    from tl_scopes.results.attribution import Attribution


def trace(
    prompt: Annotated[str | None, typer.Argument(help="Text to explain; without it, a demo.")] = None,
    model: Annotated[str, typer.Option(help="'demo', a Hub name, or a local Hugging Face folder.")] = "demo",
    scope: Annotated[Scope, typer.Option(help="Which scope; 'all' is semantic, fisher, temperature.")] = Scope.all,
    target: Annotated[str | None, typer.Option(help="Explained token, e.g. ' dog'; default: top prediction.")] = None,
    foil: Annotated[str | None, typer.Option(help="Token to contrast the target with (scope contrast).")] = None,
    pos: Annotated[int, typer.Option(help="Position whose next-token prediction is explained.")] = -1,
    rank: Annotated[int | None, typer.Option(help="Rank of the Fisher Scope; default 1.")] = None,
    kind: Annotated[str, typer.Option(help="Model class: auto, bridge or hooked.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    bos: Annotated[bool, typer.Option(help="Colour and rank special tokens (BOS) too.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the attributions here; - for stdout.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page that works offline here.")] = None,
) -> None:
    """Show which tokens of PROMPT caused the prediction that follows it."""
    quiet()
    require_folders("trace", html_file, None if str(json_file) == "-" else json_file)
    with working("loading torch and TransformerLens"):
        import tl_scopes as tls
        from tl_scopes import demo
        from tl_scopes.directions.by_name import reads

    methods: Any = ("semantic", "fisher", "temperature") if scope is Scope.all else (scope.value,)
    aimed = reads("target", methods)
    if target is not None and not aimed:
        print(f"tl-scopes: the {scope.value} scope has no target; --target is left out", file=sys.stderr)
        target = None
    if prompt is None:
        if model != "demo":
            raise ValueError("trace: give a PROMPT with --model; the built-in prompt is for the demo model")
        shown = demo.DEMO_PROMPTS[demo.DEFAULT_PROMPT]
        prompt, target = shown.prompt, target or (shown.target if aimed else None)
    lens = load_model(model, kind, device)
    result: dict[str, Attribution] = tls.scopes(
        lens, prompt, methods=methods, target=target, foil=foil, rank=rank, pos=pos
    )
    attributions = [a if bos else a.without("special") for a in result.values()]
    if html_file is not None:
        from tl_scopes import views

        one = len(attributions) == 1
        picture = views.tokens(attributions[0]) if one else views.compare({a.method: a for a in attributions})
        picture.save(html_file)
    if json_file is not None:
        _write_json(json_file, attributions)
        if str(json_file) == "-":
            return
    from rich.console import Console

    from tl_scopes.views.terminal import view

    Console().print(view(attributions))


def _write_json(path: Path, attributions: list[Attribution]) -> None:
    """All attributions as one JSON object by method."""
    import json

    text = json.dumps({a.method: a.to_dict() for a in attributions}, ensure_ascii=False, indent=1)
    if str(path) == "-":
        print(text)
        return
    path.write_text(text + "\n", encoding="utf-8")
