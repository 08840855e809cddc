"""The command ``sinks``."""

from __future__ import annotations

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import aimed_at_a_token, default_methods, library, load_model, prompt_or_demo


def sinks(
    prompt: options.Prompt = None,
    method: options.Methods = None,
    target: options.Target = None,
    foil: options.Foil = None,
    rank: options.Rank = None,
    frozen: options.Frozen = None,
    pos: options.Pos = -1,
    n_first: options.NFirst = 1,
    multiple: options.Multiple = 5.0,
    unrelated: options.Unrelated = 8,
    seed: options.Seed = 0,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Attention sinks: how much attention the first tokens and a few others take, and each scope's influence on them."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    tls = library()
    methods = tuple(method or default_methods(tls.attention_sinks))
    text, target = prompt_or_demo(
        prompt, model, target, aimed=aimed_at_a_token(methods, target=target, foil=foil, rank=rank)
    )
    lens = load_model(model, kind, device)
    result = tls.attention_sinks(
        lens,
        text,
        methods=methods,
        n_first=n_first,
        multiple=multiple,
        unrelated=unrelated,
        seed=seed,
        target=target,
        foil=foil,
        rank=rank,
        pos=pos,
        frozen=frozen or (),
    )
    files.answer(result)
