"""The sink diagnostics as a page, a figure and text: maps by head and by layer, and influence with and without sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

from tl_scopes.results.sinks import AttentionSinks, PositionalBaseline
from tl_scopes.views.attribution import compare
from tl_scopes.views.canvas.colours import COLOURS
from tl_scopes.views.canvas.heatmap import HeatMap, heatmap
from tl_scopes.views.canvas.heatmap_figure import draw_heatmap
from tl_scopes.views.canvas.names import name_some
from tl_scopes.views.canvas.page import View, heading, noted, stack
from tl_scopes.views.canvas.table import seen, table
from tl_scopes.views.rendering import plot, text, view
from tl_scopes.views.wording import counted, linearised, number, visible

GROUPS = {"bos": "BOS", "first": "first tokens", "secondary": "secondary sinks", "all": "all sinks"}
_EVEN = "even: what these tokens would have if all tokens had the same"
_BEHIND = "The same text behind so many BOS tokens"
_SHARES = "without BOS, the share is that of the first token"


@view.register(AttentionSinks)
def sinks_view(result: AttentionSinks) -> View:
    """Share of influence by token, the text with and without sinks (a correction, and it says so), maps, tables."""
    from tl_scopes.views.canvas.figures import Figure

    both = {}
    for method, attribution in result.attributions.items():
        both[method] = attribution
        both[f"{method}, sinks left out"] = attribution.without("sinks")
    n, title = len(result.str_tokens), f"Share of influence by token{_held(result)} (red: sinks)"
    figure = Figure(
        figsize=(max(6.0, min(14.0, 1.5 + 0.13 * n)), 1.4 + 1.3 * len(result.attributions)), layout="constrained"
    )
    _shares(figure, list(figure.subplots(len(result.attributions), 1, squeeze=False)[:, 0]), result)
    chart = View("", f'<div class="tls">{heading(title)}{figure.chart(title)}</div>', lambda: "")
    tables = View("", f'<div class="tls">{_tables(result)}</div>', lambda: sinks_text(result))
    parts = stack(chart, compare(both), heatmap(sink_maps(result)), tables)
    return View("Attention sinks", parts.body, lambda: sinks_text(result))


def sink_maps(result: AttentionSinks) -> list[HeatMap]:
    """Layer × head: attention on each group that is there. Layer × token: residual norm, and attention received."""
    layers = tuple(str(layer) for layer in reversed(result.layers))
    heads = tuple(str(head) for head in range(result.received.shape[1]))
    maps = [
        HeatMap(
            values=result.mass[group].flip(0),
            rows=layers,
            columns=heads,
            title=f"Attention on {GROUPS[group]}: {_names(result, result.groups[group])}",
            unit="mean over later queries",
            row_name="layer",
            column_name="head",
            scale="linear",
        )
        for group in ("first", "secondary")
        if result.groups[group]
    ]
    tokens = tuple(result.str_tokens)
    streams = (*(f"{layer}_pre" for layer in range(len(result.residual_norms) - 1)), "final_post")
    maps.append(
        HeatMap(
            values=result.residual_norms.flip(0),
            rows=streams[::-1],
            columns=tokens,
            title="Norm of the residual stream (red: sinks)",
            unit="‖r‖",
            per_row=True,
            row_name="layer",
            column_name="token",
            marked=result.positions,
        )
    )
    maps.append(
        HeatMap(
            values=result.received.mean(1).flip(0),
            rows=layers,
            columns=tokens,
            title="Attention received from later queries, mean over heads (red: sinks)",
            unit="mean attention",
            row_name="layer",
            column_name="token",
            scale="linear",
            marked=result.positions,
        )
    )
    return maps


@plot.register(AttentionSinks)
def sinks_figure(result: AttentionSinks) -> Any:
    """Layer × head maps and residual norms; under them each scope's share by token, with and without sinks."""
    from tl_scopes.views.canvas.figures import Figure

    maps = [m for m in sink_maps(result) if m.column_name == "head"]
    norms = sink_maps(result)[len(maps)]
    methods = list(result.attributions)
    n, n_layers = len(result.str_tokens), len(result.residual_norms) - 1
    heights = [1.9 + 0.14 * n_layers, *([1.5] * len(methods))]
    widths = [*([2.2] * len(maps)), max(3.6, 0.16 * n)]
    figure = Figure(figsize=(min(16.0, 1.5 + sum(widths)), sum(heights) + 0.8), dpi=150, layout="constrained")
    grid = figure.add_gridspec(len(heights), len(widths), width_ratios=widths, height_ratios=heights)
    for i, one in enumerate([*maps, norms]):
        title = one.title.split(":")[0] if i < len(maps) else "Norm of the residual stream"
        draw_heatmap(replace(one, title=title, unit=""), figure.add_subplot(grid[0, i]))
    _shares(figure, [figure.add_subplot(grid[i + 1, :]) for i in range(len(methods))], result)
    figure.put_notes(result.notes)
    return figure


