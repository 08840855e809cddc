"""A matplotlib figure that notebooks show as a picture, and that pages hold as SVG whose marks can be read out.

Pages show the figures of ``.plot()``: text as text, so that any script and any token is written by the browser's fonts,
on a transparent ground, which dark mode inverts.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import md5
from html import escape
from io import BytesIO, StringIO
from os import PathLike
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib import figure, rc_context

from tl_scopes.results.files import write_file
from tl_scopes.views.wording import literal, visible

SCREEN_DPI = 100
"""Of the picture in a notebook: matplotlib's own for notebooks; files keep the figure's."""
_POINTS = 72
"""SVG units per inch."""
_RADIUS = 5
"""Of the place around a point where the mouse finds it."""
_NOT_NEEDED = re.compile(
    r'<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|(?<=<g) id="[^"]*"|\n *', re.DOTALL
)
"""The date, a style of everything on the page, names of groups, indentation."""
_NAME = re.compile(r'(?<= id=")[a-z]+[0-9a-f]{10}(?=")')
"""Of what a drawing refers to: matplotlib's digest of numbers that the layout finds to their last bit but one."""
_ALONE = re.compile(r"<g>(<(?:path|use)[^>]*/>)</g>")
_TAG, _DIGITS = re.compile(r"<[^>]*>"), re.compile(r"(\.\d\d)\d+")
"""Coordinates are as fine as a hundredth of a point."""

_MISSING, _NAMED = re.compile(r"Glyph (\d+) .*missing from"), 5
"""What matplotlib says of a character that no font has; how many of them a warning names."""
LEAST = 1.1
"""Of its own size, to which a page may shrink a figure before it scrolls: text stays as large as on a wide screen."""
NOTE_COLOUR = "#a04000"
_NOTE_LETTERS, _NOTE_LINE = 15, 0.14
"""Letters of a note to an inch of the figure's width, and inches of each of its lines."""
Span = float | tuple[float, float] | None


