"""The frozen result of a forecast scope; views and statistics read it, nothing writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.base import Displayable, S, Serializable
from tl_scopes.results.lossless import Archive, naming
from tl_scopes.timeseries.encoding import FIRST, LAST, EncodedSeries, TokenPlaces, by_number
from tl_scopes.timeseries.gaussian import GaussianCheck
from tl_scopes.timeseries.parroting import ParrotingTest, RecencyProfile, parroting_test, recency_profile
from tl_scopes.timeseries.prediction import NumberDistribution

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Forecast(Displayable, Serializable):
    """Influence of each earlier number on the forecast of the next one, and the forecast.

    Attributes:
        encoded: the series, its numbers and the map between them.
        attributions: ``{method: Attribution}`` over all tokens, BOS and commas included.
        places: which tokens stand for which number.
        prediction: the distribution over the next number.
        truth: the true next value, where it was given.
        truth_number: the number that stands for it; None also where the scale does not reach it (``notes`` says so).
        gaussian: check of Proposition 1; None where it cannot be made (``notes`` says why).
        notes: sentences a reader must know before trusting the scores.
    """

    format_version: ClassVar[int] = 2

    encoded: EncodedSeries
    attributions: Mapping[str, Attribution]
    places: TokenPlaces
    prediction: NumberDistribution
    truth: float | None = None
    truth_number: int | None = None
    gaussian: GaussianCheck | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.require(bool(self.attributions), "attributions", "there is none")
        super().__post_init__()
        n, places = len(self.encoded), self.places
        self.require(len(places.numbers) == n and all(places.numbers), "places", f"not of {n} numbers")
        found = [p for part in (*places.numbers, places.delimiters, places.rest) for p in part]
        for name, attribution in self.attributions.items():
            fits = sorted(found) == list(range(len(attribution)))
            self.require(fits, f"attributions.{name}", "its tokens are not those of places")
        if self.truth_number is not None:
            self.require(FIRST <= self.truth_number <= LAST, "truth_number", f"not in {FIRST}..{LAST}")

    def __len__(self) -> int:
        return len(self.encoded)

    def __repr__(self) -> str:
        p = self.prediction
        return f"Forecast({len(self)} numbers → {p.mean:.1f} ± {p.spread:.1f}, {', '.join(self.methods)})"

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the scopes; the first is the one that views and statistics take by default."""
        return tuple(self.attributions)

    @property
    def influence(self) -> Float[Tensor, " number"]:
        """Influence of each number by the first scope, non-negative."""
        return self.influence_by()

    @public_call
    def influence_by(self, method: str | None = None) -> Float[Tensor, " number"]:
        """Influence of each number by one of :attr:`methods`."""
        return by_number(self.attributions[self._method(method)].scores, self.places.numbers)

    @public_call
    def shares(self, method: str | None = None) -> dict[str, float]:
        """Where a scope's influence lies: shares of the sum over tokens on ``numbers``, ``delimiters`` and ``other`` (BOS).

        All NaN where the whole sum is 0.
        """
        scores = self.attributions[self._method(method)].scores.double()
        total = float(scores.sum())
        parts = {
            "numbers": [p for places in self.places.numbers for p in places],
            "delimiters": list(self.places.delimiters),
            "other": list(self.places.rest),
        }
        return {name: float(scores[p].sum()) / total if total > 0 else math.nan for name, p in parts.items()}

    def parroting(self, method: str | None = None, **options: Any) -> ParrotingTest:
        """Does influence lie on the best-matching earlier motifs? See :func:`parroting_test` for the options."""
        influence = self.influence_by(method).double().numpy()
        return parroting_test(self.encoded.numbers.astype(np.float64), influence, **options)

    def recency(self, method: str | None = None, *, skip: int = 1) -> RecencyProfile:
        """Does influence fade with distance? See :func:`recency_profile`."""
        return recency_profile(self.influence_by(method).double().numpy(), skip=skip)

    def to_frame(self) -> pd.DataFrame:
        """One row per number: ``index``, ``pos`` (of its first token), ``value``, ``number``, and each scope's influence."""
        import pandas as pd

        columns: dict[str, Any] = {
            "index": range(len(self)),
            "pos": [p[0] for p in self.places.numbers],
            "value": self.encoded.series,
            "number": self.encoded.numbers,
        }
        return pd.DataFrame(columns | {method: self.influence_by(method).tolist() for method in self.methods})

    def distribution_frame(self) -> pd.DataFrame:
        """One row per number 10 … 99: ``number``, ``value`` it stands for, ``probability``, and the ``gaussian`` fit."""
        import pandas as pd

        n = self.prediction.numbers
        fit = (
            np.full(len(n), np.nan) if self.gaussian is None else self.gaussian.probabilities(n) * self.prediction.mass
        )
        return pd.DataFrame(
            {
                "number": n.astype(int),
                "value": self.encoded.decode(n),
                "probability": self.prediction.probabilities,
                "gaussian": fit,
            }
        )

    def _written(self, archive: Archive) -> dict[str, Any]:
        """The fields, the series at the top, and beside them what a reader of the file would compute from them."""
        out, p = super()._written(archive), self.prediction
        derived = {
            "influence": {method: self.influence_by(method).tolist() for method in self.methods},
            "shares": {method: self.shares(method) for method in self.methods},
            "probabilities": dict(zip(p.numbers.astype(int).tolist(), p.probabilities.tolist(), strict=True)),
            "in_units_of_series": p.in_units_of(self.encoded),
        }
        prediction = {
            "mean": p.mean,
            "spread": p.spread,
            "interval": list(p.interval),
            "probability_on_numbers": p.mass,
        }
        out["prediction"] |= _finite(prediction)
        if self.gaussian is not None:
            check = {"fitted_variance": self.gaussian.fitted_variance, "warranted": self.gaussian.warranted}
            out["gaussian"] |= _finite(check)
        return {**out, **out.pop("encoded"), **_finite(derived)}

    @classmethod
    def _restored(cls: type[S], archive: Archive, raw: dict[str, Any]) -> S:
        encoded = {f.name: raw[f.name] for f in fields(EncodedSeries) if f.name in raw}
        with naming("probabilities"):
            probabilities = list(raw["probabilities"].values())
        with naming("prediction"):
            prediction = {"probabilities": probabilities, **raw["prediction"]}
        check = raw.get("gaussian", {})
        if isinstance(check, dict) and "$float" not in check:  # older files have None for NaN
            check = {k: _NAN if v is None and k not in ("cosine", "norm_ratio") else v for k, v in check.items()}
        changed = {"encoded": encoded, "prediction": prediction, "gaussian": check}
        return super()._restored(archive, {**raw, **changed})

    def _method(self, method: str | None) -> str:
        if method is None:
            return self.methods[0]
        if method not in self.attributions:
            raise ValueError(f"(method={method!r}): this forecast has {self.methods}")
        return method


_NAN = {"$float": "nan"}


def _finite(value: Any) -> Any:
    """The same with NaN and infinity as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
