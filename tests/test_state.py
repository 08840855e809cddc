"""The model, the process and the caller's settings are after a call what they were before it, however it ended.

Invariant: over hundreds of calls, every tenth of which fails in one way or another, hooks, `requires_grad`, `training`,
`.grad`, random states and grad mode do not change, no tensor stays alive, and resident memory does not grow. The scopes
work under any grad mode, on parameters that do and do not require grad, and beside the user's own hooks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import numpy as np
import oracles
import pytest
import torch
from every_call import CALLS, explained, written
from invariants import model_flags
from living import live_tensors
from oracles import relative_error
from torch import Tensor

import tl_scopes as tls
from tl_scopes.model.state import model_state

TARGET, FOIL = families.VOCAB[" house"], families.VOCAB[" city"]
TOKENS = families.prompt_tokens()
N_CALLS, N_FAILING, SETTLED = 500, 50, 100
MAX_GROWTH_BYTES = 20 * 2**20
pytestmark = pytest.mark.usefixtures("unchecked")  # as a user runs it; type checks allocate


class Interruption(Exception):
    """Raised by a user's hook in the middle of the forward."""


def interrupt(activation: Tensor, hook: Any) -> None:
    raise Interruption("in the middle of the forward")


def interrupted(model: Any, at: str) -> None:
    with model.hooks(fwd_hooks=[(at, interrupt)]):
        tls.scopes(model, TOKENS, cache=True)


def interrupted_backward(model: Any) -> None:
    def hook(gradient: Tensor, hook: Any) -> None:
        raise Interruption("in the middle of the backward")

    with model.hooks(bwd_hooks=[("blocks.0.hook_resid_post", hook)]):
        tls.semantic_scope(model, TOKENS)


def folded_model() -> Any:
    return families.processed("gpt2", families.kinds_available()[0]).model


DIRECTION = torch.ones(families.D_MODEL)
Call = Callable[[Any], Any]
WORKING: list[Call] = [
    lambda m: tls.semantic_scope(m, TOKENS, target=TARGET),
    lambda m: tls.semantic_scope(m, [TOKENS, TOKENS[:5]], keep_gradient=True),
    lambda m: tls.contrast_scope(m, TOKENS, target=TARGET, foil=FOIL, pos=4),
    lambda m: tls.temperature_scope(m, TOKENS, at="blocks.1.hook_resid_pre"),
    lambda m: tls.fisher_scope(m, TOKENS, rank=3),
    lambda m: tls.jacobian_scope(m, TOKENS, direction=DIRECTION, target_hook="blocks.0.hook_resid_post"),
    lambda m: tls.scopes(m, families.PROMPT),
    lambda m: tls.semantic_scope(m, TOKENS, cache=True, grads_at="blocks.0.attn.hook_pattern"),
]
FAILING: list[tuple[Call, type[Exception], str]] = [
    (lambda m: tls.scopes(folded_model(), TOKENS), ValueError, "folded"),
    (lambda m: tls.semantic_scope(m, TOKENS, pos=12), ValueError, "pos=12"),
    (lambda m: tls.semantic_scope(m, TOKENS, target=" no such"), ValueError, "a target is one token"),
    (lambda m: tls.semantic_scope(m, TOKENS, target=10**6), ValueError, "outside the vocabulary"),
    (lambda m: tls.contrast_scope(m, TOKENS, target=3, foil=3), ValueError, "same token"),
    (lambda m: tls.semantic_scope(m, TOKENS, at="hook_nowhere"), ValueError, "no such hook point"),
    (lambda m: tls.semantic_scope(m, TOKENS, at="blocks.0.attn.hook_z"), ValueError, "the activation there is"),
    (lambda m: tls.semantic_scope(m, TOKENS, grads_at=["blocks.0.hook_resid_pre", "x"]), ValueError, "grads_at='x'"),
    (lambda m: tls.fisher_scope(m, TOKENS, rank=2, keep_gradient=True), ValueError, "pulls back several rows"),
    (lambda m: tls.jacobian_scope(m, TOKENS, direction=DIRECTION[:3]), ValueError, "does not fit"),
    (
        lambda m: tls.jacobian_scope(
            m, TOKENS, direction=DIRECTION, target_hook="blocks.0.hook_resid_pre", at="blocks.1.hook_resid_pre"
        ),
        ValueError,
        "nothing flows",
    ),
    (lambda m: interrupted(m, "hook_embed"), Interruption, "forward"),
    (lambda m: interrupted(m, "blocks.1.hook_resid_pre"), Interruption, "forward"),
    (lambda m: interrupted(m, "unembed.hook_out"), Interruption, "forward"),
    (interrupted_backward, Interruption, "backward"),
]


