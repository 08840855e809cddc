"""Write docs/api.md, the list of the public names, from the stub and the docstrings: ``python scripts/make_api.py``.

What each takes and returns is said once, in its docstring: the site shows it (``scripts/site.py`` reads the names here), this
list leads to it. ``tests/test_doc_pages.py`` fails while the committed file is not what this prints.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "docs" / "api.md"
NAME = re.compile(r"^from \.([\w.]+) import (\w+) as \w+$", re.MULTILINE)
PART = re.compile(r"^from \. import (\w+) as \w+$", re.MULTILINE)


def folders() -> dict[str, list[str]]:
    """Public names by folder, each with the module that it stands in."""
    stub = (HOME / "tl_scopes" / "__init__.pyi").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for module, name in NAME.findall(stub):
        found.setdefault(module.split(".")[0], []).append(f"tl_scopes.{module}.{name}")
    for part in PART.findall(stub):
        found.setdefault(part, []).extend(_public(part))
    return found


def page() -> str:
    """The whole list."""
    parts = [
        "# API",
        "Each name leads to the file that defines it. Its docstring there has the formula, the arguments, what is returned "
        "and raised, the cost and an example; `help(tls.verify)` prints it, and the documentation site (`make site`) shows "
        "all of them with search. `import tl_scopes as tls`. `python scripts/make_api.py` writes this list.",
    ]
    for folder, names in folders().items():
        parts += [f"## {folder}", "\n".join(["| name | what it is |", "|---|---|", *(_row(folder, n) for n in names)])]
    return "\n\n".join(parts) + "\n"


def _row(folder: str, name: str) -> str:
    """A name, its file and the first sentence of its docstring."""
    module, _, short = name.rpartition(".")
    value = getattr(importlib.import_module(module), short)
    said = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    said = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", said).replace("``", "`").replace("|", r"\|")
    file = Path(inspect.getfile(inspect.unwrap(value))).relative_to(HOME).as_posix()
    shown = f"{folder}.{short}" if folder in ("timeseries", "tasks") else short
    return f"| [`{shown}`](../{file}) | {said} |"


def _public(part: str) -> list[str]:
    """Names of a public part of the package, ``tl_scopes.timeseries``, by the modules that they stand in."""
    module = importlib.import_module(f"tl_scopes.{part}")
    values = [getattr(module, name) for name in module.__all__]
    return [f"{value.__module__}.{value.__name__}" for value in values if callable(value)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
