"""The command ``matrix``."""

from __future__ import annotations

from typing import Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import aimed_at_a_token, chat_of, library, load_model, prompt_or_demo, require_turns


def matrix(
    prompt: options.Prompt = None,
    chat: options.Chat = None,
    method: options.Method = "semantic",
    foil: options.Foil = None,
    rank: options.Rank = None,
    unit: options.ByUnit = None,
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
    part = unit.value if unit else "word" if words else None
    if words and part != "word":
        raise ValueError(f"--words is --unit word; leave it out beside --unit {part}")
    require_turns(part, chat)
    text: Any = chat_of(chat, prompt) if chat else "".join(filter(None, prompt_or_demo(prompt, model)))
    lens = load_model(model, kind, device)
    result = tls.attribution_matrix(lens, text, method=method, foil=foil, rank=rank, frozen=frozen or ())
    result = result.without("nothing") if bos else result
    files.answer(result.by_unit(part) if part else result)
