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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from jaxtyping import AbstractArray
from torch import Tensor

from tl_scopes.numerics.annotations import field_types

_CONTAINERS: dict[type, str] = {list: "$list", tuple: "$tuple", frozenset: "$set"}
_SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}
_NOT_FINITE = ("nan", "inf", "-inf")
MISTAKES = (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError, MemoryError)
"""What values that nothing wrote end in."""


class Misfit(ValueError):
    """A value that does not fit its field, which the message names."""


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
        """What :meth:`write` was given. Raises :class:`Misfit`, which names the field, for anything else."""
        if raw is None and (hint is Any or hint is not _without_none(hint)):
            return None
        hint = _without_none(hint)
        if isinstance(raw, dict) and (tag := next((k for k in raw if k.startswith("$")), None)) is not None:
            return self._read_tagged(tag, raw, hint, dtype, at)
        if is_dataclass(hint):
            return self.read_record(hint, raw, dtype, at)
        if _array_type(hint) is not None:
            return _read_array(raw, hint, dtype, at)
        if _is_mapping(hint) or (hint is Any and isinstance(raw, dict)):
            keys, values = get_args(hint) or (str, Any)
            return {int(k) if keys is int else k: self.read(v, values, dtype, _join(at, k)) for k, v in _items(raw, at)}
        kind, element = _container(hint)
        if kind is not None and (hint is not Any or isinstance(raw, list)):
            return kind(self._read_all(raw, hint, element, dtype, at))
        return _scalar(raw, hint, at)

    def _read_all(self, raw: Any, hint: Any, element: Callable[[int], Any], dtype: str | None, at: str) -> list[Any]:
        """The entries of a list, as many as the hint says where it says it."""
        parts, wanted = _listed(raw, at), get_args(hint)
        if get_origin(hint) is tuple and wanted[-1:] != (Ellipsis,) and len(parts) != len(wanted):
            raise Misfit(f"{at}: expected {len(wanted)} entries, got {len(parts)}")
        return [self.read(v, element(i), dtype, _join(at, i)) for i, v in enumerate(parts)]

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
            raise Misfit(f"{at or cls.__name__}: expected an object, got {type(raw).__name__}")
        dtype = raw.get("dtype", dtype)
        kept: Sequence[str] = getattr(cls, "_beside", ())
        later: Sequence[str] = getattr(cls, "_later", ())
        given: dict[str, Any] = {}
        for name, hint in _hints(cls).items():
            path = _join(at, name)
            if name in kept:
                given[name] = _of_dtype(self.beside.get(path), hint, path)
            elif name in raw:
                with naming(path):
                    given[name] = self.read(raw[name], hint, dtype, path)
            elif name not in later:
                raise Misfit(f"{path}: is missing")
        with naming(at):
            return cls(**given)

    def _write_mapping(self, value: Mapping[Any, Any], hint: Any, dtype: str | None, at: str) -> dict[str, Any]:
        keys, values = (get_args(hint) or (str, Any)) if _is_mapping(hint) else (str, Any)
        written = [(k, self.write(v, values, dtype, _join(at, k))) for k, v in value.items()]
        if all(type(k) is keys and not str(k).startswith("$") for k in value):
            return {str(k): v for k, v in written}
        return {"$items": [[self.write(k, Any), v] for k, v in written]}

    def _read_tagged(self, tag: str, raw: Mapping[str, Any], hint: Any, dtype: str | None, at: str) -> Any:
        content, found = raw[tag], _array_type(hint)
        kind, element = _container(hint)
        if tag == "$float" and hint in (float, Any) and content in _NOT_FINITE:
            return float(content)
        if (tag, found) in (("$tensor", Tensor), ("$array", np.ndarray)) or (
            tag in ("$tensor", "$array") and hint is Any
        ):
            return _of_dtype(_read_tagged_array(tag, raw, at), hint, at)
        if tag == "$items" and (hint is Any or _is_mapping(hint)):
            keys, values = get_args(hint) or (Any, Any)
            pairs = [_pair(p, at) for p in _listed(content, at)]
            read = [(self.read(k, Any), self.read(v, values, dtype, _join(at, k))) for k, v in pairs]
            return {_scalar(k, keys, at) if keys in _SCALARS else k: v for k, v in read}
        made = next((k for k, name in _CONTAINERS.items() if name == tag), None)
        if made is not None and (hint is Any or (kind in (list, tuple) and made is not frozenset)):
            return made(self._read_all(content, hint, element, dtype, at))
        raise Misfit(f"{at}: {{{tag!r}: {str(content)[:40]!r}}} is not expected here")


