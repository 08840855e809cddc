"""A record whose fields fit each other: named axes of its arrays agree, and so do the lists and indices along them.

Axes are those of the type hints: with ``scores: Float[Tensor, "target pos"]`` and ``tokens: Int[Tensor, " pos"]``, both
have as many columns and entries. A class says the rest by field:

    _along    {"str_tokens": "pos"}     one entry per entry of an axis; ``"pos?"`` allows none at all
    _within   {"hidden": "pos"}         an index into an axis, or several, in whatever containers
    _finite   ("scores",)               no NaN or infinity
    _at_least {"scores": 0}             no number below
    _shared   ("attribution",)          a record whose axes are this one's too
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from torch import Tensor

from tl_scopes.numerics.annotations import field_types


class Checked:
    """Refuses, when it is made, fields that do not fit each other."""

    _along: ClassVar[Mapping[str, str]] = {}
    _within: ClassVar[Mapping[str, str]] = {}
    _finite: ClassVar[tuple[str, ...]] = ()
    _at_least: ClassVar[Mapping[str, int]] = {}
    _shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        sizes, said_by = self._axes()
        for name, axis in self._along.items():
            entries = getattr(self, name)
            if entries is not None and not (axis.endswith("?") and not len(entries)):
                wanted = sizes.get(axis := axis.removesuffix("?"), len(entries))
                fits = wanted == len(entries)
                self.require(fits, name, f"{len(entries)} entries for {wanted} of {axis} ({said_by.get(axis)})")
        for name, axis in self._within.items():
            outside = sorted(i for i in _numbers(getattr(self, name)) if not 0 <= i < sizes[axis])
            self.require(not outside, name, f"{_few(outside)} outside 0..{sizes[axis] - 1}")
        for name in self._finite:
            self.require(all(map(_all_finite, _leaves(getattr(self, name)))), name, "holds NaN or infinity")
        for name, least in self._at_least.items():
            low = [v for v in _leaves(getattr(self, name)) if _any_below(v, least)]
            self.require(not low, name, f"holds numbers below {least}")

    @property
    def axes(self) -> dict[str, int]:
        """Length of each named axis."""
        return self._axes()[0]

    def _axes(self) -> tuple[dict[str, int], dict[str, str]]:
        """Length of each named axis, and the field that says it; refuses arrays that do not agree."""
        sizes: dict[str, int] = {}
        said_by: dict[str, str] = {}
        for name in self._shared:
            sizes |= getattr(self, name).axes
            said_by |= dict.fromkeys(sizes, name)
        kind: Any = type(self)
        for name, dims in _dims(kind).items():
            for array in _leaves(getattr(self, name)):
                shape = tuple(getattr(array, "shape", ()))
                fits = len(shape) == len(dims) and all(
                    size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size))
                    for axis, size in zip(dims, shape, strict=True)
                )
                known = ", ".join(f"{a}={sizes[a]} ({said_by[a]})" if a in sizes and a in said_by else a for a in dims)
                self.require(fits, name, f"shape {list(shape)} does not fit [{known}]")
                said_by = dict.fromkeys(dims, name) | said_by
        return sizes, said_by

    def require(self, holds: bool, name: str, what: str) -> None:
        """Refuse a field that is not so."""
        if not holds:
            raise ValueError(f"{type(self).__name__}: {name}: {what}")


@lru_cache
def _dims(cls: Any) -> dict[str, tuple[str, ...]]:
    """Names of the axes of each field that holds arrays of one rank, or a container of them."""
    found: dict[str, tuple[str, ...]] = {}
    for name, hint in field_types(cls, {"ActivationCache": Any}).items():
        arms = [hint, *get_args(hint)]
        dims = next((tuple(arm.dim_str.split()) for arm in arms if hasattr(arm, "dim_str")), None)
        if dims is not None:
            found[name] = dims
    return found


def _leaves(value: Any) -> Iterator[Any]:
    """Numbers and arrays in a field, whatever holds them."""
    if isinstance(value, Mapping):
        value = value.values()
    elif value is None or isinstance(value, str):
        return
    elif isinstance(value, Tensor | np.ndarray) or not hasattr(value, "__iter__"):
        yield value
        return
    for part in value:
        yield from _leaves(part)


def _numbers(value: Any) -> Iterator[int]:
    return (int(leaf) for leaf in _leaves(value))


def _all_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return bool(np.isfinite(value).all()) if isinstance(value, np.ndarray) else math.isfinite(value)


def _any_below(value: Any, least: int) -> bool:
    return bool((value < least).any()) if isinstance(value, Tensor | np.ndarray) else bool(value < least)


def _few(values: list[int]) -> str:
    return ", ".join(map(str, values[:4])) + (" …" if len(values) > 4 else "")
