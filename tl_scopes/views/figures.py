"""The figure that all plots are drawn on: a matplotlib figure that a notebook shows as a picture.

A figure made without pyplot is only text in Jupyter (``<Figure size ...>``), because pyplot is what registers the
picture. Importing pyplot here would choose a backend for the user's whole session; one method does as well.
"""

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
