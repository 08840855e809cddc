"""A table of numbers on a page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from tl_scopes.results.written import minus
from tl_scopes.views.wording import named, visible

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 20
"""A longer table is folded."""
LONG = 60
"""Letters of a text, of more than which it goes on in the next line."""


def table(frame: pd.DataFrame, digits: int = 3) -> str:
    """One row per row of the frame; what has no value is a dash, a text without letters an empty cell."""
    texts = [any(isinstance(v, str) for v in frame.iloc[:, i]) for i in range(frame.shape[1])]
    head = "".join(
        f"<th{_class(text)}>{escape(str(name).replace('_', ' '))}</th>"
        for name, text in zip(frame.columns, texts, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{_class(t)}>{_cell(v, digits)}</td>" for v, t in zip(row, texts, strict=True)) + "</tr>"
        for row in frame.astype(object).itertuples(index=False)
    )
    whole = (
        f'<div class="tls-scroll"><table class="tls-numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    if len(frame) <= MOST_ROWS:
        return whole
    return f"<details><summary>All {len(frame)} rows as numbers</summary>{whole}</details>"


def seen(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its texts as a terminal may show them."""
    return frame.apply(lambda column: column.map(lambda value: visible(value) if isinstance(value, str) else value))


def _class(text: bool) -> str:
    return ' class="tls-text"' if text else ""


def _cell(value: Any, digits: int) -> str:
    import pandas as pd

    if isinstance(value, str) and not value:
        return ""
    if isinstance(value, str):
        long = ' class="tls-long"' if len(value) > LONG else ""
        return f"<bdi{long}>{escape(named(value))}</bdi>"
    if pd.isna(value):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(str(value))
    return minus(f"{value:.{digits}g}" if isinstance(value, float) else f"{value}")