@contextmanager
def naming(at: str) -> Iterator[None]:
    """Mistakes inside are about this field, unless they name one themselves."""
    try:
        yield
    except Misfit:
        raise
    except MISTAKES as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise Misfit(f"{at}: {kind}{error}" if at else f"{kind}{error}") from error


# -- hints -------------------------------------------------------------------------------------------------


@lru_cache
def _hints(cls: Any) -> dict[str, Any]:
    """The hint of each field that is saved; the one class that is imported for types alone is never saved."""
    found = field_types(cls, {"ActivationCache": Any})
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


def _read_array(raw: Any, hint: Any, dtype: str | None, at: str) -> Any:
    name = _plain_dtype(hint, dtype)
    if name is None:
        raise Misfit(f"{at}: its dtype is missing")
    _require_numbers(_listed(raw, at), name, at)
    array = torch.tensor(raw, dtype=_torch_dtype(name)) if _array_type(hint) is Tensor else np.array(raw, dtype=name)
    return _of_dtype(array, hint, at)


def _read_tagged_array(tag: str, raw: Mapping[str, Any], at: str) -> Any:
    flat = [float(v) if v in _NOT_FINITE else v for v in _listed(raw[tag], at)]
    name, shape = raw["dtype"], _listed(raw["shape"], at)
    _require_numbers(flat, name, at)
    if not all(type(n) is int and n >= 0 for n in shape):
        raise Misfit(f"{at}: {shape} is no shape")
    if tag == "$tensor":
        return torch.tensor(flat, dtype=_torch_dtype(name)).reshape(shape)
    return np.array(flat, dtype=_numpy_dtype(name)).reshape(shape)


def _require_numbers(raw: list[Any], dtype: object, at: str) -> None:
    """Refuse what a tensor of this dtype would take for a number, or would round to one."""
    whole = str(dtype).startswith(("int", "uint"))
    parts: list[Any] = raw
    while parts and isinstance(parts[0], list):
        if any(len(_listed(part, at)) != len(parts[0]) for part in parts):
            raise Misfit(f"{at}: rows of different lengths")
        parts = [v for part in parts for v in _listed(part, at)]
    kinds: tuple[type, ...] = (bool,) if dtype == "bool" else (int,) if whole else (int, float)
    wrong = next((v for v in parts if type(v) not in kinds), None)
    if wrong is not None or None in parts:
        raise Misfit(f"{at}: expected numbers of dtype {dtype}, got {str(wrong)[:40]!r}")


def _of_dtype(array: Any, hint: Any, at: str) -> Any:
    """The array, or None, where the hint allows its dtype."""
    names = getattr(_without_none(hint), "dtypes", ())
    if array is not None and names and isinstance(names, tuple | list) and _dtype_name(array) not in names:
        raise Misfit(f"{at}: dtype {_dtype_name(array)} is not one of {', '.join(map(str, names))}")
    return array


def _numpy_dtype(name: Any) -> np.dtype[Any]:
    found = np.dtype(name) if isinstance(name, str) else None
    if found is None or found.kind not in "biuf":
        raise ValueError(f"dtype {name!r} is not one of numbers")
    return found


def _torch_dtype(name: Any) -> torch.dtype:
    found = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype {name!r} is not one of torch's")
    return found


# -- what is read ------------------------------------------------------------------------------------------


def _scalar(raw: Any, hint: Any, at: str) -> Any:
    if get_origin(hint) is Literal:
        if raw not in get_args(hint):
            raise Misfit(f"{at}: expected one of {get_args(hint)}, got {raw!r}")
        return raw
    expected = _SCALARS.get(hint, (str, bool, int, float))
    if not isinstance(raw, expected) or (isinstance(raw, bool) and bool not in expected):
        raise Misfit(f"{at}: expected {' or '.join(e.__name__ for e in expected)}, got {type(raw).__name__}")
    if hint is int and isinstance(raw, int) and not -(2**63) <= raw < 2**63:
        raise Misfit(f"{at}: {str(raw)[:40]} has more than 64 bits")
    if hint is float and isinstance(raw, int) and abs(raw) > 2**53:
        with naming(at):
            return float(raw)
    return raw


def _listed(raw: Any, at: str) -> list[Any]:
    if not isinstance(raw, list):
        raise Misfit(f"{at}: expected a list, got {type(raw).__name__}")
    return raw


def _pair(raw: Any, at: str) -> list[Any]:
    if len(_listed(raw, at)) != 2:
        raise Misfit(f"{at}: expected pairs, got {len(raw)} entries")
    return list(raw)


def _items(raw: Any, at: str) -> Any:
    if not isinstance(raw, dict):
        raise Misfit(f"{at}: expected an object, got {type(raw).__name__}")
    return raw.items()


def _join(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)