def _shares(figure: Any, every_axes: Sequence[Any], result: AttentionSinks) -> None:
    """A row of bars for each scope; the last one names the tokens."""
    frame, n = result.position_frame(), len(result.str_tokens)
    for axes, method in zip(every_axes, result.attributions, strict=True):
        _bars(axes, result, frame, method)
        axes.set_xticks(range(n), [""] * n)
        for p, share in enumerate(frame[f"share_{method}"]):
            figure.say(axes, f"{method}, {visible(result.str_tokens[p])} ({p}): {share:.1%}", (p - 0.5, p + 0.5), None)
    largest = sorted(range(n), key=lambda p: -max(frame[f"share_{method}"][p] for method in result.attributions))
    wide = figure.get_size_inches()[0]
    name_some(axes.xaxis, result.str_tokens, [*sorted(result.positions), *largest], result.positions, wide)
    named = max((axes.get_legend_handles_labels() for axes in every_axes), key=lambda found: len(found[1]))
    every_axes[0].legend(*named, loc="lower left", bbox_to_anchor=(0, 1.15), ncols=3, frameon=False, fontsize=7)


def _bars(axes: Any, result: AttentionSinks, frame: Any, method: str) -> None:
    """Share of one scope's influence by position, the same without sinks, and the baseline."""
    share = frame[f"share_{method}"].to_numpy()
    out = result.attributions[method].without("sinks").hidden
    rest = share * [p not in out for p in frame.pos]
    rest = rest / rest.sum() if rest.sum() > 0 else rest
    axes.bar(frame.pos - 0.2, share, 0.4, color=COLOURS[0], label="with sinks")
    axes.bar(frame.pos + 0.2, rest, 0.4, color=COLOURS[1], label="sinks left out (a correction)")
    if f"baseline_{method}" in frame:
        base = frame[f"baseline_{method}"]
        axes.plot(frame.pos, base, ".-", color="#555555", linewidth=0.8, markersize=3, label="on unrelated prompts")
    axes.set_title(f"{method}: {result.share(method):.0%} of the influence is on sinks", fontsize=8, loc="left")
    axes.set_ylabel("share", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(-0.6, len(frame) - 0.4)


@text.register(AttentionSinks)
def sinks_text(result: AttentionSinks) -> str:
    """The tables as text."""
    lines, found = [repr(result)], _secondary(result)
    if found:
        lines += [f"  {line}" for line in (*found, _rule(result))]
    shares = _influence(result).to_string(index=False, float_format=lambda share: f"{share:.1%}")
    lines += ["", f"Share of influence on sinks{_held(result)}", shares, f"({_EVEN})"]
    if result.bos_comparison:
        compared = seen(_compared(result)).to_string(index=False, float_format="{:.3f}".format, na_rep="–")
        lines += ["", _BEHIND, compared, f"({_SHARES})"]
    return "\n".join([*lines, *result.notes])


def _held(result: AttentionSinks) -> str:
    """What the gradients of all its scopes held constant."""
    return linearised(next(iter(result.attributions.values())).details) if result.attributions else ""


def _names(result: AttentionSinks, positions: Sequence[int]) -> str:
    return ", ".join(f"{visible(result.str_tokens[p])!r} ({p})" for p in positions)


def _secondary(result: AttentionSinks) -> list[str]:
    """One sentence per secondary sink: what makes it one, and what would not."""
    words = {"residual": "residual norm", "attention": "attention"}
    lines = []
    for p, ratios in result.secondary.items():
        said = {name: f"{words[name]} {ratio:.1f} times the median" for name, ratio in ratios.items()}
        above = [said[name] for name, ratio in ratios.items() if ratio > result.multiple]
        other = [f"{said[name]} is not enough" for name in said if ratios[name] <= result.multiple]
        lines.append(
            f"{visible(result.str_tokens[p])!r} ({p}): {' and '.join(above)}{''.join(f' ({o})' for o in other)}"
        )
    return lines


def _rule(result: AttentionSinks) -> str:
    """What a secondary sink is."""
    return (
        f"Secondary sinks: residual norm or attention above {number(result.multiple)} times the median (first and special "
        "tokens apart)"
    )


def _influence(result: AttentionSinks) -> Any:
    """Shares of influence with headings that a reader understands."""
    frame = result.influence_frame()
    frame["method"] = [*frame.method[:-1], "even"]
    n = len(result.groups["first"])
    return frame.rename(columns=GROUPS | {"first": "first token" if n == 1 else f"first {n} tokens"})


def _compared(result: AttentionSinks) -> Any:
    """A row per quantity, a column per number of BOS tokens."""
    names = {
        "attention_first": "attention on the first token",
        "attention_bos": "attention on all BOS tokens",
        "residual_ratio_first": "residual norm of the first token, times the median",
        "top_prediction": "prediction",
        "probability": "its probability",
    }
    for method in result.attributions:
        names[f"share_{method}"] = f"{method}: share of influence on BOS"
        names[f"rank_correlation_{method}"] = f"{method}: rank correlation with the prompt's own"
    frame = result.bos_frame()
    frame = frame.set_index("n_bos").rename(columns=names).T
    frame.columns = [f"{n} BOS" for n in frame.columns]
    return frame.rename_axis("", axis=0).reset_index()


def _tables(result: AttentionSinks) -> str:
    """Shares of influence, secondary sinks, the BOS comparison."""
    even = f'<p class="tls-small">{_EVEN[0].upper()}{_EVEN[1:]}.</p>'
    parts = [heading(f"Share of influence on sinks{_held(result)}"), even, table(_influence(result))]
    found = "".join(f"<p>{escape(line)}</p>" for line in _secondary(result)) or "<p>none</p>"
    parts.append(heading(_rule(result)) + f'<div class="tls-small">{found}</div>')
    if result.bos_comparison:
        shares = f'<p class="tls-small">{_SHARES[0].upper()}{_SHARES[1:]}.</p>'
        parts += [heading(_BEHIND), shares, table(_compared(result))]
    if result.baseline:
        n = next(iter(result.baseline.values())).n_prompts
        about = f"Share of influence by position, and its mean over {counted(n, 'unrelated prompt')} (baseline)"
        parts.append(f"<details><summary>{escape(about)}</summary>{table(result.position_frame())}</details>")
    parts.append(noted(result.notes))
    return "".join(parts)


# -- the positional baseline -------------------------------------------------------------------------------


@plot.register(PositionalBaseline)
def baseline_figure(result: PositionalBaseline) -> Any:
    """Mean share of influence by position with its standard error; dashed is the same share for all."""
    from tl_scopes.views.canvas.figures import Figure

    share, error = result.share.double().numpy(), result.stderr.double().numpy()
    figure = Figure(figsize=(8.4, 3.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    positions = range(len(share))
    axes.fill_between(positions, (share - error).clip(0), share + error, color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(positions, share, ".-", color=COLOURS[0], linewidth=1.2, markersize=5, label="mean ± SEM over prompts")
    axes.axhline(1 / len(share), color="#999999", linestyle="--", linewidth=1, label="even")
    for position, mean, spread in zip(positions, share.tolist(), error.tolist(), strict=True):
        figure.say(axes, f"position {position}: {mean:.1%} ± {spread:.1%}", float(position), mean)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("position")
    axes.set_ylabel("share of influence")
    axes.set_title(_baseline_title(result), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper center")
    return figure


@view.register(PositionalBaseline)
def baseline_view(result: PositionalBaseline) -> View:
    """The figure and its numbers."""
    title, drawn = _baseline_title(result), baseline_figure(result)
    drawn.axes[0].set_title("")
    body = f'<div class="tls">{heading(title)}{drawn.chart(title)}{table(_baseline_frame(result))}</div>'
    return View(title, body, lambda: str(result))


@text.register(PositionalBaseline)
def baseline_text(result: PositionalBaseline) -> str:
    """Share and standard error by position."""
    frame = _baseline_frame(result)
    return f"{result!r}\n{seen(frame).to_string(index=False, max_rows=20, float_format=lambda v: f'{v:.4f}')}"


def _baseline_title(result: PositionalBaseline) -> str:
    held = linearised({"frozen": result.frozen})
    return f"Share of influence by position, {result.method}{held}: mean over {counted(result.n_prompts, 'unrelated prompt')}"


def _baseline_frame(result: PositionalBaseline) -> Any:
    import pandas as pd

    columns = {"share": result.share.tolist(), "stderr": result.stderr.tolist()}
    return pd.DataFrame({"position": range(len(result.share)), **columns})
