"""Invariant: an activation that keeps its slope alone has the value of the one it stands for, bit for bit, and its gradient
up to rounding; on the way out every module is as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress

import families
import oracles
import pytest
import torch
import transformers.activations
from torch import Tensor, nn

import tl_scopes as tls
from tl_scopes.model import forward as capture
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.patches import own_function
from tl_scopes.model.probe_runs import BytesAlive
from tl_scopes.model.slopes import WRITTEN_OUT, slopes_only

TOKENS = families.prompt_tokens(48)


class Mlp(nn.Module):
    """Something that has its activation as a function, as HookedTransformer's MLP."""

    def __init__(self, act_fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act_fn = act_fn

    def forward(self, x: Tensor) -> Tensor:
        return self.act_fn(x)


def lens_function(name: str) -> Callable[[Tensor], Tensor]:
    """TransformerLens' own function of that name, from wherever this version keeps it."""
    from transformer_lens.utilities import activation_functions

    return getattr(activation_functions, name)


def module(name: str) -> nn.Module:
    """A module with the activation of that name."""
    if name[0].isupper():
        return getattr(transformers.activations, name)()
    return Mlp(lens_function(name))


@pytest.mark.parametrize("name", sorted(WRITTEN_OUT))
def test_values_are_the_same_and_gradients_too(name: str) -> None:
    block = module(name).double()
    x = torch.cat([torch.linspace(-12, 12, 97), torch.tensor([0.0, 1e10, -1e10])]).double().requires_grad_(True)
    cotangents = torch.randn(3, len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = block(x)
    (expected,) = torch.autograd.grad(plain, x, cotangents, is_grads_batched=True)
    with slopes_only([block]):
        lean = block(x)
        assert block(x.detach()).grad_fn is None  # nothing to keep where no gradient is asked for
    assert torch.equal(lean, plain)
    (one,) = torch.autograd.grad(lean, x, cotangents[0], retain_graph=True)
    (several,) = torch.autograd.grad(lean, x, cotangents, is_grads_batched=True)
    assert type(lean.grad_fn).__name__ == "_BySlopeBackward"
    assert torch.allclose(several, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert torch.equal(one, several[0])


def test_the_value_stands_where_the_slope_overflows() -> None:
    block = module("NewGELUActivation")
    x = torch.tensor([3e15], requires_grad=True)  # x³ is infinite in float32
    with slopes_only([block]):
        assert torch.equal(block(x), block(x.detach()))


@pytest.mark.parametrize("kind", families.kinds_available())
def test_scopes_keep_less_and_say_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.build("gpt2", kind).model

    def scope() -> Tensor:
        return tls.semantic_scope(model, TOKENS, target=5).scores

    def kept() -> int:
        with differentiable(model), BytesAlive() as watch:
            run = capture.forward_pass(model, TOKENS[None], torch.tensor([-1]))
            assert run.y.requires_grad
            return watch.alive

    lean, fewer = scope(), kept()
    monkeypatch.setattr(capture, "slopes_only", lambda blocks: nullcontext())
    plain, more = scope(), kept()
    assert oracles.relative_error(lean, plain) < 1e-12
    mlp = model.cfg.n_layers * len(TOKENS) * model.cfg.d_mlp * 8  # one tensor of the MLPs' width, float64
    assert more - fewer >= 3 * mlp


@pytest.mark.parametrize("name", ["NewGELUActivation", "gelu_new"])
def test_modules_are_as_they_were_also_after_an_error(name: str) -> None:
    block = module(name)
    before = dict(block.__dict__)
    with suppress(KeyError), slopes_only([block]), slopes_only([block]):
        assert block.__dict__ != before
        raise KeyError
    assert block.__dict__ == before


def test_what_somebody_put_in_place_of_an_activation_goes_back_by_itself() -> None:
    block = module("NewGELUActivation")
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with slopes_only([block]):  # of another run; what stands on the module then is nobody's own
        assert own_function(block, "forward") is None
    block.forward = lambda x: x.softmax(-1)
    (expected,) = torch.autograd.grad(block(x)[:, 0].sum(), x)
    with slopes_only([block]):
        (lean,) = torch.autograd.grad(block(x)[:, 0].sum(), x)
    assert torch.equal(lean, expected)


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    x = torch.linspace(-1, 1, 5).requires_grad_(True)
    block = module("gelu_new")
    with slopes_only([block]):
        y = block(x).sum() + (x**3).sum()
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(y, x, create_graph=True)


def test_a_forward_without_a_graph_is_left_alone() -> None:
    block = module("gelu_new")
    before = dict(block.__dict__)
    with torch.no_grad(), slopes_only([block]):
        assert block.__dict__ == before


def test_what_is_one_operation_or_mixes_units_is_left_alone() -> None:
    for block in (nn.GELU(), transformers.activations.ACT2FN["silu"], Mlp(lens_function("solu")), Mlp(torch.relu)):
        before = dict(block.__dict__)
        with slopes_only([block]):
            assert block.__dict__ == before
