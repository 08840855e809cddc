"""How a language model forecasts a series of numbers, and from which earlier values.

    systems      the paper's dynamical systems, a periodic control, CSV columns
    encoding     a series as "29,30,45,", and back; one token per number, or one per digit
    forecast     forecast_scope: influence per number, predicted distribution, check of Proposition 1
    gaussian     the check itself
    parroting    does influence follow earlier motifs, does it fade with distance?
    rolling      every forecast of a series: an influence matrix and the predictions

::

    from tl_scopes import load_model, timeseries

    model = load_model()
    series = timeseries.lorenz(101, seed=1)
    result = timeseries.forecast_scope(model, series[:-1], truth=series[-1])
    result.plot().savefig("lorenz.png")
"""

import tl_scopes.timeseries.page  # noqa: F401  # for the pictures that it registers
from tl_scopes.timeseries.encoding import EncodedSeries, encode
from tl_scopes.timeseries.forecast import forecast_scope
from tl_scopes.timeseries.gaussian import GaussianCheck, gaussian_check
from tl_scopes.timeseries.parroting import ParrotingTest, RecencyProfile, parroting_test, recency_profile
from tl_scopes.timeseries.prediction import NumberDistribution
from tl_scopes.timeseries.result import Forecast
from tl_scopes.timeseries.rolling import RollingForecast, rolling_forecast
from tl_scopes.timeseries.systems import (
    brownian_motion,
    geometric_brownian_motion,
    logistic_map,
    lorenz,
    lorenz_with_drift,
    periodic,
    read_column,
)

__all__ = [
    "EncodedSeries",
    "Forecast",
    "GaussianCheck",
    "NumberDistribution",
    "ParrotingTest",
    "RecencyProfile",
    "RollingForecast",
    "brownian_motion",
    "encode",
    "forecast_scope",
    "gaussian_check",
    "geometric_brownian_motion",
    "logistic_map",
    "lorenz",
    "lorenz_with_drift",
    "parroting_test",
    "periodic",
    "read_column",
    "recency_profile",
    "rolling_forecast",
]
