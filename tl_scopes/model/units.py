"""A named part of a prompt, in characters of its text."""

from __future__ import annotations

from dataclasses import dataclass

TEMPLATE = "template"
"""Name of what a chat's template wrote itself."""


@dataclass(frozen=True)
class Unit:
    """A part of a prompt that has a name: a turn of a chat by its role, a document, what the caller named.

    Attributes:
        name: a role (``"system"``, ``"user"``, ``"assistant"``, ``"tool"``), ``"thinking"``, ``"document"``, ``"tools"``.
        start: first character in the text.
        end: the one after its last.
    """

    name: str
    start: int
    end: int
