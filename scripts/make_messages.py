"""Write docs/messages.md, every error the package raises, from the source: ``python scripts/make_messages.py``.

A message's fixed words stand as they are and ``…`` for what it fills in, so that a message met in a terminal can be searched
for. ``tests/test_doc_pages.py`` fails while the committed file is not what this prints.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tl_scopes"
PAGE = ROOT / "docs" / "messages.md"
KINDS = ("ValueError", "TypeError", "NotImplementedError", "Refused")
NOT_IN_IT = ("demo/train.py", "demo/initial.py")
"""What no user's call reaches."""


def page() -> str:
    """The whole page."""
    parts = [
        "# Every error message\n",
        "Written by `python scripts/make_messages.py` from the source; do not edit. `…` stands for what a message fills in "
        "and `call` for the function called, which stands before every error "
        "of a public call. [Errors and their remedies](errors.md) explains the common ones with "
        "examples.\n",
    ]
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name in NOT_IN_IT:
            continue
        found = messages(ast.parse(file.read_text(encoding="utf-8")))
        if found:
            parts.append(f"## {name}\n\n" + "\n".join(f"- `{kind}`: {escaped(text)}" for kind, text in found) + "\n")
    return "\n".join(parts).rstrip() + "\n"


def messages(tree: ast.AST) -> list[tuple[str, str]]:
    """Kind and text of every error that is raised with words of its own, in the order of the source."""
    found: list[tuple[int, str, str]] = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        kind = getattr(node.exc.func, "id", "")
        text = words(node.exc.args[0]) if node.exc.args else ""
        text = f"call{text}" if text.startswith("(") else text
        if kind in KINDS and re.search(r"\w{3}", text):
            found.append((node.lineno, kind, " ".join(text.split())))
    return list(dict.fromkeys((kind, text) for _, kind, text in sorted(found)))


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([*_<>\[\]|])", r"\\\1", text)


def words(node: ast.expr) -> str:
    """The fixed words of a string expression."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return words(node.left) + words(node.right)
    return "…"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
