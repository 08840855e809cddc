"""What every test runs under: the package's types are checked, and `support/invariants.py` holds.

A process that only hands tests to others (`-n`) imports neither the package nor a model library.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import jaxtyping
import pytest
import rich.style  # noqa: F401  # draws a random number when it is first imported: here, not in a test
from jaxtyping import install_import_hook

with mock.patch("random.getrandbits", random.Random(0).getrandbits):
    # beartype draws which item of a list it checks: from a generator of its own, so that a seed taken from the
    # global one by the code under test does not go unnoticed.
    import beartype._util.kind.integer.utilintget  # noqa: F401

_checked = jaxtyping.jaxtyped


def _checked_unless_nested(*, typechecker: Any) -> Callable[[Any], Any]:
    """The import hook's decorator, but for functions inside functions: they would be compiled anew in every call."""
    check = _checked(typechecker=typechecker)
    return lambda function: function if "<locals>" in getattr(function, "__qualname__", "") else check(function)


jaxtyping.jaxtyped = _checked_unless_nested
install_import_hook("tl_scopes", "beartype.beartype")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "on_families(*names, slow=()): run a test with the argument `pair` on these families only"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    if not session.config.pluginmanager.hasplugin("dsession"):
        session.config.pluginmanager.import_plugin("invariants")
