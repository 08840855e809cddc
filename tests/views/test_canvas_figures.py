"""Invariant: what ``.plot()`` returns is shown as a picture by a notebook that never imported pyplot."""

from __future__ import annotations

import re
import struct

from tl_scopes.views.canvas.figures import Figure, _named


def test_a_notebook_shows_the_figure_as_png_at_screen_size() -> None:
    figure = Figure(figsize=(3, 2), dpi=150)
    figure.subplots().plot([0, 1])
    png = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (300, 200)


def test_a_drawing_is_named_after_what_is_drawn() -> None:
    """By matplotlib it is named after numbers that differ in their last bits from one layout to the next."""
    drawn = '<clipPath id="{0}"/><clipPath id="{1}"/><path d="M{2}" clip-path="url(#{0})"/><use href="#{1}"/>'
    one, again, other = (
        _named(drawn.format(*given))
        for given in (
            ("p0123456789", "mabcdef0123", 1),
            ("pfedcba9876", "m0000000001", 1),
            ("p0123456789", "mabcdef0123", 2),
        )
    )
    assert one == again
    for page in (one, other):
        ids = re.findall(r'id="([^"]*)"', page)
        assert len(set(ids)) == 2
        assert re.findall(r"#([^)\"]*)", page) == ids
    assert not set(re.findall(r'id="([^"]*)"', one)) & set(re.findall(r'id="([^"]*)"', other)), (
        "two on one page stand apart"
    )
    figure = Figure()
    figure.subplots().plot([0, 1])
    names = re.findall(r'id="([^"]*)"', figure.chart("x"))
    assert names and all(re.fullmatch(r"p[0-9a-f]{10}-\d+", name) for name in names)


def test_ipython_takes_it_for_a_picture_without_pyplot() -> None:
    from IPython.core.formatters import PNGFormatter

    figure = Figure(figsize=(1, 1))
    assert PNGFormatter()(figure) == figure._repr_png_()