def global_state() -> tuple[Any, ...]:
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_anomaly_enabled(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# -- hundreds of calls -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_500_calls_of_which_50_fail_leave_nothing_behind(kind: str) -> None:
    model = families.build("gpt2", kind, torch.float32, fresh=True).model
    flags, state = model_flags(model), global_state()
    working, failing = itertools.cycle(WORKING), itertools.cycle(FAILING)
    tensors = resident = failed = 0
    for i in range(N_CALLS):
        if i % (N_CALLS // N_FAILING) == 0:
            call, error, message = next(failing)
            with pytest.raises(error, match=message):
                call(model)
            failed += 1
            assert model_flags(model) == flags, f"after failing call {i}"
        else:
            next(working)(model)
        if i == SETTLED:
            tensors, resident = live_tensors(), resident_bytes()
    assert failed == N_FAILING
    assert model_flags(model) == flags
    assert global_state() == state
    assert live_tensors() <= tensors
    assert resident_bytes() - resident < MAX_GROWTH_BYTES


@pytest.mark.parametrize("number", range(len(FAILING)))
def test_each_failure_leaves_the_model_and_the_process_as_they_were(kind: str, number: int, guarded: Call) -> None:
    model = guarded(families.build("gpt2", kind).model)
    call, error, message = FAILING[number]
    flags, state = model_flags(model), global_state()
    with pytest.raises(error, match=message):
        call(model)
    assert model_flags(model) == flags
    assert global_state() == state
    assert tls.semantic_scope(model, TOKENS, target=TARGET).scores.max() > 0, "and it still works"


def test_the_model_holds_nothing_of_a_call(pair: families.Pair) -> None:
    def held() -> list[Tensor]:
        parts = [value for module in pair.model.modules() for value in module.__dict__.values()]
        return [value for value in parts if isinstance(value, Tensor)]

    # TransformerLens' joint attention would keep its last pattern, and with it the graph that made it
    before = held()
    attribution = tls.semantic_scope(pair.model, TOKENS, target=TARGET)
    assert [id(t) for t in held()] == [id(t) for t in before]
    if pair.family == "gpt2":
        tls.check_model(pair.model)
        tls.verify(pair.model, attribution, top=1)
        tls.patch_top(pair.model, TOKENS, TOKENS.roll(1), attribution, k=1, n_random=1)
        assert [id(t) for t in held()] == [id(t) for t in before]


def test_a_second_call_leaves_no_tensor_more_than_the_first(kind: str) -> None:
    model = families.build("gpt2", kind).model
    for checkpoint in (False, True):
        tls.semantic_scope(model, TOKENS, target=TARGET, checkpoint=checkpoint)  # what a model makes once
        tensors = live_tensors()
        tls.semantic_scope(model, TOKENS, target=TARGET, checkpoint=checkpoint)
        assert live_tensors() == tensors


def test_what_a_users_own_forward_left_on_the_model_stays(kind: str) -> None:
    model = families.build("gpt2", kind).model
    model(TOKENS[None])
    kept = [dict(block.attn.__dict__) for block in model.blocks]
    tls.semantic_scope(model, TOKENS, target=TARGET)
    for block, before in zip(model.blocks, kept, strict=True):
        assert all(block.attn.__dict__[name] is value for name, value in before.items())


def test_a_result_keeps_no_graph_and_no_model_alive(kind: str) -> None:
    model = families.build("gpt2", kind).model
    attr = tls.semantic_scope(model, TOKENS, keep_gradient=True, cache=True, grads_at="blocks.0.hook_resid_post")
    held = [attr.scores, attr.gradient, attr.tokens, *attr.cache.values()]
    assert not any(tensor.requires_grad for tensor in held)
    assert all(tensor.grad_fn is None for tensor in held)
    assert attr.scores.device.type == attr.gradient.device.type == attr.tokens.device.type == "cpu"


# -- the caller's settings ---------------------------------------------------------------------------------


GRAD_MODES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "enabled": torch.enable_grad,
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@pytest.mark.on_families("gpt2", "gemma2", slow=("llama",))
@pytest.mark.parametrize("mode", GRAD_MODES)
def test_every_scope_works_under_every_grad_mode_with_tensors_made_there(pair: families.Pair, mode: str) -> None:
    expected = tls.scopes(pair.model, TOKENS, methods=("semantic", "contrast", "fisher", "temperature"), foil=FOIL)
    with GRAD_MODES[mode]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        tokens = TOKENS.clone()
        direction = pair.model.W_U[:, TARGET].clone()
        found = tls.scopes(pair.model, tokens, methods=tuple(expected), foil=FOIL, cache=["hook_embed"])
        along = tls.jacobian_scope(pair.model, tokens, direction=direction)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    for method, attr in expected.items():
        assert torch.equal(found[method].scores, attr.scores), method
    # a result made under inference_mode is an ordinary tensor, which later code may put into a graph
    leaf = along.scores.clone().requires_grad_(True)
    (along.scores * leaf).sum().backward()
    assert not found["semantic"].cache["hook_embed"].is_inference()


AMBIENT: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "detect_anomaly": lambda: torch.autograd.detect_anomaly(check_nan=True),
}


SOON = ("semantic_scope", "attribution_matrix", "fisher_spectrum")
LATER = [pytest.param(name, marks=() if name in SOON else pytest.mark.slow) for name in CALLS]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", LATER)
def test_every_public_call_gives_the_same_in_every_ambient_state(name: str, demo_model: Any) -> None:
    model = demo_model
    explained()
    plain, state = CALLS[name](model), global_state()
    for mode, context in AMBIENT.items():
        with context():
            inside = global_state()
            result = CALLS[name](model)
            assert global_state() == inside, mode
        if (
            mode != "detect_anomaly"
        ):  # which has no rule for a backward of several rows: there they are pulled back singly
            assert written(result) == written(plain), mode
        elif isinstance(result, tls.Attribution | tls.AttributionMatrix):
            assert relative_error(result.scores, plain.scores) < 1e-5
    assert global_state() == state


@pytest.mark.one_lens
@pytest.mark.parametrize("name", LATER)
def test_showing_a_result_draws_no_random_number(name: str, demo_model: Any) -> None:
    explained()
    result = CALLS[name](demo_model)
    state = global_state()
    for shown in result.values() if name == "scopes" else [result]:
        shown.html(), shown.plot(), str(shown)
    assert global_state() == state


@pytest.mark.slow
@pytest.mark.one_lens
def test_the_first_picture_of_a_process_draws_no_random_number() -> None:
    code = (
        "import random, sys; sys.path[:0] = ['tests/support', 'tests']; import every_result as e; a = e.single()\n"
        "before = random.getstate(); a.html(); str(a); a.plot(); assert random.getstate() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_compiled_blocks_give_the_same(checkpoint: bool, in_place: bool) -> None:
    model = families.build("gpt2", "bridge", fresh=True).model
    plain = tls.semantic_scope(model, TOKENS, target=TARGET)
    for i, block in enumerate(list(model.blocks)):
        if in_place:
            block.compile(backend="eager")
        else:
            model.blocks[i] = torch.compile(block, backend="eager")
    found = tls.semantic_scope(model, TOKENS, target=TARGET, checkpoint=checkpoint)
    assert torch.equal(found.scores, plain.scores)


def test_weights_edited_through_data_after_a_call_are_seen(kind: str) -> None:
    pair = families.build("gpt2", kind, fresh=True)
    tls.scopes(pair.model, TOKENS, target=TARGET)
    tls.total_information(pair.model, TOKENS, method="exact")
    W_U = pair.model.unembed.W_U if kind == "hooked" else pair.model.unembed.original_component.weight
    norm = pair.model.ln_final if kind == "hooked" else pair.model.ln_final.original_component
    W_U.data.mul_(2)
    fresh = families.build("gpt2", kind, fresh=True)
    other = fresh.model.unembed.W_U if kind == "hooked" else fresh.model.unembed.original_component.weight
    with torch.no_grad():
        other.mul_(2)
    for call in (tls.fisher_scope, lambda *a: tls.total_information(*a, method="exact")):
        assert torch.equal(call(pair.model, TOKENS).scores, call(fresh.model, TOKENS).scores)
    (norm.w if kind == "hooked" else norm.weight).data.fill_(1)
    (norm.b if kind == "hooked" else norm.bias).data.zero_()
    with pytest.raises(ValueError, match="has no Temperature Scope"):
        tls.temperature_scope(pair.model, TOKENS)


@pytest.mark.on_families("gpt2", "gemma3")
def test_what_is_known_of_the_weights_is_found_again_until_they_change(pair: families.Pair) -> None:
    """Gemma's norm has the gain ``1 + weight``, a tensor made anew at each look; an untouched model is looked at once."""
    model = families.build(pair.family, pair.kind, fresh=True).model
    states, norms = [], []

    def look() -> bool:
        """Is this another state than the last?"""
        tls.total_information(model, TOKENS, n_samples=2, rank=1)
        states.append(model_state(model))
        norms.append(model_state(model).row_squares.read())
        return states[-1] is not states[-2] if len(states) > 1 else True

    assert [look() for _ in range(8)] == [True] + [False] * 7
    assert all(n is norms[0] for n in norms)
    hooked = pair.kind == "hooked"
    gain = model.ln_final.w if hooked else model.ln_final.original_component.weight
    unembed = model.unembed.W_U if hooked else model.unembed.original_component.weight.T
    with torch.no_grad():
        gain[3] += 0.1
        assert [look(), look()] == [True, False]
        gain.data[2] += 0.1
        assert [look(), look()] == [True, False]
        offset = float(not hooked and getattr(model.cfg, "rmsnorm_uses_offset", False))
        assert torch.equal(states[-1].final_norm[0], offset + gain)  # type: ignore[index]
        unembed.data[:, 5] *= 2
        look()
    assert norms[-1] is not norms[-2]
    assert relative_error(norms[-1], unembed.detach().double().square().sum(dim=0)) < 1e-12


def test_a_model_made_under_inference_mode_is_refused_and_left_as_it_is(kind: str) -> None:
    with torch.inference_mode():
        model = families.build("gpt2", kind, fresh=True).model
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(ValueError, match="inference_mode"):
        tls.semantic_scope(model, TOKENS, target=TARGET)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


@pytest.mark.parametrize("trainable", ["all", "none", "some"])
def test_parameters_keep_their_requires_grad_and_get_no_grad(kind: str, trainable: str) -> None:
    pair = families.build("llama", kind, fresh=True)
    for i, parameter in enumerate(pair.model.parameters()):
        parameter.requires_grad_(trainable == "all" or (trainable == "some" and i % 2 == 0))
    flags = model_flags(pair.model)
    attrs = tls.scopes(pair.model, TOKENS, target=TARGET)
    assert model_flags(pair.model) == flags
    assert all(parameter.grad is None for parameter in pair.model.parameters())
    expected = oracles.semantic(pair.hf, TOKENS, 11, TARGET)
    assert relative_error(attrs["semantic"].scores, expected) < families.rtol(pair)


def test_gradients_the_user_accumulated_are_left_alone(kind: str) -> None:
    pair = families.build("gpt2", kind, fresh=True)
    parameter = next(pair.model.embed.parameters())
    parameter.grad = torch.ones_like(parameter)
    tls.scopes(pair.model, TOKENS)
    assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_training_flags_are_kept_module_by_module_also_after_an_error(kind: str) -> None:
    model = families.build("llama", kind, fresh=True).model
    model.train()
    model.blocks[1].eval()
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    tls.semantic_scope(model, TOKENS)
    assert [module.training for module in model.modules()] == before
    with pytest.raises(Interruption, match="forward"):
        interrupted(model, "blocks.0.hook_resid_post")
    assert [module.training for module in model.modules()] == before


# -- the user's hooks --------------------------------------------------------------------------------------


@pytest.mark.on_families("gpt2", "llama")
def test_a_user_hook_takes_effect_on_the_scores_and_stays(pair: families.Pair) -> None:
    own = families.build(pair.family, pair.kind, fresh=True)
    calls: list[int] = []

    def halve(activation: Tensor, hook: Any) -> Tensor:
        calls.append(1)
        return activation / 2

    plain = tls.semantic_scope(own.model, TOKENS, target=TARGET)
    own.model.hook_dict["unembed.hook_in"].add_hook(halve)
    try:
        halved = tls.semantic_scope(own.model, TOKENS, target=TARGET)
        assert calls == [1]
        assert torch.equal(halved.scores, plain.scores / 2), "the factor belongs to the model now"
        assert len(own.model.hook_dict["unembed.hook_in"].fwd_hooks) == 1
    finally:
        own.model.reset_hooks()


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_scores_under_a_steering_hook_are_the_gradients_of_the_steered_model(pair: families.Pair) -> None:
    steer = torch.randn(families.D_MODEL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def add(activation: Tensor, hook: Any) -> Tensor:
        return activation + steer

    def keep(value: Tensor, hook: Any) -> Tensor:
        leaf.append(value.detach().clone().requires_grad_(True))
        return leaf[0]

    leaf: list[Tensor] = []
    options = {} if pair.kind == "hooked" else {"use_cache": False}
    with pair.model.hooks(fwd_hooks=[("hook_embed", keep), ("blocks.1.hook_resid_pre", add)]):
        logits = pair.model(TOKENS[None], return_type="logits", **options)
    (expected,) = torch.autograd.grad(logits[0, -1, TARGET], leaf[0])
    plain = tls.semantic_scope(pair.model, TOKENS, target=TARGET)
    with pair.model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", add)]):
        attr = tls.semantic_scope(pair.model, TOKENS, target=TARGET)
        assert len(pair.model.hook_dict["blocks.1.hook_resid_pre"].fwd_hooks) == 1
    assert relative_error(attr.scores, expected[0].norm(dim=-1)) < families.rtol(pair)
    assert relative_error(attr.scores, plain.scores) > 0.01


def test_an_ablation_in_place_at_the_source_takes_effect(kind: str) -> None:
    pair = families.build("gpt2", kind)

    def zero(activation: Tensor, hook: Any) -> Tensor:
        activation[:, 3] = 0
        return activation

    x = oracles.embeddings(pair.hf, TOKENS)
    x[3] = 0
    expected = oracles.gradient_at(pair.hf, x, 11, lambda z, y: z[TARGET]).norm(dim=-1)
    with pair.model.hooks(fwd_hooks=[("hook_embed", zero)]):
        attr = tls.semantic_scope(pair.model, TOKENS, target=TARGET)
    assert relative_error(attr.scores, expected) < families.rtol(pair)


def test_a_user_backward_hook_sees_the_gradient_of_the_pass(kind: str) -> None:
    model = families.build("gpt2", kind).model
    seen: list[Tensor] = []

    def look(gradient: Tensor, hook: Any) -> None:
        seen.append(gradient.detach().clone())

    with model.hooks(bwd_hooks=[("blocks.0.hook_resid_post", look)]):
        tls.semantic_scope(model, TOKENS, target=TARGET)
    assert [tuple(gradient.shape) for gradient in seen] == [(1, 12, families.D_MODEL)]
    assert bool(seen[0].any())


def test_dropout_in_a_part_of_the_model_is_refused() -> None:
    """As a trainer leaves it, that knows the Hugging Face model alone."""
    pair = families.build("gpt2", "bridge", fresh=True)
    pair.model.eval()
    for part in (pair.model.original_model, pair.model.original_model.transformer.h[1]):
        part.train()
        with pytest.raises(ValueError, match="a part of the model is in training mode and Dropout"):
            tls.semantic_scope(pair.model, TOKENS)
        part.eval()
    tls.semantic_scope(pair.model, TOKENS)
