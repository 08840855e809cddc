"""The path from a baseline to the prompt: a figure, and a page on which a slider moves along it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from tl_scopes.results.ig_path import IGPath
from tl_scopes.results.written import minus
from tl_scopes.views.canvas.colours import COLOURS, RED, blend, css, ink_attributes, inks
from tl_scopes.views.canvas.names import name_some
from tl_scopes.views.canvas.page import View, data_script, heading, noted
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import literal, number, visible

_STEPS = 100
"""Colours between white and the highest score."""
_BESIDE = 1.05
"""Inches of each curve beside the map: its name needs them."""
_DECADES = 4.0
"""Most that one scale of colours spans; what lies outside has the colour of its end, and the scale an arrow there."""


@plot.register(IGPath)
def path_figure(path: IGPath, *, notes: bool = True) -> Any:
    """The α × token map of gradient norms, with the target's logit, entropy and sink share beside it."""
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator

    from tl_scopes.views.canvas.figures import Figure

    norms, alphas = path.grad_norms[:, : path.pos + 1], path.alphas.tolist()
    width = min(14.0, max(6.0, 4.5 + 0.22 * norms.shape[1]))
    figure = Figure(figsize=(width, 4.2), dpi=150, layout="constrained")
    grid = figure.add_gridspec(1, 4, width_ratios=[width - 3 * _BESIDE, *[_BESIDE] * 3])
    main = figure.add_subplot(grid[0])
    blues = ListedColormap([tuple(c / 255 for c in blend(i / 255)) for i in range(256)])
    logs = norms.double().clamp_min(torch.finfo(torch.float64).tiny).log10().numpy()
    low, high = _window(logs[norms.numpy() > 0])
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        bool((logs < low).any()), bool((logs > high).any())
    ]
    picture = main.pcolormesh(
        range(norms.shape[1]), alphas, logs, cmap=blues, shading="nearest", rasterized=True, vmin=low, vmax=high
    )
    label = "log10 gradient norm" + ("" if extend == "neither" else " (clipped)")
    figure.colorbar(picture, ax=main, label=label, location="left", extend=extend)
    largest = norms.amax(dim=0).argsort(descending=True, stable=True).tolist()
    name_some(main.xaxis, path.str_tokens[: path.pos + 1], largest, (), width / 2)
    main.set_ylabel("α")
    way = "on the path α·x" if path.baseline == "zero" else f"from {literal(visible(path.start))} to the prompt"
    main.set_title(f"gradient of the logit of {literal(visible(path.target_str))!r} {way}", fontsize=9)
    axes = main
    for i, (name, curve) in enumerate(
        (("logit", path.logits), ("entropy (nats)", path.entropy), ("sink share", path.sink_share))
    ):
        axes = figure.add_subplot(grid[i + 1], sharey=main)
        axes.plot(curve.tolist(), alphas, color=COLOURS[i], linewidth=1.2)
        axes.set_xlabel(name, fontsize=8)
        axes.tick_params(labelleft=False, labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(2))
        axes.spines[["top", "right"]].set_visible(False)
    for (low, high), says in zip(_spans(alphas), _says(path), strict=True):
        figure.say(main, says, None, (low, high), to=axes)
    figure.suptitle(
        minus(f"completeness residual {path.completeness_residual:.2g} logits (trapezoid on the grid)"), fontsize=8
    )
    figure.put_notes(path.notes if notes else ())
    return figure


def _window(logs: Any) -> tuple[float, float]:
    """The decades that colours stand for: all of them, or those that hold the most values."""
    if not logs.size:
        return 0.0, 1.0
    values = np.sort(logs.ravel())
    if values[-1] - values[0] <= _DECADES:
        return float(values[0]), float(values[-1])
    held = np.searchsorted(values, values + _DECADES, side="right") - np.arange(len(values))
    low = float(values[held.argmax()])
    return low, low + _DECADES


def _alpha(alpha: float) -> str:
    """α to three places, or to two digits where that would be nothing."""
    return f"{alpha:.3f}" if alpha == 0 or abs(alpha) >= 5e-4 else f"{alpha:.1g}"


def _spans(alphas: Sequence[float]) -> list[tuple[float, float]]:
    """What lies nearest to each α: up to the middle between it and the next."""
    middles = [(a + b) / 2 for a, b in pairwise(alphas)]
    return list(zip([alphas[0], *middles], [*middles, alphas[-1]], strict=True))


