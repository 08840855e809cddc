"""The command ``chain``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files, require_folder
from tl_scopes.cli.support import aimed_at_a_token, chat_of, library, load_model, prompt_or_demo, require_turns

if TYPE_CHECKING:
    import pandas as pd

    from tl_scopes.results.chain import Chain
    from tl_scopes.results.chain_verification import ChainVerification

WRITTEN = 40
"""Tokens that the model writes where nothing else is said."""
_DEMO = 4
"""… after the built-in prompt, whose units are words."""


def chain(
    prompt: options.Prompt = None,
    chat: options.Chat = None,
    text: options.WrittenText = None,
    generate: options.Generate = 0,
    answer: options.ChainAnswer = None,
    method: options.Method = "semantic",
    rank: options.Rank = None,
    frozen: options.Frozen = None,
    unit: options.ByUnit = None,
    prompt_unit: options.PromptUnit = None,
    verify: options.Regenerate = False,
    seed: options.Seed = 0,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    out: options.Out = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Which step of what the model writes after PROMPT, and which part of PROMPT, its answer rests on."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    if out is not None:
        require_folder("--out", out)
    if text is not None and generate:
        raise ValueError("--text is what was written: leave out --generate")
    if text is not None and prompt is None and chat is None:
        raise ValueError("--text comes after a prompt: give PROMPT or --chat FILE too")
    for part in (unit, prompt_unit):
        require_turns(part and part.value, chat)
    tls = library()
    aimed_at_a_token([method], rank=rank)
    given: Any = chat_of(chat, prompt) if chat else prompt_or_demo(prompt, model, demo="translation")[0]
    own = chat is None and prompt is None
    lens = load_model(model, kind, device)
    written = _written(tls, lens, given, text, generate or _DEMO * own)
    found = tls.chain(
        lens,
        written,
        method=method,
        units=unit.value if unit else "word" if own else "sentence",
        prompt_units=prompt_unit.value if prompt_unit else None,
        answer=answer,
        out=out,
        rank=rank,
        frozen=frozen or (),
    )
    checked = tls.verify_chain(lens, found, seed=seed) if verify else None
    files.answer(_Together(found, checked))


def _written(tls: Any, lens: Any, prompt: Any, text: str | None, n: int) -> Any:
    """The pair that was given, a chat that has its answer, or what the model writes."""
    if text is not None:
        return prompt, text
    if not isinstance(prompt, str) and prompt[-1].get("role") == "assistant" and not n:
        return prompt
    return tls.generate(lens, prompt, max_new_tokens=n or WRITTEN)


@dataclass(frozen=True)
class _Together:
    """A chain, with its verification if there is one, written as one result."""

    chain: Chain
    checked: ChainVerification | None

    def __str__(self) -> str:
        return "\n".join(map(str, filter(None, (self.chain, self.checked))))

    def html(self) -> str:
        """The chain's page, the verification behind it."""
        from tl_scopes import views

        return views.stack(*map(views.view, filter(None, (self.chain, self.checked)))).html()

    def plot(self) -> Any:
        """The chain's figure."""
        return self.chain.plot()

    def to_dict(self) -> dict[str, Any]:
        """The chain, and what was written again."""
        more = {} if self.checked is None else {"verification": {**self.checked.to_dict(), "chain": None}}
        return self.chain.to_dict() | more

    def to_frame(self) -> pd.DataFrame:
        """One row per unit of the prompt, then one per step."""
        return self.chain.to_frame()
