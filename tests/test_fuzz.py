"""Whatever a public call is given, it answers or refuses in its own words.

Invariant: a value of another type that is taken gives, bit for bit, what the plain value gives; what is refused is refused by
the package itself, as a ValueError or TypeError that begins with the name of a public call, for a wrong kind before the
model runs; and the random states stay as they were. The functions and their arguments are read off the package: one
without an entry in the tables below fails.
"""

from __future__ import annotations

import inspect
import itertools
import random
import traceback
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import arguments as kinds
import numpy as np
import pytest
import torch
from arguments import EITHER, FUNCTIONS, NUMBERS, REFUSED, Case, Twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tl_scopes as tls
from tl_scopes.evaluation import run_windows
from tl_scopes.numerics.annotations import argument_types

pytestmark = [pytest.mark.one_lens, pytest.mark.usefixtures("unchecked")]
EXAMPLES = 130
"""Calls of each function in the slow tier: more than 4,000 together."""
FEW = 3
SLOW = {"load_model": 20, "explain_file": 50, "gold_alignment": 50, "check_model": 50}
"""Functions whose calls take long, and how many there are of them."""
TOKENS = torch.tensor([1, 60, 5, 61, 5, 62])
PLAIN = torch.arange(128.0) / 128 + 0.1

ARGUMENTS: dict[str, Callable[[Any], kinds.Cases]] = {
    **dict.fromkeys(
        ["rank", "k", "top", "n_first", "sink_tokens", "position", "batch_size", "memory_budget", "feature", "hops"],
        kinds.integer,
    ),
    **dict.fromkeys(
        ["n_directions", "n_tokens", "first", "n_fit", "min_words", "dimension", "skip", "period"], kinds.integer
    ),
    **dict.fromkeys(
        [
            "n_probes",
            "max_new_tokens",
            "n_random",
            "n_samples",
            "n_steps",
            "n",
            "length",
            "burn_in",
            "every",
            "unrelated",
        ],
        kinds.count,
    ),
    **dict.fromkeys(["prepend_bos", "keep_gradient", "checkpoint", "relative", "scale_positions"], kinds.flag),
    **dict.fromkeys(
        [
            "tol",
            "rtol",
            "sigma",
            "multiple",
            "step",
            "bound",
            "level",
            "r",
            "x0",
            "y0",
            "z0",
            "rho",
            "beta",
            "dt",
            "drift",
            "mu",
            "noise",
            "temperature",
        ],
        kinds.number,
    ),
    **dict.fromkeys(["cosine", "norm_ratio"], kinds.number),
    **dict.fromkeys(["fractions", "alphas", "limits"], kinds.numbers),
    **dict.fromkeys(["positions", "layers", "candidates", "bos"], kinds.integers),
    **dict.fromkeys(
        [
            "at",
            "target_hook",
            "method",
            "moment",
            "of",
            "combine",
            "kind",
            "ablation",
            "component",
            "solver",
            "coordinate",
            "preset",
            "scored",
            "unit",
            "answers",
            "how",
        ],
        kinds.name,
    ),
    **dict.fromkeys(["methods", "corpora", "beside"], kinds.names),
    **dict.fromkeys(["target", "foil"], kinds.token),
    **dict.fromkeys(["prompt"], kinds.prompts),
    **dict.fromkeys(["clean", "corrupt", "precision_prompt"], kinds.tokens),
    **dict.fromkeys(["series", "numbers", "influence", "logits"], kinds.vector),
    **dict.fromkeys(["out", "folder", "path", "source", "name"], kinds.file),
    **dict.fromkeys(["cache", "grads_at"], kinds.hooks),
    "chat_options": lambda good: kinds.refused(5, "x", [], {}, {"tools": []}, {1: 2}, {"x"}, True),
    "stop": lambda good: kinds.refused(5, 1.5, [5], {}, {"x"}, True, b"x", [""], ""),
    "frozen": lambda good: kinds.refused(5, 1.5, "x", ["x"], ["norms", "x"], ["norms", 5], True, b"norms", [None]),
    "columns": lambda good: kinds.refused(5, "x", [5], {"x": "y"}, {"prompt": 5}, {"prompt": "none"}, True, {"prompt"}),
    "shard": lambda good: kinds.refused(5, "x", [1], [2, 2], [-1, 2], [0, 0], [0, 1.5], True, {}, {0, 1}),
    **dict.fromkeys(["split", "subset"], lambda good: kinds.refused(5, 1.5, [], {}, True)),
    **dict.fromkeys(["format", "table"], kinds.name),
    "rows_per_shard": kinds.integer,
    "tasks": lambda good: kinds.refused(5, "x", [5], ["x"], [], {"x": []}, {"x": 5}, True, b"x"),
    "by_substitution": lambda good: kinds.refused(5, "x", [5], ["x"], True, b"x"),
    "text": lambda good: kinds.refused(
        5, "x", TOKENS, [], {}, ("x",), ("x", 5), (5, "x"), ("x", ""), [{"role": "user"}], True
    ),
    **dict.fromkeys(
        ["units", "prompt_units"],
        lambda good: kinds.refused(5, 1.5, "nonsense", "turn", [], {}, [("a", 5)], {"a": 3}, {"a": (0, 0)}, True),
    ),
    "answer": lambda good: kinds.refused(
        1.5, [], {}, "nowhere", "", 10**30, {0: -1.0}, {0: float("nan")}, {9: 1.0}, {"x": 1}
    ),
    "language": lambda good: kinds.refused(5, 1.5, [], True),
    "among": lambda good: kinds.refused(5, 1.5, ["nobody"], [5], {}, True),
    "chain": lambda good: kinds.one_of(),
    "seed": kinds.seed,
    "pos": kinds.position,
    "prompts": kinds.passages,
    "values": kinds.mapping,
    "direction": kinds.direction,
    "baseline": kinds.baseline,
    "random_positions": kinds.nested,
    "metric": kinds.function,
    "sae": kinds.sae,
    "model": lambda good: kinds.one_of(),
    "attribution": lambda good: kinds.one_of(),
    "device": lambda good: kinds.refused(1.5, [], {}, "nonsense", "cuda:x"),
    "dtype": lambda good: kinds.refused(5, "float32", float, torch.int64, torch.bool),
    "truth": lambda good: kinds.refused("x", [1.0, 2.0], True, float("nan"), {}),
    "deltas": lambda good: kinds.refused(5, [1.0], [["x", 1.0]], [[1.0]], [[1.0, float("nan")]], "xx", [None]),
    "column": lambda good: kinds.refused(1.5, True, [good], {}, "nonsense", -1, 10**30),
}
"""The cases of an argument by its name, made from a good plain value."""
JOINT = {
    *(
        "semantic_scope",
        "contrast_scope",
        "fisher_scope",
        "temperature_scope",
        "jacobian_scope",
        "moment_scope",
        "scopes",
        "leave_one_out",
        "attention_rollout",
        "random_attribution",
    ),
    *(
        "total_information",
        "layer_influence",
        "head_influence",
        "split",
        "input_x_gradient",
        "gradient_norm",
        "smoothgrad",
    ),
    "integrated_gradients",
}
"""Functions that explain several positions together."""
OTHERWISE: dict[tuple[str, str], Callable[[Any], kinds.Cases]] = {
    ("explain_file", "source"): lambda good: kinds.refused(5, 1.5, [], {}, True, "none.csv", "no/such/thing", ".", ""),
    ("explain_file", "out"): lambda good: kinds.refused(5, 1.5, [], {}, True, "prompts.csv", b"x"),
    ("explain_file", "chat_options"): lambda good: kinds.refused(5, "x", [], True),
    ("gold_alignment", "out"): lambda good: kinds.refused(5, 1.5, "folder", b"x"),
    ("aopc", "target"): kinds.name,
    # of many rows, which have no gradient in common
    ("total_information", "grads_at"): lambda good: kinds.refused(good, 5, "nowhere", [good], True),
    ("total_information", "keep_gradient"): lambda good: kinds.refused(5, "x", True),
    ("sae_feature", "target_hook"): lambda good: kinds.refused(5, 1.5, [], {}, True, b"x"),  # no model tells its hooks
    **{(name, "pos"): kinds.one_position for name in FUNCTIONS if name not in JOINT},
    **{(name, aim): kinds.answer for name in JOINT for aim in ("target", "foil")},
}
"""Where a name means something else."""
GOOD: dict[str, Any] = {
    "prompt": TOKENS, "clean": TOKENS, "corrupt": torch.tensor([1, 63, 5, 61, 5, 62]), "precision_prompt": TOKENS,
    "prompts": [TOKENS, torch.tensor([1, 63, 5, 61])], "pos": 4, "target": 61, "foil": 62, "seed": 3, "prepend_bos": False,
    "rank": 2, "tol": 1e-3, "n_samples": 4, "rtol": 0.5, "moment": "mean", "values": {60: 1.0, 61: 3.0, 62: 7.0},
    "direction": PLAIN, "method": "temperature", "methods": ["temperature", "semantic"], "at": "blocks.0.hook_resid_pre",
    "target_hook": "blocks.0.hook_resid_post", "batch_size": 2, "cache": "hook_embed", "grads_at": "blocks.0.hook_resid_pre",
    "keep_gradient": True, "checkpoint": False, "memory_budget": 2**40, "positions": [2, 4], "of": "log_prob",
    "combine": "norm", "n_probes": 4,
    "ablation": "mean", "n_steps": 4, "baseline": PLAIN, "sigma": 0.1, "alphas": [0.25, 0.5, 1.0], "scale_positions": False,
    "sink_tokens": 2, "relative": True, "kind": "sensitivity", "n_first": 2, "multiple": 3.0, "bos": [0, 1], "unrelated": 2,
    "k": 2, "n_directions": 1, "n_tokens": 2, "position": 3, "candidates": [7, 8, 9], "fractions": [0.25, 0.5], "top": 2,
    "step": 0.5, "bound": 0.25, "layers": [0, 1], "component": "attn_out", "n_random": 2, "n": 2, "corpora": ["translation"],
    "truth": 55.0, "level": 0.8, "first": 10, "n_fit": 10, "limits": [0.0, 100.0], "dimension": 2, "skip": 1, "length": 5,
    "burn_in": 2, "every": 2, "r": 3.5, "x0": 0.5, "y0": 1.5, "z0": 20.0, "rho": 27.0, "beta": 2.5, "dt": 0.01, "drift": 0.25,
    "mu": 0.25, "noise": 0.5, "period": 4, "solver": "scipy", "coordinate": "z", "cosine": 0.5, "norm_ratio": 1.5,
    "numbers": NUMBERS, "influence": NUMBERS, "series": NUMBERS, "logits": NUMBERS, "feature": 1, "min_words": 1,
    "scored": "argmax", "preset": "text", "beside": ["sufficiency"], "random_positions": [[[1], [1, 2]], [[1], [0, 1]]],
    "deltas": [[-1.0, -2.0]], "metric": lambda logits: logits[0, -1, 5], "name": "demo", "source": "demo", "column": "a",
    "unit": "word", "max_new_tokens": 3, "temperature": 0.5, "frozen": "attention",
    "answers": "whole", "rows_per_shard": 2, "format": "csv", "table": "failed",
    "hops": 1, "how": "swap",
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    **{name: {"prompt": TOKENS} for name in FUNCTIONS if "prompt" in inspect.signature(FUNCTIONS[name]).parameters},
    "attribution_matrix": {"prompt": TOKENS, "positions": [2, 4]},
    "head_influence": {"prompt": TOKENS, "kind": "sensitivity"},
    "jacobian_scope": {"prompt": TOKENS, "direction": PLAIN, "target_hook": "blocks.0.hook_resid_post"},
    "contrast_scope": {"prompt": TOKENS, "foil": 62, "target": 61},
    "aopc": {"prompts": GOOD["prompts"], "methods": ["semantic", "random"], "fractions": [0.25, 0.5]},
    "attention_sinks": {"prompt": TOKENS, "bos": [], "unrelated": 0, "methods": ["temperature"]},
    "positional_baseline": {"prompt": TOKENS, "unrelated": 2, "method": "temperature"},
    "chain": {"text": (TOKENS, "29,61"), "units": "word", "method": "temperature"},
    "verify_chain": {"n_random": 2},
    "check_model": {},
    "gold_alignment": {"n": 1, "corpora": ["translation"], "methods": ["temperature"]},
    "integrated_gradients": {"prompt": TOKENS, "n_steps": 4},
    "smoothgrad": {"prompt": TOKENS, "n_samples": 2},
    "ig_path": {"prompt": TOKENS, "alphas": [0.5, 1.0]},
    "total_information": {"prompt": TOKENS, "n_samples": 4, "rank": 2},
    "patch_top": {"clean": TOKENS, "corrupt": GOOD["corrupt"], "k": 2, "layers": [0], "n_random": 2},
    "substitutions": {"k": 2},
    "verdict": {"n_random": 3},
    "verify": {"fractions": [0.5], "top": 2},
    "aopc_from_deltas": {"deltas": [[-1.0, -2.0]], "fractions": [0.25, 0.5]},
    "load_aopc": {},
    "explain_file": {"source": "prompts.csv", "methods": ["random"], "columns": {"prompt": "text"}},
    "load_run": {},
    "run_report": {},
    "load_model": {"name": "demo"},
    "load_passages": {"source": "demo", "n": 2},
    "sae_feature": {"feature": 1},
    "forecast_scope": {"series": NUMBERS},
    "rolling_forecast": {"series": NUMBERS, "first": 10},
    "encode": {"series": NUMBERS},
    "gaussian_check": {"numbers": [10.0, 20.0, 30.0, 40.0], "logits": [1.0, 3.0, 2.0, 0.0], "beta": 2.0},
    "parroting_test": {"numbers": NUMBERS, "influence": NUMBERS, "dimension": 2},
    "recency_profile": {"influence": NUMBERS},
    "read_column": {},
    **{name: {"length": 5} for name in FUNCTIONS if "length" in inspect.signature(FUNCTIONS[name]).parameters},
}
"""A call of each function that is quick and right; the model, an attribution and files are added."""
TOGETHER: dict[str, dict[str, Any]] = {
    "foil": {"methods": ["contrast"], "method": "contrast", "target": 61, "positions": [2]},
    "target": {"methods": ["semantic"], "method": "semantic"},
    "rank": {"methods": ["fisher"], "method": "fisher"},
    "tol": {"methods": ["fisher"], "method": "fisher"},
    "n_samples": {"methods": ["total_information"], "method": "total_information"},
    "seed": {"methods": ["total_information"], "method": "total_information"},
    "moment": {"methods": ["moment"], "method": "moment"},
    "values": {"methods": ["moment"], "method": "moment"},
    "direction": {"methods": ["jacobian"], "method": "jacobian"},
    "target_hook": {"method": "jacobian", "direction": PLAIN},
    "kind": {"method": "temperature"},
}
"""What a keyword of one of the scopes needs beside it, in calls that choose the scope by name."""
CHOOSES = {
    "chain",
    "scopes",
    "attribution_matrix",
    "layer_influence",
    "head_influence",
    "split",
    "attention_sinks",
    "positional_baseline",
}
GOOD_HERE: dict[tuple[str, str], Any] = {
    ("total_information", "method"): "exact", ("sae_feature", "kind"): "decoder", ("load_model", "kind"): "bridge",
    ("aopc", "target"): "argmax", ("gold_alignment", "methods"): ["fisher", "random"],
    ("forecast_scope", "methods"): ["fisher", "semantic"], ("aopc", "methods"): ["semantic", "random"],
    ("gaussian_check", "numbers"): [10.0, 20.0, 30.0, 40.0], ("gaussian_check", "logits"): [1.0, 3.0, 2.0, 0.0],
    ("jacobian_scope", "at"): "hook_embed", ("head_influence", "target_hook"): "blocks.1.hook_resid_post",
    ("geometric_brownian_motion", "sigma"): 0.25, ("lorenz", "sigma"): 9.0,
}  # fmt: skip


