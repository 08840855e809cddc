"""How what an extra brings is installed: said in one place."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """The command, for an error: from a clone, as the README installs the package itself."""
    return f'in a clone of tl_scopes: pip install ".[{extra}]"'
