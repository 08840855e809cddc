"""Invariant: what a caller gives a public call becomes what its annotation says, or is refused by the argument's name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import arguments as kinds
import numpy as np
import pytest
import torch
from samples import attribution, matrix
from torch import Tensor

import tl_scopes as tls
from tl_scopes.numerics.annotations import argument_types
from tl_scopes.numerics.arguments import Seed, public_call
from tl_scopes.numerics.values import flag, number, vector

pytestmark = [pytest.mark.one_lens, pytest.mark.usefixtures("unchecked")]


@public_call
def takes(
    whole: int = 0,
    real: float = 0.0,
    yes: bool = False,
    word: str = "",
    kind: Literal["a", "b"] | None = None,
    several: int | Sequence[int] = 0,
    names: Sequence[str] = (),
    either: Sequence[int] | Sequence[str] = (),
    pair: tuple[float, float] | None = None,
    values: Mapping[int, float] | None = None,
    rows: Tensor | None = None,
    file: str | Path = "",
    call: Callable[[int], int] | None = None,
    seed: Seed | None = None,
    grid: Iterable[float] = (),
    anything: Any = None,
) -> dict[str, Any]:
    return dict(locals())


TAKEN = [
    ("whole", np.int64(3), 3),
    ("whole", torch.tensor(3), 3),
    ("real", np.float32(0.5), 0.5),
    ("real", 2, 2.0),
    ("yes", np.bool_(True), True),
    ("word", np.str_("x"), "x"),
    ("kind", "b", "b"),
    ("several", np.arange(2), [0, 1]),
    ("several", torch.tensor([2]), [2]),
    ("several", range(2), [0, 1]),
    ("names", np.array(["a", "b"]), ["a", "b"]),
    ("names", {"a": 1}.keys(), ["a"]),
    ("pair", [1, 2], (1.0, 2.0)),
    ("values", {np.int64(1): 2}, {1: 2.0}),
    ("file", Path("x"), Path("x")),
    ("seed", np.uint64(7), 7),
    ("grid", (v for v in (1, 2)), [1.0, 2.0]),
]
REFUSED = [
    ("whole", 3.0, TypeError, "expected an integer"),
    ("whole", True, TypeError, "expected an integer"),
    ("whole", torch.tensor([3]), TypeError, "expected an integer"),
    ("whole", torch.tensor(True), TypeError, "expected an integer"),
    ("whole", torch.tensor(5.7), TypeError, "expected an integer"),
    ("real", "0.5", TypeError, "expected a number"),
    ("real", float("nan"), ValueError, "expected a finite number"),
    ("real", 10**400, ValueError, "expected a finite number"),
    ("yes", 1, TypeError, "expected True or False"),
    ("yes", "no", TypeError, "expected True or False"),
    ("word", None, TypeError, "expected a string"),
    ("kind", "c", ValueError, "expected 'a', 'b' or None"),
    ("kind", 3, TypeError, "expected 'a', 'b' or None"),
    ("several", 1.5, TypeError, "expected an integer or a list of integers"),
    ("several", [1, 1.5], TypeError, r"several\[1\]=1.5\): expected an integer"),
    ("either", ["a", 5], TypeError, r"either\[1\]=5\): expected a string"),
    ("either", [5, "a"], TypeError, r"either\[1\]='a'\): expected an integer"),
    ("names", "abc", TypeError, "expected a list of strings"),
    ("names", {"a"}, TypeError, "expected a list of strings, got set"),
    ("pair", [1.0], ValueError, "expected 2 items, got 1"),
    ("values", {1.5: 2.0}, TypeError, "values=1.5"),
    ("values", {1: True}, TypeError, r"values\[1\]=True"),
    ("rows", torch.ones(2, device="meta"), TypeError, "got a meta one"),
    ("rows", torch.eye(2).to_sparse(), TypeError, "got a sparse one"),
    ("rows", [1.0], TypeError, "expected a tensor or None, got list"),
    ("file", "a\0", ValueError, "null"),
    ("call", 3, TypeError, "expected a function or None"),
    ("seed", -1, ValueError, "at least 0"),
    ("seed", 2**63, ValueError, "at most"),
]


@pytest.mark.parametrize(("argument", "value", "plain"), TAKEN)
def test_what_stands_for_a_value_becomes_it(argument: str, value: Any, plain: Any) -> None:
    found = takes(**{argument: value})[argument]
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(("argument", "value", "error", "message"), REFUSED)
def test_another_kind_is_refused_by_the_arguments_name(
    argument: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        takes(**{argument: value})
    assert str(caught.value).startswith(f"takes({argument}")


def test_a_tuple_stays_a_tuple_and_anything_is_left_alone() -> None:
    assert takes(several=(1, 2))["several"] == (1, 2)
    thing = object()
    assert takes(anything=thing)["anything"] is thing


def test_every_public_function_has_annotations_that_are_understood() -> None:
    for name, function in kinds.FUNCTIONS.items():
        known = argument_types(inspect.unwrap(function))
        shown = set(inspect.signature(function).parameters) - {"kwargs"}
        assert shown == set(known), name


def test_values_by_themselves() -> None:
    assert number("x", torch.tensor(0.5)) == 0.5
    assert flag("x", np.bool_(False)) is False
    assert vector("x", torch.tensor([1.0, 2.0], dtype=torch.bfloat16)).tolist() == [1.0, 2.0]
    for wrong, error in (
        ("ab", TypeError),
        ([[1.0]], ValueError),
        ([1.0, float("nan")], ValueError),
        ({1.0}, TypeError),
    ):
        with pytest.raises(error, match=r"^\(x="):
            vector("x", wrong)


def test_methods_of_results_are_calls_too() -> None:
    one, table = attribution(), matrix()
    assert one.top(np.int64(2)) == one.top(2)
    assert one.without(np.array([1])).hidden == one.without([1]).hidden
    assert table.row(torch.tensor(1)).pos == table.row(1).pos
    for call in (lambda: one.top(2.5), lambda: one.top(True), lambda: one.without([1.5]), lambda: table.row(1.0)):
        with pytest.raises(TypeError, match=r"^(Attribution|AttributionMatrix)\.\w+\(\w+.*expected an integer"):
            call()
    with pytest.raises(
        ValueError, match=r"^Attribution\.without\(tokens='sink'\): expected 'special', 'sinks', 'nothing' or a list"
    ):
        one.without("sink")


def test_an_all_zero_direction_is_said_in_the_result(demo_model: Any) -> None:
    tokens, width = torch.tensor([1, 60, 5]), demo_model.cfg.d_model
    zero = tls.jacobian_scope(demo_model, tokens, direction=torch.zeros(width))
    assert any("all zero" in note for note in zero.notes)
    rows = torch.eye(width)[:3] * torch.tensor([1.0, 0.0, 1.0])[:, None]
    assert any(
        "Rows [1] of the direction are all zero" in n
        for n in tls.jacobian_scope(demo_model, tokens, direction=rows).notes
    )
    assert not tls.jacobian_scope(demo_model, tokens, direction=rows[0]).notes
