"""The door of every public call: its name before errors, and arguments that are checked alike everywhere.

What is raised inside begins with the argument that it is about, ``(rank=0): rank must be in 1..64``, or with the rule itself.
The name of the call that a user typed is put before it here, once: ``fisher_scope(rank=0): rank must be in 1..64``.

The annotations of a public call are its types: before its body runs, each argument is made what its annotation says
(:mod:`tl_scopes.numerics.annotations`), or refused. The body looks at values only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from tl_scopes.numerics.annotations import Count as Count
from tl_scopes.numerics.annotations import Seed as Seed
from tl_scopes.numerics.annotations import argument_types, as_annotated
from tl_scopes.numerics.call_names import NAMED, call_of
from tl_scopes.numerics.values import flag as flag
from tl_scopes.numerics.values import integer as integer
from tl_scopes.numerics.values import number as number

P = ParamSpec("P")
R = TypeVar("R")
_CALL: ContextVar[str | None] = ContextVar("call", default=None)


def public_call(function: Callable[P, R]) -> Callable[P, R]:
    """Marks a function that users call: its arguments are as annotated, and its name stands before the message of an error.

    Of calls inside each other, the one that raised is named.
    """
    plain = function.__qualname__.rpartition("<locals>.")[2]
    signature = inspect.signature(inspect.unwrap(function))
    method = next(iter(signature.parameters), None) == "self"

    @functools.lru_cache(1)
    def types() -> dict[str, Any]:
        return argument_types(inspect.unwrap(function))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # of a method, with the class of its object: the one that a user knows
        outer = _CALL.set(f"{type(args[0]).__name__}.{function.__name__}" if method and args else plain)
        try:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own words for a call that does not fit
            as_annotated(given.arguments, types())
            return function(*given.args, **given.kwargs)
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
    if name is not None and own and call_of(error) is None:
        message = str(error)
        if not message.startswith(f"{name}("):
            error.args = (f"{name}{message}" if message.startswith("(") else f"{name}: {message}",)
        setattr(error, NAMED, name)
    return error
