"""What every command does around its call: quiet libraries, a model, the demo's prompt, and the answer, shown and written.

A mistake is a ``ValueError`` with the reason; ``main`` puts the command's name before it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tl_scopes.results.files import require_json_target, write_file

STDOUT = Path("-")


def quiet() -> None:
    """Keep the libraries' loading chatter out of the answer; the user's own settings win."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def working(what: str) -> Any:
    """A spinner on standard error, only where somebody looks."""
    from rich.console import Console

    return Console(stderr=True).status(f"{what} …")


def library() -> Any:
    """The package with torch and TransformerLens imported."""
    with working("loading torch and TransformerLens"):
        import tl_scopes

        _ = tl_scopes.load_model  # names are imported on first use
    return tl_scopes


def load_model(model: str, kind: str, device: str | None = None) -> Any:
    """The model, with a spinner in place of the libraries' own progress bars."""
    with working(f"loading {model}"):
        from transformers.utils import logging

        import tl_scopes as tls

        logging.disable_progress_bar()
        return tls.load_model(model, kind=kind, device=device)  # type: ignore[arg-type]


# -- what is explained -----------------------------------------------------------------------------


def prompt_or_demo(
    prompt: str | None, model: str, target: str | None = None, *, aimed: bool = True, demo: str | None = None
) -> tuple[str, str | None]:
    """The given text and target, or a demo's; its target only where a method has one."""
    if prompt is not None:
        return prompt, target
    require_prompt(prompt, model)
    from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS

    shown = DEMO_PROMPTS[DEFAULT_PROMPT if demo is None else demo]
    return shown.prompt, shown.target if aimed and target is None else target


def require_prompt(prompt: str | None, model: str) -> None:
    """Only the demo model has prompts of its own."""
    if prompt is None and model != "demo":
        raise ValueError("give a PROMPT with --model; the built-in prompt is for the demo model")


def require_names(names: Sequence[str], known: Collection[str]) -> None:
    """Refuse an unknown method before a model is loaded."""
    for name in names:
        if name not in known:
            raise ValueError(f"unknown method {name!r}; expected {', '.join(known)}")


def aimed_at_a_token(methods: Sequence[str]) -> bool:
    """Does one of these scopes take a target? They are names of scopes, or refused."""
    from tl_scopes.directions.by_name import SCOPES, reads

    require_names(methods, SCOPES)
    return reads("target", methods)


def default_methods(function: Callable[..., Any]) -> tuple[str, ...]:
    """The methods that a call takes where it is given none."""
    default: str | tuple[str, ...] = inspect.signature(function).parameters["methods"].default
    return (default,) if isinstance(default, str) else default


# -- the answer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """The files that a command is asked for; made before any work, so that one that cannot be written is refused then."""

    html: Path | None = None
    plot: Path | None = None
    csv: Path | None = None
    json: Path | None = None

    def __post_init__(self) -> None:
        for name, file in self.asked.items():
            if file != STDOUT:
                require_writable(file)
                if name == "json":
                    require_json_target(file)
            elif name not in ("csv", "json"):
                raise ValueError(f"--{name} -: only --csv and --json can go to standard output")
        if self.csv == self.json == STDOUT:
            raise ValueError("--csv - --json -: one of them can go to standard output")
        if self.plot is not None:
            require_figure(self.plot)

    @property
    def asked(self) -> dict[str, Path]:
        """By the option's name."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: file for name, file in given.items() if file is not None}

    def answer(self, result: Any, shown: Any = None) -> None:
        """Show the result, unless standard output was asked for something else, and write the files."""
        if STDOUT not in self.asked.values():
            show(result if shown is None else shown)
        for name, file in self.asked.items():
            if name == "plot":
                result.plot().savefig(file)
            elif name == "json" and file != STDOUT:
                result.save(file)
            elif file == STDOUT:
                print(_AS_TEXT[name](result), end="")
            else:
                write_file(file, _AS_TEXT[name](result))


def require_writable(file: Path) -> None:
    """A file in a folder that is there."""
    if not file.parent.is_dir():
        raise ValueError(f"{file}: there is no folder {file.parent}")
    if file.is_dir():
        raise ValueError(f"{file} is a folder; give the name of a file")


def require_figure(file: Path) -> None:
    """A figure's file, by its ending."""
    require_writable(file)
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if file.suffix and file.suffix[1:].lower() not in known:
        raise ValueError(f"{file}: a figure's name ends with one of {', '.join(f'.{k}' for k in sorted(known))}")


def show(shown: Any) -> None:
    """On standard output: a picture of rich in the terminal's colours, or its text where nobody looks; text as it is."""
    from rich.console import Console

    console = Console()
    if not hasattr(shown, "__rich_console__"):
        print(shown)
    elif console.is_terminal:
        console.print(shown)
    else:
        with console.capture() as captured:
            console.print(shown)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _html(result: Any) -> str:
    return str(result.html())


def _json(result: Any) -> str:
    import json

    return json.dumps(result.to_dict(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _csv(result: Any) -> str:
    """The table, with its row names where they have a name."""
    frame = result.to_frame()
    return str(frame.to_csv(index=frame.index.name is not None))


_AS_TEXT: dict[str, Callable[[Any], str]] = {"html": _html, "json": _json, "csv": _csv}
