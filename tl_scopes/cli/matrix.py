"""The command ``matrix``."""

from __future__ import annotations

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import aimed_at_a_token, library, load_model, prompt_or_demo


def matrix(
    prompt: options.Prompt = None,
    method: options.Method = "semantic",
    foil: options.Foil = None,
    rank: options.Rank = None,
    frozen: options.Frozen = None,
    words: options.Words = False,
    bos: options.Bos = False,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """For every token of PROMPT, the earlier tokens that caused its prediction."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    tls = library()
    aimed_at_a_token([method], foil=foil, rank=rank)
    text, answer = prompt_or_demo(prompt, model)
    lens = load_model(model, kind, device)
    result = tls.attribution_matrix(
        lens, text + (answer or ""), method=method, foil=foil, rank=rank, frozen=frozen or ()
    )
    result = result.without("nothing") if bos else result
    files.answer(result.by_word() if words else result)
