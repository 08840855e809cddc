"""Every forecast of a series: which earlier values each rests on, and how good it is.

Row i of the matrix explains the forecast of number ``first + i`` from the numbers before it. All rows come from
:func:`tl_scopes.attribution_matrix` on one text, read at its commas, and the predictions from the same forwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tl_scopes.directions.base import ReadOut
from tl_scopes.directions.moments import LEAST_MASS
from tl_scopes.jacobian_scopes.matrix import matrix_of
from tl_scopes.kernel.calls import encode as encode_prompts
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.lens import LensModel
from tl_scopes.model.lock import model_call
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.results.methods import legend
from tl_scopes.timeseries.encoding import EncodedSeries, by_number, encode, number_ids, token_places
from tl_scopes.timeseries.prediction import NumberDistribution
from tl_scopes.timeseries.spelled import spelled

if TYPE_CHECKING:
    import pandas as pd

_SPELLED = (
    "This tokenizer writes a number with several tokens, such as one per digit. The predictions are of whole numbers, by "
    "teacher forcing; a row of influence explains the first token of one, and the influence of a number is that of its "
    "tokens together."
)
FIRST_FORECAST = 8
"""Numbers before the first one that is forecast, where the caller names none."""
RollingMethod = Literal["temperature", "semantic", "fisher", "total_information"]


@dataclass(frozen=True, eq=False, repr=False)
class RollingForecast(Displayable, Serializable):
    """Influence of every number on every forecast, and the forecasts.

    Attributes:
        encoded: the whole series; ``encoded.n_fit`` says on how many of its values the scale was fitted.
        first: index of the first number that is forecast.
        influence: ``[forecast, number]``; row i is exactly 0 from column ``first + i`` on. The last row forecasts the
            value after the series.
        predictions: one distribution per row.
        matrix: the token-level attribution matrix behind it.
        notes: sentences a reader must know before trusting the forecasts.
    """

    _later: ClassVar = ("notes",)
    _along: ClassVar = {"predictions": "forecast"}
    _at_least: ClassVar = {"first": 1}

    encoded: EncodedSeries
    first: int
    influence: Float[Tensor, "forecast number"]
    predictions: tuple[NumberDistribution, ...]
    matrix: AttributionMatrix
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        n = len(self.encoded)
        self.require(self.axes["number"] == n, "influence", f"not one column for each of {n} numbers")
        self.require(
            len(self) == n + 1 - self.first, "first", f"{self.first} leaves not {len(self)} of {n} to forecast"
        )
        self.require(len(self.matrix) == len(self), "matrix", f"{len(self.matrix)} rows for {len(self)} forecasts")

    def __len__(self) -> int:
        return len(self.predictions)

    def __repr__(self) -> str:
        errors = ", ".join(f"{name} {value:.2f}" for name, value in self.mean_errors().items())
        return f"RollingForecast({len(self)} forecasts, {self.matrix.method}; mean absolute error: {errors})"

    def mean_errors(self) -> Mapping[str, float]:
        """Mean absolute errors in numbers of the forecast mean, and of repeating the last number (``persistence``)."""
        truth = self.encoded.numbers[self.first :].astype(np.float64)
        mean = np.array([p.mean for p in self.predictions[:-1]])
        last = self.encoded.numbers[self.first - 1 : -1].astype(np.float64)
        return {"model": float(np.abs(mean - truth).mean()), "persistence": float(np.abs(last - truth).mean())}

    def to_frame(self) -> pd.DataFrame:
        """One row per forecast: ``index`` of the number, ``number`` (NaN after the end), ``mean``, ``spread``, interval."""
        import pandas as pd

        truth = [*self.encoded.numbers[self.first :].astype(np.float64).tolist(), float("nan")]
        return pd.DataFrame(
            {
                "index": range(self.first, self.first + len(self)),
                "number": truth,
                "mean": [p.mean for p in self.predictions],
                "spread": [p.spread for p in self.predictions],
                "low": [p.interval[0] for p in self.predictions],
                "high": [p.interval[1] for p in self.predictions],
                "log_score": [
                    float("nan") if np.isnan(t) else p.log_score(int(t))
                    for t, p in zip(truth, self.predictions, strict=True)
                ],
            }
        )


@model_call
def rolling_forecast(
    model: LensModel,
    series: Any,
    *,
    first: int = FIRST_FORECAST,
    method: RollingMethod = "temperature",
    level: float = 0.9,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
) -> RollingForecast:
    """Influence of every earlier value on every forecast of a series.

    ``influence[i, j] = ‖vᵀ ∂y/∂x_j‖₂`` with v the scope's direction at the comma before number ``first + i``.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer``; where a number takes several tokens, a row explains the
            prediction of the first, and a column is the number's tokens together.
        series: one-dimensional numbers; the scale is fitted on the first ``first`` of them, so that no forecast has seen
            its own value, and refused where later ones leave no room. Or the result of :func:`encode`.
        first: index of the first number that is forecast, at least 2; ``.notes`` says so where the scale has seen more.
        method: the scope of every row; ``"semantic"`` explains the logit of the number that came next.
        level: of the predicted intervals.
        prepend_bos: put BOS before the text; None is the model's own default.
        at: hook of the source.

    Returns:
        :class:`RollingForecast`; row i is :func:`forecast_scope` on the first ``first + i`` numbers.

    Raises:
        ValueError: as :func:`forecast_scope`; ``first`` out of range.

    Cost: that of :func:`tl_scopes.attribution_matrix` for one row per forecast, and no forward besides. Where a number
        takes two tokens, one more for each prediction, on ten continuations of its history.

    >>> rolling = rolling_forecast(model, encode(timeseries.periodic(24, period=5)), first=12)
    >>> rolling.influence.shape, len(rolling.predictions)
    (torch.Size([13, 24]), 13)

    Reference: this package; the rows are the paper's figure 4 at every cut.
    """
    try:
        n = len(series)
    except TypeError:
        n = 0
    if n < 3:
        raise ValueError(f"(series=...): expected at least 3 values, got {n}")
    if not 2 <= first < n:
        raise ValueError(f"(first={first!r}): expected 2 … {n - 1}, the last value of the series")
    if not 0 < level < 1:
        raise ValueError(f"(level={level!r}): expected a number between 0 and 1")
    encoded = series if isinstance(series, EncodedSeries) else encode(series, n_fit=first)
    options = RunOptions(prepend_bos=prepend_bos, at=at)
    model, prompts = encode_prompts(model, encoded.text, options, "series")
    ids = number_ids(model)
    places = token_places(prompts[0], encoded.text)
    commas = list(places.delimiters[first - 1 :])
    probabilities: dict[int, Float[ndarray, " 90"]] = {}

    def read_numbers(row: int, read: ReadOut) -> None:
        if ids is None:
            return
        probabilities[row] = read.logits.double().log_softmax(-1).cpu()[list(ids)].exp().numpy()

    matrix = matrix_of(model, prompts[0], method, commas, {}, options, read_numbers)
    if ids is None:
        for row, comma in enumerate(commas):
            probabilities[row] = spelled(model, replace(prompts[0], pos=comma), at=at).probabilities
    predictions = tuple(NumberDistribution(probabilities[i], level) for i in range(len(commas)))
    return RollingForecast(
        encoded=encoded,
        first=first,
        influence=by_number(matrix.scores, places.numbers, additive=legend(matrix.method).additive),
        predictions=predictions,
        matrix=matrix,
        notes=(*(() if ids else (_SPELLED,)), *_cautions(encoded, first, predictions)),
    )


def _cautions(encoded: EncodedSeries, first: int, predictions: Sequence[NumberDistribution]) -> Iterator[str]:
    """What a reader of the errors must know."""
    if encoded.n_fit > first:
        yield (
            f"The scale was fitted on the first {encoded.n_fit} numbers, so it has seen the range of values that are "
            "forecast here."
        )
    few = [prediction.mass for prediction in predictions if prediction.mass < LEAST_MASS]
    if few:
        yield (
            f"In {len(few)} of {len(predictions)} forecasts less than {LEAST_MASS:.0%} of the probability is on numbers "
            f"(as little as {min(few):.1%}): these are hardly forecasts."
        )
