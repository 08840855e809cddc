"""Fisher spectra: cumulative explained share against rank."""

from __future__ import annotations

import math
from textwrap import shorten
from typing import Any

import numpy as np

from tl_scopes.results.spectrum import FisherSpectrum
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.page import View, heading
from tl_scopes.views.canvas.table import table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import counted, number, visible

RANKS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Ranks that have a line."""
SIZE = (4.2, 3.4)
"""Inches of each chart."""
_MOST = 10
"""Prompts whose eigenvalues are drawn."""
_LETTERS = 80
"""Of a prompt that is named."""


@plot.register(FisherSpectrum)
def spectrum_figure(result: FisherSpectrum) -> Any:
    """Eigenvalues of each prompt on log-log axes; mean cumulative share with one standard deviation (paper fig. 16)."""
    from tl_scopes.views.canvas.figures import Figure

    figure = Figure(figsize=(2 * SIZE[0], SIZE[1]), dpi=150, layout="constrained")
    for draw, axes in zip((_eigenvalues, _share), figure.subplots(1, 2), strict=True):
        draw(axes, result)
    return figure


def _eigenvalues(axes: Any, result: FisherSpectrum) -> None:
    """Of each prompt, on log-log axes."""
    from matplotlib.ticker import LogLocator, NullFormatter

    eigenvalues = result.eigenvalues.double().numpy()
    for values in eigenvalues[:_MOST]:
        rank = np.arange(1, len(values) + 1)
        axes.plot(rank, np.where(values > 0, values, np.nan), color=COLOURS[0], alpha=0.5, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="i", ylabel="eigenvalue λ_i (nats per squared unit of y)")
    _name_ranks(axes, eigenvalues.shape[1])
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if _decades(axes.get_ylim()) > 2 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.yaxis.set_minor_formatter(NullFormatter())
    n = len(eigenvalues)
    axes.set_title(f"{_MOST} of {n} prompts" if n > _MOST else counted(n, "prompt"), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _share(axes: Any, result: FisherSpectrum) -> None:
    """Mean cumulative share with one standard deviation."""
    share = result.share.double().numpy()
    mean, rank = share.mean(axis=0), np.arange(1, share.shape[1] + 1)
    axes.plot(rank, mean, color=COLOURS[0])
    if len(share) > 1:
        spread = share.std(axis=0, ddof=1)
        low, high = np.clip(mean - spread, 0, 1), np.clip(mean + spread, 0, 1)
        axes.fill_between(rank, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="± 1 σ over prompts")
        axes.legend(frameon=False, loc="lower right")
    axes.plot(1, mean[0], "o", color=COLOURS[5])
    axes.annotate(f"rank 1: {mean[0]:.0%}", (1, mean[0]), (6, -16), textcoords="offset points", color=COLOURS[5])
    axes.set(xscale="log", xlabel="rank r", ylabel="share of tr F", ylim=(0, 1.02))
    _name_ranks(axes, len(rank))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)


def _name_ranks(axes: Any, n: int) -> None:
    """Powers of two on the axis, as plain numbers."""
    powers = [2**i for i in range(n.bit_length())]
    axes.set_xticks(powers[:: 1 + len(powers) // 8], minor=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.minorticks_off()


def _decades(limits: tuple[float, float]) -> float:
    return math.log10(limits[1] / limits[0])


@view.register(FisherSpectrum)
def spectrum_view(result: FisherSpectrum) -> View:
    """The two charts, a row per rank: eigenvalue and share; and what each direction moves in one prompt, which is named."""
    from tl_scopes.views.canvas.figures import Figure

    n, ranks = len(result.trace), _ranks(result)
    title = f"Spectrum of the Fisher information: {counted(n, 'prompt')}"
    rows = table(result.to_frame().iloc[[r - 1 for r in ranks]])
    moves = [(r, m) for r in ranks if (m := _moves(result, r))]
    if moves:
        rows += heading(_whose(result)) + table(_frame(moves))
    charts = []
    for draw, what in ((_eigenvalues, "eigenvalues"), (_share, "cumulative share")):
        figure = Figure(figsize=SIZE, layout="constrained")
        draw(figure.subplots(), result)
        charts.append(f"<div>{figure.chart(f'{title}: {what}')}</div>")
    body = f'<div class="tls">{heading(title)}<div class="tls-charts">{"".join(charts)}</div>{rows}</div>'
    return View(title, body, lambda: str(result))


@text.register(FisherSpectrum)
def spectrum_text(result: FisherSpectrum) -> str:
    """A line per rank, over all prompts; then the tokens of one, which is named."""
    lines = [repr(result), f"{'rank':>5}  {'eigenvalue':>11}  {'cumulative share':>16}"]
    frame = result.to_frame()
    for rank in _ranks(result):
        row = frame.iloc[rank - 1]
        lines.append(f"{rank:>5}  {row.eigenvalue:>11.4g}  {row.share_mean:>16.1%}")
    moves = [f"{rank:>5}  {m}" for rank in _ranks(result) if (m := _moves(result, rank))]
    return "\n".join([*lines, *([_whose(result), *moves] if moves else [])])


def _whose(result: FisherSpectrum) -> str:
    """Which prompt the tokens are of."""
    n = len(result.trace)
    many = f", in the first of {n} prompts alone" if n > 1 else ""
    if not result.prompts:
        return f"Tokens that each direction moves, one way | the other{many}"
    prompt = visible(shorten(result.prompts[0], _LETTERS, placeholder=" …"))
    return f"Tokens that each direction moves, one way | the other{many}: {prompt!r}"


def _frame(moves: list[tuple[int, str]]) -> Any:
    """As a table of a page."""
    import pandas as pd

    return pd.DataFrame(moves, columns=["rank", "moves"])


def _ranks(result: FisherSpectrum) -> list[int]:
    return [r for r in RANKS if r <= result.eigenvalues.shape[1]]


def _moves(result: FisherSpectrum, rank: int) -> str:
    """Tokens that the first prompt's direction of this rank moves up and down, as it may be shown."""
    first = result.moved[0] if result.moved else []
    up, down = first[rank - 1] if rank <= len(first) else ([], [])
    return f"{' '.join(map(repr, up[:4]))} | {' '.join(map(repr, down[:4]))}" if up else ""