@pytest.fixture
def plain(demo_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Any]]:
    """The right arguments of a call in which one argument is going to be another."""
    attribution = _attribution(demo_model)
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "a.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / "prompts.csv").write_text("text\n29\n61\n29\n")
    width = torch.eye(4)
    sae = SimpleNamespace(W_enc=width, W_dec=width, cfg=SimpleNamespace(hook_name="blocks.0.hook_resid_post"))
    own = {
        "model": demo_model,
        "attribution": attribution,
        "chain": _chain(demo_model),
        "sae": sae,
        "path": str(folder / "a.csv"),
        "folder": str(folder),
    }

    numbers = itertools.count()

    def arguments(name: str, argument: str) -> dict[str, Any]:
        parameters = inspect.signature(FUNCTIONS[name]).parameters
        needed = {k: v for k, v in own.items() if k in parameters}
        beside = TOGETHER.get(argument, {}) if name in CHOOSES else {}
        if name in ("load_run", "run_report"):
            needed["folder"] = _run(demo_model, folder)
        if name == "explain_file":
            needed["out"] = f"run-{next(numbers)}"
        return {**needed, **BASES[name], **{k: v for k, v in beside.items() if k in parameters}}

    return arguments


@lru_cache
def _run(model: Any, folder: Path) -> str:
    """A small run, to be read."""
    tls.explain_file(model, folder / "prompts.csv", folder / "run", ["random"], columns={"prompt": "text"})
    return str(folder / "run")


