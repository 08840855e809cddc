"""Forecast scopes: which earlier values a model's forecast of the next one rests on.

    series → numbers 15 … 85 → "29,30,45," → one forward → influence per number, distribution over numbers

The prediction explained is the one at the last comma. Influence of a number is that of its token (of its digits
together, where a number takes several); commas and BOS are left out and their share is reported. Beside it stand the
predicted distribution and the check of Proposition 1, which says whether the Temperature Scope may be read as influence
on the forecast's spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tl_scopes.directions.base import Direction, ReadOut, Rows
from tl_scopes.directions.by_name import named_directions
from tl_scopes.directions.moments import LEAST_MASS, Moment
from tl_scopes.kernel.calls import encode as encode_prompts
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import run_options
from tl_scopes.model.lens import LensModel
from tl_scopes.model.lock import model_call
from tl_scopes.model.state import ModelState, model_state
from tl_scopes.numerics.arguments import number
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.written import minus
from tl_scopes.timeseries.encoding import (
    FIRST,
    LAST,
    NUMBERS,
    EncodedSeries,
    TokenPlaces,
    encode,
    number_ids,
    number_pieces,
    token_places,
)
from tl_scopes.timeseries.gaussian import GaussianCheck, compared_gradients, fitted
from tl_scopes.timeseries.prediction import NumberDistribution
from tl_scopes.timeseries.result import Forecast
from tl_scopes.timeseries.spelled import MomentName, spelled

ForecastMethod = Literal["temperature", "semantic", "fisher", "moment_mean", "moment_variance"]
METHODS = ("temperature", "semantic", "fisher", "moment_mean", "moment_variance")
MOMENTS: tuple[MomentName, ...] = ("moment_mean", "moment_variance")
_SPELLED = (
    "This tokenizer writes a number with several tokens, such as one per digit. The distribution, its moments and the check "
    "of Proposition 1 are those of whole numbers, by teacher forcing; the other scopes, and β with them, are of the "
    "prediction of the first token. The influence of a number is that of its tokens together."
)


@dataclass(frozen=True, eq=False)
class Spread(Moment):
    """The variance's direction; its details bring the numbers' logits and probabilities back from the forward."""

    def rows(self, reads: Sequence[ReadOut], state: ModelState) -> list[Rows]:
        """As :class:`Moment`, with ``number_logits`` and ``number_log_probs``."""
        ids, out = list(self.values), []
        for read, rows in zip(reads, super().rows(reads, state), strict=True):
            logits = read.logits.double().cpu()
            found = {"number_logits": logits[ids].tolist(), "number_log_probs": logits.log_softmax(-1)[ids].tolist()}
            out.append(replace(rows, details={**rows.details, **found}))
        return out


@model_call
def forecast_scope(
    model: LensModel,
    series: Any,
    *,
    truth: Any = None,
    methods: ForecastMethod | Sequence[ForecastMethod] = "temperature",
    level: float = 0.9,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
) -> Forecast | list[Forecast]:
    """Influence of every earlier value of a series on a model's forecast of the next one.

    ``influence_i = sqrt(Σ_{t of number i} ‖vᵀ ∂y/∂x_t‖²)``, with v the direction of each scope at the last comma of
    ``"29,30,45,"``; units as in the scope itself (``‖y‖`` per unit of embedding for ``"temperature"``).

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        series: what the model sees: one-dimensional numbers, or the result of :func:`encode` where the scale is to be
            fitted differently; a list of such series gives a list of results.
        truth: the value that came next, never shown to the model; a list of them for a list of series. One that the scale
            does not reach is reported as such, with no number.
        methods: one scope or several, in one forward: ``"temperature"`` explains confidence and is the paper's choice
            for forecasts; ``"semantic"`` the logit of the true number (of the top prediction without a truth);
            ``"fisher"`` the whole distribution; ``"moment_mean"`` and ``"moment_variance"`` the forecast's value and spread.
        level: of the predicted interval.
        prepend_bos: put BOS before the text; None is the model's own default.
        at: hook of the source.
        batch_size: series per forward; None lets the package choose.

    Returns:
        One :class:`Forecast`, or a list; ``notes`` says where the Temperature reading is not warranted.

    Raises:
        ValueError: a series that cannot be encoded; a tokenizer that joins numbers and commas; a prompt longer than the
            context; as the scopes themselves.
        TypeError: not a TransformerLens model.

    Cost: one forward per batch and one vector-Jacobian product per scope, with one more each for ``"temperature"`` and
        ``"moment_variance"`` if they are not among ``methods``: the check of Proposition 1 compares their gradients. Where a
        number takes two tokens, one forward on ten continuations of each series, and one more with a backward per moment.

    >>> result = forecast_scope(model, timeseries.periodic(40, period=5), methods=("temperature", "semantic"))
    >>> len(result.influence), result.methods, result.prediction.mass > 0.5
    (40, ('temperature', 'semantic'), True)

    Reference: paper section 4.3, Proposition 1, figures 4 and 9 to 13.
    """
    asked = (methods,) if isinstance(methods, str) else tuple(methods)
    if not asked or len(set(asked)) != len(asked):
        raise ValueError(f"(methods={methods!r}): expected one or several different names among {METHODS}")
    if not 0 < level < 1:
        raise ValueError(f"(level={level!r}): expected a number between 0 and 1")
    several, encoded, truths = _given(series, truth)
    options = run_options(prepend_bos=prepend_bos, at=at, batch_size=batch_size, keep_gradient=True)
    model, prompts = encode_prompts(model, [e.text for e in encoded], options, "series")
    ids = number_ids(model)
    places = [token_places(p, e.text) for p, e in zip(prompts, encoded, strict=True)]
    numbers = [_written(e, t) for e, t in zip(encoded, truths, strict=True)]
    directions = _directions(model, asked, ids, numbers)
    results = explain(model, prompts, list(directions.values()), options) if directions else [[] for _ in prompts]
    out = []
    for i, found in enumerate(results):
        attributions = dict(zip(directions, found, strict=True))
        if ids is None:
            whole = spelled(model, prompts[i], at=at, batch_size=batch_size)
            attributions |= {m: whole.moment(m) for m in MOMENTS if m in asked or m == "moment_variance"}
        kept, check, prediction, notes = _read(places[i], attributions, asked, level)
        notes = (*((_SPELLED,) if ids is None else ()), *_about_the_truth(encoded[i], truths[i], asked), *notes)
        out.append(Forecast(encoded[i], kept, places[i], prediction, truths[i], numbers[i], check, notes))
    return out if several else out[0]


def _given(series: Any, truth: Any) -> tuple[bool, list[EncodedSeries], list[float | None]]:
    """Whether several series were given; each encoded, with its truth."""
    several = isinstance(series, list | tuple) and any(
        isinstance(item, EncodedSeries) or np.ndim(item) > 0 for item in series
    )
    items = list(series) if several else [series]
    encoded = [item if isinstance(item, EncodedSeries) else encode(item) for item in items]
    if several and truth is not None and np.ndim(truth) != 1:
        raise ValueError(f"(truth={truth!r}): {len(items)} series need a list of true values, one each")
    truths = (list(truth) if truth is not None else [None] * len(items)) if several else [truth]
    if len(truths) != len(items):
        raise ValueError(f"(truth=...): {len(truths)} true values for {len(items)} series")
    bad = [t for t in truths if t is not None and (isinstance(t, bool) or np.ndim(t) != 0)]
    if bad:
        raise ValueError(f"(truth={bad[0]!r}): expected the one value that came next, or a list for several series")
    return several, encoded, [None if t is None else number("truth", t) for t in truths]


def _written(encoded: EncodedSeries, truth: float | None) -> int | None:
    """The number of a true value; None where there is none, or the scale does not reach it."""
    place = math.nan if truth is None else encoded.would_be(truth)
    return int(place) if FIRST <= place <= LAST else None


def _about_the_truth(encoded: EncodedSeries, truth: float | None, asked: Sequence[str]) -> tuple[str, ...]:
    """The sentence for a true value that two digits cannot write on this scale."""
    if truth is None or _written(encoded, truth) is not None:
        return ()
    aim = " The Semantic Scope explains the top prediction in its place." if "semantic" in asked else ""
    says = (
        f"The true next value {truth:.4g} lies outside the scale, which was fitted on the history: it would be "
        f"{encoded.would_be(truth):.0f}, and {FIRST} … {LAST} can be written. The forecast cannot be scored by it.{aim}"
    )
    return (minus(says),)


def _directions(
    model: LensModel, asked: Sequence[str], ids: tuple[int, ...] | None, numbers: Sequence[int | None]
) -> dict[str, Direction]:
    """What is pulled back: the scopes asked for, and what the distribution and the check of Proposition 1 need."""
    firsts = [p[0] for p in number_pieces(model)]
    made: dict[str, Direction] = {}
    extra = ["moment_variance"] if model_state(model).constant_norm else ["temperature", "moment_variance"]
    wanted = list(dict.fromkeys([*asked, *extra]))
    if ids is None:
        wanted = [
            name for name in wanted if name not in MOMENTS
        ]  # over all tokens of a number, and not by one direction
    else:
        values = dict(zip(ids, map(float, NUMBERS), strict=True))
        made |= {"moment_mean": Moment("mean", values, True), "moment_variance": Spread("variance", values, True)}
    if scopes := [name for name in wanted if name not in MOMENTS]:
        targets = [None if n is None else firsts[n - FIRST] for n in numbers]
        own = {"target": targets} if "semantic" in scopes else {}
        made |= dict(zip(scopes, named_directions(model, scopes, len(numbers), own), strict=True))
    return {name: made[name] for name in wanted}


def _read(
    places: TokenPlaces,
    found: dict[str, Attribution],
    asked: Sequence[str],
    level: float,
) -> tuple[dict[str, Attribution], GaussianCheck | None, NumberDistribution, tuple[str, ...]]:
    """From the attributions of one prompt: those asked for, the check of Proposition 1, the distribution, the notes."""
    notes = [note for method in asked for note in found[method].notes]
    check, variance = None, found["moment_variance"]
    probabilities = np.exp(np.array(variance.details["number_log_probs"]))
    if "temperature" in found:
        check = _check(found["temperature"], variance, places)
    else:
        notes.append("‖y‖ is constant in this model, so Proposition 1 does not apply and was not checked.")
    prediction = NumberDistribution(probabilities, level)
    if prediction.mass < LEAST_MASS and not any("of the probability is on number tokens" in n for n in notes):
        notes.append(f"Only {prediction.mass:.1%} of the probability is on numbers: this is hardly a forecast.")
    if "temperature" in asked and check is not None and check.warnings:
        reasons = "; ".join(check.warnings)
        notes.append(f"The Temperature Scope is not to be read as influence on this forecast's spread: {reasons}.")
    kept = {method: replace(found[method], gradient=None, details=_plain(found[method])) for method in asked}
    return kept, check, prediction, tuple(dict.fromkeys(notes))


def _check(temperature: Attribution, variance: Attribution, places: TokenPlaces) -> GaussianCheck:
    """Proposition 1 on one prediction: the fit, and the two gradients over the tokens of the numbers."""
    assert temperature.gradient is not None
    assert variance.gradient is not None
    beta, s2 = temperature.details["beta"], variance.details["variance"]
    tokens = [p for number in places.numbers for p in number]
    cosine, ratio = compared_gradients(temperature.gradient, variance.gradient, beta, s2, tokens)
    logits = np.array(variance.details["number_logits"])
    return fitted(np.array(NUMBERS, dtype=np.float64), logits, beta, cosine, ratio)


def _plain(attribution: Attribution) -> dict[str, Any]:
    """Details without the lists that the distribution was read from."""
    return {k: v for k, v in attribution.details.items() if k not in ("number_logits", "number_log_probs")}
