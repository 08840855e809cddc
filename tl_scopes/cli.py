"""The command line: parse, call, print.

Heavy imports wait until the arguments are parsed, so that ``--help`` answers at once. A user's mistake ends with one
line on standard error and exit code 2.
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tl_scopes.attribution import Attribution

UsageError: Any = typer.BadParameter.__mro__[1]
"""click's error for a wrong command line; typer brings its own copy of click in some versions."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Which input tokens caused this prediction? Jacobian Scopes for TransformerLens.",
)


class Scope(str, Enum):
    """Scopes that ``trace`` can show."""

    all = "all"
    semantic = "semantic"
    contrast = "contrast"
    fisher = "fisher"
    temperature = "temperature"


@app.callback()
def _options() -> None:
    """Which input tokens caused this prediction? Jacobian Scopes for TransformerLens."""


@app.command()
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
    _quiet()
    _require_folders("trace", html_file, None if str(json_file) == "-" else json_file)
    with _working("loading torch and TransformerLens"):
        import tl_scopes as tls
        from tl_scopes import demo
        from tl_scopes.explananda import reads

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
    lens = _load(model, kind, device)
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


@app.command()
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
    _quiet()
    _require_folders("gold", plot, csv)
    lens = _load(model, kind)
    from tl_scopes.benchmark import SCOPE_METHODS, gold_alignment

    result = gold_alignment(lens, method or SCOPE_METHODS, corpora=corpus, n=n, seed=seed)
    print(result)
    if plot is not None:
        result.plot().savefig(plot)
    if csv is not None:
        result.to_frame().to_csv(csv, index=False)


@app.command()
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
    _quiet()
    _require_folders("matrix", html_file, csv, json_file)
    if prompt is None:
        from tl_scopes import demo

        shown = demo.DEMO_PROMPTS[demo.DEFAULT_PROMPT]
        prompt = shown.prompt + shown.target
    lens = _load(model, kind, device)
    import tl_scopes as tls

    result = tls.attribution_matrix(lens, prompt, method=method, foil=foil)  # type: ignore[arg-type]
    result = result if bos else result.without("special")
    if html_file is not None:
        html_file.write_text(result.html(), encoding="utf-8")
    if csv is not None:
        result.to_frame().to_csv(csv)
    if json_file is not None:
        result.save(json_file)
    from rich.console import Console

    from tl_scopes.views.terminal import matrix_view

    Console().print(matrix_view(result))


@app.command()
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
    _quiet()
    _require_folders("spectrum", plot, csv)
    lens = _load(model, kind, device)
    import tl_scopes as tls
    from tl_scopes import demo

    texts = prompt or [e.prompt for corpus in demo.CORPORA for e in demo.examples(corpus, n)]
    result = tls.fisher_spectrum(lens, texts, k=k)
    print(result)
    if plot is not None:
        result.plot().savefig(plot)
    if csv is not None:
        result.to_frame().to_csv(csv, index=False)


def _register() -> None:
    """Commands that live in files of their own."""
    from tl_scopes import cli_app, cli_faithfulness, cli_followup, cli_series

    cli_faithfulness.register(app)
    cli_followup.register(app)
    cli_series.register(app)
    cli_app.register(app)


_register()


def _require_folders(command: str, *files: Path | None) -> None:
    """Refuse, before any work, a file whose folder is not there."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"{command}: {file}: there is no folder {file.parent}")


def _load(model: str, kind: str, device: str | None = None) -> Any:
    """The model, with a spinner in place of the libraries' own progress bars."""
    with _working(f"loading {model}"):
        from transformers.utils import logging

        import tl_scopes as tls

        logging.disable_progress_bar()
        return tls.load_model(model, kind=kind, device=device)  # type: ignore[arg-type]


def _write_json(path: Path, attributions: list[Attribution]) -> None:
    """All attributions as one JSON object by method."""
    import json

    text = json.dumps({a.method: a.to_dict() for a in attributions}, ensure_ascii=False, indent=1)
    if str(path) == "-":
        print(text)
        return
    path.write_text(text + "\n", encoding="utf-8")


def _quiet() -> None:
    """Keep the libraries' loading chatter out of the answer; the user's own settings win."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _working(what: str) -> Any:
    """A spinner on standard error, only where somebody looks."""
    from rich.console import Console

    return Console(stderr=True).status(f"{what} …")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UsageError as error:
        reason = error.format_message()
    except typer.Abort:
        sys.exit(130)
    except (ValueError, TypeError, OSError) as error:
        reason = str(error)
    print("tl-scopes: " + " ".join(reason.split()), file=sys.stderr)
    sys.exit(2)
