"""How often a method ranks the known cause first: the result of :func:`tl_scopes.gold_alignment`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.checked import Checked

if TYPE_CHECKING:
    import pandas as pd

BOOTSTRAPS = 2000


@dataclass(frozen=True)
class GoldRecord(Checked):
    """One method on one prompt.

    Attributes:
        corpus: name of the corpus.
        index: number of the example within it.
        method: name of the method.
        rank: rank of the best-ranked cause among all candidates, 1 is best; ties count against the method.
        rank_in_source: the same among the candidates inside the source region.
        chance: causes over candidates.
        chance_in_source: the same inside the source region.
    """

    _at_least: ClassVar = {"rank": 1, "rank_in_source": 1}

    corpus: str
    index: int
    method: str
    rank: int
    rank_in_source: int
    chance: float
    chance_in_source: float


@dataclass(frozen=True)
class GoldAlignment(Displayable, Serializable):
    """Result of :func:`gold_alignment`.

    Attributes:
        records: one per prompt and method.
        accuracy: share of prompts that the model answered right, by corpus; the others are left out.
        n: prompts per corpus, before that.
        seed: of examples and bootstrap.
        answers: what is explained of each prompt: the token that follows, or all that follows together.
    """

    _at_least: ClassVar = {"seed": 0, "n": 0}
    _later: ClassVar = ("answers",)

    records: tuple[GoldRecord, ...]
    accuracy: Mapping[str, float]
    n: int
    seed: int
    answers: Literal["token", "whole"] = "token"

    def to_frame(self) -> pd.DataFrame:
        """One row per corpus and method, and ``all`` (each prompt counts once): figures and intervals."""
        import pandas as pd

        rows = []
        methods = list(dict.fromkeys(r.method for r in self.records))
        for corpus in [*self.accuracy, "all"]:
            for method in methods:
                chosen = [r for r in self.records if r.method == method and corpus in (r.corpus, "all")]
                if chosen:
                    rows.append({"corpus": corpus, "method": method, **_figures(chosen, self.seed)})
        columns = ["corpus", "method", *_figures([GoldRecord("", 0, "", 1, 1, 1.0, 1.0)], self.seed)]
        return pd.DataFrame(rows, columns=columns)


def _figures(records: Sequence[GoldRecord], seed: int) -> dict[str, float | int]:
    """Means over prompts with bootstrap intervals."""
    rank = np.array([r.rank for r in records])
    inside = np.array([r.rank_in_source for r in records])
    values = {"top1": rank == 1, "mrr": 1 / rank, "top1_in_source": inside == 1, "mrr_in_source": 1 / inside}
    draws = np.random.default_rng(seed).integers(len(records), size=(BOOTSTRAPS, len(records)))
    out: dict[str, float | int] = {"n": len(records)}
    for name, value in values.items():
        low, high = np.quantile(value[draws].mean(axis=1), [0.025, 0.975])
        out |= {name: float(value.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
    out["chance"] = float(np.mean([r.chance for r in records]))
    out["chance_in_source"] = float(np.mean([r.chance_in_source for r in records]))
    return out
