"""The frozen results of the sink diagnostics: where attention goes when it goes nowhere, and what scopes make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from tl_scopes.model.held_functions import Part
from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, S, Serializable
from tl_scopes.results.completeness import without_sum
from tl_scopes.results.lossless import Archive, naming
from tl_scopes.results.units import kind_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class PositionalBaseline(Displayable, Serializable):
    """Share of influence by position over prompts that have nothing to do with each other.

    Attributes:
        share: ``[pos]``, mean over prompts of ``score_t / Σ_s score_s``; sums to 1.
        stderr: ``[pos]``, its standard error over prompts.
        method: name of the scope.
        n_prompts: how many prompts.
        frozen: what the gradient held constant.
        explained: what else tells which score it is, as an attribution's details say it: ``at``, and ``of`` or ``rank``
            where the scope has one.
    """

    _later: ClassVar = ("frozen", "explained")

    share: Float[Tensor, " pos"]
    stderr: Float[Tensor, " pos"]
    method: str
    n_prompts: int
    frozen: tuple[Part, ...] = ()
    explained: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"PositionalBaseline({self.method}, {self.n_prompts} prompts, {len(self.share)} positions)"

    @public_call
    def ratio(self, attribution: Attribution) -> Float[Tensor, " pos"]:
        """Each token's share of the attribution over what its position gets anyway: above 1, the token matters.

        Raises ``ValueError`` for another method, source or linearisation, another explained position or several of them,
        units, and what is such a ratio already.
        """
        if attribution.span or kind_of(attribution.details) is not None or "over_baseline" in attribution.details:
            raise ValueError(
                "the baseline is of tokens at one explained position; give an attribution by token of one prediction, whose "
                "scores are its own"
            )
        if attribution.method != self.method:
            raise ValueError(
                f"this is of {self.method}, the attribution of {attribution.method}; a baseline is of the same scope"
            )
        if attribution.pos + 1 != len(self.share):
            raise ValueError(
                f"this is read at position {len(self.share) - 1}, the attribution at position {attribution.pos}. Take the "
                f"baseline of the same text: positional_baseline(model, prompt, method={self.method!r}, "
                f"pos={attribution.pos})"
            )
        own = {name: attribution.details.get(name) for name in self.explained}
        if own != dict(self.explained):
            raise ValueError(f"this is of {_said(self.explained)}, the attribution of {_said(own)}; take both alike")
        if "through" in attribution.details:
            raise ValueError(
                "the attribution is the difference of two gradients, and this is of one; give what it was split from"
            )
        if (held := list(attribution.details.get("frozen", ()))) != list(self.frozen):
            raise ValueError(
                f"this is of gradients with frozen={list(self.frozen)}, the attribution with frozen={held}; take both alike"
            )
        scores = attribution.scores[: attribution.pos + 1].double()
        return (scores / scores.sum()) / self.share.double().clamp_min(1e-30)

    @public_call
    def corrected(self, attribution: Attribution) -> Attribution:
        """The attribution with :meth:`ratio` in place of its scores, for views and rankings."""
        ratio = attribution.scores.new_zeros(len(attribution))
        ratio[: attribution.pos + 1] = self.ratio(attribution).to(ratio)
        details, notes = without_sum(attribution.details, attribution.notes)
        details = {k: v for k, v in details.items() if k not in ("signed", "row_scores", "interval")}
        details["over_baseline"] = self.n_prompts
        plain = replace(attribution, stderr=None, gradient=None, signed=None, cache=None)
        return replace(plain, scores=ratio, details=details, notes=notes)


def _said(explained: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in explained.items())


@dataclass(frozen=True, eq=False, repr=False)
class AttentionSinks(Displayable, Serializable):
    """What one prompt's attention sinks are, and how much of each scope's influence they take.

    ``end`` is the explained position plus one: nothing after it is looked at.

    Attributes:
        received: ``[layer, head, end]``, mean attention of all later queries on each position; 0 for the last.
        value_norms: ``[layer, head, end]``, norm of the value vector each head reads (repeated under grouped queries; after
            its own norm, where it has one).
        residual_norms: ``[n_layers + 1, end]``, norm of the residual stream before each block and after the last; of every
            layer of the model.
        groups: positions of ``"bos"`` (leading special tokens), ``"first"`` (the first ``n_first``), ``"secondary"``.
        mass: ``[layer, head]`` for each group: mean over later queries outside it of the attention on it together.
        secondary: for each secondary sink the largest ratio to the median of its ``"residual"`` norm and of its
            ``"attention"`` (against the median at the same distance; absent where it is no more than an even share); at
            least one is above ``multiple``.
        attributions: each scope's result, which knows these sinks: ``.without("sinks")`` leaves them out.
        bos_comparison: one row per number of BOS tokens put before the same text.
        baseline: each scope's share of influence by position on unrelated prompts.
        multiple: of the median, from which a position is a secondary sink.
        notes: sentences a reader must know.
        layers: number in the model of each layer that has attention; all of them where nothing is given.
    """

    format_version: ClassVar[int] = 2
    _within: ClassVar = {"groups": "end"}
    _along: ClassVar = {"layers": "layer"}
    _later: ClassVar = ("layers",)

    received: Float[Tensor, "layer head end"]
    value_norms: Float[Tensor, "layer head end"]
    residual_norms: Float[Tensor, "stream end"]
    groups: Mapping[str, tuple[int, ...]]
    mass: Mapping[str, Float[Tensor, "layer head"]]
    secondary: Mapping[int, Mapping[str, float]]
    attributions: Mapping[str, Attribution]
    bos_comparison: Sequence[Mapping[str, Any]] = ()
    baseline: Mapping[str, PositionalBaseline] = field(default_factory=dict)
    multiple: float = 5.0
    notes: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.require(bool(self.attributions), "attributions", "there is none")
        if not self.layers:
            n_layers = len(self.residual_norms) - 1
            self.require(n_layers == len(self.received), "residual_norms", "not one more than layers")
            object.__setattr__(self, "layers", tuple(range(n_layers)))
        super().__post_init__()
        n_layers = self.axes["stream"] - 1
        self.require(
            max(self.layers) < n_layers, "residual_norms", f"{n_layers} layers, and layers names {self.layers}"
        )
        end = self.axes["end"]
        for name, attribution in self.attributions.items():
            same = attribution.pos + 1 == end and attribution.str_tokens == self.first_attribution.str_tokens
            self.require(same, f"attributions.{name}", f"not of the same prompt, read at position {end - 1}")
        for name, baseline in self.baseline.items():
            self.require(baseline.axes["pos"] == end, f"baseline.{name}", f"not of {end} positions")
        self.require({"first"} <= set(self.mass) == set(self.groups), "mass", f"not of the groups {set(self.groups)}")

    @property
    def first_attribution(self) -> Attribution:
        """Any of them, for what they share: the tokens and the explained position."""
        return next(iter(self.attributions.values()))

    @property
    def str_tokens(self) -> list[str]:
        """Texts of the tokens up to the explained position."""
        return self.first_attribution.str_tokens[: self.received.shape[-1]]

    @property
    def positions(self) -> frozenset[int]:
        """Every sink: leading special tokens, the first tokens, the secondary ones."""
        return frozenset(p for group in self.groups.values() for p in group)

    @public_call
    def share(self, method: str, group: str | None = None) -> float:
        """Share of a scope's influence on the positions of one group, or on all sinks together."""
        scores = self.attributions[method].scores[: self.received.shape[-1]].double()
        chosen = sorted(self.positions if group is None else self.groups[group])
        return float(scores[chosen].sum() / scores.sum().clamp_min(1e-300))

    def __repr__(self) -> str:
        first = float(self.mass["first"].mean())
        names = ", ".join(f"{self.str_tokens[p]!r} ({p})" for p in self.secondary) or "none"
        n = len(self.groups["first"])
        where = "first token" if n == 1 else f"first {n} tokens"
        return f"AttentionSinks({first:.1%} of attention on the {where}, secondary sinks: {names})"

    def to_frame(self) -> pd.DataFrame:
        """One row per layer and head: attention on each group, and the value norm there over the median elsewhere."""
        import pandas as pd

        _, n_heads, end = self.received.shape
        others = [p for p in range(end) if p not in self.positions]
        columns: dict[str, Any] = {
            "layer": [layer for layer in self.layers for _ in range(n_heads)],
            "head": list(range(n_heads)) * len(self.layers),
        }
        for group, positions in self.groups.items():
            columns[f"attention_{group}"] = self.mass[group].flatten().tolist()
            if positions and others:
                here = self.value_norms[:, :, list(positions)].mean(-1)
                there = self.value_norms[:, :, others].median(-1).values
                columns[f"value_norm_ratio_{group}"] = (here / there.clamp_min(1e-30)).flatten().tolist()
        return pd.DataFrame(columns)

    def influence_frame(self) -> pd.DataFrame:
        """One row per scope: its share of influence on each group and on all sinks, and what a flat one would have."""
        import pandas as pd

        rows = [
            {"method": m, **{g: self.share(m, g) for g in self.groups}, "all": self.share(m)} for m in self.attributions
        ]
        end = self.received.shape[-1]
        flat = {
            "method": "uniform",
            **{g: len(p) / end for g, p in self.groups.items()},
            "all": len(self.positions) / end,
        }
        return pd.DataFrame([*rows, flat])

    def bos_frame(self) -> pd.DataFrame:
        """One row per number of BOS tokens before the same text."""
        import pandas as pd

        return pd.DataFrame(list(self.bos_comparison))

    def position_frame(self) -> pd.DataFrame:
        """One row per position: attention received, norms, each scope's share, and the positional baseline's."""
        import pandas as pd

        end = self.received.shape[-1]
        columns: dict[str, Any] = {
            "pos": list(range(end)),
            "str_token": self.str_tokens,
            "sink": [p in self.positions for p in range(end)],
            "attention": self.received.mean((0, 1)).tolist(),
            "residual_norm": self.residual_norms.amax(0).tolist(),
        }
        for method, attribution in self.attributions.items():
            scores = attribution.scores[:end].double()
            columns[f"share_{method}"] = (scores / scores.sum().clamp_min(1e-300)).tolist()
            if method in self.baseline:
                columns[f"baseline_{method}"] = self.baseline[method].share.tolist()
        return pd.DataFrame(columns)

    @classmethod
    def _restored(cls: type[S], archive: Archive, raw: dict[str, Any]) -> S:
        with naming("attributions"):
            dtype, *_ = (a["dtype"] for a in raw["attributions"].values())  # older files say it there alone
        return super()._restored(archive, {"dtype": dtype, **raw})
