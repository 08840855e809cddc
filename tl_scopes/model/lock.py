"""One model, several users: every public call has its model to itself, and a run of it is not begun inside another.

Calls on one model wait for each other, calls on two models do not. A thread that only runs the model, ``model(tokens)``,
need not wait: what a call puts on the model acts in the call's own thread alone (:mod:`tl_scopes.model.hooks`,
:mod:`tl_scopes.model.patches`). A hook that begins a call or another run inside a call's run is refused.
"""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from tl_scopes.model.lens import LensModel, class_kind, whole
from tl_scopes.numerics.arguments import call_name, public_call

P = ParamSpec("P")
R = TypeVar("R")


class _Lock:
    """Who has the model.

    Attributes:
        runs: how many runs the thread that has it is inside of.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._depth = 0
        self.runs = 0

    def enter(self) -> None:
        """Wait until the model is free; refuse what would wait for itself, or run inside a run."""
        mine = self._owner == threading.get_ident()
        if self._owner is not None and ((mine and self.runs) or torch._C._current_autograd_node() is not None):
            raise inside_a_run()
        self._lock.acquire()
        self._owner = threading.get_ident()
        self._depth += 1

    def leave(self) -> None:
        """Give the model back."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()


_LOCKS: weakref.WeakKeyDictionary[nn.Module, _Lock] = weakref.WeakKeyDictionary()
_GUARD = threading.Lock()


def _lock_of(model: Any) -> _Lock:
    with _GUARD:
        return _LOCKS.setdefault(whole(model), _Lock())


def inside_a_run() -> RuntimeError:
    """The error for a call or a run that a hook begins in the middle of another run."""
    return RuntimeError(
        f"{call_name() or 'model'}: this model is in the middle of a run of tl_scopes, and a hook on it began another. "
        "Let the hook store what it needs, and call after the run"
    )


@contextmanager
def alone(model: LensModel) -> Iterator[None]:
    """The model is this thread's until the end of the context.

    Raises:
        RuntimeError: a hook asks for it in the middle of a run.
    """
    lock = _lock_of(model)
    lock.enter()
    try:
        yield
    finally:
        lock.leave()


@contextmanager
def running(model: LensModel) -> Iterator[None]:
    """One run of the model by this thread: a second that a hook begins inside it is refused."""
    lock, thread, begun = _lock_of(model), threading.get_ident(), 0

    def begin(module: nn.Module, inputs: Any) -> None:
        nonlocal begun
        if threading.get_ident() == thread:
            begun += 1
            if begun > 1:
                raise inside_a_run()

    with alone(model):
        handle = whole(model).register_forward_pre_hook(begin)
        lock.runs += 1
        try:
            yield
        finally:
            lock.runs -= 1
            handle.remove()


@contextmanager
def others_wait(model: LensModel) -> Iterator[None]:
    """Runs that other threads begin meanwhile wait for the end of the context: for changes that they must not see.

    A run that another thread is in the middle of is not waited for.
    """
    thread = threading.get_ident()

    def wait(module: nn.Module, inputs: Any) -> None:
        if threading.get_ident() != thread:
            with alone(model):
                pass

    with alone(model):
        handle = whole(model).register_forward_pre_hook(wait)
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def plain_modes() -> Iterator[None]:
    """``torch.inference_mode`` and ``torch.autocast`` that the caller is in are off: results are what they are without."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def model_call(function: Callable[P, R]) -> Callable[P, R]:
    """A :func:`public_call` whose argument ``model`` is its own while it runs, in :func:`plain_modes`.

    Tensors that were made in inference mode are copied.
    """
    place = list(inspect.signature(function).parameters).index("model")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        model: Any = kwargs["model"] if "model" in kwargs else args[place] if len(args) > place else None
        mine = alone(model) if class_kind(model) is not None else nullcontext()
        with plain_modes(), mine:
            ordinary: Any = functools.partial(function, *map(_ordinary, args))
            result: R = ordinary(**{name: _ordinary(value) for name, value in kwargs.items()})
            return result

    return public_call(call)


def _ordinary(value: Any) -> Any:
    """The value, with tensors of inference mode copied: those cannot enter a graph."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if type(value) in (list, tuple) and any(isinstance(part, Tensor) and part.is_inference() for part in value):
        return type(value)(map(_ordinary, value))
    return value
