"""The frozen results of looking inside: influence by layer and position, and by head and position.

Both carry the scope's own :class:`Attribution` of the same run, which says what is explained and which tokens views leave
out. They are indexed by position only; nothing writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.numerics.arguments import Count, public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Picture, Serializable, views
from tl_scopes.results.lossless import Archive, naming
from tl_scopes.results.methods import legend
from tl_scopes.results.units import Entries, Grouping, Units, grouping, joined
from tl_scopes.results.written import minus

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens import ActivationCache

R = TypeVar("R", bound="_Inside")


class LayerScore(NamedTuple):
    """Influence of one position's residual stream at one layer."""

    layer: str
    pos: int
    str_token: str
    score: float


class HeadScore(NamedTuple):
    """Influence through one head's output at one query position."""

    layer: int
    head: int
    pos: int
    str_token: str
    score: float


class HeadTotal(NamedTuple):
    """Influence through one head over all shown positions."""

    layer: int
    head: int
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class _Inside(Displayable, Serializable):
    """What both results share: the tokens, and everything that the attribution knows."""

    format_version: ClassVar[int] = 2
    _shared: ClassVar = ("attribution",)
    _finite: ClassVar = ("scores",)

    scores: Tensor
    attribution: Attribution

    @property
    def tokens(self) -> Int[Tensor, " pos"]:
        """Token ids."""
        return self.attribution.tokens

    @property
    def str_tokens(self) -> list[str]:
        """The text of each token."""
        return self.attribution.str_tokens

    @property
    def pos(self) -> int:
        """The position whose next-token prediction is explained."""
        return self.attribution.pos

    @property
    def method(self) -> str:
        """Name of the scope."""
        return self.attribution.method

    @property
    def target_str(self) -> str | None:
        """Text of the explained token, where there is one."""
        return self.attribution.target_str

    @property
    def cache(self) -> ActivationCache | None:
        """TransformerLens ``ActivationCache`` of the run, when it was asked for."""
        return self.attribution.cache

    @property
    def shown(self) -> list[int]:
        """Positions that views and statistics use."""
        return self.attribution.shown

    def without(self: R, tokens: Literal["special", "sinks", "nothing"] | Iterable[int]) -> R:
        """The same with some positions left out of views and statistics; as :meth:`Attribution.without`.

        Special tokens (BOS) are left out from the start; ``.without("nothing")`` shows them.
        """
        return replace(self, attribution=self.attribution.without(tokens))

    @public_call
    def by_unit(self: R, units: Units, *, language: str = "en") -> R:
        """The same map with one column per unit: word, sentence, line, paragraph, turn, or characters of your own.

        Columns join as scores of :meth:`Attribution.by_unit` do: ``sqrt(Σ_{t in u} score_t²)``, and plain sums where scores
        have a sign or add (total information).

        Args:
            units: as in :meth:`Attribution.by_unit`.
            language: of sentences.

        Returns:
            The same class with positions counted in units.

        Raises:
            ValueError: as :meth:`Attribution.by_unit`.
        """
        found = grouping(Entries.of(self.attribution), units, language=language, pos=self.pos)
        return self if found is None else self._grouped(found)

    def _grouped(self: R, found: Grouping, **changes: Any) -> R:
        """With one column per group."""
        scores = joined(self.scores, found.positions, self._adds)
        return replace(self, scores=scores, attribution=self.attribution._grouped(found), **changes)

    @property
    def _adds(self) -> bool:
        """Do scores of several tokens add?"""
        return legend(self.method).additive

    @public_call
    def view(self, *, per_row: bool = False) -> Picture:
        """The maps, and the scope's own coloured tokens.

        Args:
            per_row: colour each row by its own largest value, so that weak layers can be read; otherwise one scale for
                the whole map. The picture says which.
        """
        found: Picture = views().view(self, per_row=per_row)
        return found

    @public_call
    def html(self, *, per_row: bool = False) -> str:
        """The view as a page of its own that works offline."""
        return self.view(per_row=per_row).html()

    @public_call
    def plot(self, *, per_row: bool = False) -> Any:
        """The maps as a matplotlib figure."""
        return views().plot(self, per_row=per_row)

    @classmethod
    def _restored(cls: type[R], archive: Archive, raw: dict[str, Any]) -> R:
        with naming("attribution"):
            dtype = raw["attribution"]["dtype"]  # older files say it there alone
        return super()._restored(archive, {"dtype": dtype, **raw})


