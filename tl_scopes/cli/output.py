"""What a command prints and writes: its files, checked before any work, and text that every terminal takes.

A stream that has no character for a mark (ASCII, cp1252) shows an ASCII one in its place, and of any other character the
escape ``\\u00fc``: a result is never lost to an arrow. Data on standard output have escapes alone, which keep JSON valid.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tl_scopes.results.files import require_json_target, write_file

STDOUT = Path("-")

# -- characters ------------------------------------------------------------------------------------

_MARKS = {
    **dict.fromkeys("▏▎▍▌▋▊▉", "|"),
    **dict.fromkeys("–−‑", "-"),
    **{"█": "#", "→": "->", "←": "<-", "…": "...", "⋯": "...", "±": "+-", "×": "x", "·": "*", "⊙": "*"},
    **{"²": "^2", "³": "^3", "½": "1/2", "₀": "_0", "₂": "_2", "ᵀ": "^T", "‖": "||", "⟨": "<", "⟩": ">", "√": "sqrt"},
    **{"≤": "<=", "≥": ">=", "≈": "~", "∈": "in", "∂": "d", "∇": "grad ", "Σ": "sum ", "∫": "int ", "Δ": "Delta"},
    **{"α": "alpha", "β": "beta", "δ": "delta", "ε": "eps", "λ": "lambda", "μ": "mu", "ρ": "rho", "σ": "sigma"},
    **{"�": "?", "’": "'", "✓": "ok", "✗": "no", "◂": "<", "⏎": "\\n", "␍": "\\r", "⇥": "\\t"},
}
"""What stands for the signs of this package's tables, notes and errors."""


def any_terminal() -> None:
    """Let standard output and error take every character; a way that the user chose (``PYTHONIOENCODING``) stays."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors="tl_scopes.marks")


def _marked(error: UnicodeError) -> tuple[str, int]:
    return _replaced(error, lambda c: _MARKS.get(c) or _escape(c))


def _escaped(error: UnicodeError) -> tuple[str, int]:
    return _replaced(error, _escape)


def _replaced(error: UnicodeError, by: Callable[[str], str]) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(by, error.object[error.start : error.end])), error.end


def _escape(character: str) -> str:
    """As JSON writes it."""
    return json.dumps(character)[1:-1]


codecs.register_error("tl_scopes.marks", _marked)
codecs.register_error("tl_scopes.escapes", _escaped)


# -- standard output -------------------------------------------------------------------------------


def show(shown: object) -> None:
    """On standard output, at once: one that takes no more (a full disk) is a mistake that is named."""
    try:
        print(shown, flush=True)
    except BrokenPipeError:
        raise  # the reader of our output has seen enough
    except OSError as error:
        raise ValueError(f"standard output: {error.strerror}") from error


def _as_data(text: str) -> str:
    """With escapes for what standard output cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "tl_scopes.escapes").decode(encoding)


# -- files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """The files that a command is asked for; made before any work, so that one that cannot be written is refused then."""

    html: Path | None = None
    plot: Path | None = None
    csv: Path | None = None
    json: Path | None = None
    rank_plot: Path | None = None

    def __post_init__(self) -> None:
        for option, file in self.asked.items():
            if file != STDOUT:
                require_writable(option, file)
            elif option not in ("--csv", "--json"):
                raise ValueError(f"{option} -: only --csv and --json can go to standard output")
            if option == "--json" and file != STDOUT:
                require_json_target(file)
            if option.endswith("plot"):
                require_figure(option, file)
        if self.csv == self.json == STDOUT:
            raise ValueError("--csv - --json -: one of them can go to standard output")

    @property
    def asked(self) -> dict[str, Path]:
        """The files, by their option."""
        given = {f"--{f.name.replace('_', '-')}": getattr(self, f.name) for f in fields(self)}
        return {option: file for option, file in given.items() if file is not None}

    def answer(self, result: Any) -> None:
        """Print the result, unless standard output was asked for something else, and write the files.

        If one cannot be written, the others are, before the mistake is told.
        """
        if STDOUT not in self.asked.values():
            show(result)
        failed = []
        for option, file in self.asked.items():
            try:
                _WRITERS[option](result, file)
            except BrokenPipeError:
                raise
            except OSError as error:
                failed.append(f"{option} {file}: {error.strerror or error}")
        if failed:
            raise ValueError("; ".join(failed))


def require_writable(option: str, file: Path) -> None:
    """A file that may be written, in a folder that is there."""
    try:
        if not file.parent.is_dir():
            raise ValueError(f"{option} {file}: there is no folder {file.parent}")
        if file.is_dir():
            raise ValueError(f"{option} {file}: this is a folder; give the name of a file")
        known = file if file.exists() else file.parent
    except OSError as error:
        raise ValueError(f"{option} {file}: {error.strerror}") from error
    if not os.access(known, os.W_OK):
        raise ValueError(f"{option} {file}: no permission to write {known}")


def require_folder(option: str, folder: Path) -> None:
    """A folder that may be written into, there or to be made."""
    nearest = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    if not nearest.is_dir():
        raise ValueError(f"{option} {folder}: {nearest} is a file; give a folder")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"{option} {folder}: no permission to write {nearest}")


def require_figure(option: str, file: Path) -> None:
    """A figure's file, by its ending."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if file.suffix[1:].lower() not in known:
        raise ValueError(
            f"{option} {file}: a figure's name ends with one of {', '.join(f'.{k}' for k in sorted(known))}"
        )


def _html(result: Any) -> str:
    return str(result.html())


def _json(result: Any) -> str:
    return json.dumps(result.to_dict(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _csv(result: Any) -> str:
    """The table, with its row names where they have a name."""
    frame = result.to_frame()
    return str(frame.to_csv(index=frame.index.name is not None))


def _save(figure: Any, file: Path) -> None:
    try:
        figure.savefig(file)
    except RuntimeError as error:  # a format that needs a program, such as .pgf
        raise OSError(str(error)) from error


def _writes(text: Callable[[Any], str]) -> Callable[[Any, Path], None]:
    def write(result: Any, file: Path) -> None:
        if file == STDOUT:
            show(_as_data(text(result)).removesuffix("\n"))
        else:
            write_file(file, text(result))

    return write


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "--html": _writes(_html),
    "--json": _writes(_json),
    "--csv": _writes(_csv),
    "--plot": lambda result, file: _save(result.plot(), file),
    "--rank-plot": lambda result, file: _save(result.plot_ranks(), file),
}
"""What each option writes."""
