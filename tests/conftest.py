"""What every test runs under: the package's types are checked, and `support/invariants.py` holds.

A process that only hands tests to others (`-n`) imports neither the package nor a model library.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable
from types import FunctionType
from typing import Any
from unittest import mock

import jaxtyping
import pytest
import rich.style  # noqa: F401  # draws a random number when it is first imported: here, not in a test
from jaxtyping import install_import_hook

with mock.patch("random.getrandbits", random.Random(0).getrandbits):
    # beartype draws which item of a list it checks: from a generator of its own, so that a seed taken from the
    # global one by the code under test does not go unnoticed.
    import beartype._util.kind.integer.utilintget

_checked = jaxtyping.jaxtyped
_TYPE_ERRORS = beartype.BeartypeConf(violation_type=TypeError)


def _read(annotation: Any, names: dict[str, Any]) -> Any:
    """The annotation that stands as text; anything goes where it names what is not there yet, or for mypy alone."""
    try:
        return eval(annotation, names)
    except Exception:
        return Any


def _checked_as_it_needs(*, typechecker: Any) -> Callable[[Any], Any]:
    """The import hook's decorator, but not for functions inside functions, which would be compiled anew in every call; and
    without a record of shapes, which takes several times as long, where no annotation has one.
    """
    check = _checked(typechecker=typechecker)

    def decorate(function: Any) -> Any:
        if not inspect.isfunction(function):
            return check(function)
        if "<locals>" in function.__qualname__:
            return function
        annotations = {name: _read(text, function.__globals__) for name, text in function.__annotations__.items()}
        if "jaxtyping." in repr(annotations):
            return check(function)
        own = functools.update_wrapper(
            FunctionType(
                function.__code__, function.__globals__, argdefs=function.__defaults__, closure=function.__closure__
            ),
            function,
        )
        own.__kwdefaults__, own.__annotations__ = function.__kwdefaults__, annotations
        typed = beartype.beartype(own, conf=_TYPE_ERRORS)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return (function if jaxtyping.config.jaxtyping_disable else typed)(*args, **kwargs)

        return call

    return decorate


jaxtyping.jaxtyped = _checked_as_it_needs
install_import_hook("tl_scopes", "beartype.beartype")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "on_families(*names, slow=()): run a test with the argument `pair` on these families only"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    if not session.config.pluginmanager.hasplugin("dsession"):
        session.config.pluginmanager.import_plugin("invariants")
