"""The door of every public call: its name before errors, and arguments that are checked alike everywhere.

What is raised inside begins with the argument that it is about, ``(rank=0): rank must be in 1..64``, or with the rule itself.
The name of the call that a user typed is put before it here, once: ``fisher_scope(rank=0): rank must be in 1..64``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_CALL: ContextVar[str | None] = ContextVar("call", default=None)
_NAMED = "_tl_scopes_call"
"""Attribute of an error whose message already has the name of its call."""


def public_call(function: Callable[P, R]) -> Callable[P, R]:
    """Marks a function that users call: its name stands before the message of an error that it raises.

    Of calls inside each other, the one that raised is named.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        outer = _CALL.set(function.__name__)
        try:
            return function(*args, **kwargs)
        except (ValueError, TypeError, NotImplementedError) as error:
            name_call(error)
            raise
        finally:
            _CALL.reset(outer)

    return call


def call_name() -> str | None:
    """Name of the public call that is running, e.g. for a progress bar."""
    return _CALL.get()


def name_call(error: Exception) -> Exception:
    """Put the running call's name before an error's message, unless it has one; other libraries' own classes stay."""
    name = call_name()
    own = type(error) in (ValueError, TypeError, NotImplementedError) and len(error.args) == 1
    if name is not None and own and not hasattr(error, _NAMED):
        message = str(error)
        if not message.startswith(f"{name}("):
            error.args = (f"{name}{message}" if message.startswith("(") else f"{name}: {message}",)
        setattr(error, _NAMED, name)
    return error


def integer(argument: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """The whole number, of whatever type; a bool or a float is none.

    Raises:
        TypeError: not an integer.
        ValueError: outside ``least``..``most``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    kind = "a positive integer" if least == 1 and most is None else "an integer"
    if number is None or isinstance(value, bool):
        raise TypeError(f"({argument}={value!r}): expected {kind}")
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = [] if least is None else [f"at least {least}"]
        bounds += [] if most is None else [f"at most {most}"]
        limits = "" if kind == "a positive integer" else f" of {' and '.join(bounds)}"
        raise ValueError(f"({argument}={value!r}): expected {kind}{limits}")
    return number


def choice(argument: str, value: Any, names: Iterable[Any]) -> None:
    """Refuse what is not one of the names.

    Raises:
        ValueError: another value.
    """
    known = tuple(names)
    if not any(value is name or (isinstance(value, str) and value == name) for name in known):
        expected = " or ".join(map(repr, known)) if len(known) == 2 else f"one of {known}"
        raise ValueError(f"({argument}={value!r}): expected {expected}")
