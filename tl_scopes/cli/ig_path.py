"""The command ``ig-path``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_scopes.cli import options
from tl_scopes.cli.support import Files, library, load_model, prompt_or_demo

if TYPE_CHECKING:
    from tl_scopes.results.ig_path import IGPath


def ig_path(
    prompt: options.Prompt = None,
    target: options.Target = None,
    pos: options.Pos = -1,
    points: options.Points = 51,
    scale_positions: options.ScalePositions = False,
    sink_tokens: options.SinkTokens = 1,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Gradients on the way from the zero input to PROMPT, which integrated gradients average."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    text, target = prompt_or_demo(prompt, model, target, demo="translation")
    tls = library()
    lens = load_model(model, kind, device)
    path = tls.ig_path(
        lens,
        text,
        target,
        alphas=[i / (points - 1) for i in range(points)],
        scale_positions=scale_positions,
        sink_tokens=sink_tokens,
        pos=pos,
    )
    files.answer(path, _text(path))


def _text(path: IGPath) -> str:
    """Eleven of the path's points, and what the grid misses."""
    frame, last = path.to_frame(), len(path.alphas) - 1
    strongest = path.grad_norms[:, : path.pos + 1].argmax(dim=1).tolist()
    lines = [f"Logit of {path.target_str!r} on the path from the zero input to the prompt"]
    lines.append(f"{'alpha':>6}{'logit':>9}{'entropy':>9}{'sink':>7}  largest gradient")
    for i in sorted({round(j * last / 10) for j in range(11)}):
        row, t = frame.iloc[i], strongest[i]
        figures = f"{row.alpha:>6.2f}{row.logit:>9.2f}{row.entropy:>9.2f}{row.sink_share:>7.0%}"
        lines.append(f"{figures}  {t} {path.str_tokens[t]!r}")
    lines.append(f"Completeness residual of the trapezoid rule on this grid: {path.completeness_residual:.2g} logits.")
    return "\n".join(lines)
