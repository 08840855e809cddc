"""Do these tokens matter, more than others do? The result of :func:`tl_scopes.verdict`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.statistics import rank_interval, spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.written import minus

if TYPE_CHECKING:
    import pandas as pd

Unit = Literal["token", "word", "sentence", "line", "paragraph", "turn"]
"""What is removed at once."""
Ablation = Literal["zero", "mean", "resample"]
"""What takes a removed token's place, see :mod:`tl_scopes.kernel.ablation`."""
LEAST_CANDIDATES = 8
"""Units below which no comparison with random ones says anything."""
SIGNIFICANT = 0.05
"""Probability under a random ranking below which the strongest units are called better than random."""
_SETS = {1: "single {}s", 2: "pairs", 3: "triples"}


class Spread(NamedTuple):
    """Of the random sets: median, and the quantiles that hold 90 % of them."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Verdict(Displayable, Serializable):
    """The effect of removing the strongest units beside that of random sets as large; the result of :func:`verdict`.

    Attributes:
        attribution: what was judged.
        k: units removed together.
        unit: ``"token"``, or what :meth:`Attribution.by_unit` makes.
        n_candidates: units that may be removed.
        strongest: positions of the tokens of each of the ``k`` strongest units, strongest first.
        effect: change of log p of the target without them, nats; None where there are too few candidates.
        drawn: ``[set]`` the same without each random set.
        exhaustive: whether ``drawn`` holds every other set there is, because they are few.
        singles: positions of each unit that was removed alone: the strongest, and random ones of the rest.
        single_scores: ``[single]`` their scores.
        single_effects: ``[single]`` change of log p without each, nats.
        scalar: what else is measured, where the scope explains something other than the target: the explained scalar.
        scalar_unit: of its changes.
        scalar_effect: its change without the strongest units.
        scalar_drawn: ``[set]`` its change without each random set.
        ablation: what took the place of removed tokens.
        seed: of the draws.
        target_str: whose log p it is.
        sets: positions of the tokens of each random set; () in older files.
    """

    _later: ClassVar = ("sets",)
    _shared: ClassVar = ("attribution",)
    _along: ClassVar = {"singles": "single", "sets": "set?"}
    _within: ClassVar = {"strongest": "pos", "singles": "pos", "sets": "pos"}

    attribution: Attribution
    k: int
    unit: Unit
    n_candidates: int
    strongest: tuple[tuple[int, ...], ...]
    effect: float | None
    drawn: Float[Tensor, " set"]
    exhaustive: bool
    singles: tuple[tuple[int, ...], ...]
    single_scores: Float[Tensor, " single"]
    single_effects: Float[Tensor, " single"]
    scalar: str | None
    scalar_unit: str | None
    scalar_effect: float | None
    scalar_drawn: Float[Tensor, " set"] | None
    ablation: Ablation
    seed: int
    target_str: str
    sets: tuple[tuple[int, ...], ...] = ()

    @property
    def method(self) -> str:
        """Of the attribution that was judged."""
        return self.attribution.method

    @property
    def random(self) -> Spread:
        """Change of log p without random sets, nats: median, 5 % and 95 % quantile."""
        return _spread(self.drawn)

    @property
    def p(self) -> float:
        """``(1 + #{random sets at least as harmful}) / (n + 1)``; NaN without a verdict."""
        return math.nan if self.effect is None else _p(self.drawn <= self.effect)

    @property
    def scalar_p(self) -> float:
        """The same for the explained scalar, by the size of its change; NaN where there is none."""
        if self.scalar_effect is None or self.scalar_drawn is None:
            return math.nan
        return _p(self.scalar_drawn.abs() >= abs(self.scalar_effect))

    @property
    def better(self) -> bool:
        """Is removing the strongest units worse than removing random ones, at the level of 5 %?"""
        return self.p <= SIGNIFICANT

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of score and ``|Δ log p|`` over the units that were removed alone."""
        return spearman(self.single_scores.tolist(), self.single_effects.abs().tolist())

    @property
    def rank_interval(self) -> tuple[float, float]:
        """Where it lies, at the level of 95 %."""
        return rank_interval(self.rank_correlation, len(self.singles))

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        if self.effect is None:
            return (
                f"No verdict: {self.n_candidates} {self.unit}s may be removed, and with fewer than {LEAST_CANDIDATES} "
                "no comparison with random ones says anything."
            )
        names = f" ({', '.join(repr(self.name(s)) for s in self.strongest)})" if self.k <= 5 else ""
        what = f"the strongest {self.unit}" if self.k == 1 else f"the {self.k} strongest {self.unit}s"
        sets = _SETS.get(self.k, f"sets of {self.k} {{}}s").format(self.unit)
        count = f"all {len(self.drawn)} other" if self.exhaustive else f"{len(self.drawn)} random"
        raised = self.random.median > 0
        ends = self.random if raised else _reversed(self.random)
        effect, median, low, high = _numbers(abs(self.effect), *(v if raised else -v for v in ends))
        lowers, lower = "lowers" if self.effect <= 0 else "raises", "raise" if raised else "lower"
        parts = [
            f"{self._opening}: removing {what}{names} {lowers} log p of {self.target_str!r} by {effect} nats; {count} {sets} "
            f"{lower} it by {median} ({low} to {high}), p = {self.p:.2g}."
        ]
        if not self.better and (holding := sum(self._as_harmful)):
            parts.append(self._without_them(sets, holding))
        if self.scalar_drawn is not None and self.scalar_effect is not None:
            effect, median, low, high = _numbers(abs(self.scalar_effect), *_spread(self.scalar_drawn.abs()))
            parts.append(
                f"On its own scalar, {self.scalar}: {effect} {self.scalar_unit}, {sets} {median} ({low} to {high}), "
                f"p = {self.scalar_p:.2g}."
            )
        if math.isfinite(self.rank_correlation):
            rank, low, high = _numbers(self.rank_correlation, *self.rank_interval)
            agree = "agree with" if self.rank_interval[0] > 0 else "do not clearly agree with"
            if self.rank_interval[1] < 0:
                agree = "contradict"
            parts.append(
                f"Single removals {agree} the ranking: {rank} ({low} to {high}) over {len(self.singles)} {self.unit}s."
            )
        return " ".join(parts)

    @property
    def _opening(self) -> str:
        if self.better:
            return f"Th{'is' if self.k == 1 else 'ese'} {self.unit}{' matters' if self.k == 1 else 's matter'}"
        if 1 / (len(self.drawn) + 1) > SIGNIFICANT:
            return "Too few sets to tell"
        return "Undecided" if self._undecided else "No better than random"

    @property
    def _holding(self) -> list[bool]:
        """Does each random set hold a token of one of the strongest units?"""
        own = {p for unit in self.strongest for p in unit}
        return [not own.isdisjoint(drawn) for drawn in self.sets]

    @property
    def _as_harmful(self) -> list[bool]:
        """Of the sets that are as harmful as the strongest units: does each hold a token of these?"""
        if self.effect is None or self.effect >= 0:
            return []
        return [holds for holds, v in zip(self._holding, self.drawn.tolist(), strict=False) if v <= self.effect]

    @property
    def _undecided(self) -> bool:
        """Are sets as harmful, but only such as hold a token of the strongest units themselves?"""
        return not self.better and bool(self._as_harmful) and all(self._as_harmful)

    def _without_them(self, sets: str, holding: int) -> str:
        """How many of the sets that are as harmful hold one of the strongest units, and what those do that hold none."""
        n = len(self._as_harmful)
        if holding < n:
            return f"Of the {n} {sets} that do as much {holding} hold{'s' if holding == 1 else ''} one of these."
        said = (
            f"The {n} {sets} that do as much hold one of these"
            if n > 1
            else "The one that does as much holds one of these"
        )
        others = [v for v, holds in zip(self.drawn.tolist(), self._holding, strict=True) if not holds]
        if not others:
            return f"{said}, as all do: with so few {self.unit}s they cannot be told apart."
        most = min(others)
        does = f"lowers it by {_numbers(-most)[0]}" if most < 0 else f"raises it by {_numbers(most)[0]}"
        which = (
            "the one that does not" if len(others) == 1 else f"of the {len(others)} that do not, the most harmful one"
        )
        return f"{said}; {which} {does}."

    def name(self, positions: tuple[int, ...]) -> str:
        """The text of a unit."""
        return "".join(self.attribution.str_tokens[p] for p in positions)

    def to_frame(self) -> pd.DataFrame:
        """One row per removal: ``removed`` (strongest, random, single), ``n``, ``tokens``, ``score``, ``delta_log_prob``."""
        import pandas as pd

        top = (
            [] if self.effect is None else [("strongest", self.k, " | ".join(map(self.name, self.strongest)), math.nan)]
        )
        drawn = [" | ".join(self.attribution.str_tokens[p] for p in s) for s in self.sets] or [""] * len(self.drawn)
        random = [("random", self.k, tokens, math.nan) for tokens in drawn]
        single = [
            ("single", 1, self.name(s), v) for s, v in zip(self.singles, self.single_scores.tolist(), strict=True)
        ]
        rows = pd.DataFrame([*top, *random, *single], columns=["removed", "n", "tokens", "score"])
        effects = [] if self.effect is None else [self.effect]
        return rows.assign(delta_log_prob=[*effects, *self.drawn.tolist(), *self.single_effects.tolist()])

    def __repr__(self) -> str:
        return f"Verdict({self.sentence})"


def _p(as_harmful: Tensor) -> float:
    return (1 + int(as_harmful.sum())) / (len(as_harmful) + 1)


def _spread(values: Tensor) -> Spread:
    if not len(values):
        return Spread(math.nan, math.nan, math.nan)
    low, median, high = np.quantile(values.double().numpy(), [0.05, 0.5, 0.95])
    return Spread(float(median), float(low), float(high))


def _reversed(spread: Spread) -> Spread:
    """Ends exchanged, for values of the other sign."""
    return Spread(spread.median, spread.high, spread.low)


def _numbers(*values: float) -> list[str]:
    """All with the same decimals, so many that the largest has two digits."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    decimals = 2 if largest >= 0.1 or largest == 0 else min(9, 1 - math.floor(math.log10(largest)))
    return [minus(f"{v:.{decimals}f}") for v in values]
