"""The command ``patch``."""

from __future__ import annotations

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import aimed_at_a_token, library, load_model, prompt_or_demo

DEMO_SWAP = ("Hund", "Vogel")
"""What makes the counterpart of the demo's prompt."""


def patch(
    prompt: options.Prompt = None,
    corrupt: options.Corrupt = None,
    method: options.Method = "semantic",
    target: options.Target = None,
    foil: options.Foil = None,
    rank: options.Rank = None,
    frozen: options.Frozen = None,
    pos: options.Pos = -1,
    k: options.Patched = 5,
    layer: options.PatchedLayers = None,
    component: options.PatchedComponent = options.Component.resid_pre,
    n_random: options.NRandom = 20,
    seed: options.Seed = 0,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Put a scope's top tokens of PROMPT into the run of CORRUPT: how much of the prediction they bring back.

    Both have the same number of tokens and differ where it matters, e.g. one sentence with two names.
    """
    files = Files(html=html, plot=plot, csv=csv, json=json)
    if corrupt == "" or (prompt is None) != (corrupt is None):
        raise ValueError("give two prompts of as many tokens: PROMPT and its counterpart CORRUPT")
    tls = library()
    aimed = aimed_at_a_token([method], target=target, foil=foil, rank=rank)
    text, target = prompt_or_demo(prompt, model, target, aimed=aimed, demo="translation")
    other = text.replace(*DEMO_SWAP) if corrupt is None else corrupt
    lens = load_model(model, kind, device)
    asked = {"target": target, "foil": foil, "rank": rank, "pos": pos, "frozen": frozen or ()}
    found = tls.scopes(lens, text, methods=[method], **asked)
    files.answer(
        tls.patch_top(
            lens,
            text,
            other,
            found[method],
            k=k,
            layers=layer or None,
            component=component.value,
            n_random=n_random,
            seed=seed,
        )
    )
