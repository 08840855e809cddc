"""The mark of an error whose message begins with the name of its call; importing it costs nothing."""

from __future__ import annotations

NAMED = "_tl_scopes_call"


def call_of(error: Exception) -> str | None:
    """The call whose name stands before the error's message."""
    name: str | None = getattr(error, NAMED, None)
    return name
