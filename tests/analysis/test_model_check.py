"""Invariant: check_model says of every model state what is valid and what to do, and finds a wrong gradient."""

from __future__ import annotations

import re

import families
import pytest
import scipy.stats
import torch

import tl_scopes as tls
from tl_scopes.directions.by_name import SCOPES

EVERY_SCOPE = ("semantic", "contrast", "fisher", "temperature", "total_information", "moment", "jacobian")


def test_an_unprocessed_model_is_fit_for_every_scope(pair: families.Pair) -> None:
    report = tls.check_model(families.build(pair.family, pair.kind, torch.float32).model)
    assert report.ok, str(report)
    assert report.valid_scopes == EVERY_SCOPE
    assert all(callable(getattr(tls, scope.function)) and report[scope.function].ok for scope in SCOPES.values())


def test_float64_is_no_cause_for_distrust_where_norms_are_float32(pair: families.Pair) -> None:
    report = tls.check_model(families.build(pair.family, pair.kind).model)
    assert report.ok, str(report)
    norms_in_float32 = pair.kind == "bridge" and pair.family in ("llama", "mistral", "qwen2", "gemma2", "gemma3")
    assert norms_in_float32 <= ("computes in float32 in places" in report["vjp"].text)
    assert pair.family != "gpt2" or "1e-06" in report["vjp"].text


@pytest.mark.parametrize("kind", families.kinds_available())
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_processed_model_is_reported_with_the_remedy(family: str, kind: str) -> None:
    report = tls.check_model(families.processed(family, kind, torch.float32).model)
    assert not report["final norm"].ok
    assert not report["unembedding"].ok
    assert report.valid_scopes == ("semantic", "contrast", "total_information", "moment", "jacobian")
    assert "load_model" in str(report["temperature_scope"])
    assert report["vjp"].ok, str(report)


@pytest.mark.parametrize("kind", families.kinds_available())
def test_a_native_unit_gain_has_fisher_but_no_temperature(kind: str) -> None:
    report = tls.check_model(families.native_unit_gain(kind, torch.float32).model)
    assert report.valid_scopes == ("semantic", "contrast", "fisher", "total_information", "moment", "jacobian")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.on_families("gpt2", "llama")
def test_a_wrong_gradient_is_found(pair: families.Pair, dtype: torch.dtype) -> None:
    model = families.build(pair.family, pair.kind, dtype, fresh=True).model

    class Shrunk(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return 0.9 * g

    model.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda t, hook: Shrunk.apply(t))
    report = tls.check_model(model)
    assert not report["vjp"].ok
    assert "Do not trust" in str(report)


def test_active_dropout_is_reported() -> None:
    model = families.build("gpt2", "bridge", torch.float32, fresh=True).model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    model.train()
    report = tls.check_model(model)
    assert report.valid_scopes == ()
    assert "model.eval()" in str(report)


def test_half_precision_is_reported_as_noise_not_as_an_error() -> None:
    report = tls.check_model(families.build("gpt2", families.kinds_available()[-1], torch.bfloat16).model)
    assert report["dtype"].text == "bfloat16"
    assert report["vjp"].ok, str(report)


def test_unknown_findings_are_a_key_error() -> None:
    report = tls.check_model(families.build("gpt2", families.kinds_available()[-1], torch.float32).model)
    with pytest.raises(KeyError, match="the report has"):
        report["nothing"]


# -- half precision against float32 ------------------------------------------------------------------


def copy_in_float32(family: str, kind: str, dtype: torch.dtype) -> families.Pair:
    """A model whose weights and tables (rotary angles) are those of the half-precision one, raised one by one."""
    half, full = families.build(family, kind, dtype), families.build(family, kind, torch.float32, fresh=True)
    with torch.no_grad():
        for kind_of in ("parameters", "buffers"):
            for own, rounded in zip(getattr(full.model, kind_of)(), getattr(half.model, kind_of)(), strict=True):
                own.copy_(rounded)
    return full


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.on_families("gpt2", slow=("llama", "gemma2"))
def test_precision_is_the_rank_correlation_with_the_same_weights_in_float32(pair, dtype: torch.dtype) -> None:
    half = families.build(pair.family, pair.kind, dtype).model
    tokens = families.prompt_tokens(24)
    finding = tls.check_model(half, precision_prompt=tokens)["precision"]
    full = copy_in_float32(pair.family, pair.kind, dtype).model
    target = tls.semantic_scope(half, tokens).target
    scopes = dict(semantic=tls.semantic_scope, fisher=tls.fisher_scope, temperature=tls.temperature_scope)
    expected = {}
    for name, scope in scopes.items():
        options = {"target": target} if name == "semantic" else {}
        a, b = (scope(model, tokens, **options).scores for model in (half, full))
        expected[name] = f"{scipy.stats.spearmanr(a, b).statistic:.3f}"
    assert dict(re.findall(r"(\w+) (\d\.\d{3})", finding.text)) == expected
    assert str(dtype).removeprefix("torch.") in finding.text and "24 tokens" in finding.text
    assert finding.ok, str(finding)


def test_a_ranking_that_half_precision_destroys_is_said_with_the_remedy() -> None:
    model = families.build("gpt2", families.kinds_available()[-1], torch.bfloat16, fresh=True).model

    def coarse(activation: torch.Tensor, hook) -> torch.Tensor:
        if activation.dtype != torch.bfloat16:
            return activation
        generator = torch.Generator().manual_seed(0)
        return activation + torch.randn(activation.shape, generator=generator).to(activation)  # a broken kernel

    model.hook_dict["blocks.0.hook_resid_post"].add_hook(coarse)
    finding = tls.check_model(model, precision_prompt=families.prompt_tokens(24))["precision"]
    assert not finding.ok
    assert "float32" in finding.remedy


def test_a_ranking_without_spread_is_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.build("gpt2", families.kinds_available()[-1], torch.bfloat16).model
    found = iter([1.0, float("nan"), 1.0])
    monkeypatch.setattr("tl_scopes.analysis.model_check.spearman", lambda *_: next(found))
    finding = tls.check_model(model, precision_prompt=families.prompt_tokens(8))["precision"]
    assert not finding.ok
    assert "nan" in finding.text


@pytest.mark.parametrize("kind", families.kinds_available())
def test_the_weights_are_the_very_tensors_of_before(kind: str) -> None:
    model = families.build("llama", kind, torch.bfloat16, fresh=True).model
    before = [(t.data_ptr(), t.dtype) for t in (*model.parameters(), *model.buffers())]
    dtype = model.cfg.dtype
    tls.check_model(model, precision_prompt=families.prompt_tokens(8))
    assert [(t.data_ptr(), t.dtype) for t in (*model.parameters(), *model.buffers())] == before
    assert model.cfg.dtype == dtype


def test_a_full_precision_model_has_nothing_to_compare() -> None:
    model = families.build("gpt2", families.kinds_available()[-1], torch.float32).model
    report = tls.check_model(model, precision_prompt=families.prompt_tokens(8))
    assert report["precision"].ok
    assert "semantic" not in report["precision"].text
    with pytest.raises(ValueError, match="2 tokens; a ranking needs at least 3"):
        tls.check_model(model, precision_prompt=families.prompt_tokens(2))
    with pytest.raises(ValueError, match=r"check_model\(precision_prompt=''\): the prompt is empty"):
        tls.check_model(model, precision_prompt="")
