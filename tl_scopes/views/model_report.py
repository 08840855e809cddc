"""The report of a model: a line per finding, with its mark."""

from __future__ import annotations

from html import escape
from textwrap import fill
from typing import Any

from tl_scopes.results.model_report import Finding, ModelReport
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import literal

_TITLE = "What this model is fit for"
_LINE, _LETTERS = 0.2, 88
"""Inches of a line, and letters that fit on it."""


@view.register(ModelReport)
def report_view(report: ModelReport) -> View:
    """A row per finding."""
    rows = "".join(
        f'<tr><td class="tls-{"right-sign" if f.ok else "wrong-sign"}">{"✓" if f.ok else "✗"}</td>'
        f'<th scope="row">{escape(f.subject)}</th><td>{escape(_words(f))}</td></tr>'
        for f in report.findings
    )
    body = f'<div class="tls">{heading(_TITLE)}<table class="tls-report"><tbody>{rows}</tbody></table></div>'
    return View(_TITLE, body, lambda: str(report))


@plot.register(ModelReport)
def report_figure(report: ModelReport) -> Any:
    """The same lines as a matplotlib figure."""
    from tl_scopes.views.canvas.figures import Figure

    texts = [fill(_words(f), _LETTERS) for f in report.findings]
    heights = [1 + t.count("\n") for t in texts]
    figure = Figure(figsize=(9.0, 0.5 + _LINE * (sum(heights) + 1)), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(sum(heights) + 0.5, -0.5))
    axes.set_axis_off()
    axes.set_title(_TITLE, fontsize=10, loc="left")
    y = 0
    for finding, words, height in zip(report.findings, texts, heights, strict=True):
        colour = COLOURS[2] if finding.ok else COLOURS[5]
        style: dict[str, Any] = {"fontsize": 8, "va": "top"}
        axes.text(0.0, y, "✓" if finding.ok else "✗", color=colour, fontweight="bold", **style)
        axes.text(0.025, y, literal(finding.subject), fontweight="bold", **style)
        axes.text(0.24, y, literal(words), **style)
        y += height
    return figure


@text.register(ModelReport)
def report_text(report: ModelReport) -> str:
    """A line per finding."""
    return "\n".join(map(str, report.findings))


def _words(finding: Finding) -> str:
    return finding.text + (f". {finding.remedy}" if finding.remedy else "")
