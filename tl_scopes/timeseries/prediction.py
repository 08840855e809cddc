"""The predicted distribution over numbers: its mean, spread and interval, in numbers and in the series' own units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from tl_scopes.results.checked import Checked
from tl_scopes.timeseries.encoding import FIRST, NUMBERS, EncodedSeries


@dataclass(frozen=True, eq=False)
class NumberDistribution(Checked):
    """Probabilities of the numbers 10 … 99, in numerical order.

    Attributes:
        probabilities: of each number as the model gives them; they add up to ``mass``, at most 1.
        level: of the interval.
    """

    _finite: ClassVar = ("probabilities",)
    _at_least: ClassVar = {"probabilities": 0}

    probabilities: Float[ndarray, " 90"]
    level: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 < self.mass < 1.001, "probabilities", f"they add up to {self.mass:g}")
        self.require(0 < self.level < 1, "level", f"{self.level} is not between 0 and 1")

    @property
    def numbers(self) -> Float[ndarray, " 90"]:
        """10 … 99."""
        return np.array(NUMBERS, dtype=np.float64)

    @property
    def mass(self) -> float:
        """Probability that the next token is a number at all."""
        return float(self.probabilities.sum())

    @property
    def shares(self) -> Float[ndarray, " 90"]:
        """Probabilities given that it is a number: ``q``, adding up to 1."""
        return np.asarray(self.probabilities / self.probabilities.sum())

    @property
    def mean(self) -> float:
        """``Σ q n``."""
        return float(self.shares @ self.numbers)

    @property
    def spread(self) -> float:
        """Standard deviation ``sqrt(Σ q (n − mean)²)``."""
        return float(np.sqrt(self.shares @ (self.numbers - self.mean) ** 2))

    @property
    def interval(self) -> tuple[int, int]:
        """The central numbers that hold at least ``level`` of q: each tail outside has at most ``(1 − level)/2``."""
        cumulative, tail = np.cumsum(self.shares), (1 - self.level) / 2
        last = len(cumulative) - 1
        low = min(int(np.searchsorted(cumulative, tail, side="right")), last)
        high = min(int(np.searchsorted(cumulative, 1 - tail, side="left")), last)
        return FIRST + low, FIRST + high

    @property
    def mode(self) -> int:
        """The most probable number."""
        return FIRST + int(self.probabilities.argmax())

    def log_score(self, number: int) -> float:
        """``log q(number)``, nats; −log 90 is a uniform guess."""
        return float(np.log(max(self.shares[number - FIRST], 1e-300)))

    def in_units_of(self, encoded: EncodedSeries) -> dict[str, float]:
        """Mean, spread and interval in the units of the series."""
        mean, low, high = encoded.decode([self.mean, *self.interval]).tolist()
        return {"mean": mean, "spread": self.spread / encoded.scale, "low": low, "high": high}
