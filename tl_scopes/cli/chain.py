"""The command ``chain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files, require_folder
from tl_scopes.cli.support import (
    aimed_at_a_token,
    chat_of,
    library,
    load_model,
    prompt_or_demo,
    require_turns,
)

if TYPE_CHECKING:
    import pandas as pd

    from tl_scopes.results.chain import Chain
    from tl_scopes.results.chain_verification import ChainVerification


def chain(
    prompt: options.Prompt = None,
    chat: options.Chat = None,
    text: options.WrittenText = None,
    generate: options.ChainGenerate = None,
    answer: options.ChainAnswer = None,
    method: options.ChainMethod = "semantic",
    foil: options.Foil = None,
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
    """Which part of PROMPT, and which step of what the model writes after it, the answer rests on."""
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
    keywords = {"rank": rank, "foil": foil, "frozen": frozen or ()}
    _require_method(method, keywords)
    given: Any = chat_of(chat, prompt) if chat else prompt_or_demo(prompt, model, demo="translation")[0]
    own = chat is None and prompt is None
    lens = load_model(model, kind, device)
    written = _written(tls, lens, given, text, generate or (options.WRITTEN_IN_DEMO if own else None))
    units = unit.value if unit else "word" if own else "sentence"
    prompt_units = prompt_unit.value if prompt_unit else units
    if verify:
        _require_several(lens, written, prompt_units)
    found = tls.chain(
        lens, written, method=method, units=units, prompt_units=prompt_units, answer=answer, out=out, **keywords
    )
    checked = tls.verify_chain(lens, found, seed=seed) if verify else None
    files.answer(_Together(found, checked))


def _require_method(method: str, keywords: Mapping[str, Any]) -> None:
    """Refuse what makes no rows, and keywords that do not fit it, before a model is loaded."""
    from tl_scopes.directions.by_name import SCOPES
    from tl_scopes.evaluation.chain import ROW_METHODS, check_row_method

    if method not in SCOPES and method in ROW_METHODS:
        check_row_method(method, keywords)
        return
    others = [name for name in ROW_METHODS if name not in SCOPES]
    aimed_at_a_token([method], others, rank=keywords["rank"], foil=keywords["foil"])


def _require_several(lens: Any, written: Any, prompt_units: Any) -> None:
    """Refuse a prompt of one unit, which is seen without any run."""
    from tl_scopes.evaluation.chain import sources_of
    from tl_scopes.evaluation.chain_verification import may_go

    if (n := len(may_go(sources_of(lens, written, prompt_units)))) < 2:
        raise ValueError(
            f"--verify compares parts of the prompt, and this one has {n or 'none'} that may go: give a finer --prompt-unit, "
            "e.g. word"
        )


def _written(tls: Any, lens: Any, prompt: Any, text: str | None, n: int | None) -> Any:
    """The pair that was given, a chat that has its answer, or what the model writes."""
    if text is not None:
        return prompt, text
    if not isinstance(prompt, str) and prompt[-1].get("role") == "assistant" and not n:
        return prompt
    return tls.generate(lens, prompt, max_new_tokens=n or options.WRITTEN)


@dataclass(frozen=True)
class _Together:
    """A chain, with its verification if there is one, written as one result."""

    chain: Chain
    checked: ChainVerification | None

    def __str__(self) -> str:
        return "\n".join(map(str, filter(None, (self.chain, self.checked))))

    def html(self) -> str:
        """The chain's page, followed by the verification."""
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
