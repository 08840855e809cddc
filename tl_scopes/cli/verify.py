"""The command ``verify``."""

from __future__ import annotations

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import aimed_at_a_token, library, load_model, prompt_or_demo


def verify(
    prompt: options.Prompt = None,
    method: options.Method = "semantic",
    target: options.Target = None,
    foil: options.Foil = None,
    rank: options.Rank = None,
    frozen: options.Frozen = None,
    pos: options.Pos = -1,
    ablation: options.Ablation = options.Ablated.zero,
    top: options.Top = 20,
    step: options.Step = 1.0,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = None,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Remove a scope's top tokens: the measured effect beside the one that its gradient predicts."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    tls = library()
    text, target = prompt_or_demo(
        prompt, model, target, aimed=aimed_at_a_token([method], target=target, foil=foil, rank=rank)
    )
    lens = load_model(model, kind, device)
    asked = {"target": target, "foil": foil, "rank": rank, "pos": pos, "frozen": frozen or ()}
    found = tls.scopes(lens, text, methods=[method], **asked)
    files.answer(
        tls.verify(lens, found[method], ablation=ablation.value, top=top, step=step, seed=seed, batch_size=batch_size)
    )
