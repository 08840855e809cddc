"""The command ``trace``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import (
    aimed_at_a_token,
    chat_of,
    default_methods,
    library,
    load_model,
    prompt_or_demo,
    require_turns,
)

if TYPE_CHECKING:
    import pandas as pd

    from tl_scopes.results.attribution import Attribution
    from tl_scopes.results.sinks import PositionalBaseline
    from tl_scopes.results.verdict import Verdict

LONG = 5
"""Seconds of a verdict from which on the command says so."""


def trace(
    prompt: options.Prompt = None,
    chat: options.Chat = None,
    method: options.TraceMethods = None,
    target: options.Target = None,
    foil: options.Foil = None,
    rank: options.Rank = None,
    frozen: options.Frozen = None,
    pos: options.Pos = -1,
    generate: options.Generate = 0,
    unit: options.ByUnit = None,
    bos: options.Bos = False,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    verdict: options.Verdict = True,
    by_position: options.ByPosition = 0,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Show which tokens of PROMPT caused the prediction that follows it."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    if by_position and html is None:
        raise ValueError("--by-position is for the page: give --html FILE too")
    if by_position == 1:
        raise ValueError("--by-position 1: a baseline needs at least two prompts")
    if by_position and (unit or chat):
        raise ValueError("--by-position is for the tokens of a PROMPT: leave out --unit and --chat")
    part: Any = None if unit is None else unit.value
    require_turns(part, chat)
    if generate and (target is not None or foil is not None or pos != -1 or by_position):
        raise ValueError(
            "--generate explains what the model writes after PROMPT: leave out --target, --foil, --pos, --by-position"
        )
    tls = library()
    from tl_scopes.baselines.by_name import BASELINES

    methods = default_methods(tls.scopes) if method == ["all"] else tuple(method or ["semantic"])
    aimed = aimed_at_a_token(methods, BASELINES, foil=foil, rank=rank)
    held = frozen or ()
    _require_gradients(methods, held)
    if by_position and (others := [m for m in methods if m in BASELINES]):
        raise ValueError(f"--by-position is for scopes: leave it out with {', '.join(others)}")
    if target is not None and not aimed:
        print(f"tl-scopes trace: {', '.join(methods)} has no target; --target is left out", file=sys.stderr)
        target = None
    text: Any
    if chat is not None:
        text = chat_of(chat, prompt)
    else:
        text, target = prompt_or_demo(prompt, model, target, aimed=aimed)
    lens = load_model(model, kind, device)
    if generate:
        text, target = tls.generate(lens, text, max_new_tokens=generate), None
    asked = {"target": target, "foil": foil, "rank": rank}
    found = _explained(tls, lens, text, methods, asked, {"pos": pos, "frozen": held})
    shown = [a if bos else a.without("special") for a in found]
    n = by_position
    beside = {name: _baseline(tls, lens, text, name, n, {"pos": pos, "frozen": held}, asked) for name in methods if n}
    judged = _judged(tls, lens, shown, part or "token") if verdict else None
    files.answer(_Together([a.by_unit(part) if part else a for a in shown], judged, beside))


def _require_gradients(methods: Sequence[str], frozen: Sequence[str]) -> None:
    """Refuse parts to hold where no method is a gradient that can hold them."""
    from tl_scopes.directions.by_name import SCOPES
    from tl_scopes.results.variants import GRADIENT_BASELINES

    if frozen and not any(method in (*SCOPES, *GRADIENT_BASELINES) for method in methods):
        raise ValueError(f"--frozen is for gradients, and {', '.join(methods)} is none: leave it out")


def _explained(
    tls: Any, lens: Any, text: Any, methods: Sequence[str], asked: Mapping[str, Any], how: Mapping[str, Any]
) -> list[Attribution]:
    """Each method's attribution, in their order; the scopes share their runs, and each method is given what it reads."""
    from tl_scopes.baselines.by_name import BASELINES
    from tl_scopes.directions.by_name import SCOPES, reads
    from tl_scopes.results.variants import GRADIENT_BASELINES

    found: dict[str, Attribution] = {}
    if scopes := [method for method in methods if method in SCOPES]:
        own = {name: value for name, value in asked.items() if reads(name, scopes)}
        found |= tls.scopes(lens, text, methods=scopes, **own, **how)
    for name in (method for method in methods if method in BASELINES):
        held = {"frozen": how["frozen"]} if name in GRADIENT_BASELINES else {}
        found[name] = BASELINES[name](lens, text, target=asked["target"], pos=how["pos"], **held)
    return [found[method] for method in methods]


def _baseline(
    tls: Any, lens: Any, text: str, method: str, n: int, how: dict[str, Any], asked: dict[str, Any]
) -> PositionalBaseline:
    """One method's mean shares on unrelated prompts."""
    from tl_scopes.directions.by_name import reads

    own = {name: value for name, value in asked.items() if reads(name, [method])}
    found: PositionalBaseline = tls.positional_baseline(lens, text, method=method, unrelated=n, **how, **own)
    return found


def _judged(tls: Any, lens: Any, shown: list[Attribution], unit: str) -> list[Verdict]:
    """The verdicts; if they took long, standard error says how to leave them out."""
    start = time.monotonic()
    found: list[Verdict] = tls.verdict(lens, shown, unit=unit)
    if (seconds := time.monotonic() - start) > LONG:
        print(f"tl-scopes trace: the verdict took {seconds:.0f} s; --no-verdict leaves it out", file=sys.stderr)
    return found


@dataclass(frozen=True)
class _Together:
    """Several scopes on one prompt, written as one result."""

    attributions: list[Attribution]
    verdicts: list[Verdict] | None
    baselines: dict[str, PositionalBaseline]

    def __str__(self) -> str:
        from tl_scopes.views.terminal import as_text, view

        several = len(self.attributions) > 1
        said = [f"{v.method}: {v.sentence}" if several else v.sentence for v in self.verdicts or ()]
        return ("\n\n" if several else "\n").join([as_text(view(self.attributions)), *said])

    def html(self) -> str:
        """One scope's tokens, or a button for each scope."""
        from tl_scopes import views

        first, *others = self.attributions
        if others:
            picture = views.compare({a.method: a for a in self.attributions}, baselines=self.baselines)
        else:
            picture = views.tokens(first, baseline=self.baselines.get(first.method))
        return views.stack(picture, *map(views.view, self.verdicts or ())).html() if self.verdicts else picture.html()

    def plot(self) -> Any:
        """The coloured text, once for each scope."""
        from tl_scopes.views.coloured_figure import coloured_figure

        return coloured_figure(self.attributions)

    def to_dict(self) -> dict[str, Any]:
        """By method, each with its verdict."""
        return {a.method: a.to_dict() | self._verdict(i) for i, a in enumerate(self.attributions)}

    def _verdict(self, i: int) -> dict[str, Any]:
        if self.verdicts is None:
            return {}
        judged = self.verdicts[i]
        return {"verdict": {"sentence": judged.sentence, **judged.to_dict(), "attribution": None}}

    def to_frame(self) -> pd.DataFrame:
        """One row per method and token."""
        import pandas as pd

        frames = {a.method: a.to_frame() for a in self.attributions}
        return pd.concat(frames, names=["method"]).reset_index("method")
