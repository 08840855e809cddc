"""The command ``ig-path``."""

from __future__ import annotations

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import library, load_model, prompt_or_demo


def ig_path(
    prompt: options.Prompt = None,
    target: options.Target = None,
    pos: options.Pos = -1,
    points: options.Points = 51,
    baseline: options.Baseline = options.Start.zero,
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
    """Gradients along the path from a baseline (default: zero) to PROMPT, which integrated gradients average."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    text, target = prompt_or_demo(prompt, model, target, demo="translation")
    tls = library()
    lens = load_model(model, kind, device)
    path = tls.ig_path(
        lens,
        text,
        target,
        alphas=[i / (points - 1) for i in range(points)],
        baseline=baseline.value,
        scale_positions=scale_positions,
        sink_tokens=sink_tokens,
        pos=pos,
    )
    files.answer(path)
