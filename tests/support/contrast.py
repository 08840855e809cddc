"""How well text is read on a colour, as WCAG measures it."""

from __future__ import annotations

from tl_scopes.views.canvas.colours import RGB, luminance

AA = 4.5
"""Contrast that WCAG asks of text, level AA."""


def contrast(a: RGB, b: RGB) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
