"""Values as JSON and back, without loss, by the type hints of the fields that hold them.

What a hint says is written plainly: a tensor as nested lists, a tuple or set as a list, the keys of a mapping as text.
Whatever a plain value would not bring back is written with its kind, under a key that begins with ``$``:

    {"$float": "nan"}                                              NaN and infinity
    {"$tuple": [...]}  {"$list": [...]}  {"$set": [...]}           a container of another kind than the hint says
    {"$items": [[key, value], ...]}                                a mapping whose keys are not text
    {"$tensor": [...], "dtype": "int32", "shape": [2, 0]}          another dtype than the rest, or no or no finite entries
    {"$array": [...], "dtype": "float32", "shape": [2]}            the same of numpy

Floating-point tensors of one dtype are plain: the record that holds them says which, as ``"dtype"``.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from jaxtyping import AbstractArray
from torch import Tensor

_CONTAINERS: dict[type, str] = {list: "$list", tuple: "$tuple", frozenset: "$set"}
_SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}


@dataclass
class Archive:
    """One file in the making, or being read.

    Attributes:
        beside: tensors that are too large for JSON, by the path of their field (``"attribution.gradient"``).
    """

    beside: dict[str, Tensor] = field(default_factory=dict)

    def write(self, value: Any, hint: Any, dtype: str | None = None, at: str = "") -> Any:
        """The JSON-ready form of a value; ``dtype`` is that of the record's tensors, ``at`` the value's path."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        hint = _without_none(hint)
        if isinstance(value, Tensor | np.ndarray):
            return _write_array(value, hint, dtype)
        if isinstance(value, Mapping):
            return self._write_mapping(value, hint, dtype, at)
        if is_dataclass(value) and type(value) is hint:
            return self.write_record(value, at)
        kind = next((k for k in _CONTAINERS if isinstance(value, k)), None)
        if kind is None:
            raise TypeError(f"{at or 'value'}: a {type(value).__name__} cannot be saved")
        plain, element = _container(hint)
        parts = _ordered(value) if kind is frozenset else value
        written = [self.write(part, element(i), dtype, _join(at, i)) for i, part in enumerate(parts)]
        return written if kind is plain else {_CONTAINERS[kind]: written}

    def read(self, raw: Any, hint: Any, dtype: str | None = None, at: str = "") -> Any:
        """What :meth:`write` was given. Raises ``TypeError``, ``KeyError`` or ``ValueError`` for anything else."""
        if raw is None and (hint is Any or hint is not _without_none(hint)):
            return None
        hint = _without_none(hint)
        if isinstance(raw, dict) and (tag := next((k for k in raw if k.startswith("$")), None)) is not None:
            return self._read_tagged(tag, raw, hint, dtype, at)
        if is_dataclass(hint):
            return self.read_record(hint, raw, dtype, at)
        if _array_type(hint) is not None:
            return _read_array(raw, hint, dtype)
        if _is_mapping(hint) or (hint is Any and isinstance(raw, dict)):
            keys, values = get_args(hint) or (str, Any)
            return {int(k) if keys is int else k: self.read(v, values, dtype, _join(at, k)) for k, v in _items(raw, at)}
        kind, element = _container(hint)
        if kind is not None and (hint is not Any or isinstance(raw, list)):
            parts = (self.read(v, element(i), dtype, _join(at, i)) for i, v in enumerate(_listed(raw, at)))
            return kind(parts)
        return _scalar(raw, hint, at)

    def write_record(self, record: Any, at: str = "") -> dict[str, Any]:
        """A dataclass by its fields; those that it keeps beside the file go there."""
        dtype = _dtype_of(record)
        out: dict[str, Any] = {**getattr(record, "_head", {}), **({} if dtype is None else {"dtype": dtype})}
        kept: Sequence[str] = getattr(record, "_beside", ())
        for name, hint in _hints(record.__class__).items():
            value, path = getattr(record, name), _join(at, name)
            if name not in kept:
                out[name] = self.write(value, hint, dtype, path)
            elif value is not None:
                self.beside[path] = value.contiguous().clone()  # safetensors refuses two names for one memory
        return out

    def read_record(self, cls: Any, raw: Any, dtype: str | None = None, at: str = "") -> Any:
        """The dataclass ``cls`` from its fields; one that older files lack has its default."""
        if not isinstance(raw, dict):
            raise TypeError(f"{at or cls.__name__}: expected an object, got {type(raw).__name__}")
        dtype = raw.get("dtype", dtype)
        kept: Sequence[str] = getattr(cls, "_beside", ())
        later: Sequence[str] = getattr(cls, "_later", ())
        given: dict[str, Any] = {}
        for name, hint in _hints(cls).items():
            path = _join(at, name)
            if name in kept:
                given[name] = self.beside.get(path)
            elif name in raw or name not in later:
                given[name] = self.read(raw[name], hint, dtype, path)
        return cls(**given)

    def _write_mapping(self, value: Mapping[Any, Any], hint: Any, dtype: str | None, at: str) -> dict[str, Any]:
        keys, values = (get_args(hint) or (str, Any)) if _is_mapping(hint) else (str, Any)
        written = [(k, self.write(v, values, dtype, _join(at, k))) for k, v in value.items()]
        if all(type(k) is keys and not str(k).startswith("$") for k in value):
            return {str(k): v for k, v in written}
        return {"$items": [[self.write(k, Any), v] for k, v in written]}

    def _read_tagged(self, tag: str, raw: Mapping[str, Any], hint: Any, dtype: str | None, at: str) -> Any:
        content = raw[tag]
        if tag == "$float":
            return float(content)
        if tag in ("$tensor", "$array"):
            return _read_tagged_array(tag, raw)
        if tag == "$items":
            values = get_args(hint)[1] if _is_mapping(hint) and get_args(hint) else Any
            return {self.read(k, Any): self.read(v, values, dtype, _join(at, i)) for i, (k, v) in enumerate(content)}
        kind = next(k for k, name in _CONTAINERS.items() if name == tag)
        element = _container(hint)[1]
        return kind(self.read(v, element(i), dtype, _join(at, i)) for i, v in enumerate(_listed(content, at)))


