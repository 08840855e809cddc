"""A device that is not the CPU, made of the CPU: numbers are the CPU's, and mixing devices fails as it does on GPUs.

A tensor there holds one on the CPU and says that it lies on ``meta:0`` (or ``meta:1``, ...). Within :func:`reachable` every
operation is carried out on what is held, once it is seen that all tensors of the call lie on one device; as on GPUs, numbers
without dimensions and indices may come from the CPU. What it cannot show: kernels of a GPU, their rounding and their speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

HERE = torch.device("cpu")
FIRST = torch.device("meta:0")
SECOND = torch.device("meta:1")

_aten = torch.ops.aten
_MOVES = (_aten._to_copy, _aten.copy_, _aten.copy)
_INDEXED = (
    _aten.index, _aten._unsafe_index, _aten.index_put, _aten.index_put_, _aten._unsafe_index_put, _aten._index_put_impl_,
)  # fmt: skip


class Elsewhere(Tensor):
    """A tensor on another device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> Any:
        """The shell of ``held``."""
        return Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )

    def __init__(self, held: Tensor, device: torch.device) -> None:
        self.held = held

    def __repr__(self, **_: Any) -> str:
        return f"{self.device}: {self.held!r}"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.tolist:
            return args[0].held.tolist()
        if func is Tensor.numpy:
            raise TypeError(f"can't convert {args[0].device} device type tensor to numpy")
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            # Lists in an index become tensors of the device, empty ones on meta.
            key = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(k) if isinstance(k, list) else k for k in key), *args[2:])
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The operation on what is held, given back where it belongs."""
    asked = kwargs.get("device")
    if asked is not None and _numbered(asked) != HERE and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: Expected a {asked} device type for generator but found cpu")
    device = _device_of(func, args, kwargs) if asked is None else _numbered(asked)
    here = dict(kwargs) if asked is None else kwargs | {"device": HERE}
    out = func(*_held(args), **_held(here))
    if device == HERE:
        return out
    out = tree_map(lambda t: Elsewhere(t, device) if isinstance(t, Tensor) else t, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if _any_elsewhere(args, kwargs) else out


def _device_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device:
    """The one device of a call's tensors."""
    packet = func.overloadpacket
    if packet in _MOVES:
        return args[0].device
    indices = list(_tensors(args[1])) if packet in _INDEXED else []
    found = list(_tensors((args, kwargs)))
    found = [t for t in found if not (t.device == HERE and any(t is index for index in indices))]
    devices = {t.device for t in found if t.ndim or t.device != HERE} or {HERE}
    if len(devices) > 1:
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found {devices}")
    return devices.pop()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Of an operation's arguments: torch's own walk over trees takes several times as long."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)


def _any_elsewhere(*values: Any) -> bool:
    return any(isinstance(t, Elsewhere) for t in _tensors(values))


def _held(value: Any) -> Any:
    if isinstance(value, Elsewhere):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)(map(_held, value))
    return {key: _held(each) for key, each in value.items()} if isinstance(value, dict) else value


def _numbered(device: Any) -> torch.device:
    device = torch.device(device)
    return FIRST if device.type == "meta" and device.index is None else device


class _Operations(TorchDispatchMode):
    """Makes tensors there where a call asks for them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = (kwargs or {}).get("device")
        there = asked is not None and torch.device(asked).type == "meta"
        there = there or _any_elsewhere(args, kwargs or {})
        return _run(func, args, kwargs or {}) if there else func(*args, **(kwargs or {}))


class _Literals(TorchFunctionMode):
    """``torch.tensor(numbers, device=...)``, which asks no operation for its device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == "meta":
            del kwargs["device"]
            return func(*args, **kwargs).to(_numbered(device))
        return func(*args, **kwargs)


@contextmanager
def reachable() -> Iterator[None]:
    """Where tensors may be made there and moved to and fro."""
    with _Operations(), _Literals():
        yield


def move(model: nn.Module, where: Callable[[str], torch.device] = lambda name: FIRST) -> None:
    """All weights of a model to the device that ``where`` says for their module's name; tied weights stay tied."""
    moved: dict[int, Tensor] = {}
    for name, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in moved:
                    there = Elsewhere(parameter.detach(), where(name))
                    moved[id(parameter)] = nn.Parameter(there, requires_grad=parameter.requires_grad)
                    moved[id(moved[id(parameter)])] = moved[id(parameter)]
                module._parameters[key] = moved[id(parameter)]
        for key, buffer in module._buffers.items():
            if buffer is not None and not isinstance(buffer, Elsewhere):
                module._buffers[key] = Elsewhere(buffer, where(name))