def _says(path: IGPath) -> list[str]:
    """The figures of each α in words."""
    columns = (path.alphas, path.logits, path.entropy, path.sink_share)
    of = "the first token" if path.sink_tokens == 1 else f"the first {path.sink_tokens} tokens"
    return [
        minus(f"α = {_alpha(a)}: logit of the target {z:.2f}, entropy {h:.2f} nats, {s:.0%} of the gradient on {of}")
        for a, z, h, s in zip(*(c.tolist() for c in columns), strict=True)
    ]


@view.register(IGPath)
def path_view(path: IGPath) -> View:
    """Tokens in the colours of one α, a slider over α, and the figure, on which α is marked; without scripts, α = 1."""
    end, last = path.pos + 1, len(path.alphas) - 1
    rows = path.grad_norms[:, :end]
    shares = (rows / rows.amax(dim=1, keepdim=True).clamp_min(1e-30)).clamp(0, 1)
    steps = [[round(_STEPS * v) for v in row] for row in shares.tolist()]
    norms = [[number(v) for v in row] for row in rows.tolist()]
    data = {
        "alphas": [_alpha(a) for a in path.alphas.tolist()],
        "says": _says(path),
        "steps": steps,
        "norms": norms,
        "ramp": [inks(blend(s / _STEPS)) for s in range(_STEPS + 1)],
    }
    start = "nothing" if path.baseline == "zero" else visible(path.start)
    title = f"From {start} to the prompt: what moves the logit of {visible(path.target_str)!r}"
    way = "are scaled by α, from the zero input" if path.baseline == "zero" else f"move from {escape(start)}"
    notes = noted(path.notes)
    body = (
        f'<div class="tls tls-path">{heading(title)}'
        f'<p class="tls-small">The embeddings {way} (α = 0) to the prompt (α = 1). Colour: the '
        "token's gradient norm, as a share of the largest at this α. Integrated gradients average over all of it; at α = 1 "
        "it is the Semantic Scope.</p>"
        f'<div class="tls-tokens tls-ink"><div class="tls-static">{_tokens(path.str_tokens[:end], steps[last], norms[last])}'
        f'<span style="background-color:#fff"><b class="tls-target" style="color:{RED}">→<bdi>'
        f"{escape(visible(path.target_str))}</bdi></b></span></div></div>"
        f"{_slider(path, last)}{path_figure(path, notes=False).chart(title)}"
        f'<p class="tls-small">{_residual(path)} logits, of a change of '
        f"{minus(format(float(path.logits[-1] - path.logits[0]), '.3g'))}.</p>{notes}"
        f"{data_script(data, 'tls-path-data')}</div>"
    )
    return View(title, body, lambda: str(path))


def _residual(path: IGPath) -> str:
    return minus(f"Completeness residual of the trapezoid rule on this grid: {path.completeness_residual:.2g}")


def _tokens(texts: Sequence[str], steps: Sequence[int], norms: Sequence[str]) -> str:
    return "".join(
        f'<span style="background-color:{css(blend(step / _STEPS))}" title="position {t}: {norm}">'
        f"<bdi {ink_attributes(blend(step / _STEPS))}>{escape(visible(token))}</bdi></span>"
        for t, (token, step, norm) in enumerate(zip(texts, steps, norms, strict=True))
    )


def _slider(path: IGPath, last: int) -> str:
    """α, to be moved; what it stands on is said below the figure."""
    shown = _alpha(float(path.alphas[last]))
    return (
        f'<p class="tls-slider"><label>α = <output>{shown}</output> <input type="range" min="0" max="{last}" step="1" '
        f'value="{last}" aria-valuetext="α = {shown}" disabled></label></p>'
    )


@text.register(IGPath)
def path_text(path: IGPath) -> str:
    """Eleven of the path's points, and what the grid misses."""
    frame, last = path.to_frame(), len(path.alphas) - 1
    strongest = path.grad_norms[:, : path.pos + 1].argmax(dim=1).tolist()
    lines = [f"Logit of {visible(path.target_str)!r} on the path from {visible(path.start)} to the prompt"]
    lines.append(f"{'alpha':>7}{'logit':>9}{'entropy':>9}{'sink':>7}  largest gradient")
    for i in sorted({round(j * last / 10) for j in range(11)}):
        row, t = frame.iloc[i], strongest[i]
        figures = minus(f"{_alpha(row.alpha):>7}{row.logit:>9.2f}{row.entropy:>9.2f}{row.sink_share:>7.0%}")
        lines.append(f"{figures}  {t} {visible(path.str_tokens[t])!r}")
    lines.append(f"{_residual(path)} logits.")
    return "\n".join([*lines, *(f"Note: {note}" for note in path.notes)])
