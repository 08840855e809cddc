"""Invariant: what ``.plot()`` returns is shown as a picture by a notebook that never imported pyplot."""

from __future__ import annotations

import struct

from tl_scopes.views.canvas.figures import Figure


def test_a_notebook_shows_the_figure_as_png_at_screen_size() -> None:
    figure = Figure(figsize=(3, 2), dpi=150)
    figure.subplots().plot([0, 1])
    png = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (300, 200)


def test_ipython_takes_it_for_a_picture_without_pyplot() -> None:
    from IPython.core.formatters import PNGFormatter

    figure = Figure(figsize=(1, 1))
    assert PNGFormatter()(figure) == figure._repr_png_()
