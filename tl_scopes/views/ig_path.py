"""The path from the zero input to the prompt: a page with a slider over α, and a figure."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from tl_scopes.views.aopc import MOST_LABELS
from tl_scopes.views.canvas.colours import blend, css, ink, ink_before_inversion
from tl_scopes.views.canvas.figures import COLOURS
from tl_scopes.views.canvas.page import document, heading, own_file
from tl_scopes.views.wording import number, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tl_scopes.results.ig_path import IGPath


def path_figure(path: IGPath) -> Any:
    """The α × token map of gradient norms, with the target's logit, entropy and sink share beside it."""
    from tl_scopes.views.canvas.figures import Figure

    norms = path.grad_norms[:, : path.pos + 1]
    width = min(14.0, 4.5 + 0.22 * norms.shape[1])
    figure = Figure(figsize=(width, 4.2), dpi=150, layout="constrained")
    grid = figure.add_gridspec(1, 4, width_ratios=[max(4.0, 0.16 * norms.shape[1]), 1, 1, 1])
    main = figure.add_subplot(grid[0])
    alphas = path.alphas.tolist()
    picture = main.pcolormesh(
        range(norms.shape[1]), alphas, norms.clamp_min(1e-12).log10().numpy(), cmap="viridis", shading="nearest"
    )
    figure.colorbar(picture, ax=main, label="log10 gradient norm", location="left")
    labels = [s.replace("\n", "\\n").replace("$", r"\$") for s in path.str_tokens[: path.pos + 1]]
    if len(labels) <= MOST_LABELS:
        main.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    main.set_ylabel("α")
    target = path.target_str.replace("$", r"\$")
    main.set_title(f"gradient of the logit of {target!r} on the path α·x", fontsize=9)
    for i, (name, values) in enumerate(
        (("logit", path.logits), ("entropy (nats)", path.entropy), ("sink share", path.sink_share))
    ):
        axes = figure.add_subplot(grid[i + 1], sharey=main)
        axes.plot(values.tolist(), alphas, color=COLOURS[i], linewidth=1.2)
        axes.set_xlabel(name, fontsize=8)
        axes.tick_params(labelleft=False, labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"completeness residual {path.completeness_residual:.2g} logits (trapezoid on the grid)", fontsize=8
    )
    return figure


WIDTH, HEIGHT, MARGIN = 300, 96, 6
"""Of a curve's drawing, in its own units."""
_STEPS = 100


def path_page(path: IGPath) -> str:
    """A standalone page; works offline, by mouse and by keyboard."""
    end, last = path.pos + 1, len(path.alphas) - 1
    rows = path.grad_norms[:, :end]
    shares = (rows / rows.amax(dim=1, keepdim=True).clamp_min(1e-30)).clamp(0, 1)
    steps = [[round(_STEPS * v) for v in row] for row in shares.tolist()]
    curves = {
        "logit": ("logit of the target", path.logits.tolist()),
        "entropy": ("entropy (nats)", path.entropy.tolist()),
        "sink": (_sink_words(path.sink_tokens), path.sink_share.tolist()),
    }
    alphas = path.alphas.tolist()
    x = [_place(a, alphas, WIDTH) for a in alphas]
    y = {name: _heights(values) for name, (_, values) in curves.items()}
    norms = [[number(v) for v in row] for row in rows.tolist()]
    data = {
        "alphas": alphas,
        "x": x,
        "y": y,
        "text": {
            "logit": [f"{v:.2f}" for v in curves["logit"][1]],
            "entropy": [f"{v:.2f}" for v in curves["entropy"][1]],
            "sink": [f"{v:.0%}" for v in curves["sink"][1]],
        },
        "steps": steps,
        "norms": norms,
        "ramp": [(css(blend(s / _STEPS)), *_inks(s / _STEPS)) for s in range(_STEPS + 1)],
    }
    target = html.escape(visible(path.target_str))
    title = f"From nothing to the prompt: what moves the logit of {path.target_str!r}"
    body = [
        '<main class="tls tls-path">',
        heading(visible(title)),
        "<p>The embeddings are scaled by α, from the zero input (α = 0) to the prompt (α = 1). Colour: the token's "
        "gradient norm, as a share of the largest at this α. Integrated gradients average over all of it; at α = 1 it "
        "is the Semantic Scope.</p>",
        f'<p class="tls-line">{_tokens(path.str_tokens[:end], steps[last], norms[last])}'
        f'<span class="tls-next">→<bdi>{target}</bdi></span></p>',
        _slider(alphas),
        '<div class="tls-curves">',
        *(_curve(name, words, values, y[name], x) for name, (words, values) in curves.items()),
        "</div>",
        f"<p>Completeness residual of the trapezoid rule on this grid: {path.completeness_residual:.2g} logits, of a "
        f"change of {float(path.logits[-1] - path.logits[0]):.3g}.</p>",
        f'<script type="application/json" id="tls-path">{json.dumps(data, separators=(",", ":"))}</script>',
        "</main>",
    ]
    return document(title, "\n".join(body), style="path.css", script=f"<script>{own_file('path.js')}</script>")


