"""Numbers as readers see them: one minus sign, −, in sentences, tables and pictures; what programs read keeps Python's."""

from __future__ import annotations

import re

_MINUS = re.compile(r"(?<![\w.-])-(?=[\d.]|inf)")
_NONE = re.compile(r"−(?=0(?:\.0*)?(?![\d.]))")


def minus(text: str) -> str:
    """Text of numbers with that sign, also where they stand among words; what is rounded to zero has none."""
    return _NONE.sub("", _MINUS.sub("−", text))
