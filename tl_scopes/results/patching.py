"""The result of patching where an attribution points: what each cell, all of them and random ones recover.

    recovered = (m_patched − m_corrupt) / (m_clean − m_corrupt)

with ``m`` the metric; 1 restores the clean metric, 0 does nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.written import minus

if TYPE_CHECKING:
    import pandas as pd

MOST_SHARE = 3.0
"""Times the difference of the prompts that a patch may move the metric before shares of it are doubtful."""
Component = Literal["resid_pre", "resid_mid", "attn_out", "mlp_out"]


@dataclass(frozen=True, eq=False)
class PatchTop(Displayable, Serializable):
    """Result of :func:`patch_top`.

    Attributes:
        attribution: whose top tokens were patched.
        positions: these tokens, highest score first.
        layers: layers that were patched.
        component: what was patched there.
        scalar: what the metric is.
        clean: metric of the clean run.
        corrupt: metric of the corrupt run.
        cells: ``[layer, token]`` metric with one token patched, as TransformerLens returns it.
        estimate: ``[layer, token]`` the same to first order from one backward; None for a metric without gradient.
        joint: ``[layer]`` metric with all these tokens patched.
        random: ``[layer, draw]`` metric with as many tokens drawn at random.
        random_positions: tokens of each draw.
        full_cells: cells of a full sweep over all layers and tokens.
    """

    _shared: ClassVar = ("attribution",)
    _along: ClassVar = {"positions": "token", "layers": "layer", "random_positions": "draw"}
    _within: ClassVar = {"positions": "pos", "random_positions": "pos"}
    _at_least: ClassVar = {"layers": 0, "full_cells": 1}

    attribution: Attribution
    positions: tuple[int, ...]
    layers: tuple[int, ...]
    component: Component
    scalar: str
    clean: float
    corrupt: float
    cells: Float[Tensor, "layer token"]
    estimate: Float[Tensor, "layer token"] | None
    joint: Float[Tensor, " layer"]
    random: Float[Tensor, "layer draw"]
    random_positions: tuple[tuple[int, ...], ...]
    full_cells: int

    def recovered(self, metric: Tensor) -> Tensor:
        """``(m − m_corrupt)/(m_clean − m_corrupt)`` of any of the metrics here."""
        return (metric - self.corrupt) / (self.clean - self.corrupt)

    @property
    def cost(self) -> float:
        """Patched cells as a share of a full sweep's."""
        return self.cells.numel() / self.full_cells

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: ``layer``, ``pos``, ``token``, ``score``, ``metric``, ``recovered``, ``estimated``."""
        import pandas as pd

        rows = []
        for (i, layer), (j, pos) in itertools.product(enumerate(self.layers), enumerate(self.positions)):
            rows.append(
                {
                    "layer": layer,
                    "pos": pos,
                    "token": self.attribution.str_tokens[pos],
                    "score": float(self.attribution.scores[pos]),
                    "metric": float(self.cells[i, j]),
                    "recovered": float(self.recovered(self.cells)[i, j]),
                    "estimated": None if self.estimate is None else float(self.recovered(self.estimate)[i, j]),
                }
            )
        return pd.DataFrame(rows)

    def by_layer(self) -> pd.DataFrame:
        """One row per layer: recovered by all these tokens together, mean and range of the random draws (95 % or more)."""
        import pandas as pd

        random = self.recovered(self.random).double()
        low, high = (
            torch.quantile(random, q, dim=1, interpolation=to).tolist()
            for q, to in ((0.025, "lower"), (0.975, "higher"))
        )  # draws themselves: between two of them there may be nothing
        return pd.DataFrame(
            {
                "layer": self.layers,
                "recovered": self.recovered(self.joint).tolist(),
                "random_mean": random.mean(dim=1).tolist(),
                "random_low": low,
                "random_high": high,
            }
        )

    @property
    def summary(self) -> str:
        """One sentence: recovered at the first of the layers, by these tokens and by random ones, and the cost."""
        row = self.by_layer().iloc[0]
        names = ", ".join(repr(self.attribution.str_tokens[p]) for p in self.positions)
        return (
            f"{names} at {self.component} of layer {self.layers[0]} recover {whole_percent(row.recovered)} of the change of "
            f"{self.scalar} ({minus(f'{self.corrupt:.3g} → {self.clean:.3g}')}); {len(self.positions)} random tokens "
            f"{whole_percent(row.random_mean)} [{whole_percent(row.random_low)}, {whole_percent(row.random_high)}] over "
            f"{self.random.shape[1]} draws. "
            f"Cells patched: {self.cells.numel()} of {self.full_cells} ({self.cost:.0%})."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know first: that the prompts differ too little for shares of it to say anything, or that
        random tokens are hardly others.
        """
        found = []
        moved = max(float(self.recovered(t).abs().max()) for t in (self.cells, self.joint, self.random))
        if moved > MOST_SHARE:
            found.append(
                f"Patches move {self.scalar} by up to {moved:.0f} times the difference of the two prompts, so that shares of "
                "it say little: take a counterpart that changes the prediction more."
            )
        same = sum(set(draw) == set(self.positions) for draw in self.random_positions)
        if 2 * same >= len(self.random_positions):
            found.append(
                f"{same} of {len(self.random_positions)} random draws are the attributed tokens themselves, because the "
                "prompt has hardly any others: the comparison says little. Take a smaller k, or a longer prompt."
            )
        return tuple(found)

    def __repr__(self) -> str:
        return f"PatchTop({self.summary})"


def whole_percent(share: float) -> str:
    """Whole per cent."""
    return minus(f"{share:.0%}")
