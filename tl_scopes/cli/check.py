"""The command ``check``."""

from __future__ import annotations

import typer

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import library, load_model


def check(
    seed: options.Seed = 0,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    json: options.Json = None,
) -> None:
    """What a model is fit for: its class, weight processing, valid scopes, and gradients against finite differences.

    The exit code is 1 if a line begins with NO.
    """
    files = Files(html=html, plot=plot, json=json)
    tls = library()
    report = tls.check_model(load_model(model, kind, device), seed=seed)
    files.answer(report)
    raise typer.Exit(0 if report.ok else 1)
