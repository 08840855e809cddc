"""How often a method ranks the known cause first: the result of :func:`tl_scopes.gold_alignment`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from tl_scopes.numerics.arguments import Seed, public_call
from tl_scopes.numerics.statistics import LEAST_PROMPTS, Comparison, Values, paired_bootstrap, paired_shares
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.checked import Checked
from tl_scopes.results.pairs import all_pairs

if TYPE_CHECKING:
    import pandas as pd

BOOTSTRAPS = 2000
LEAST_ACCEPTED = 30
"""Accepted prompts of a task below which there are no figures."""
ALPHA = 0.05
Figure = Literal["top1", "mrr", "recall", "top1_in_source", "mrr_in_source"]
FIGURES: tuple[Figure, ...] = ("top1", "mrr", "top1_in_source", "mrr_in_source", "recall")
Block = Literal["attribution", "substitution"]
BLOCKS: tuple[Block, ...] = ("attribution", "substitution")
LESS = ("difference", "low", "high", "indistinguishable_from_best")
"""Columns of the comparison with the best of the block."""


@dataclass(frozen=True)
class GoldRecord(Checked):
    """One method on one prompt.

    Attributes:
        corpus: name of the corpus or task.
        index: number of the example within it.
        method: name of the method.
        rank: rank of the best-ranked cause among all candidates, 1 is best; ties count against the method.
        rank_in_source: the same among the candidates inside the source region.
        chance: causes over candidates.
        chance_in_source: the same inside the source region.
        recall: share of the causes C that are among the ``|C|`` best-ranked candidates; None in files of before.
    """

    _at_least: ClassVar = {"rank": 1, "rank_in_source": 1}
    _later: ClassVar = ("recall",)

    corpus: str
    index: int
    method: str
    rank: int
    rank_in_source: int
    chance: float
    chance_in_source: float
    recall: float | None = None

    def value(self, of: str) -> float:
        """One of :data:`FIGURES`; NaN where it is not known."""
        if of == "recall":
            return math.nan if self.recall is None else self.recall
        rank = self.rank_in_source if of.endswith("in_source") else self.rank
        return float(rank == 1) if of.startswith("top1") else 1 / rank


@dataclass(frozen=True)
class TaskAcceptance(Checked):
    """How many prompts of a task a model takes as they are meant.

    Attributes:
        drawn: prompts that were tried.
        says: whose answer the model says.
        follows: of these, whose answer it changes with each swapped cause.
        accepted: of these, whose answer it keeps under three other swaps.
        too_long: those that the model's context has no room for, which were not tried.
    """

    _at_least: ClassVar = {"drawn": 1, "says": 0, "follows": 0, "accepted": 0, "too_long": 0}

    drawn: int
    says: int
    follows: int
    accepted: int
    too_long: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        falls = self.accepted <= self.follows <= self.says <= self.drawn
        self.require(falls, "accepted", "not accepted <= follows <= says <= drawn")

    @property
    def rate(self) -> float:
        """Share of the drawn that are accepted."""
        return self.accepted / self.drawn

    def __str__(self) -> str:
        says, follows = (f"{n / self.drawn:.0%}" for n in (self.says, self.follows))
        steps = f"says the answer {says}, follows the causes {follows}"
        long = f"; {self.too_long} longer than the context" if self.too_long else ""
        return f"{self.accepted} of {self.drawn} drawn ({self.rate:.0%}; {steps}{long})"


@dataclass(frozen=True)
class GoldAlignment(Displayable, Serializable):
    """Result of :func:`gold_alignment`.

    Attributes:
        records: one per prompt and method.
        accuracy: share of prompts that the model answered right, by corpus or task; the others are left out.
        n: prompts per corpus, before that; per task the accepted prompts that were wanted.
        seed: of examples and bootstrap.
        answers: what is explained of each prompt: the token that follows, or all that follows together.
        acceptance: by task, which of its prompts the model takes as they are meant; empty for corpora.
        by_substitution: methods that leave out or exchange words, as the acceptance of prompts does.
        settings: what defines the numbers, as it is stored with the run; of corpora nothing.
        left: accepted prompts that no process has scored yet.
        failures: by task, the number and the reason of accepted prompts that could not be scored.
    """

    _at_least: ClassVar = {"seed": 0, "n": 0, "left": 0}
    _later: ClassVar = ("answers", "acceptance", "by_substitution", "settings", "left", "failures")

    records: tuple[GoldRecord, ...]
    accuracy: Mapping[str, float]
    n: int
    seed: int
    answers: Literal["token", "whole"] = "token"
    acceptance: Mapping[str, TaskAcceptance] = field(default_factory=dict)
    by_substitution: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    left: int = 0
    failures: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        prompts: dict[str, list[tuple[str, int]]] = {}
        for record in self.records:
            prompts.setdefault(record.method, []).append((record.corpus, record.index))
        every = list(prompts.values())
        self.require(
            all(one == every[0] for one in every), "records", "not of the same prompts in order for every method"
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Names, in the order they were given."""
        known = self.settings.get("methods") or {r.method: None for r in self.records}
        return tuple(known)

    @property
    def kind(self) -> Literal["corpus", "task"]:
        """What the prompts were made by."""
        return "task" if self.acceptance else "corpus"

    @property
    def complete(self) -> bool:
        """Is every accepted prompt scored? Several processes share a run, and the last one to end has all."""
        return not self.left

    @property
    def without_figures(self) -> tuple[str, ...]:
        """Tasks with fewer than 30 accepted prompts."""
        return tuple(task for task, found in self.acceptance.items() if found.accepted < LEAST_ACCEPTED)

    def block(self, method: str) -> Block:
        """Which methods it may be compared with."""
        return "substitution" if self.acceptance and method in self.by_substitution else "attribution"

    @public_call
    def per_prompt(self, of: Figure = "top1", name: str = "all") -> dict[str, Values]:
        """A figure of each prompt of a corpus or task, by method; the prompts are the same for all.

        Args:
            of: ``"top1"``, ``"mrr"``, ``"recall"``, ``"top1_in_source"`` or ``"mrr_in_source"``.
            name: of the corpus or task; ``"all"`` is each prompt of all of them.
        """
        if name != "all" and name not in self.accuracy:
            raise ValueError(f"(name={name!r}): expected 'all' or one of {tuple(self.accuracy)}")
        found: dict[str, list[float]] = {method: [] for method in self.methods}
        for record in self.records:
            if name in (record.corpus, "all"):
                found[record.method].append(record.value(of))
        return {method: np.array(values) for method, values in found.items()}

    @public_call
    def compare(
        self, first: str, second: str, *, of: Figure = "top1", name: str = "all", level: float = 0.95, seed: Seed = 0
    ) -> Comparison:
        """The mean difference first − second over the same prompts, of any two methods.

        Of shares (``"top1"``) by McNemar's test and Agresti and Min's interval, of the others by the paired bootstrap.
        """
        values = self.per_prompt(of, name)
        for method in (first, second):
            if method not in values or not len(values[method]):
                raise ValueError(f"(methods {first!r}, {second!r}): nothing of {method!r} for {name!r}")
        return _test(of, level, seed)(values[first], values[second])

    @public_call
    def comparisons(self, *, of: Figure = "top1", level: float = 0.95, seed: Seed = 0) -> pd.DataFrame:
        """Every pair of methods of one block, by corpus or task: difference, interval, p, ``p_holm``, ``indistinguishable``.

        Each pair is compared as :meth:`compare` does, at the level by itself; ``p_holm`` counts all pairs of that corpus and
        block (Holm's step-down rule).
        ``indistinguishable`` is None below 20 prompts. Methods of the two blocks are not compared: acceptance is a test by
        substitution. :meth:`compare` does it if asked.
        """
        import pandas as pd

        tables = []
        for name in [*self.accuracy, "all"]:
            for block in BLOCKS:
                values = {m: v for m, v in self.per_prompt(of, name).items() if self.block(m) == block and len(v)}
                pairs = all_pairs(values, _test(of, level, seed))
                pairs.insert(0, "block", block)
                pairs.insert(0, self.kind, name)
                tables.append(pairs)
        kept = [pairs for pairs in tables if len(pairs)] or tables[:1]
        return pd.concat(kept, ignore_index=True)

    def to_frame(self) -> pd.DataFrame:
        """One row per corpus (or task) and method, and ``all`` (each prompt counts once): figures and intervals.

        ``difference`` is the mean paired difference in top-1 from the best method of its block, from ``low`` to ``high``
        (95 %); ``indistinguishable_from_best`` says whether it may be none, by :meth:`comparisons`' ``p_holm`` > 0.05, and
        is None below 20 prompts. Of a task with fewer than 30 accepted prompts there are no figures.
        """
        return self._frame.copy()

    @cached_property
    def _frame(self) -> pd.DataFrame:
        """The table, made once."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        pairs = self.comparisons()
        for name in [*self.accuracy, "all"]:
            chosen = {m: [r for r in self.records if r.method == m and name in (r.corpus, "all")] for m in self.methods}
            of_name = pairs[pairs[self.kind] == name]
            best = {
                b: max(own, key=lambda m: np.mean([r.value("top1") for r in chosen[m]]))
                for b in BLOCKS
                if (own := [m for m in self.methods if self.block(m) == b and chosen[m]])
            }
            for method, records in chosen.items():
                if not records and name not in self.acceptance:
                    continue
                block = self.block(method)
                row = {self.kind: name, "method": method, **_figures(records, self.seed), "block": block}
                rows.append({**row, **(_less_the_best(of_name, method, best[block], len(records)) if records else {})})
        columns = [self.kind, "method", *_figures([], self.seed), "block", *LESS]
        return pd.DataFrame(rows, columns=columns)


def _test(of: Figure, level: float, seed: int) -> Callable[[Values, Values], Comparison]:
    """How two methods are compared: shares as such."""
    if of.startswith("top1"):
        return partial(paired_shares, level=level)
    return partial(paired_bootstrap, level=level, seed=seed)


def _less_the_best(pairs: pd.DataFrame, method: str, best: str, n: int) -> dict[str, Any]:
    """The paired difference from the best method, out of the table of all pairs."""
    if method == best:
        return dict(zip(LESS, (0.0, 0.0, 0.0, None if n < LEAST_PROMPTS else True), strict=True))
    ((_, found),) = pairs[(pairs["first"].isin([method, best])) & (pairs["second"].isin([method, best]))].iterrows()
    ends = (found.difference, found.low, found.high)
    if found["first"] == best:
        ends = (0.0 - found.difference, 0.0 - found.high, 0.0 - found.low)  # no minus before a zero
    same = None if found.indistinguishable is None else bool(found.p_holm > ALPHA)
    return dict(zip(LESS, (*ends, same), strict=True))


def _figures(records: Sequence[GoldRecord], seed: int) -> dict[str, float | int]:
    """Means over prompts with bootstrap intervals; NaN of no prompts."""
    n = len(records)
    out: dict[str, float | int] = {"n": n}
    draws = np.random.default_rng(seed).integers(max(n, 1), size=(BOOTSTRAPS, n))
    for name in FIGURES:
        value = np.array([r.value(name) for r in records])
        low, high = np.quantile(value[draws].mean(axis=1), [0.025, 0.975]) if n else (math.nan, math.nan)
        out |= {name: float(value.mean()) if n else math.nan, f"{name}_low": float(low), f"{name}_high": float(high)}
    for column in ("chance", "chance_in_source"):
        out[column] = float(np.mean([getattr(r, column) for r in records])) if n else math.nan
    return out
