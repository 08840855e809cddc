"""One model, several users: threads and hooks.

Invariant: calls on one model wait for each other, and each gives, bit for bit, what it gives alone; a thread that only runs
the model sees it unpatched; calls on two models do not wait. A hook that begins a call or a run inside a call's run is
refused with the reason. Nothing is left on the model in whatever order users leave.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from every_call import CALLS, PROMPT, cached, expected, explained, run_plainly, written
from invariants import model_flags
from torch import nn

import tl_scopes as tls
from tl_scopes import timeseries
from tl_scopes.model.forward import run_with_hooks
from tl_scopes.model.hooks import attached, without_hooks
from tl_scopes.model.patches import patched

pytestmark = pytest.mark.usefixtures("unchecked")
PLAIN: dict[str, Callable[[Any], Any]] = {"model(tokens)": run_plainly, "run_with_cache": cached}
WAIT = 60
PAIRINGS = [
    ("semantic_scope", "model(tokens)"),
    ("attribution_matrix", "model(tokens)"),
    ("fisher_scope", "run_with_cache"),
    ("patch_top", "model(tokens)"),
    ("ig_path", "model(tokens)"),
    ("attention_rollout", "attention_rollout"),
    ("semantic_scope", "semantic_scope"),
    ("semantic_scope", "attribution_matrix"),
    ("leave_one_out", "integrated_gradients"),
    ("layer_influence", "head_influence"),
    ("verify", "substitutions"),
    ("attention_sinks", "fisher_spectrum"),
    ("check_model", "aopc"),
]


@pytest.fixture
def model() -> Any:
    return tls.load_model()


def forwards(model: Any) -> list[Any]:
    """What stands on the modules in place of their own functions."""
    return [(name, m.__dict__[name]) for m in model.modules() for name in ("forward", "act_fn") if name in m.__dict__]


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads give way to each other all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_every_call_on_a_model_is_in_the_list() -> None:
    public = {
        name
        for module in (tls, timeseries)
        for name in module.__all__
        if inspect.isfunction(value := getattr(module, name)) and "model" in inspect.signature(value).parameters
    }
    assert public == set(CALLS)


# -- hooks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_a_call_from_a_hook_of_another_calls_run_is_refused_and_nothing_stays(model: Any, name: str) -> None:
    explained()
    before, patches = model_flags(model), forwards(model)

    def hook(activation: torch.Tensor, hook: Any) -> None:
        CALLS[name](model)

    refused = pytest.raises(RuntimeError, match=rf"^{name}: .*in the middle of a run.*call after the run")
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", hook)]), refused:
        tls.semantic_scope(model, PROMPT)
    assert model_flags(model) == before
    assert forwards(model) == patches
    assert written(tls.semantic_scope(model, PROMPT)) == expected("semantic_scope")


@pytest.mark.parametrize("name", ["semantic_scope", "attribution_matrix", "patch_top", "substitutions", "check_model"])
def test_a_run_of_the_model_from_a_hook_is_refused(model: Any, name: str) -> None:
    explained()

    def hook(activation: torch.Tensor, hook: Any) -> None:
        run_plainly(model)

    with model.hooks(fwd_hooks=[("hook_embed", hook)]), pytest.raises(RuntimeError, match="in the middle of a run"):
        CALLS[name](model)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_call_from_a_backward_hook_is_refused(model: Any, checkpoint: bool) -> None:
    def hook(gradient: torch.Tensor, hook: Any) -> None:
        tls.semantic_scope(model, PROMPT)

    refused = pytest.raises(RuntimeError, match="^semantic_scope: .*in the middle of a run")
    with model.hooks(bwd_hooks=[("blocks.1.hook_resid_pre", hook)]), refused:
        tls.semantic_scope(model, PROMPT, checkpoint=checkpoint)


def test_a_hook_of_the_users_own_run_may_call(model: Any) -> None:
    found: list[tls.Attribution] = []

    def hook(activation: torch.Tensor, hook: Any) -> None:
        if threading.current_thread().name not in inside:
            inside.add(threading.current_thread().name)
            found.append(tls.semantic_scope(model, PROMPT))

    inside: set[str] = set()
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", hook)]):
        run_plainly(model)
    assert written(found[0]) == expected("semantic_scope")


# -- threads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["semantic_scope", "attribution_matrix", "patch_top", "ig_path", "attention_rollout"])
def test_a_run_in_another_thread_in_the_middle_of_a_call_sees_the_model_unpatched(model: Any, name: str) -> None:
    explained()
    plain, patches = run_plainly(model), forwards(model)
    thread, other = threading.get_ident(), ThreadPoolExecutor(1)
    seen: list[torch.Tensor] = []

    def hook(activation: torch.Tensor, hook: Any) -> None:
        if threading.get_ident() == thread:
            seen.append(other.submit(run_plainly, model).result(WAIT))

    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", hook)]), other:
        CALLS[name](model)
    assert seen
    assert all(torch.equal(logits, plain) for logits in seen)
    assert forwards(model) == patches


def test_calls_on_one_model_wait_and_calls_on_two_do_not(model: Any) -> None:
    thread, free = threading.get_ident(), tls.load_model()

    def hook(activation: torch.Tensor, hook: Any) -> None:
        if threading.get_ident() == thread:
            waiting.append(others.submit(tls.semantic_scope, model, PROMPT))
            assert written(others.submit(tls.semantic_scope, free, PROMPT).result(WAIT)) == expected("semantic_scope")
            assert not waiting[0].done()

    waiting: list[Any] = []
    with ThreadPoolExecutor(2) as others:
        expected("semantic_scope")
        with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", hook)]):
            tls.temperature_scope(model, PROMPT)
        assert written(waiting[0].result(WAIT)) == expected("semantic_scope")


@pytest.mark.slow
@pytest.mark.parametrize("pairing", PAIRINGS, ids="+".join)
def test_both_of_a_pair_give_what_they_give_alone(model: Any, pairing: tuple[str, str], switching: None) -> None:
    calls = {**CALLS, **PLAIN}
    alone = [expected(name) if name in CALLS else PLAIN[name](model) for name in pairing]
    before, patches = model_flags(model), forwards(model)
    start = threading.Barrier(2)

    def repeat(name: str, wanted: Any) -> None:
        start.wait(WAIT)
        for _ in range(6):
            result = calls[name](model)
            if name in CALLS:
                assert written(result) == wanted
            elif isinstance(result, dict):
                assert all(torch.equal(result[key], wanted[key]) for key in wanted)
            else:
                assert torch.equal(result, wanted)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(repeat, name, wanted) for name, wanted in zip(pairing, alone, strict=True)]:
            done.result()
    assert model_flags(model) == before
    assert forwards(model) == patches


def test_a_hook_that_another_thread_puts_on_during_a_measurement_sees_nothing_of_it_and_comes_off(model: Any) -> None:
    seen: list[Any] = []
    point = model.hook_dict["hook_embed"]
    with without_hooks(model):
        with ThreadPoolExecutor(1) as other:
            other.submit(point.add_hook, lambda activation, hook: seen.append(hook.name)).result(WAIT)
        run_with_hooks(model, model.to_tokens(PROMPT))
        assert not seen
    gc.collect()
    run_plainly(model)
    assert len(seen) == 1
    point.remove_hooks()
    run_plainly(model)
    assert len(seen) == 1


def test_hooks_inside_a_measurement_act_in_the_order_in_which_they_were_put_on(model: Any) -> None:
    seen: list[int] = []
    hooks = [("hook_embed", lambda activation, hook, i=i: seen.append(i)) for i in range(3)]
    for _ in range(16):  # torch numbers hooks; no number changes their order
        with without_hooks(model), attached(model.hook_dict, hooks):
            run_with_hooks(model, model.to_tokens(PROMPT))
    assert seen == [0, 1, 2] * 16


# -- patches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_patches_are_gone_when_their_owners_have_left_in_whatever_order(order: tuple[int, ...]) -> None:
    module = nn.Identity()
    x = torch.ones(2)
    plain = module(x)
    threads = [ThreadPoolExecutor(1) for _ in range(3)]
    stacks = [ExitStack() for _ in threads]

    def enter(i: int) -> None:
        stacks[i].enter_context(patched(module, "forward", lambda forward: lambda x: forward(x) + i + 1))

    for i, thread in enumerate(threads):
        thread.submit(enter, i).result()
    assert torch.equal(module(x), plain), "this thread patched nothing"
    for n, i in enumerate(order):
        for j in order[n:]:
            assert torch.equal(threads[j].submit(module, x).result(), plain + j + 1)
        threads[i].submit(stacks[i].close).result()
        assert torch.equal(threads[i].submit(module, x).result(), plain)
    assert "forward" not in module.__dict__
    for thread in threads:
        thread.shutdown()
