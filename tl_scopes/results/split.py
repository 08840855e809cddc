"""The frozen result of a split: the same prediction's influence exact, with attention frozen, and the difference.

Legend: ``g = g_frozen + d`` the gradient at a token, a stream or a head's output; ``d`` is what goes through the patterns of
attention. ``S = Σ ‖g‖²`` over tokens (over rows of V by their weights too).

    share carried     Σ ⟨g, g_frozen⟩ / S = (S + S_frozen − S_d) / 2S
    share looked      Σ ⟨g, d⟩ / S        = 1 − share carried

Norms do not add: ``‖g‖ ≤ ‖g_frozen‖ + ‖d‖``, and either part may be longer than the whole where the two oppose each other.
The shares are what each part has along the exact gradient; they add up to 1, and one is below 0 where it works against the
whole. Signed numbers, products with an activation, add by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.results.methods import legend
from tl_scopes.results.units import Entries, Units, grouping, joined

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("exact", "frozen", "difference")
"""In the order of the first axis of every table."""


@dataclass(frozen=True, eq=False, repr=False)
class Split(Displayable, Serializable):
    """What is carried and where the model looks; tables have the three along their first axis.

    Attributes:
        exact: the scope itself.
        frozen: the same with ``frozen="attention"``: what is carried through values.
        difference: of the two gradients as vectors, ``‖g − g_frozen‖``: what goes through where the model looks.
        layers: ``[3, n_layers + 1, pos]``, norms at the residual stream before each block and after the last.
        hooks: hook point of each layer.
        signed: ``[3, pos]``, products of the activation at ``at`` with its gradient, ``⟨x_t, g_t⟩``; None where several
            rows have no common sign.
        heads: ``[3, block, head, pos]``, through each head's output at each query position: signed products where there is
            one row, else norms (:attr:`head_kind`); None where TransformerLens shows no heads.
        blocks: number in the model of each layer of ``heads``.
        head_kind: as in :class:`HeadInfluence`.
        notes: sentences a reader must know.
    """

    _shared: ClassVar = ("exact",)
    _along: ClassVar = {"hooks": "layer", "blocks": "block?"}
    _finite: ClassVar = ("layers", "signed", "heads")
    _at_least: ClassVar = {"layers": 0}

    exact: Attribution
    frozen: Attribution
    difference: Attribution
    layers: Float[Tensor, "3 layer pos"]
    hooks: tuple[str, ...]
    signed: Float[Tensor, "3 pos"] | None = None
    heads: Float[Tensor, "3 block head pos"] | None = None
    blocks: tuple[int, ...] = ()
    head_kind: Literal["signed", "sensitivity"] = "signed"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, part in self.parts.items():
            same = part.str_tokens == self.exact.str_tokens and part.pos == self.exact.pos
            self.require(same, name, "of other tokens, or read at another position, than exact")

    def __repr__(self) -> str:
        strongest = ", ".join(f"{t.str_token!r} {t.score:.3g}" for t in self.difference.top(3))
        return (
            f"Split({self.method}, {len(self.tokens)} tokens, pos={self.pos}, target={self.target_str!r}, "
            f"carried {self.share_carried:.0%}, difference: {strongest})"
        )

    @property
    def parts(self) -> dict[str, Attribution]:
        """The three attributions by name."""
        return {"exact": self.exact, "frozen": self.frozen, "difference": self.difference}

    @property
    def tokens(self) -> Int[Tensor, " pos"]:
        """Token ids."""
        return self.exact.tokens

    @property
    def str_tokens(self) -> list[str]:
        """The text of each token."""
        return self.exact.str_tokens

    @property
    def pos(self) -> int:
        """The position whose next-token prediction is explained."""
        return self.exact.pos

    @property
    def method(self) -> str:
        """Name of the scope."""
        return self.exact.method

    @property
    def target_str(self) -> str | None:
        """Text of the explained token, where there is one."""
        return self.exact.target_str

    @property
    def shown(self) -> list[int]:
        """Positions that views and statistics use."""
        return self.exact.shown

    @property
    def by_layer(self) -> dict[str, LayerInfluence]:
        """The three by layer, each a result of its own, with rankings, a table and pictures."""
        of_each = zip(self.parts.items(), self.layers, strict=True)
        return {name: LayerInfluence(scores, part, self.hooks) for (name, part), scores in of_each}

    @property
    def by_head(self) -> dict[str, HeadInfluence]:
        """The three by head, each a result of its own; empty where TransformerLens shows no heads."""
        if self.heads is None:
            return {}
        of_each = zip(self.parts.items(), self.heads, strict=True)
        return {name: HeadInfluence(scores, part, self.head_kind, self.blocks) for (name, part), scores in of_each}

    @property
    def share_carried(self) -> float:
        """Share of the squared influence on the shown tokens that is carried through values (see the module); NaN of none.

        Of total information, whose scores are squares, of the influence.
        """
        return float(self._carried(torch.stack([part.scores for part in self.parts.values()]))[()])

    @property
    def share_looked(self) -> float:
        """``1 − share_carried``: what goes through where the model looks."""
        return 1 - self.share_carried

    @property
    def share_by_layer(self) -> Float[Tensor, " layer"]:
        """:attr:`share_carried` at each residual stream; 1 after the last block, which nothing looks at any more."""
        return self._carried(self.layers)

    def _carried(self, scores: Float[Tensor, "3 *layer pos"]) -> Float[Tensor, "*layer"]:
        """``(S + S_frozen − S_d) / 2S``."""
        values = scores[..., self.shown].double()
        whole, frozen, difference = (values if self._squares else values.square()).sum(-1)
        return torch.where(whole > 0, (whole + frozen - difference) / (2 * whole), math.nan)

    @property
    def _squares(self) -> bool:
        """Are scores sums of squares themselves, which add over tokens?"""
        return legend(self.method).additive

    def without(self, tokens: Literal["special", "sinks", "nothing"] | Iterable[int]) -> Split:
        """The same with some positions left out of views and statistics; as :meth:`Attribution.without`.

        Special tokens (BOS) are left out from the start; ``.without("nothing")`` shows them. ``"sinks"`` are those of
        :attr:`exact`, and their shares of it.
        """
        exact = self.exact.without(tokens)
        frozen, difference = (replace(part, hidden=exact.hidden) for part in (self.frozen, self.difference))
        return replace(self, exact=exact, frozen=frozen, difference=difference)

    @public_call
    def by_unit(self, units: Units, *, language: str = "en") -> Split:
        """The same with one column per unit: word, sentence, line, paragraph, turn, or characters of your own.

        Columns join as scores of :meth:`Attribution.by_unit` do; signed numbers by their sum.

        Args:
            units: as in :meth:`Attribution.by_unit`.
            language: of sentences.

        Returns:
            A :class:`Split` with positions counted in units; shares of all tokens together stay what they are.

        Raises:
            ValueError: as :meth:`Attribution.by_unit`.
        """
        found = grouping(Entries.of(self.exact), units, language=language, pos=self.pos)
        if found is None:
            return self
        signed = self.head_kind == "signed"
        exact, frozen, difference = (part._grouped(found) for part in self.parts.values())
        return replace(
            self,
            exact=exact,
            frozen=frozen,
            difference=difference,
            layers=joined(self.layers, found.positions, self._squares),
            signed=None if self.signed is None else joined(self.signed, found.positions, True),
            heads=None if self.heads is None else joined(self.heads, found.positions, signed or self._squares),
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per token: ``pos``, ``str_token``, the three scores, the three signed numbers if any, ``shown``.

        Layers and heads have tables of their own, ``by_layer["difference"].to_frame()``.
        """
        import pandas as pd

        shown = set(self.shown)
        signed = {} if self.signed is None else dict(zip(PARTS, self.signed.tolist(), strict=True))
        return pd.DataFrame(
            {
                "pos": range(len(self.tokens)),
                "str_token": self.str_tokens,
                **{name: part.scores.tolist() for name, part in self.parts.items()},
                **{f"signed_{name}": values for name, values in signed.items()},
                "shown": [p in shown for p in range(len(self.tokens))],
            }
        )