# -- hints -------------------------------------------------------------------------------------------------


@lru_cache
def _hints(cls: Any) -> dict[str, Any]:
    """The hint of each field that is saved; the one class that is imported for types alone is never saved."""
    found = get_type_hints(cls, localns={"ActivationCache": Any})
    unsaved: Sequence[str] = getattr(cls, "_unsaved", ())
    return {f.name: found[f.name] for f in fields(cls) if f.name not in unsaved}


def _without_none(hint: Any) -> Any:
    """``X`` of ``X | None``; ``Any`` of a union of several."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    arms = [arm for arm in get_args(hint) if arm is not type(None)]
    return arms[0] if len(arms) == 1 else Any


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _container(hint: Any) -> tuple[type | None, Callable[[int], Any]]:
    """What a plain list is under this hint, and the hint of its element number i."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Any:
        return list, lambda i: Any
    kind = {list: list, tuple: tuple, frozenset: frozenset, Sequence: tuple}.get(origin)
    if kind is tuple and origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return tuple, lambda i: arguments[i] if i < len(arguments) else Any
    return kind, lambda i: arguments[0] if arguments else Any


def _ordered(values: frozenset[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)


def _array_type(hint: Any) -> type | None:
    """``Tensor`` or ``ndarray`` where the hint is one of them, with or without shape and dtype."""
    found = get_origin(hint) or hint
    if isinstance(found, type) and issubclass(found, AbstractArray):
        found = found.array_type
    return found if found in (Tensor, np.ndarray) else None


# -- arrays ------------------------------------------------------------------------------------------------


def _plain_dtype(hint: Any, dtype: str | None) -> str | None:
    """The dtype that a plain list stands for under this hint."""
    names = getattr(hint, "dtypes", ())
    if names and all(name.startswith("int") for name in names):
        return "int64"
    return "float64" if _array_type(hint) is np.ndarray else dtype


def _dtype_of(record: Any) -> str | None:
    """That of the record's first floating-point tensor."""
    for name, hint in _hints(record.__class__).items():
        value = getattr(record, name)
        parts = value.values() if isinstance(value, Mapping) else (value,)
        for part in parts if name not in getattr(record, "_beside", ()) and not is_dataclass(hint) else ():
            if isinstance(part, Tensor) and part.dtype.is_floating_point:
                return _dtype_name(part)
    return None


def _dtype_name(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")


def _write_array(value: Any, hint: Any, dtype: str | None) -> Any:
    tensor = isinstance(value, Tensor)
    kind = Tensor if tensor else np.ndarray
    name = _dtype_name(value)
    finite = bool(torch.isfinite(value).all() if tensor else np.isfinite(value).all())
    size = value.numel() if tensor else value.size
    if kind is _array_type(hint) and name == _plain_dtype(hint, dtype) and finite and size:
        return value.tolist()
    flat = value.reshape(-1).tolist()
    written = [v if not isinstance(v, float) or math.isfinite(v) else str(v) for v in flat]
    return {"$tensor" if tensor else "$array": written, "dtype": name, "shape": list(value.shape)}


def _read_array(raw: Any, hint: Any, dtype: str | None) -> Any:
    _listed(raw, "tensor")
    name = _plain_dtype(hint, dtype)
    if name is None:
        raise KeyError("dtype")
    if _array_type(hint) is Tensor:
        return torch.tensor(raw, dtype=_torch_dtype(name))
    return np.array(raw, dtype=name)


def _read_tagged_array(tag: str, raw: Mapping[str, Any]) -> Any:
    flat = [float(v) if isinstance(v, str) else v for v in _listed(raw[tag], "tensor")]
    if tag == "$tensor":
        return torch.tensor(flat, dtype=_torch_dtype(raw["dtype"])).reshape(raw["shape"])
    return np.array(flat, dtype=raw["dtype"]).reshape(raw["shape"])


def _torch_dtype(name: Any) -> torch.dtype:
    found = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype {name!r} is not one of torch's")
    return found


# -- what is read ------------------------------------------------------------------------------------------


def _scalar(raw: Any, hint: Any, at: str) -> Any:
    if get_origin(hint) is Literal:
        if raw not in get_args(hint):
            raise ValueError(f"{at}: expected one of {get_args(hint)}, got {raw!r}")
        return raw
    expected = _SCALARS.get(hint, (str, bool, int, float))
    if not isinstance(raw, expected):
        raise TypeError(f"{at}: expected {' or '.join(e.__name__ for e in expected)}, got {type(raw).__name__}")
    return raw


def _listed(raw: Any, at: str) -> list[Any]:
    if not isinstance(raw, list):
        raise TypeError(f"{at}: expected a list, got {type(raw).__name__}")
    return raw


def _items(raw: Any, at: str) -> Any:
    if not isinstance(raw, dict):
        raise TypeError(f"{at}: expected an object, got {type(raw).__name__}")
    return raw.items()


def _join(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)
