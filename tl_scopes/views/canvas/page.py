"""A view as a page or a notebook output: offline, with one copy of the CircuitsVis bundle where it draws.

The bundle is the file inside the installed ``circuitsvis`` package; nothing is ever loaded from elsewhere. Every view
holds its picture as static HTML. In a notebook CircuitsVis draws tokens again, in the same colours; a page of tokens does
without it. The matrix of all targets, whose rows light up under the mouse, needs it everywhere.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tl_scopes.results.files import write_file

READ_TOKENS = (
    '<p class="tls-small tls-read" aria-live="polite">'
    "Point at a token for its score, or walk them by the arrow keys.</p>"
)
"""The line below tokens that says what the mouse or the keyboard is on."""
_TOKENS = re.compile(
    r' data-component="ColoredTokens"|<script type="application/json" class="tls-tokens-data">[^<]*</script>'
)
"""What lets CircuitsVis draw tokens; text never looks like it, for its quotation marks are written as entities."""
_READABLE = ' tabindex="0" role="group" aria-label="tokens; arrow keys walk them"'
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 1.5em; background: #fff; color: #1a1a1a; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14161a; color: #e4e4e4; }} }}
{style}</style></head>
<body>
{body}
{script}
</body></html>
"""


@dataclass(frozen=True, eq=False)
class View:
    """A picture of results, ready for a notebook, a file or a terminal.

    Attributes:
        title: of the page.
        body: HTML without scripts' code: static content and the data that the script draws.
        plain: gives the same as text, for a terminal.
    """

    title: str
    body: str = field(repr=False)
    plain: Callable[[], str] = field(repr=False)

    def html(self) -> str:
        """A page of its own that works offline."""
        body = _TOKENS.sub("", self.body)
        script = _bundle() if _drawn(body) else _reading()
        return _PAGE.format(title=html.escape(self.title), style=own_file("style.css"), body=body, script=script)

    def _repr_html_(self) -> str:
        if not _drawn(self.body):
            script = _reading()
        elif _carries_bundle():
            script = _bundle()
        else:
            script = "<script>window.tlScopesDraw && window.tlScopesDraw()</script>"
        return f"<style>{own_file('style.css')}</style>\n{self.body}\n{script}"

    def save(self, path: str | Path) -> Path:
        """Write :meth:`html` to a file; returns its path."""
        return write_file(path, self.html())

    def show(self) -> None:
        """Display it in a notebook; print its text elsewhere."""
        shell = _shell()
        if shell is None or not hasattr(shell, "kernel"):
            print(self.plain())
            return
        from IPython.display import display

        display(self)  # type: ignore[no-untyped-call, unused-ignore]


def stack(*views: View) -> View:
    """Several views below each other, on one page with one bundle."""
    return View(
        views[0].title if views else "tl_scopes",
        "\n".join(view.body for view in views),
        lambda: "\n\n".join(view.plain() for view in views),
    )


def heading(text: str) -> str:
    """The title of a view; a paragraph, which no notebook theme enlarges."""
    return f'<p class="tls-title" role="heading" aria-level="3"><b>{html.escape(text)}</b></p>'


def noted(notes: Iterable[str]) -> str:
    """Sentences that a reader must know, a paragraph each."""
    return "".join(f'<p class="tls-note">{html.escape(note)}</p>' for note in notes)


def switch(names: Iterable[str], sections: Sequence[str], *, css: str, label: str) -> str:
    """One of several sections, by a button each: radio buttons (arrow keys work), which need no script.

    ``css`` is the class of the form, ``label`` what a button chooses.
    """
    buttons = "".join(
        f'<label><input type="radio" name="method" value="{i}"{" checked" if i == 0 else ""}>{html.escape(name)}</label>'
        for i, name in enumerate(names)
    )
    rules = "".join(
        f".{css}:has(.tls-switch > label:nth-of-type({i}) > :checked) > section:not(:nth-of-type({i})){{display:none}}"
        for i in range(1, len(sections) + 1)
    )
    panels = "".join(f"<section>{section}</section>" for section in sections)
    return (
        f'<form class="{css}" method="dialog"><style>{rules}</style>'
        f'<div class="tls-switch" role="radiogroup" aria-label="{label}">{buttons}</div>{panels}</form>'
    )


def host(component: str, data: dict[str, Any], static: str, *, css: str = "", keep: bool = False) -> str:
    """The place of one CircuitsVis component: its static picture, and its data for the script."""
    tokens = component == "ColoredTokens"
    return (
        f'<div class="tls-host {css}" data-component="{component}"{" data-keep" if keep else ""}>'
        f'<div class="tls-static"{_READABLE if tokens else ""}>{static}</div>'
        f"{data_script(data, 'tls-tokens-data' if tokens else 'tls-data')}</div>"
    )


def data_script(data: dict[str, Any], css: str) -> str:
    """Data for a script; no token in it can close the element."""
    written = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="{css}">{written}</script>'


@lru_cache
def own_file(name: str) -> str:
    """A style sheet or script of this folder, e.g. ``style.css``."""
    return (files("tl_scopes.views.canvas") / name).read_text(encoding="utf-8")


@lru_cache
def drawing_code() -> str:
    """CircuitsVis and the code that draws with it; running it twice on a page does no harm."""
    code = (files("circuitsvis") / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    code = re.sub(r"^//# sourceMappingURL=.*$", "", code, flags=re.MULTILINE).replace("</script", "<\\/script")
    wrapped = f"window.CircuitsVis = window.CircuitsVis || (function () {{ {code}\nreturn CircuitsVis; }})();"
    return f"{wrapped}\n{own_file('draw.js')}\nwindow.tlScopesDraw();\n{_reading_code()}"


def _bundle() -> str:
    """:func:`drawing_code` as a script element."""
    return f"<script>{drawing_code()}</script>"


def _reading() -> str:
    """What a page without CircuitsVis needs."""
    return f"<script>{_reading_code()}</script>"


def _reading_code() -> str:
    """What reads out marks, shows the sources of a target that is picked, moves along a path, and follows a chain back."""
    return "\n".join(map(own_file, ("hover.js", "pick.js", "path.js", "chain.js")))


def _drawn(body: str) -> bool:
    """Does CircuitsVis draw a part of it, so that the bundle is needed?"""
    return 'data-component="' in body


# -- notebooks ---------------------------------------------------------------------------------------------

_carrier: tuple[Any, Any, int] | None = None
"""The shell, cell and execution whose output holds the bundle that the outputs after it share."""


def _shell() -> Any:
    """The running IPython shell, or None."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _carries_bundle() -> bool:
    """Whether this output must hold the bundle: the first of a kernel session, and again when that cell is rerun.

    Outside a notebook, and in Colab, where every output is a page of its own, each output holds it.
    """
    global _carrier
    shell = _shell()
    if shell is None or not hasattr(shell, "kernel") or "google.colab" in sys.modules:
        return True
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = (parent or {}).get("metadata", {}).get("cellId")
    if _carrier is not None and _carrier[0] is shell:
        rerun = cell is not None and cell == _carrier[1] and shell.execution_count != _carrier[2]
        if not rerun:
            return False
    _carrier = (shell, cell, shell.execution_count)
    return True
