"""What the fuzz test of arguments gives every public call: kinds of arguments, and for each kind what is to come of it.

A case is a value and what it must come to: ``Twin(plain)``: the very result of ``plain``; ``REFUSED``: an error in the
call's own words before the model runs; ``EITHER``: such an error or a result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import tl_scopes as tls
from tl_scopes import timeseries

REFUSED, EITHER = "refused", "either"
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: function
    for module in (tls, timeseries)
    for name in module.__all__
    if inspect.isroutine(function := getattr(module, name)) or hasattr(function, "__wrapped__")
}
TEXT = "29,61,40,"
"""Six tokens of the demo model."""
NUMBERS = [29.0, 61.0, 40.0, 73.0, 55.0, 29.0, 61.0, 40.0, 73.0, 55.0] * 2


@dataclass(frozen=True)
class Twin:
    """Must give what ``plain`` gives."""

    plain: Any


@dataclass(frozen=True)
class Case:
    """One value of one argument; made anew for each call, so that generators are fresh."""

    argument: str
    label: str
    make: Callable[[], Any]
    outcome: Any


class Thing:
    """Nothing that any call knows."""


def given(*values: Any) -> list[Callable[[], Any]]:
    return [lambda v=v: v for v in values]  # type: ignore[misc]


def sparse(n: int = 3) -> torch.Tensor:
    return torch.eye(n).to_sparse()


META = torch.ones(3, device="meta")
JUNK = given(Thing(), 1j, b"x", NotImplemented)
"""Taken by no kind."""

# -- kinds: (good plain values) -> cases -------------------------------------------------------------
Cases = list[tuple[Callable[[], Any], Any]]


def refused(*values: Any) -> Cases:
    return [(make, REFUSED) for make in (*given(*values), *JUNK)]


def either(*values: Any) -> Cases:
    return [(make, EITHER) for make in given(*values)]


def integer(good: int) -> Cases:
    twins = (np.int64(good), np.uint64(good), torch.tensor(good), np.array(good))
    floats = (float(good), np.float32(good), torch.tensor(float(good)), float("nan"), float("inf"), Decimal(good))
    others = (True, np.bool_(True), torch.tensor(True), str(good), {}, META, torch.tensor(good, device="meta"))
    return [
        *((make, Twin(good)) for make in given(*twins)),
        *refused(*floats, *others),
        *either(-5, -1, 0, 1, 10**30, -(10**30)),
    ]


def count(good: int) -> Cases:
    """An integer that the work grows with."""
    return [case for case in integer(good) if case[1] != EITHER] + either(-5, -1, 0, 1, -(10**30))


def one_position(good: int) -> Cases:
    """Of a call that explains one position of a prompt."""
    return [*integer(good), *refused([1.0], [True], {good}, {good: 1}, str(good), [None], [good], (good,))]


def position(good: int) -> Cases:
    lists = [([good], Twin([good])), ((np.int64(good),), Twin([good])), (torch.tensor([good]), Twin([good]))]
    bad = ([1.0], [True], {good}, {good: 1}, str(good), torch.tensor([1.5]), [None])
    return [*integer(good), *((make, o) for v, o in lists for make in given(v)), *refused(*bad)]


def seed(good: int) -> Cases:
    return [*integer(good), *refused(-1, 2**63, 10**40, "0", [0]), *either(2**63 - 1, 2**32)]


def flag(good: bool) -> Cases:
    wrong = (0, 1, 1.0, "no", "False", [], (), np.int64(1), torch.tensor(True), torch.tensor(1), float("nan"))
    return [*((make, Twin(good)) for make in given(np.bool_(good))), *refused(*wrong)]


def number(good: float) -> Cases:
    twins = (np.float64(good), torch.tensor(good, dtype=torch.float64), np.array(good))
    wrong = (True, np.bool_(False), str(good), [good], torch.tensor(True), torch.ones(2), META, torch.tensor(1j), {})
    return [
        *((make, Twin(good)) for make in given(*twins)),
        *refused(
            *wrong, float("nan"), float("inf"), -float("inf"), np.float32("nan"), torch.tensor(float("nan")), 10**400
        ),
        *either(-1.0, 0.0, 1, 1e-300, 0.5, np.int64(1), -1e30),
    ]


def numbers(good: list[float]) -> Cases:
    twins = [tuple(good), np.array(good), torch.tensor(good, dtype=torch.float64), [np.float64(v) for v in good]]
    wrong = (
        "0.1",
        0.5,
        set(good),
        dict.fromkeys(good),
        [*good, "1"],
        [*good, True],
        [*good, float("nan")],
        [good],
        True,
    )
    return [
        *((make, Twin(good)) for make in given(*twins)),
        (lambda: (v for v in good), Twin(good)),
        *refused(*wrong, [None], torch.ones(2, 2), META, sparse(), torch.ones(2, dtype=torch.bool)),
        *either([], good[::-1], [-1.0, 0.5], [0.5], [1e300, 2e300]),
    ]


def integers(good: list[int]) -> Cases:
    twins = [
        tuple(good),
        np.array(good),
        torch.tensor(good),
        [np.int64(v) for v in good],
        [torch.tensor(v) for v in good],
    ]
    wrong = (
        str(good),
        set(good),
        dict.fromkeys(good),
        [float(v) for v in good],
        [True],
        torch.tensor([0.5]),
        1.5,
        True,
    )
    return [
        *((make, Twin(good)) for make in given(*twins)),
        (lambda: (v for v in good), Twin(good)),
        *refused(*wrong, np.array([0.5]), torch.tensor([True]), META, [None], [good], ["0"]),
        *either([], good + good, [-1], [10**30], [-(10**30)]),
    ]


def name(good: str) -> Cases:
    wrong = (3, True, 1.5, [good], {good}, {}, torch.tensor(1), "nonsense", good.encode(), np.array([good]))
    return [*((make, Twin(good)) for make in given(np.str_(good))), *refused(*wrong), *either("", "\0", good + " ")]


def names(good: list[str]) -> Cases:
    wrong = (5, True, set(good), dict.fromkeys(good, 1), [*good, 3], [good], ["nonsense"], [*good, None])
    return [
        *((make, Twin(good)) for make in given(tuple(good), np.array(good))),
        (lambda: iter(good), Twin(good)),
        *refused(*wrong, torch.tensor([1]), 1.5),
        *either([], good + good, good[0]),
    ]


def hooks(good: str) -> Cases:
    taken = [(iter_, Twin([good])) for iter_ in (lambda: (good,), lambda: iter([good]))]
    return [*taken, *refused(5, 1.5, {good}, [3], [None], torch.tensor(1), "nowhere", ["nowhere"]), *either([])]


def token(good: int) -> Cases:
    twins = (np.int64(good), torch.tensor(good), [np.int64(good)], torch.tensor([good]), np.array([good]), (good,))
    wrong = (5.7, torch.tensor(5.7), torch.tensor(True), True, np.float64(good), {good}, {good: 1}, [5.7], [True], META)
    return [
        *((make, Twin(good)) for make in given(*twins)),
        *refused(*wrong, float("nan"), torch.tensor([0.5]), torch.tensor(good, device="meta"), [[good]], Decimal(good)),
        *refused(-1, 10**30, " two words of it", "", [good, good], []),
    ]


def answer(good: int) -> Cases:
    """Of a call that explains a text of several tokens as a whole."""
    several = " two words of it"
    rest = [case for case in token(good) if not isinstance(case[0](), str) or case[0]() != several]
    return [*rest, *either(several)]


def tokens(good: torch.Tensor) -> Cases:
    wrong = (5, {}, {"a"}, True, good.float(), good.bool(), META, good.to("meta"), good.to_sparse(), 1.5)
    return [
        *((make, Twin(good)) for make in given(good[None], good.int(), good.clone().repeat(2)[: len(good)])),
        *((make, Twin(good)) for make in given(good.tolist(), tuple(good.tolist()), good.numpy(), good[None].numpy())),
        *refused(good.double().numpy(), [*good.tolist(), 1.5], [True, False], [10**6], [-1], good.numpy().astype(str)),
        *refused(
            *wrong, "", good[:0], good.reshape(2, -1, 1), torch.tensor(3), -good, good + 10**6, good.to(torch.complex64)
        ),
    ]


def prompts(good: torch.Tensor) -> Cases:
    lists = refused([], [5, None], [None], [good.float()], [good.to("meta")], [good, 1.5], [[good]], [""], {TEXT})
    return [*tokens(good), *lists, *either([TEXT, good])]


def passages(good: list[torch.Tensor]) -> Cases:
    wrong = (5, None, TEXT, good[0], {}, {TEXT}, [], [5], [None], [good[0].to("meta")], [good[0].to_sparse()], 1.5)
    return [
        (lambda: tuple(good), Twin(good)),
        (lambda: iter(good), Twin(good)),
        *refused(*wrong),
        *either([""], [TEXT, good[0]]),
    ]


def direction(good: torch.Tensor) -> Cases:
    wrong = (good.numpy(), good.tolist(), "x", good.long(), good.bool(), good.to("meta"), good.to_sparse(), 1.0, True)
    bad = (good * float("nan"), good[:0], torch.tensor(1.0), good.to(torch.complex64), {}, set())
    return [
        *((make, Twin(good)) for make in given(good.clone().requires_grad_(), good.repeat(2)[: len(good)])),
        *refused(*wrong, *bad),
        *either(
            good[:3], good[None], good[None, None], torch.zeros_like(good), good.half(), good * 1e30, good.double()
        ),
    ]


def baseline(good: torch.Tensor) -> Cases:
    """Of any shape that broadcasts; integers are ids of another prompt."""
    return [case for case in direction(good) if not (case[1] == REFUSED and _means_something(case[0]()))] + refused(
        good[:3], "ones", good[:3].long()
    )


def _means_something(value: Any) -> bool:
    """A number for all rows, or ids."""
    if not isinstance(value, torch.Tensor):
        return False
    return value.ndim == 0 or not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def mapping(good: dict[int, float]) -> Cases:
    twins = ({np.int64(k): np.float32(v) for k, v in good.items()}, {k: int(v) for k, v in good.items()})
    wrong = ([1, 2], {"a": 1.0}, {1.5: 2.0}, {1: "x", 2: 1}, {1: True, 2: 2.0}, {True: 1.0, 2: 2.0}, 5, "x", {1: None})
    return [
        *((make, Twin(good)) for make in given(*twins)),
        *refused(
            *wrong, {1: float("nan"), 2: 1.0}, {}, {1: 1.0}, {-1: 1.0, 2: 2.0}, {10**9: 1.0, 2: 2.0}, torch.ones(2)
        ),
    ]


def vector(good: list[float]) -> Cases:
    twins = (np.array(good), tuple(good), torch.tensor(good, dtype=torch.float64), torch.tensor(good).requires_grad_())
    wrong = (
        "abc",
        5.0,
        {},
        set(good),
        [*good, None],
        [*good, float("nan")],
        [good, good[:1]],
        [[good]],
        META,
        sparse(),
    )
    return [
        *((make, Twin(good)) for make in given(*twins)),
        *refused(*wrong, ["a"] * len(good), [1j] * len(good)),
        *either([]),
    ]


def file(good: str) -> Cases:
    return [*refused(5, True, 1.5, [good], {good}, {}), *either("nowhere/at/all", Path(good), "", "\0")]


def one_of(*values: Any) -> Cases:
    """Things of one class only, named by the caller's own refusals."""
    return refused(5, True, 1.5, "x", [], {}, torch.ones(2), torch.nn.Identity(), *values)


def function(good: Callable[..., Any]) -> Cases:
    return [
        *refused(5, True, "f", [good], {}),
        *either(lambda *a, **k: None, lambda *a, **k: "x", lambda *a, **k: torch.ones(2)),
    ]


def sae(good: Any) -> Cases:
    part = SimpleNamespace(W_enc=torch.eye(3), W_dec=None, cfg=None)
    return one_of(part, SimpleNamespace(W_enc=torch.eye(3), W_dec=torch.eye(3), cfg=SimpleNamespace()))


def nested(good: list[list[list[int]]]) -> Cases:
    return [
        (lambda: tuple(tuple(map(tuple, g)) for g in good), Twin(good)),
        *refused(5, "x", [1], [[1]], [[[0.5]]], [[["0"]]], {}, set(), [], [[], []], torch.ones(2)),
    ]


def interesting(values: Iterable[tuple[str, Cases]], optional: frozenset[str]) -> list[Case]:
    """The cases of each argument; None is refused where the annotation has no None."""
    found = []
    for argument, cases in values:
        none = EITHER if argument in optional else REFUSED
        for make, outcome in [*cases, (lambda: None, none)]:
            found.append(Case(argument, "", make, outcome))
    return found
