"""A matplotlib figure that notebooks show as a picture, and the colours of lines."""

from __future__ import annotations

from io import BytesIO

from matplotlib import figure

SCREEN_DPI = 100
"""Of the picture in a notebook: matplotlib's own for notebooks; files keep the figure's."""


class Figure(figure.Figure):
    """``matplotlib.figure.Figure`` that knows its own PNG."""

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=SCREEN_DPI)
        return buffer.getvalue()


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, told apart with any colour vision."""