@lru_cache
def _attribution(model: Any) -> Any:
    return tls.semantic_scope(model, TOKENS, target=61)


@lru_cache
def _chain(model: Any) -> Any:
    return tls.chain(model, (TOKENS, "29,61"), units="word")


@lru_cache
def cases(name: str) -> list[Case]:
    function, found = FUNCTIONS[name], []
    types = argument_types(inspect.unwrap(function))
    for argument in inspect.signature(function).parameters:
        if (name, argument) in {("load_model", "kwargs")}:
            continue
        good = GOOD_HERE.get((name, argument), GOOD.get(argument))
        kind = OTHERWISE.get((name, argument), ARGUMENTS[argument])
        made = kind(good) if argument not in ("path", "folder", "out") else kind("nowhere")
        hint = types[argument]
        if typing.get_origin(hint) is typing.Annotated:
            hint = typing.get_args(hint)[0]
        optional = hint is Any or type(None) in typing.get_args(hint)
        found += kinds.interesting([(argument, made)], frozenset({argument} if optional else ()))
    return found


def test_every_argument_of_every_public_function_has_an_entry() -> None:
    missing = set(FUNCTIONS) - set(BASES)
    assert not missing, f"functions without a right call: {missing}"
    assert set(BASES) <= set(FUNCTIONS)
    for name in FUNCTIONS:
        assert len(cases(name)) > 10, name
    assert sum(min(len(cases(name)), SLOW.get(name, EXAMPLES)) for name in FUNCTIONS) >= 4000


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"load_model"}))
def test_a_few_calls_answer_or_refuse_in_their_own_words(name: str, plain: Any, monkeypatch: Any) -> None:
    fuzz(name, plain, monkeypatch, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_call_answers_or_refuses_in_its_own_words(name: str, plain: Any, monkeypatch: Any) -> None:
    fuzz(name, plain, monkeypatch, SLOW.get(name, EXAMPLES))


def fuzz(name: str, plain: Callable[[str, str], dict[str, Any]], monkeypatch: Any, examples: int) -> None:
    monkeypatch.chdir(Path(plain("load_aopc", "")["folder"]))  # where a path that is taken may write
    runs: list[int] = []
    model_class = type(plain(name, "").get("model", torch.nn.Identity()))
    forward = model_class.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(model_class, "forward", counted)
    monkeypatch.setattr(run_windows.time, "perf_counter", lambda: 0.0)
    known: dict[tuple[str, str], Any] = {}

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(cases(name)))
    def one(case: Case) -> None:
        arguments = plain(name, case.argument)
        value = case.make()
        before = random_states()
        runs.clear()
        result, error = outcome(FUNCTIONS[name], {**arguments, case.argument: value})
        assert random_states() == before, "a random state was moved"
        what = f"{name}({case.argument}={value!r})"
        if error is not None:
            assert case.outcome in (REFUSED, EITHER), f"{what} was refused: {error}"
            refusal_in_its_own_words(what, error, case)
            assert case.outcome == EITHER or not runs or case.argument in AFTER_A_RUN, f"{what}: refused after a run"
            return
        assert case.outcome != REFUSED, f"{what} was taken, and gave {result!r}"
        if isinstance(case.outcome, Twin):
            key = (case.argument, repr(case.outcome.plain))
            if key not in known:
                known[key] = FUNCTIONS[name](**{**arguments, case.argument: case.outcome.plain})
            assert same(result, known[key]), f"{what} is not what {case.outcome.plain!r} gives"

    one()