@contextmanager
def _glyphs_said_once() -> Iterator[None]:
    """One warning for all characters that no font has, where matplotlib gives one for each."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.filterwarnings("always", _MISSING.pattern)
        yield
    lacking = dict.fromkeys(chr(int(found[1])) for w in seen if (found := _MISSING.match(str(w.message))))
    for w in seen:
        if not _MISSING.match(str(w.message)):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno, source=w.source)
    if lacking:
        warnings.warn(
            f"No font that matplotlib found has {' '.join(list(lacking)[:_NAMED])}{' …' * (len(lacking) > _NAMED)}: boxes "
            "stand for these characters. Install a font that has them (Noto), or use the page: .view().save('page.html').",
            stacklevel=4,
        )


def _named(drawn: str) -> str:
    """The same with names after what is drawn: equal drawings are equal, and different ones of a page apart."""
    names = {name: str(i) for i, name in enumerate(dict.fromkeys(_NAME.findall(drawn)))}
    if not names:
        return drawn
    known = re.compile("|".join(names))
    digest = md5(known.sub(lambda name: names[name[0]], drawn).encode(), usedforsecurity=False).hexdigest()[:10]
    return known.sub(lambda name: f"p{digest}-{names[name[0]]}", drawn)


class Figure(figure.Figure):
    """``matplotlib.figure.Figure`` that knows its own PNG, its own SVG, and what its marks say."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.marks: list[tuple[Any, str, Span, Span, Any]] = []

    def put_notes(self, notes: Iterable[str]) -> None:
        """Sentences below all that is drawn, which a page has, too; the figure grows by their lines."""
        width, height = self.get_size_inches()
        lines = [line for note in dict.fromkeys(notes) for line in wrap(visible(note), int(_NOTE_LETTERS * width))]
        if lines:
            self.set_size_inches(width, height + _NOTE_LINE * len(lines))
            self.supxlabel(literal("\n".join(lines)), fontsize=7, color=NOTE_COLOUR, x=0.01, ha="left")

    def savefig(self, fname: Any, **options: Any) -> None:
        """As matplotlib's, but a file is written whole or not at all."""
        if not isinstance(fname, str | PathLike):
            with _glyphs_said_once():
                super().savefig(fname, **options)
            return
        path = Path(fname)
        kind = options.pop("format", None) or path.suffix[1:]
        if not kind:
            kind = self.canvas.get_default_filetype()
            path = path.with_name(f"{path.name.rstrip('.')}.{kind}")
        drawn = BytesIO()
        self.savefig(drawn, format=kind, **options)
        write_file(path, drawn.getvalue())

    def say(self, axes: Any, text: str, x: Span, y: Span, to: Any = None) -> None:
        """What a page says of the mark at a point, or of all between two values; None is the whole length of the axes.

        With ``to``, other axes, the place reaches as far as theirs.
        """
        self.marks.append((axes, text, x, y, to))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=min(SCREEN_DPI, self.dpi))
        return buffer.getvalue()

    def chart(self, label: str) -> str:
        """The figure as an element of a page, and the line that reads out the mark under the mouse or the keyboard."""
        width, height = (_POINTS * inches for inches in self.get_size_inches())
        read = (
            '<p class="tls-small tls-read" aria-live="polite">Point at a mark for its figures, or walk them by the arrow '
            "keys.</p>"
        )
        return (
            f'<div class="tls-scroll"><svg class="tls-chart tls-ink"{" tabindex=0" if self.marks else ""} '
            f'viewBox="0 0 {width:g} {height:g}" style="min-width:{LEAST * width:.0f}px;max-width:{1.25 * width:.0f}px" '
            f'role="img" aria-label="{escape(label)}">{self._drawn()}{"".join(map(self._place, self.marks))}</svg></div>'
            f"{read if self.marks else ''}"
        )

    def _drawn(self) -> str:
        """What matplotlib draws, without what a page does not need."""
        buffer = StringIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tl_scopes"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No font that matplotlib found")  # the browser writes the text
            self.savefig(buffer, format="svg", transparent=True)
        found = re.search(r"<svg[^>]*>(.*)</svg>", buffer.getvalue(), re.DOTALL)
        assert found is not None
        short = _ALONE.sub(r"\1", _NOT_NEEDED.sub("", found[1]))
        return _named(_TAG.sub(lambda tag: _DIGITS.sub(r"\1", tag[0]), short))

    def _place(self, mark: tuple[Any, str, Span, Span, Any]) -> str:
        """Where the mouse finds a mark, with its words; :meth:`_drawn` has laid out the figure before."""
        axes, text, x, y, to = mark
        if any(isinstance(v, float) and not math.isfinite(v) for v in (x, y)):
            return ""
        scale, height = _POINTS / self.dpi, _POINTS * float(self.get_size_inches()[1])
        if isinstance(x, int | float) and isinstance(y, int | float):
            at_x, at_y = axes.transData.transform((x, y))
            shape = f'<circle class="tls-hit" cx="{scale * at_x:.1f}" cy="{height - scale * at_y:.1f}" r="{_RADIUS}"/>'
        else:
            boxes = [axes.bbox, *([] if to is None else [to.bbox])]
            left, right = min(b.x0 for b in boxes), max(b.x1 for b in boxes)
            low, high = min(b.y0 for b in boxes), max(b.y1 for b in boxes)
            if isinstance(x, tuple):
                left, right = (axes.transData.transform((v, 0))[0] for v in x)
            if isinstance(y, tuple):
                low, high = (axes.transData.transform((0, v))[1] for v in y)
            shape = (
                f'<rect class="tls-hit" x="{scale * left:.1f}" y="{height - scale * high:.1f}" '
                f'width="{scale * (right - left):.1f}" height="{scale * (high - low):.1f}"/>'
            )
        return f'<g class="tls-mark"><title>{escape(text)}</title>{shape}</g>'
