"""Leave a computation that nobody waits for any more, between two of its steps.

Whoever starts one says with :func:`while_wanted` how to ask whether it is still wanted; the kernel asks before every forward
and every backward, generation every few tokens. The model is given back as after any error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WANTED: ContextVar[Callable[[], bool] | None] = ContextVar("wanted", default=None)


class Stopped(Exception):
    """Nobody waits for the result."""


@contextmanager
def while_wanted(wanted: Callable[[], bool]) -> Iterator[None]:
    """What runs inside ends with :class:`Stopped` soon after ``wanted()`` is false."""
    outer = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(outer)


def require_wanted() -> None:
    """Raise :class:`Stopped` if the computation is not wanted any more."""
    wanted = _WANTED.get()
    if wanted is not None and not wanted():
        raise Stopped
