"""What every command does around its call: quiet libraries, load the model, write files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import typer

UsageError: Any = typer.BadParameter.__mro__[1]
"""click's error for a wrong command line; typer brings its own copy of click in some versions."""


def require_folders(command: str, *files: Path | None) -> None:
    """Refuse, before any work, a file whose folder is not there."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"{command}: {file}: there is no folder {file.parent}")


def load_model(model: str, kind: str, device: str | None = None) -> Any:
    """The model, with a spinner in place of the libraries' own progress bars."""
    with working(f"loading {model}"):
        from transformers.utils import logging

        import tl_scopes as tls

        logging.disable_progress_bar()
        return tls.load_model(model, kind=kind, device=device)  # type: ignore[arg-type]


def quiet() -> None:
    """Keep the libraries' loading chatter out of the answer; the user's own settings win."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def working(what: str) -> Any:
    """A spinner on standard error, only where somebody looks."""
    from rich.console import Console

    return Console(stderr=True).status(f"{what} …")


def prepare(command: str, *files: Path | None) -> None:
    """Quiet libraries, and no work for a file that could not be written."""

    quiet()
    require_folders(command, *(None if str(file) == "-" else file for file in files))


def given_prompt(
    command: str, prompt: str | None, model: str, target: str | None, targeted: bool
) -> tuple[str, str | None]:
    """The given text, or the demo's with its target where the method has one."""
    if prompt is not None:
        return prompt, target
    if model != "demo":
        raise ValueError(f"{command}: give a PROMPT with --model; the built-in prompt is for the demo model")
    from tl_scopes import demo

    shown = demo.DEMO_PROMPTS[demo.DEFAULT_PROMPT]
    return shown.prompt, target or (shown.target if targeted else None)


def write_result(result: Any, html: Path | None, plot: Path | None, json_file: Path | None) -> None:
    """The files that were asked for."""
    if html is not None:
        html.write_text(result.html(), encoding="utf-8")
    if plot is not None:
        result.plot().savefig(plot)
    if str(json_file) == "-":
        print(json.dumps(result.to_dict(), ensure_ascii=False, indent=1))
    elif json_file is not None:
        result.save(json_file)
