"""Invariant: check_model says of every model state what is valid and what to do, and finds a wrong gradient."""

from __future__ import annotations

import families
import pytest
import torch

import tl_scopes as tls

EVERY_SCOPE = ("semantic", "contrast", "fisher", "temperature", "jacobian")


@pytest.mark.parametrize(("family", "kind"), families.PAIRS)
def test_an_unprocessed_model_is_fit_for_every_scope(family: str, kind: str) -> None:
    report = tls.check_model(families.build(family, kind, torch.float32).model)
    assert report.ok, str(report)
    assert report.valid_scopes == EVERY_SCOPE


@pytest.mark.parametrize("kind", families.kinds_available())
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_processed_model_is_reported_with_the_remedy(family: str, kind: str) -> None:
    report = tls.check_model(families.processed(family, kind, torch.float32).model)
    assert not report["final norm"].ok
    assert not report["unembedding"].ok
    assert report.valid_scopes == ("semantic", "contrast", "jacobian")
    assert "load_model" in str(report["temperature_scope"])
    assert report["vjp"].ok, str(report)


@pytest.mark.parametrize("kind", families.kinds_available())
def test_a_native_unit_gain_has_fisher_but_no_temperature(kind: str) -> None:
    report = tls.check_model(families.native_unit_gain(kind, torch.float32).model)
    assert report.valid_scopes == ("semantic", "contrast", "fisher", "jacobian")


def test_a_wrong_gradient_is_found() -> None:
    model = families.build("gpt2", families.kinds_available()[-1], torch.float32, fresh=True).model

    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g / 2

    model.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda t, hook: Halved.apply(t))
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
