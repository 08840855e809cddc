"""What holds around every test: nothing global or shared is changed by it; and what tests are parametrised with.

Invariant: after a test the global random states, grad mode and default dtype are what they were before it, and
every model it was handed has no hook left, the same `requires_grad` and `training` flags, no `.grad`, and
unwritten weights.

Parametrisation: a test with the argument `pair` runs on every (family, kind) of `families.PAIRS` in float64, or on
the families that `@pytest.mark.on_families("gpt2", ...)` names; unless named, those of `families.late` run in the slow tier.
`@pytest.mark.on_families(..., slow=("llama", ...))` names more for the slow tier. One with the argument `kind` runs on every
model class.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import families
import jaxtyping
import numpy as np
import pytest
import torch
from chromium import browser, look  # noqa: F401  # fixtures
from transformer_lens.hook_points import HookPoint

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes with a thread on every core wait for each other.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for those that tests start: notebooks, the command line


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before the choice by markers: a browser's tests are of the slow tier, and what does not depend on TransformerLens
    is tested on one of the two.
    """
    both = "hooked" in families.kinds_available()
    again = [item for item in items if both and item.get_closest_marker("one_lens")]
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    config.hook.pytest_deselected(items=again)
    there = set(again)
    items[:] = [item for item in items if item not in there]


def pytest_collection_finish() -> None:
    """Garbage collection need not look at what was imported, two million objects, ever again."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrised = {
        name
        for marker in metafunc.definition.iter_markers("parametrize")
        for name in (marker.args[0].split(",") if isinstance(marker.args[0], str) else marker.args[0])
    }
    if "pair" in set(metafunc.fixturenames) - parametrised:
        marker = metafunc.definition.get_closest_marker("on_families")
        names = families.FAMILIES if marker is None else marker.args
        slow = () if marker is None else marker.kwargs.get("slow", ())
        assert {*names, *slow} <= set(families.FAMILIES), (names, slow)
        pairs = [
            pytest.param(
                pair,
                id="-".join(pair),
                marks=pytest.mark.slow if pair[0] in slow or (marker is None and families.late(*pair)) else (),
            )
            for pair in families.PAIRS
            if pair[0] in (*names, *slow)
        ]
        metafunc.parametrize("pair", pairs, indirect=True)
    if "kind" in set(metafunc.fixturenames) - parametrised:
        metafunc.parametrize("kind", families.kinds_available())


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> families.Pair:
    """The float64 pair of one (family, kind), shared: do not mutate."""
    return families.build(*request.param)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As a user's process runs: without jaxtyping and beartype, which would refuse a wrong type before the package."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# -- models ----------------------------------------------------------------------------------------


def model_flags(model: Any) -> dict[str, Any]:
    """All of a model that a pass could leave changed."""
    modules = list(model.modules())
    parameters = list({id(p): p for module in modules for p in module._parameters.values() if p is not None}.values())
    return {
        "hooks": {
            point.name: len(point.fwd_hooks) + len(point.bwd_hooks)
            for point in modules
            if isinstance(point, HookPoint) and (point.fwd_hooks or point.bwd_hooks)
        },
        "requires_grad": [p.requires_grad for p in parameters],
        "grad is None": [p.grad is None for p in parameters],
        "writes to weights": [0 if p.is_inference() else p._version for p in parameters],
        "training": [module.training for module in modules],
    }


_before: dict[int, tuple[Any, dict[str, Any]]] = {}
_handed_out: set[int] = set()


def _watch(model: Any) -> Any:
    if id(model) not in _before:
        _before[id(model)] = (model, model_flags(model))
    _handed_out.add(id(model))
    return model


def _watched(make: Callable[..., families.Pair]) -> Callable[..., families.Pair]:
    def shared(*args: Any) -> families.Pair:
        pair = make(*args)
        _watch(pair.model)
        return pair

    return shared


families._shared = _watched(families._shared)


@pytest.fixture
def guarded() -> Iterator[Callable[[Any], Any]]:
    """`guarded(model)`: the model, whose flags must be the same at the end of the test."""
    held: list[tuple[Any, dict[str, Any]]] = []

    def guard(model: Any) -> Any:
        held.append((model, model_flags(model)))
        return model

    yield guard
    for model, before in held:
        assert model_flags(model) == before


@pytest.fixture(scope="session")
def _demo() -> Any:
    import tl_scopes

    return tl_scopes.load_model()


@pytest.fixture
def demo_model(_demo: Any) -> Any:
    """The bundled demo model, shared: do not mutate."""
    return _watch(_demo)


# -- everything global -----------------------------------------------------------------------------


def _global_state() -> dict[str, Any]:
    _, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch RNG": torch.get_rng_state().numpy().tobytes(),
        "numpy RNG": (keys.tobytes(), position, *rest),
        "python RNG": random.getstate(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default dtype": torch.get_default_dtype(),
    }


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    _handed_out.clear()
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"changed by the test: {changed}"
    for key in _handed_out:
        model, flags = _before[key]
        now = model_flags(model)
        changed = [name for name in flags if flags[name] != now[name]]
        assert not changed, f"left changed on {model.cfg.model_name}: {changed}; {now['hooks']}"
