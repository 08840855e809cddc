"""Curves of faithfulness runs and of integrated-gradient paths; they read results and nothing else."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

from tl_scopes.views.plots import COLOURS

if TYPE_CHECKING:
    from tl_scopes.paths import IGPath
    from tl_scopes.perturbation import AOPCTable

MOST_LABELS = 60
"""Tokens up to which each column of a map carries its text."""


def aopc_figure(table: AOPCTable) -> Any:
    """Perturbation curves on the left, mean AOPC with its standard error by method on the right."""
    from tl_scopes.views.figures import Figure

    curves, frame = table.curves(), table.to_frame().sort_values("aopc", ascending=False)
    figure = Figure(figsize=(9.5, 3.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    colour = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(table.methods)}
    dash = {m: ("-", "--", ":")[i // len(COLOURS) % 3] for i, m in enumerate(table.methods)}
    for method in table.methods:
        rows = curves[curves.method == method]
        left.errorbar(
            100 * rows.fraction,
            rows.delta,
            yerr=rows["sem"],
            color=colour[method],
            linestyle=dash[method],
            marker="o",
            markersize=3,
            linewidth=1.2,
            capsize=2,
            label=method,
        )
    left.set_xlabel("tokens removed (%)")
    left.set_ylabel("change of log p (nats)")
    left.axhline(0, color="#999999", linewidth=0.8)
    right.barh(
        range(len(frame)),
        frame.aopc,
        xerr=frame["sem"],
        color=[colour[m] for m in frame.method],
        error_kw={"elinewidth": 0.9},
    )
    marks = frame.get("indistinguishable_from_best", [False] * len(frame))
    right.set_yticks(range(len(frame)), [f"{m} =" if same else m for m, same in zip(frame.method, marks, strict=True)])
    right.set_xlabel("AOPC (nats; = cannot be told from the best)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=7)
    figure.suptitle(f"n = {len(table.records)} prompts, mean ± SEM over prompts", fontsize=9)
    return figure


def path_figure(path: IGPath) -> Any:
    """The α × token map of gradient norms, with the target's logit, entropy and sink share beside it."""
    from tl_scopes.views.figures import Figure

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


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>__TITLE__</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  background: #fff; color: #111 }
#tokens span { padding: .1em .05em; border-radius: .2em; white-space: pre-wrap }
input { width: 100% } svg { width: 100%; height: 9rem } td { padding-right: 2rem } label { font-weight: 600 }
</style>
<h1 style="font-size:1.1rem">__TITLE__</h1>
<p id="tokens"></p>
<label for="alpha">α = <output id="value"></output></label>
<input id="alpha" type="range" min="0" step="1">
<table><tr><td>logit <b id="logit"></b></td><td>entropy <b id="entropy"></b> nats</td>
<td>share on the first tokens <b id="sink"></b></td></tr></table>
<svg id="curve" viewBox="0 0 600 120" preserveAspectRatio="none" role="img"
  aria-label="target logit against alpha"></svg>
<p>Colour: share of the gradient norm at this α. Curve: the target's logit along the path. __RESIDUAL__</p>
<script>
const d = __DATA__, $ = id => document.getElementById(id), slider = $("alpha");
slider.max = d.alphas.length - 1; slider.value = slider.max;
const lo = Math.min(...d.logits), hi = Math.max(...d.logits), a0 = d.alphas[0];
const span = (d.alphas[d.alphas.length - 1] - a0) || 1;
const x = i => 5 + 590 * (d.alphas[i] - a0) / span, y = i => 112 - 104 * (d.logits[i] - lo) / ((hi - lo) || 1);
const line = d.alphas.map((_, i) => x(i) + "," + y(i)).join(" ");
d.tokens.forEach(t => { const s = document.createElement("span"); s.textContent = t; $("tokens").append(s); });
function draw() {
  const i = +slider.value, row = d.norms[i], top = Math.max(...row) || 1, sum = row.reduce((a, b) => a + b, 0) || 1;
  $("value").textContent = d.alphas[i].toFixed(3); $("logit").textContent = d.logits[i].toFixed(2);
  $("entropy").textContent = d.entropy[i].toFixed(2); $("sink").textContent = (100 * d.sink[i]).toFixed(0) + " %";
  [...$("tokens").children].forEach((s, t) => {
    const v = row[t] / top;
    s.style.background = `rgba(0,114,178,${v.toFixed(3)})`; s.style.color = v > 0.55 ? "#fff" : "#111";
    s.title = `${row[t].toPrecision(3)} (${(100 * row[t] / sum).toFixed(1)} %)`;
  });
  $("curve").innerHTML = `<polyline points="${line}" fill="none" stroke="#0072B2" stroke-width="1.5"/>` +
    `<circle cx="${x(i)}" cy="${y(i)}" r="4" fill="#D55E00"/>`;
}
slider.addEventListener("input", draw); draw();
</script></html>
"""


def path_page(path: IGPath) -> str:
    """A standalone page: tokens coloured by gradient norm, a slider over α, the target's logit as a curve."""
    end = path.pos + 1
    data = {
        "alphas": path.alphas.tolist(),
        "logits": path.logits.tolist(),
        "entropy": path.entropy.tolist(),
        "sink": path.sink_share.tolist(),
        "norms": [[float(f"{v:.4g}") for v in row] for row in path.grad_norms[:, :end].tolist()],
        "tokens": path.str_tokens[:end],
    }
    title = html.escape(f"Gradient of the logit of {path.target_str!r} on the path from zero to the prompt")
    residual = f"Completeness residual {path.completeness_residual:.2g} logits."
    text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/").replace("<!--", "<\\!--")
    return _PAGE.replace("__TITLE__", title).replace("__RESIDUAL__", residual).replace("__DATA__", text)