AFTER_A_RUN = {"direction", "baseline", "cache", "foil", "metric", "methods", "corrupt"}
"""Arguments of which some wrong values can only be told from what a run gives."""


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, Exception | None]:
    try:
        return function(**arguments), None
    except (ValueError, TypeError, NotImplementedError) as error:
        return None, error


def refusal_in_its_own_words(what: str, error: Exception, case: Case) -> None:
    """By the package's own `raise`, after the name of a call, and naming the argument where its kind is wrong."""
    message = str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    own = f"{Path(tls.__file__).parent}" in frame.filename and "raise" in (frame.line or "")
    assert own, f"{what}: {frame.filename}:{frame.lineno} raised {type(error).__name__}: {message}"
    head = message.partition("(")[0].partition(":")[0]
    assert head in FUNCTIONS, f"{what}: {message}"
    assert case.outcome == EITHER or case.argument in message, f"{what}: {message}"


# -- what is compared --------------------------------------------------------------------------------


def random_states() -> tuple[Any, ...]:
    _, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), keys.tobytes(), position, tuple(rest), random.getstate()


def same(a: Any, b: Any) -> bool:
    """Bit for bit, whatever it is made of."""
    if isinstance(a, torch.nn.Module) or callable(a):
        return type(a) is type(b)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and same(a.detach().numpy(), b.detach().numpy())
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, Mapping) or type(a).__name__ == "ActivationCache":
        return list(a.keys()) == list(b.keys()) and all(same(a[k], b[k]) for k in a.keys())  # noqa: SIM118
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)
