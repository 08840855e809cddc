"""What an argument may be, checked alike everywhere: whole numbers, numbers, truth values, names, dense tensors.

A wrong type is a ``TypeError``, a wrong value a ``ValueError``; both begin with the argument, ``(rank=0.5): …``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.precision import to_float64

LONGEST = 80
"""Characters of a value that an error quotes."""

META = torch.device("meta")
"""Where tensors have no numbers."""


def integer(argument: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """The whole number, of whatever type, a tensor of no dimension included; a bool or a float is none.

    Raises:
        TypeError: not an integer.
        ValueError: outside ``least``..``most``.
    """
    try:
        number = operator.index(value) if _is_scalar(value) else None
    except TypeError:
        number = None
    kind = "a positive integer" if least == 1 and most is None else "an integer"
    if number is None:
        raise TypeError(f"({argument}={shown(value)}): expected {kind}")
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = [] if least is None else [f"at least {least}"]
        bounds += [] if most is None else [f"at most {most}"]
        limits = "" if kind == "a positive integer" else f" of {' and '.join(bounds)}"
        raise ValueError(f"({argument}={shown(value)}): expected {kind}{limits}")
    return number


def number(argument: str, value: Any) -> float:
    """The finite number, of whatever type; a bool, a text or an array is none.

    Raises:
        TypeError: not a number.
        ValueError: NaN, infinite, or beyond what a float holds.
    """
    real = hasattr(value, "__float__") and not isinstance(value, str | bytes | complex | np.complexfloating)
    if isinstance(value, Tensor) and value.is_complex():
        real = False
    try:
        found = float(value) if real and _is_scalar(value) else None
    except OverflowError:
        found = math.inf
    except (TypeError, ValueError):
        found = None
    if found is None:
        raise TypeError(f"({argument}={shown(value)}): expected a number")
    if not math.isfinite(found):
        raise ValueError(f"({argument}={shown(value)}): expected a finite number")
    return found


def flag(argument: str, value: Any) -> bool:
    """The truth value; nothing else stands for one.

    Raises:
        TypeError: neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"({argument}={shown(value)}): expected True or False")
    return bool(value)


def choice(argument: str, value: Any, names: Iterable[Any]) -> None:
    """Refuse what is not one of the names.

    Raises:
        TypeError: a value that could be no name.
        ValueError: another name.
    """
    known = tuple(names)
    if not any(value is name or (isinstance(value, str) and value == name) for name in known):
        *first, last = map(repr, known)
        expected = f"{', '.join(first)} or {last}" if first else last
        kind = ValueError if isinstance(value, str) or value is None else TypeError
        raise kind(f"({argument}={shown(value)}): expected {expected}")


def dense(argument: str, value: Tensor) -> Tensor:
    """The tensor, which must hold its numbers.

    Raises:
        TypeError: a sparse, nested, quantised or meta tensor.
    """
    kind = (
        "meta" if value.device == META else "nested" if value.is_nested else "quantised" if value.is_quantized else ""
    )
    if not kind and value.layout != torch.strided:
        kind = "sparse"
    if kind:
        raise TypeError(f"({argument}=...): expected a dense tensor that holds its numbers, got a {kind} one")
    return value


def vector(argument: str, value: Any) -> Float[np.ndarray, " n"]:
    """The finite numbers of a list, an array or a tensor of one dimension, as float64.

    Raises:
        TypeError: not numbers.
        ValueError: another number of dimensions; NaN or infinity.
    """
    if isinstance(value, Tensor):
        value = dense(argument, value).detach().cpu()
        value = to_float64(value) if value.is_floating_point() else value
    try:
        found = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"({argument}={shown(value)}): expected one-dimensional numbers ({error})") from error
    if found.dtype.kind not in "iuf":
        raise TypeError(f"({argument}={shown(value)}): expected one-dimensional numbers")
    if found.ndim != 1:
        raise ValueError(f"({argument}=array of shape {list(found.shape)}): expected one-dimensional numbers")
    if not np.isfinite(found).all():
        raise ValueError(f"({argument}=...): holds NaN or infinity")
    return found.astype(np.float64)


def shown(value: Any) -> str:
    """A value as errors quote it: short, and of arrays the shape."""
    if isinstance(value, Tensor | np.ndarray) and (
        value.ndim > 0 or (isinstance(value, Tensor) and value.device == META)
    ):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        return f"{kind} of shape {list(value.shape)} and {str(value.dtype).removeprefix('torch.')}"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _is_scalar(value: Any) -> bool:
    """Is it one thing, with a value, and no truth value?"""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype != torch.bool and value.device != META and value.layout == torch.strided
    if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == np.bool_:
        return False
    return getattr(value, "ndim", 0) == 0
