"""Write docs/api.md from the docstrings of the public names: ``python scripts/make_api.py``.

Only :mod:`inspect` is used; ``tests/test_doc_pages.py`` fails while the committed file is not what this prints.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import tl_scopes

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Cost", "Reference")
_NAME = re.compile(r"^([\w, |*]+): (.*)", re.DOTALL)


def page() -> str:
    """The whole page."""
    values: dict[str, Any] = {}
    for name in (n for n in tl_scopes.__all__ if not n.startswith("__")):
        value = getattr(tl_scopes, name)
        inside = {f"{name}.{n}": getattr(value, n) for n in value.__all__} if inspect.ismodule(value) else {name: value}
        values |= {n: v for n, v in inside.items() if callable(v)}
    functions = sorted(n for n in values if not inspect.isclass(values[n]))
    classes = sorted(n for n in values if inspect.isclass(values[n]))
    anchors = {n: n.lower().replace(".", "") for n in values}
    taken = {anchors[n] for n in functions}  # a second heading of one name gets -1
    anchors |= {n: anchors[n] + "-1" for n in classes if anchors[n] in taken}
    parts = [
        "# API reference\n",
        "Written by `python scripts/make_api.py` from the docstrings; do not edit. `import tl_scopes as tls`.\n",
        "**Functions**: " + " · ".join(f"[{n}](#{anchors[n]})" for n in functions) + "\n",
        "**Results**: " + " · ".join(f"[{n}](#{anchors[n]})" for n in classes) + "\n",
    ]
    parts += [_function(n, values[n]) for n in functions]
    parts += [_class(n, values[n]) for n in classes]
    return "\n".join(parts).rstrip() + "\n"


def _function(name: str, function: Any, level: str = "##", owner: str = "") -> str:
    call = f"```python\n{owner}{name}{_signature(function)}\n```"
    return f"{level} {name}\n\n{call}\n\n{markdown(inspect.getdoc(function) or '')}\n"


def _class(name: str, cls: Any) -> str:
    parts = [f"## {name}\n\n{markdown(inspect.getdoc(cls) or '')}\n"]
    inherited = [vars(base) for base in reversed(cls.__mro__) if base.__module__.startswith("tl_scopes")]
    for key, value in sorted({k: v for of_base in inherited for k, v in of_base.items()}.items()):
        value = getattr(value, "__func__", value)
        if key.startswith("_"):
            continue
        if isinstance(value, property) and value.fget is not None:
            parts.append(f"### {name}.{key}\n\n{markdown(inspect.getdoc(value) or '')}\n")
        elif inspect.isfunction(value):
            parts.append(_function(key, value, "###", f"{name}."))
    return "\n".join(parts)


def _signature(function: Any) -> str:
    """One argument per line where the line would be long."""
    signature = inspect.signature(function)
    arguments = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    returns = (
        "" if signature.return_annotation is inspect.Signature.empty else f" -> {_plain(signature.return_annotation)}"
    )
    shown: list[str] = []
    for i, p in enumerate(arguments):
        if p.kind is p.KEYWORD_ONLY and all(q.kind not in (p.KEYWORD_ONLY, p.VAR_POSITIONAL) for q in arguments[:i]):
            shown.append("*")
        star = {p.VAR_KEYWORD: "**", p.VAR_POSITIONAL: "*"}.get(p.kind, "")
        kind = "" if p.annotation is p.empty else f": {_plain(p.annotation)}"
        default = "" if p.default is p.empty else (f" = {p.default!r}" if kind else f"={p.default!r}")
        shown.append(f"{star}{p.name}{kind}{default}")
    line = f"({', '.join(shown)}){returns}"
    if len(line) <= 80:
        return line
    return "(\n" + "".join(f"    {s},\n" for s in shown) + f"){returns}"


def _plain(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def markdown(text: str) -> str:
    """A docstring as Markdown: sections become bold, their entries lists, examples code."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        head, _, rest = block.partition(":")
        if block.lstrip().startswith(">>>"):
            out.append(f"```python\n{inspect.cleandoc(block)}\n```")
        elif head in SECTIONS:
            out.append(f"**{head}**" + _entries(rest))
        else:
            out.append(
                " ".join(line.strip() for line in block.splitlines())
                if "===" not in block
                else f"```text\n{block}\n```"
            )
    return "\n\n".join(out)


def _entries(text: str) -> str:
    """What follows a section's name: running text, or one item for each entry that starts at the first indent."""
    if not text.startswith("\n"):
        return ": " + " ".join(text.split())
    lines = text.strip("\n").splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    items: list[str] = []
    for line in lines:
        if len(line) - len(line.lstrip()) == indent and (_NAME.match(line.strip()) or not items):
            items.append(line.strip())
        else:
            items[-1] += " " + line.strip()
    if len(items) == 1 and not re.match(r"^[\w]+: ", items[0]):
        return f": {items[0]}"
    return "\n\n" + "\n".join("- " + re.sub(_NAME, r"`\1`: \2", item) for item in items)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
