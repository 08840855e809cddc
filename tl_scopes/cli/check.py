"""The command ``check``."""

from __future__ import annotations

import typer

from tl_scopes.cli import options
from tl_scopes.cli.support import library, load_model, show


def check(
    seed: options.Seed = 0, model: options.Model = "demo", kind: options.Kind = "auto", device: options.Device = None
) -> None:
    """What a model is fit for: its class and processing, the valid scopes, gradients against finite differences.

    Exit code 1 where a line begins with NO.
    """
    tls = library()
    report = tls.check_model(load_model(model, kind, device), seed=seed)
    show(report)
    raise typer.Exit(0 if report.ok else 1)
