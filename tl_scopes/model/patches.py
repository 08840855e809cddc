"""Functions of a model's modules replaced for a while, in the thread that replaced them alone.

Each replaced attribute is one dispatcher, which finds the replacement by thread and counts its owners; whoever leaves last,
in whatever order, puts the original back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_GUARD = threading.Lock()
_MISSING = object()
Function = Callable[..., Any]


class _Dispatcher:
    """What stands on the module meanwhile."""

    def __init__(self, owner: dict[str, Any], name: str, original: Function) -> None:
        self.before, self.original = owner.get(name, _MISSING), original
        self.by_thread: dict[int, list[Function]] = {}
        self.__name__ = getattr(original, "__name__", type(original).__name__)

    def current(self) -> Function:
        mine = self.by_thread.get(threading.get_ident())
        return mine[-1] if mine else self.original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.current()(*args, **kwargs)


def own_function(module: Any, name: str) -> Function | None:
    """What somebody put on the module itself in place of its class's function, apart from :func:`patched`."""
    found = module.__dict__.get(name)
    if isinstance(found, _Dispatcher):
        found = None if found.before is _MISSING else found.before
    return found  # type: ignore[no-any-return]


@contextmanager
def patched(module: Any, name: str, make: Callable[[Function], Function]) -> Iterator[None]:
    """``module.name`` is ``make(module.name)`` in this thread, and for all others what it was."""
    owner, thread = module.__dict__, threading.get_ident()
    with _GUARD:
        found = owner.get(name)
        patch = found if isinstance(found, _Dispatcher) else _Dispatcher(owner, name, getattr(module, name))
        replacement = make(patch.current())
        patch.by_thread.setdefault(thread, []).append(replacement)
        owner[name] = patch
    try:
        yield
    finally:
        with _GUARD:
            mine = patch.by_thread[thread]
            mine.remove(replacement)
            if not mine:
                del patch.by_thread[thread]
            if not patch.by_thread and owner.get(name) is patch:
                if patch.before is _MISSING:
                    del owner[name]
                else:
                    owner[name] = patch.before
