"""What a result looks like, by its class: ``view`` for pages and notebooks, ``plot`` with matplotlib, ``text`` for terminals.

Each file of this folder registers what belongs to one result; results of later folders register theirs beside themselves.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from tl_scopes.views.canvas.page import View


@singledispatch
def view(result: Any) -> View:
    """The result as an interactive view: ``.html()``, ``.save(path)``, ``.show()``; notebooks show it by itself."""
    raise TypeError(f"view({type(result).__name__}): expected a result of this package")


@singledispatch
def plot(result: Any) -> Any:
    """The result as a matplotlib figure."""
    raise TypeError(f"plot({type(result).__name__}): expected a result of this package")


@singledispatch
def text(result: Any) -> str:
    """The result as text, as ``print`` shows it."""
    raise TypeError(f"text({type(result).__name__}): expected a result of this package")
