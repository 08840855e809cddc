"""Invariant: a forecast's influence, distribution and gradients are those of plain Hugging Face autograd on its text.

Proposition 1 is planted: in a model whose final norm keeps one unit, ``y = β e_0`` and the logit of number n is
``β (c − b (n − μ)²)``, so that the check must recover b and μ, and ``−∇log β = ∇log s²`` exactly.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import families
import numpy as np
import oracles
import pytest
import torch
from tokenizers_by_word import digit_model, with_tokenizer, word_tokenizer

import tl_scopes as tls
from tl_scopes import timeseries as ts
from tl_scopes.model.state import model_state
from tl_scopes.results.written import minus
from tl_scopes.timeseries.encoding import NUMBERS, number_ids
from tl_scopes.timeseries.prediction import NumberDistribution

SERIES = [3.0, 1.0, 2.5, 3.0, 1.2, 2.4, 3.1, 1.1]
METHODS = ("temperature", "semantic", "fisher", "moment_mean", "moment_variance")


def numbers_and_ids(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(NUMBERS, dtype=torch.float64), torch.tensor(number_ids(model))


@pytest.mark.on_families("gpt2", "gemma2")
def test_influence_distribution_and_check_are_those_of_plain_autograd(pair: families.Pair) -> None:
    result = ts.forecast_scope(pair.model, SERIES, truth=2.0, methods=METHODS)
    tokens = result.attributions["temperature"].tokens
    pos = len(tokens) - 1
    n, ids = numbers_and_ids(pair.model)
    at = [p[0] for p in result.places.numbers]
    assert [pair.tokenizer.decode([int(tokens[p])]) for p in at] == [str(i) for i in result.encoded.numbers]

    def variance(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        q = z[ids].double().softmax(-1)
        return (q * (n - (q * n).sum()) ** 2).sum()

    def mean(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (z[ids].double().softmax(-1) * n).sum()

    target = int(ids[result.truth_number - 10])  # type: ignore[operator]
    expected = {
        "temperature": oracles.temperature(pair.hf, tokens, pos),
        "semantic": oracles.semantic(pair.hf, tokens, pos, target),
        "fisher": oracles.fisher(pair.hf, tokens, pos),
        "moment_mean": oracles.hf_gradient(pair.hf, tokens, pos, mean).norm(dim=-1),
        "moment_variance": oracles.hf_gradient(pair.hf, tokens, pos, variance).norm(dim=-1),
    }
    for method, scores in expected.items():
        bound = 1e-4 if method == "fisher" else families.rtol(pair)  # the eigenpair's tol
        assert oracles.relative_error(result.influence_by(method), scores[at]) < bound, method
    run = oracles.run_tokens(pair.hf, tokens)
    p = run.logits[pos].double().softmax(-1)[ids]
    assert np.allclose(result.prediction.probabilities, p.detach().numpy(), rtol=1e-5)
    g_beta = oracles.hf_gradient(pair.hf, tokens, pos, lambda z, y: y.norm())[at].flatten() / run.y[pos].norm()
    s2 = variance(run.logits[pos], run.y[pos])
    g_s2 = oracles.hf_gradient(pair.hf, tokens, pos, variance)[at].flatten() / s2
    check = result.gaussian
    assert check is not None
    assert check.variance == pytest.approx(float(s2.detach()), rel=1e-5)
    assert check.cosine == pytest.approx(float((-(g_beta @ g_s2) / (g_beta.norm() * g_s2.norm())).detach()), abs=1e-4)
    assert check.norm_ratio == pytest.approx(float((g_beta.norm() / g_s2.norm()).detach()), rel=1e-4)


def test_one_scope_or_several_one_series_or_many_give_the_same_numbers(kind: str) -> None:
    model = families.build("gpt2", kind).model
    other = [1.0, 2.0, 5.0]
    both = ts.forecast_scope(model, [SERIES, other], truth=[2.0, None], methods=METHODS)
    for method in METHODS:
        alone = ts.forecast_scope(model, SERIES, truth=2.0, methods=method)
        assert alone.methods == (method,)
        assert torch.allclose(alone.influence, both[0].influence_by(method), rtol=1e-7)
        assert alone.gaussian == pytest.approx(both[0].gaussian) or alone.gaussian.b == pytest.approx(
            both[0].gaussian.b
        )
    again = ts.forecast_scope(model, ts.encode(other), methods="semantic")
    assert torch.allclose(again.influence, both[1].influence_by("semantic"), rtol=1e-7)
    assert both[1].truth_number is None
    assert any("top prediction" in note for note in again.notes)


def test_scopes_of_a_forecast_are_the_scopes(kind: str) -> None:
    model = families.build("gpt2", kind).model
    result = ts.forecast_scope(model, SERIES)
    plain = tls.temperature_scope(model, result.encoded.text)
    assert torch.allclose(result.attributions["temperature"].scores, plain.scores, rtol=1e-9)
    assert result.attributions["temperature"].gradient is None
    moment = tls.moment_scope(model, result.encoded.text, moment="mean")
    assert result.prediction.mean == pytest.approx(moment.details["mean"])
    shares = result.shares()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["other"] == pytest.approx(float(plain.scores[0] / plain.scores.sum()), rel=1e-6)
    assert shares["numbers"] == pytest.approx(float(result.influence.sum() / plain.scores.sum()), rel=1e-6)


# -- Proposition 1 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "mu", "beta"), [(1e-3, 40.0, 20.0), (5e-3, 63.7, 9.0), (2e-4, 55.2, 31.0)])
def test_the_check_recovers_a_planted_parabola(b: float, mu: float, beta: float) -> None:
    n = np.arange(10.0, 100.0)
    check = ts.gaussian_check(n, beta * (1.7 - b * (n - mu) ** 2), beta)
    sigma2 = 1 / (2 * b * beta)
    assert (check.b, check.mu, check.c) == pytest.approx((b, mu, 1.7), rel=1e-7)
    assert check.fitted_variance == pytest.approx(sigma2, rel=1e-7)
    assert check.r_squared == pytest.approx(1.0, abs=1e-9)
    assert check.variance == pytest.approx(sigma2, rel=0.02), "the discrete Gaussian's, cut at 10 and 99"
    assert check.warranted
    assert np.allclose(
        check.probabilities(n), np.exp(-((n - mu) ** 2) / (2 * sigma2)) / np.exp(-((n - mu) ** 2) / (2 * sigma2)).sum()
    )


@pytest.mark.parametrize("b", [10.0, 60.0, 300.0, 2000.0])
@pytest.mark.parametrize("mu", [10.0, 40.0, 40.3, 99.0])
def test_a_parabola_with_nearly_all_probability_on_one_number_is_recovered(b: float, mu: float) -> None:
    n = np.arange(10.0, 100.0)
    check = ts.gaussian_check(n, 3 * (1.7 - b * (n - mu) ** 2), 3.0)
    assert (check.b, check.mu) == pytest.approx((b, mu), rel=1e-9)
    assert math.isnan(check.r_squared) or check.r_squared == pytest.approx(1.0, abs=1e-9)


def test_what_is_not_gaussian_is_said() -> None:
    n = np.arange(10.0, 100.0)
    two = np.logaddexp(-((n - 30) ** 2) / 18, -((n - 70) ** 2) / 18)
    assert any("not Gaussian" in w or "no peak" in w for w in ts.gaussian_check(n, two, 5.0).warnings)
    assert any("no peak" in w for w in ts.gaussian_check(n, 0.01 * (n - 50) ** 2, 5.0).warnings)
    assert any("too few" in w for w in ts.gaussian_check(n, -5.0 * (n - 50) ** 2, 5.0).warnings)
    flat = ts.gaussian_check(n, np.zeros(90), 5.0)
    assert not flat.warranted
    peak = -((n - 50) ** 2) / 50
    assert ts.gaussian_check(n, peak, 5.0, cosine=0.95, norm_ratio=1.1).warranted
    assert any("point apart" in w for w in ts.gaussian_check(n, peak, 5.0, cosine=0.3, norm_ratio=1.0).warnings)
    assert any("times as long" in w for w in ts.gaussian_check(n, peak, 5.0, cosine=0.9, norm_ratio=3.0).warnings)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((np.arange(2.0), np.arange(2.0), 1.0), "at least 3 numbers"),
        ((np.arange(5.0), np.arange(4.0), 1.0), "expected one for each"),
        ((np.arange(5.0), np.arange(5.0), 0.0), "expected ‖y‖₂ > 0"),
    ],
)
def test_the_check_refuses_what_is_no_distribution(unchecked: None, arguments: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ts.gaussian_check(*arguments)


def planted(kind: str, b: float, mu: float, c: float, *, second: float = 0.0) -> Any:
    """A llama with ``y = (γ_0 x̂_0, second·x̂_1, 0 …)`` and number logits ``y_0 (c − b (n − μ)²)``; others far below."""
    model = families.build("llama", kind, fresh=True).model
    n, ids = numbers_and_ids(model)
    gain = model_state(model).final_norm[0]  # type: ignore[index]
    with torch.no_grad():
        gain.zero_()
        gain[0], gain[1] = 20.0, second
        # the sign of the first unit at the last comma decides which way round the rows stand
        first = tls.jacobian_scope(
            model, ts.encode(SERIES).text, direction=torch.eye(32, dtype=torch.float64)[0], cache="unembed.hook_in"
        )
        sign = torch.sign(first.cache["unembed.hook_in"][0, -1, 0])
        W = model.W_U.data
        W.zero_()
        W[0] = -50.0 * sign
        W[0, ids] = sign * (c - b * (n - mu) ** 2).to(W)
        W[1, ids] = torch.linspace(-1, 1, len(ids)).to(W) * second
    return model


def test_a_model_in_which_proposition_1_holds_is_recognised(kind: str) -> None:
    b, mu = 1.5e-3, 48.0
    result = ts.forecast_scope(planted(kind, b, mu, 0.4), SERIES, truth=2.0, methods=("temperature", "moment_variance"))
    check = result.gaussian
    assert check is not None
    # the bridge keeps the gain, the norm and W_U in the model's dtype; processing passes through float32
    assert (check.b, check.mu, check.c) == pytest.approx((b, mu, 0.4), rel=1e-5)
    assert check.fitted_variance == pytest.approx(1 / (2 * check.beta * b), rel=1e-5)
    assert check.variance == pytest.approx(check.fitted_variance, rel=0.05)
    assert result.prediction.mean == pytest.approx(mu, abs=0.5)
    assert result.prediction.spread == pytest.approx(check.variance**0.5)
    assert check.cosine == pytest.approx(1.0, abs=1e-6)
    assert check.norm_ratio == pytest.approx(1.0, rel=0.1), "up to the cut at 10 and 99"
    assert check.warranted
    assert not any("not to be read" in note for note in result.notes)


def test_a_model_whose_spread_moves_by_other_ways_is_warned_of(kind: str) -> None:
    result = ts.forecast_scope(planted(kind, 1.5e-3, 48.0, 0.4, second=60.0), SERIES)
    assert result.gaussian is not None
    assert not result.gaussian.warranted
    assert any(note.startswith("The Temperature Scope is not to be read as influence on") for note in result.notes)
    assert not any(
        "Temperature" in note
        for note in ts.forecast_scope(
            planted(kind, 1.5e-3, 48.0, 0.4, second=60.0), SERIES, methods="moment_mean"
        ).notes
    )


# -- distribution ------------------------------------------------------------------------------------------


def test_mean_spread_and_interval_of_a_known_distribution() -> None:
    p = np.zeros(90)
    p[[10, 20, 30]] = 0.1, 0.2, 0.1
    d = NumberDistribution(p, 0.5)
    assert d.mass == pytest.approx(0.4)
    assert d.mean == pytest.approx(30.0)
    assert d.spread == pytest.approx(50**0.5)
    assert d.interval == (30, 30)
    assert NumberDistribution(p, 0.9).interval == (20, 40)
    assert d.mode == 30
    assert d.log_score(30) == pytest.approx(np.log(0.5))
    encoded = ts.encode([0.0, 7.0])
    assert d.in_units_of(encoded) == pytest.approx({"mean": 1.5, "spread": 50**0.5 / 10, "low": 1.5, "high": 1.5})
    uniform = NumberDistribution(np.full(90, 1 / 90), 0.9)
    low, high = uniform.interval
    assert 0.9 <= (high - low + 1) / 90 < 0.95


def test_digits_multiply_to_the_numbers_probability(kind: str) -> None:
    model = digit_model(kind)
    result = ts.forecast_scope(model, SERIES, truth=2.0, methods=("temperature", "semantic"))
    tokens = result.attributions["temperature"].tokens

    def next_probabilities(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.tensor([ids]))[0, -1].double().softmax(-1)

    digits = {d: model.tokenizer.convert_tokens_to_ids(d) for d in "0123456789"}
    first = next_probabilities(tokens.tolist())
    expected = [
        float(first[digits[str(n)[0]]] * next_probabilities([*tokens.tolist(), digits[str(n)[0]]])[digits[str(n)[1]]])
        for n in (10, 47, 99)
    ]
    assert result.prediction.probabilities[[0, 37, 89]] == pytest.approx(expected, rel=1e-6)
    assert any("one per digit" in note for note in result.notes)
    assert result.attributions["semantic"].target == digits[str(result.truth_number)[0]]
    scores = result.attributions["temperature"].scores
    assert float(result.influence[1]) == pytest.approx(float(scores[[4, 5]].norm()))


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_moments_over_two_digits_are_those_of_plain_autograd(pair: families.Pair) -> None:
    """Each first digit appended in turn to the same embeddings, and one gradient through all of it."""
    model = digit_model(pair.kind, pair.family)
    result = ts.forecast_scope(model, SERIES, methods=("moment_mean", "moment_variance"))
    tokens = result.attributions["moment_mean"].tokens
    digits = [model.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)]
    x = oracles.embeddings(pair.hf, tokens).requires_grad_(True)
    first = oracles.run(pair.hf, x)
    logs = []
    for d in range(1, 10):
        after = oracles.embeddings(pair.hf, torch.tensor([digits[d]]))
        z = oracles.run(pair.hf, torch.cat([x, after])).logits[-1].double()
        logs.append(first.logits[-1].double().log_softmax(-1)[digits[d]] + z.log_softmax(-1)[digits])
    log_p, n = torch.cat(logs), torch.tensor(NUMBERS, dtype=torch.float64)
    q = log_p.softmax(0)
    mean = q @ n
    variance = q @ (n - mean) ** 2
    assert np.allclose(result.prediction.probabilities, log_p.detach().exp().numpy(), rtol=1e-5)
    gradients = {
        name: torch.autograd.grad(scalar, x, retain_graph=True)[0]
        for name, scalar in (("moment_mean", mean), ("moment_variance", variance), ("beta", first.y[-1].norm()))
    }
    for name in ("moment_mean", "moment_variance"):
        expected = gradients[name].norm(dim=-1)
        assert oracles.relative_error(result.attributions[name].scores, expected) < 2e-5
        wanted = torch.stack([expected[list(p)].norm() for p in result.places.numbers])
        assert oracles.relative_error(result.influence_by(name), wanted) < 2e-5
        assert result.attributions[name].details["variance"] == pytest.approx(float(variance.detach()), rel=1e-5)
    check, of_numbers = result.gaussian, [p for number in result.places.numbers for p in number]
    assert check is not None
    a, b = -gradients["beta"][of_numbers].flatten(), gradients["moment_variance"][of_numbers].flatten()
    assert check.beta == pytest.approx(float(first.y[-1].norm().detach()), rel=1e-5)
    assert check.cosine == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-4)
    assert check.norm_ratio == pytest.approx(float((a.norm() / check.beta / (b.norm() / variance)).detach()), rel=1e-4)
    assert check.variance == pytest.approx(float(variance.detach()), rel=1e-5)


def test_numbers_of_several_tokens_need_room_behind_the_history(kind: str) -> None:
    model = digit_model(kind)
    prompt = ts.encode(SERIES)
    room = len(model.to_tokens(prompt.text)[0])
    before = model.cfg.n_ctx
    try:
        model.cfg.n_ctx = room + 1
        ts.forecast_scope(model, prompt)
        model.cfg.n_ctx = room
        for call in (ts.forecast_scope, lambda *given: ts.rolling_forecast(*given, first=4)):
            with pytest.raises(ValueError, match=rf"takes up to 2 tokens, .* is {room + 1}, more than .* of {room}"):
                call(model, prompt)
    finally:
        model.cfg.n_ctx = before


def test_numbers_of_one_token_and_of_two_stand_in_one_distribution(kind: str) -> None:
    pieces, split = [*"0123456789", ",", "42", "11"], r"42|11|."
    model = with_tokenizer(kind, word_tokenizer(pieces, split))
    result = ts.forecast_scope(model, SERIES, methods=("temperature", "moment_mean"), batch_size=3)
    tokens = result.attributions["temperature"].tokens
    with torch.no_grad():
        p = model(tokens[None])[0, -1].double().softmax(-1)
    for whole in (42, 11):
        expected = float(p[model.tokenizer.convert_tokens_to_ids(str(whole))])
        assert result.prediction.probabilities[whole - 10] == pytest.approx(expected, rel=1e-6)
    again = ts.forecast_scope(model, SERIES, methods=("temperature", "moment_mean"))
    assert torch.allclose(again.influence_by("moment_mean"), result.influence_by("moment_mean"), rtol=1e-6)
    assert again.gaussian == pytest.approx(result.gaussian) or again.gaussian.b == pytest.approx(result.gaussian.b)


def test_rolling_over_digits_is_the_forecast_of_each_history(kind: str) -> None:
    model = digit_model(kind, "llama")
    whole = ts.encode(SERIES)
    rolling = ts.rolling_forecast(model, whole, first=6)
    limits = tuple(whole.decode([15, 85]))
    for i, n in enumerate((6, 7, 8)):
        alone = ts.forecast_scope(model, ts.encode(SERIES[:n], limits=limits))
        assert torch.allclose(rolling.influence[i, :n], alone.influence, rtol=1e-6)
        assert np.allclose(rolling.predictions[i].probabilities, alone.prediction.probabilities, rtol=1e-6)
    assert not rolling.influence[0, 6:].any()


def test_a_truth_that_the_scale_does_not_reach_is_reported_and_the_forecast_goes_on(kind: str, tmp_path: Path) -> None:
    model = families.build("gpt2", kind).model
    plain = ts.forecast_scope(model, SERIES, methods=METHODS)
    for truth, place in ((9.0, 282), (-3.0, -118)):
        result = ts.forecast_scope(model, SERIES, truth=truth, methods=METHODS)
        assert (result.truth, result.truth_number) == (truth, None)
        for method in METHODS:
            assert torch.equal(result.influence_by(method), plain.influence_by(method)), "as without a truth"
        (note,) = (n for n in result.notes if "outside the scale" in n)
        assert minus(f"it would be {place}, and 10 … 99") in note
        assert "Semantic Scope explains the top prediction" in note
        assert minus(f"Truth: {truth:.4g}, which would be {place}: outside 10 … 99.") in str(result)
        again = ts.Forecast.load(result.save(tmp_path / "f.json"))
        assert str(again) == str(result)
    both = ts.forecast_scope(model, [SERIES, SERIES], truth=[9.0, 2.0])
    assert both[0].truth_number is None
    assert both[1].truth_number == ts.encode(SERIES).number(2.0)


def test_a_constant_norm_leaves_the_other_scopes(kind: str) -> None:
    model = families.native_unit_gain(kind).model
    with pytest.raises(ValueError, match="no Temperature Scope"):
        ts.forecast_scope(model, SERIES)
    result = ts.forecast_scope(model, SERIES, methods="moment_mean")
    assert result.gaussian is None
    assert any("Proposition 1 does not apply" in note for note in result.notes)


# -- rolling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["temperature", "semantic"])
def test_a_rolling_row_is_the_forecast_of_its_history(kind: str, method: Any) -> None:
    model = families.build("llama", kind).model
    whole = ts.encode(SERIES)
    rolling = ts.rolling_forecast(model, whole, first=4, method=method)
    assert rolling.influence.shape == (5, 8)
    limits = tuple(whole.decode([15, 85]))
    for i in (0, 2, 4):
        n = 4 + i
        truth = SERIES[n] if n < len(SERIES) else None
        alone = ts.forecast_scope(model, ts.encode(SERIES[:n], limits=limits), truth=truth, methods=method)
        assert torch.allclose(rolling.influence[i, :n], alone.influence, rtol=1e-6)
        assert not rolling.influence[i, n:].any()
        assert np.allclose(rolling.predictions[i].probabilities, alone.prediction.probabilities, rtol=1e-6)
    frame = rolling.to_frame()
    assert frame["index"].tolist() == [4, 5, 6, 7, 8]
    assert frame.number.tolist()[:4] == whole.numbers[4:].tolist()
    assert frame.log_score[1] == pytest.approx(rolling.predictions[1].log_score(int(whole.numbers[5])))
    errors = rolling.mean_errors()
    assert errors["persistence"] == pytest.approx(float(np.abs(np.diff(whole.numbers[3:])).mean()))
    assert errors["model"] == pytest.approx(float(np.abs(frame["mean"][:4] - frame.number[:4]).mean()))


def test_a_rolling_forecast_encodes_once_and_runs_no_forward_besides_the_matrix(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = families.build("llama", kind).model
    whole, to_tokens = ts.encode(SERIES), type(model).to_tokens
    number_ids(model)  # looked up once per tokenizer
    encoded: list[str] = []
    forwards: list[int] = []
    monkeypatch.setattr(
        type(model), "to_tokens", lambda self, text, **options: encoded.append(text) or to_tokens(self, text, **options)
    )
    counter = model.unembed.register_forward_hook(lambda *_: forwards.append(1))
    try:
        rolling = ts.rolling_forecast(model, whole, first=4)
        assert encoded == [whole.text]
        own = len(forwards)
        tls.attribution_matrix(model, whole.text, method="temperature", positions=rolling.matrix.positions)
        assert own == len(forwards) - own > 0, "those of the matrix"
    finally:
        counter.remove()


def test_the_scale_of_a_rolling_forecast_does_not_know_the_future(kind: str) -> None:
    model = families.build("gpt2", kind).model
    rolling = ts.rolling_forecast(model, SERIES, first=4)
    assert rolling.encoded.n_fit == 4
    assert rolling.encoded.numbers[:4].tolist() == ts.encode(SERIES[:4]).numbers.tolist()
    with pytest.raises(ValueError, match="outside 10 … 99"):
        ts.rolling_forecast(model, [*SERIES, 9.0], first=4)
    seen = "The scale was fitted on the first 8 numbers"
    assert not any(seen in note for note in rolling.notes)
    knowing = ts.rolling_forecast(model, ts.encode(SERIES), first=4)
    for words in (str(knowing), knowing.html(), " ".join(knowing.notes)):
        assert seen in words
    limits = ts.encode(SERIES, limits=(0.0, 10.0))
    assert not any(seen in note for note in ts.rolling_forecast(model, limits, first=4).notes)


def test_a_rolling_forecast_that_hardly_predicts_numbers_says_so(kind: str, tmp_path: Path) -> None:
    rolling = ts.rolling_forecast(digit_model(kind, "llama"), SERIES, first=4)
    assert max(p.mass for p in rolling.predictions) < 0.5
    for words in (str(rolling), rolling.html()):
        assert "writes a number with several tokens" in words
        assert f"In {len(rolling)} of {len(rolling)} forecasts less than 50% of the probability is on numbers" in words
    assert ts.RollingForecast.load(rolling.save(tmp_path / "r.json")).notes == rolling.notes


# -- refusals and outputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"methods": "magic"}, r"forecast_scope\(methods='magic'\): expected 'temperature', 'semantic'"),
        ({"methods": ("semantic", "semantic")}, "different names"),
        ({"methods": ()}, "expected one or several"),
        ({"level": 1.0}, "level=1.0"),
        ({"truth": [1.0, 2.0]}, "expected the one value that came next"),
    ],
)
def test_a_wrong_option_is_refused(unchecked: None, options: dict[str, Any], match: str) -> None:
    model = families.build("gpt2", "bridge").model
    with pytest.raises(ValueError, match=match):
        ts.forecast_scope(model, SERIES, **options)


def test_too_long_a_series_and_wrong_truths_are_refused() -> None:
    model = families.build("gpt2", "bridge").model
    with pytest.raises(ValueError, match=r"series\[0\]=.*more than the model's context of 128; shorten the series"):
        ts.forecast_scope(model, np.arange(70.0))
    with pytest.raises(ValueError, match=r"rolling_forecast\(series=\.\.\.\): expected at least 3 values, got 1"):
        ts.rolling_forecast(model, [1.0])
    with pytest.raises(ValueError, match="1 true values for 2 series"):
        ts.forecast_scope(model, [SERIES, SERIES], truth=[2.0])
    with pytest.raises(ValueError, match="need a list of true values"):
        ts.forecast_scope(model, [SERIES, SERIES], truth=2.0)
    with pytest.raises(TypeError, match="expected a TransformerLens model"):
        ts.forecast_scope(torch.nn.Identity(), SERIES)
    for first in (1, 8, 9):
        with pytest.raises(ValueError, match="expected 2 … 7"):
            ts.rolling_forecast(model, SERIES, first=first)


def test_frames_json_and_text_hold_the_same_numbers(demo_model: Any, tmp_path: Path) -> None:
    x = ts.periodic(41, period=6, seed=1)
    result = ts.forecast_scope(demo_model, x[:-1], truth=x[-1], methods=("temperature", "moment_mean"))
    frame = result.to_frame()
    assert frame.columns.tolist() == ["index", "pos", "value", "number", "temperature", "moment_mean"]
    assert frame.value.tolist() == x[:-1].tolist()
    assert frame.temperature.tolist() == result.influence.tolist()
    distribution = result.distribution_frame()
    assert distribution.number.tolist() == list(NUMBERS)
    assert distribution.probability.sum() == pytest.approx(result.prediction.mass)
    read = json.loads(result.save(tmp_path / "f.json").read_text(encoding="utf-8"))
    assert read["influence"]["moment_mean"] == frame.moment_mean.tolist()
    assert read["truth_number"] == result.truth_number == result.encoded.number(x[-1])
    assert read["probabilities"]["42"] == result.prediction.probabilities[32]
    assert read["gaussian"]["beta"] == result.gaussian.beta
    again = ts.Forecast.load(tmp_path / "f.json")
    assert again.to_dict() == result.to_dict()
    assert again.influence.equal(result.influence)
    assert again.gaussian == result.gaussian
    assert dataclasses.astuple(again.places) == dataclasses.astuple(result.places)
    assert again.encoded.numbers.dtype == result.encoded.numbers.dtype
    assert str(again) == str(result)
    (tmp_path / "other.json").write_text('{"format": "tl_scopes.Attribution"}')
    with pytest.raises(ValueError, match=r"not written by Forecast\.save"):
        ts.Forecast.load(tmp_path / "other.json")
    text = str(result)
    assert f"Truth: {result.truth_number}" in text
    assert f"{result.prediction.mean:.1f} ±" in text
    assert all(note in text for note in result.notes)
    with pytest.raises(ValueError, match=r"^Forecast\.\w+\(method='\w+'\): this forecast has"):
        result.influence_by("fisher")
    assert result.prediction.mass > 0.5


def test_a_forecasts_moment_is_measured_over_its_own_numbers(demo_model: Any, kind: str) -> None:
    found = ts.forecast_scope(demo_model, SERIES, methods=("moment_mean",)).attributions["moment_mean"]
    values = dict(zip(number_ids(demo_model), map(float, NUMBERS), strict=True))
    alone = tls.moment_scope(demo_model, found.tokens, values=values)
    assert found.details["mean"] == pytest.approx(alone.details["mean"])
    checked, expected = (tls.verify(demo_model, a, top=2, step=0.01) for a in (found, alone))
    assert torch.allclose(checked.measured, expected.measured, rtol=1e-4, atol=1e-6)
    assert torch.allclose(checked.predicted, expected.predicted, rtol=1e-4, atol=1e-6)
    digits = digit_model(kind)
    spelled = ts.forecast_scope(digits, SERIES, methods=("moment_mean",)).attributions["moment_mean"]
    for call in (tls.verify, tls.verdict):
        with pytest.raises(ValueError, match="read off 10 texts"):
            call(digits, spelled)