@dataclass(frozen=True, eq=False, repr=False)
class LayerInfluence(_Inside):
    """Influence of the residual stream, layer by layer.

    Attributes:
        scores: ``[n_layers + 1, pos]`` on the CPU: before each block, and after the last one. 0 after ``pos``.
        attribution: the scope's own result from the same run.
        hooks: hook point of each row.
        residual_norms: ``[n_layers + 1, pos]``, the norm of the stream itself.
        read_out_norm: ``‖v‖`` at ``unembed.hook_in``, where the influence ends (root of weighted squares of several
            rows); None for a direction at another hook.
        relative: whether scores were multiplied by the norms.
        notes: sentences a reader must know.
    """

    _along: ClassVar = {"hooks": "layer"}
    _later: ClassVar = ("notes",)
    _at_least: ClassVar = {"scores": 0}

    scores: Float[Tensor, "layer pos"]
    hooks: tuple[str, ...]
    residual_norms: Float[Tensor, "layer pos"] | None = None
    read_out_norm: float | None = None
    relative: bool = False
    notes: tuple[str, ...] = ()

    def _grouped(self, found: Grouping, **changes: Any) -> LayerInfluence:
        norms = self.residual_norms
        joint = None if norms is None else joined(norms, found.positions, False)
        return super()._grouped(found, residual_norms=joint, **changes)

    @property
    def layers(self) -> tuple[str, ...]:
        """Name of each row, as TransformerLens' ``accumulated_resid`` labels them: ``0_pre`` … ``final_post``."""
        return (*(f"{layer}_pre" for layer in range(len(self.scores) - 1)), "final_post")

    def __repr__(self) -> str:
        best = ", ".join(f"{s.layer} {s.str_token!r} {s.score:.3g}" for s in self.top(3))
        return f"LayerInfluence({self.method}, {len(self.scores)} × {len(self.tokens)}, top: {best})"

    @public_call
    def top(self, k: Count = 5) -> list[LayerScore]:
        """The ``k`` shown entries with the highest scores, highest first."""
        table = self.scores.tolist()
        order = sorted((-table[layer][p], layer, p) for layer in range(len(table)) for p in self.shown)[:k]
        return [LayerScore(self.layers[layer], p, self.str_tokens[p], -score) for score, layer, p in order]

    def to_frame(self) -> pd.DataFrame:
        """One row per layer and token: ``layer``, ``hook``, ``pos``, ``str_token``, ``score``, ``shown``."""
        import pandas as pd

        shown, n = set(self.shown), len(self.tokens)
        return pd.DataFrame(
            {
                "layer": [name for name in self.layers for _ in range(n)],
                "hook": [name for name in self.hooks for _ in range(n)],
                "pos": list(range(n)) * len(self.hooks),
                "str_token": self.str_tokens * len(self.hooks),
                "score": self.scores.flatten().tolist(),
                "shown": [p in shown for p in range(n)] * len(self.hooks),
            }
        )


@dataclass(frozen=True, eq=False, repr=False)
class HeadInfluence(_Inside):
    """Influence through each attention head's output.

    Attributes:
        scores: ``[layer, head, pos]`` on the CPU, pos the head's query position; 0 after the explained one.
        attribution: the scope's own result from the same run.
        kind: ``"signed"`` (gradient times output) or ``"sensitivity"`` (norm of the gradient).
        layers: number in the model of each layer that has attention; all of them where nothing is given.
        notes: sentences a reader must know.
    """

    _along: ClassVar = {"layers": "layer"}
    _later: ClassVar = ("layers", "notes")

    scores: Float[Tensor, "layer head pos"]
    kind: Literal["signed", "sensitivity"] = "signed"
    layers: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            object.__setattr__(self, "layers", tuple(range(len(self.scores))))
        super().__post_init__()
        self.require(self.signed or not bool((self.scores < 0).any()), "scores", "norms have none below 0")

    def __repr__(self) -> str:
        best = ", ".join(f"L{t.layer}H{t.head} {minus(f'{t.score:+.3g}')}" for t in self.top_heads(3))
        return f"HeadInfluence({self.method}, {self.kind}, {tuple(self.scores.shape)}, top: {best})"

    @property
    def signed(self) -> bool:
        """Have the scores a sign: gradient times output?"""
        return self.kind == "signed"

    @property
    def _adds(self) -> bool:
        return self.signed or super()._adds

    def by_head(self) -> Float[Tensor, "layer head"]:
        """One number per head over the shown positions.

        Signed: the sum, the first-order effect of scaling all of the head's outputs together. Sensitivity: the root of
        the sum of squares (the sum for total information).
        """
        scores = self.scores[:, :, self.shown]
        if self._adds:
            return reduce(scores, "layer head pos -> layer head", "sum")
        total: Tensor = torch.linalg.vector_norm(scores, dim=-1)
        return total

    @public_call
    def top_heads(self, k: Count = 5) -> list[HeadTotal]:
        """The ``k`` heads with the largest influence in size."""
        table = self.by_head().tolist()
        order = sorted((-abs(v), i, head) for i, row in enumerate(table) for head, v in enumerate(row))
        return [HeadTotal(self.layers[row], head, table[row][head]) for _, row, head in order[:k]]

    @public_call
    def top(self, k: Count = 5) -> list[HeadScore]:
        """The ``k`` shown entries with the largest influence in size."""
        table = self.scores.tolist()
        order = sorted(
            (-abs(row[p]), layer, head, p)
            for layer, heads in enumerate(table)
            for head, row in enumerate(heads)
            for p in self.shown
        )[:k]
        return [HeadScore(self.layers[a], h, p, self.str_tokens[p], table[a][h][p]) for _, a, h, p in order]

    def to_frame(self) -> pd.DataFrame:
        """One row per layer, head and token: ``layer``, ``head``, ``pos``, ``str_token``, ``score``, ``shown``."""
        import pandas as pd

        shown, (n_layers, n_heads, n) = set(self.shown), self.scores.shape
        return pd.DataFrame(
            {
                "layer": [layer for layer in self.layers for _ in range(n_heads * n)],
                "head": [head for _ in range(n_layers) for head in range(n_heads) for _ in range(n)],
                "pos": list(range(n)) * (n_layers * n_heads),
                "str_token": self.str_tokens * (n_layers * n_heads),
                "score": self.scores.flatten().tolist(),
                "shown": [p in shown for p in range(n)] * (n_layers * n_heads),
            }
        )
