"""The command ``layers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import aimed_at_a_token, library, load_model, prompt_or_demo

if TYPE_CHECKING:
    import pandas as pd

    from tl_scopes.results.influence import HeadInfluence, LayerInfluence


def layers(
    prompt: options.Prompt = None,
    method: options.Method = "semantic",
    target: options.Target = None,
    foil: options.Foil = None,
    rank: options.Rank = None,
    frozen: options.Frozen = None,
    pos: options.Pos = -1,
    raw: options.Raw = False,
    heads: options.Heads = False,
    per_row: options.PerRow = False,
    sensitivity: options.Sensitivity = False,
    bos: options.Bos = False,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Where in the model the influence on a prediction runs: by layer and token, or through each attention head."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    if raw and heads:
        raise ValueError("--raw is about layers; leave it out with --heads")
    if sensitivity and not heads:
        raise ValueError("--sensitivity is about heads; give --heads too")
    tls = library()
    text, target = prompt_or_demo(
        prompt, model, target, aimed=aimed_at_a_token([method], target=target, foil=foil, rank=rank)
    )
    lens = load_model(model, kind, device)
    asked = {"method": method, "target": target, "foil": foil, "rank": rank, "pos": pos, "frozen": frozen or ()}
    if heads:
        result = tls.head_influence(lens, text, kind="sensitivity" if sensitivity else "signed", **asked)
    else:
        result = tls.layer_influence(lens, text, relative=not raw, **asked)
    result = result.without("nothing") if bos else result
    files.answer(_ByRow(result) if per_row else result)


@dataclass(frozen=True)
class _ByRow:
    """A result whose pictures have one scale for each row."""

    result: LayerInfluence | HeadInfluence

    def __str__(self) -> str:
        return str(self.result)

    def html(self) -> str:
        return self.result.html(per_row=True)

    def plot(self) -> Any:
        return self.result.plot(per_row=True)

    def to_dict(self) -> dict[str, Any]:
        return self.result.to_dict()

    def to_frame(self) -> pd.DataFrame:
        return self.result.to_frame()