def _sink_words(n: int) -> str:
    return "share of the gradient on the first token" if n == 1 else f"share of the gradient on the first {n} tokens"


def _inks(share: float) -> tuple[str, str]:
    """Text colours in the light and, before the inversion, in the dark."""
    background = blend(share)
    return ink(background), ink_before_inversion(background)


def _tokens(texts: Sequence[str], steps: Sequence[int], norms: Sequence[str]) -> str:
    out = []
    for t, (text, step, norm) in enumerate(zip(texts, steps, norms, strict=True)):
        light, dark = _inks(step / _STEPS)
        style = f"--paper:{css(blend(step / _STEPS))};--ink:{light};--dark:{dark}"
        out.append(
            f'<span class="tls-token" style="{style}" title="position {t}: {norm}"><bdi>'
            f"{html.escape(visible(text))}</bdi></span>"
        )
    return "".join(out)


def _slider(alphas: Sequence[float]) -> str:
    last = len(alphas) - 1
    return (
        '<p class="tls-slider"><label for="tls-alpha">α = <output id="tls-value" for="tls-alpha">'
        f"{alphas[-1]:.3f}</output></label>"
        f'<input id="tls-alpha" type="range" min="0" max="{last}" step="1" value="{last}" '
        f'aria-valuetext="α = {alphas[-1]:.3f}" disabled></p>'
    )


def _place(value: float, values: Sequence[float], size: int) -> float:
    low, high = min(values), max(values)
    share = (value - low) / (high - low) if high > low else 0.5
    return round(MARGIN + (size - 2 * MARGIN) * share, 2)


def _heights(values: Sequence[float]) -> list[float]:
    return [round(HEIGHT - _place(v, values, HEIGHT), 2) for v in values]


def _curve(name: str, words: str, values: Sequence[float], y: Sequence[float], x: Sequence[float]) -> str:
    """One curve over α with a dot at the chosen one, which a click moves."""
    line = " ".join(f"{a},{b}" for a, b in zip(x, y, strict=True))
    as_text = "{:.0%}" if name == "sink" else "{:.2f}"
    return (
        f'<figure><figcaption>{words}: <b id="tls-{name}">{as_text.format(values[-1])}</b></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" data-curve="{name}" role="img" aria-label="{words} along the path">'
        f'<line class="tls-now" x1="{x[-1]}" x2="{x[-1]}" y1="0" y2="{HEIGHT}"/><polyline points="{line}"/>'
        f'<circle cx="{x[-1]}" cy="{y[-1]}" r="4"/></svg>'
        f"<small>from {as_text.format(min(values))} to {as_text.format(max(values))}</small></figure>"
    )
