"""Annotations of public calls as their checks: what a caller gives is made what the annotation says, or refused.

==========================  ===================================================================================
annotation                  what is taken, and what the call gets
==========================  ===================================================================================
``int``                     a whole number of any type: ``int``
``Seed``                    one that every generator takes
``float``                   a finite number of any type: ``float``
``bool``                    True or False of any type: ``bool``
``str``, a class            an instance
``Path``                    anything that names a file
``Tensor``                  a dense tensor that holds its numbers
``Literal[...]``            one of the names
``Sequence[...]``           a list, tuple, iterator, or array of one dimension, each item checked: a list or a tuple;
                            no text, no set, no mapping; of ``Iterable[...]`` a set, too
``tuple[float, float]``      as many items as it says: a tuple
``Mapping[...]``            a mapping, its keys and values checked: a ``dict``
``Callable``                anything that can be called
``A | B``                   the first that fits
``Any``, a model            anything: the call itself looks
==========================  ===================================================================================
"""

from __future__ import annotations

import collections.abc
import inspect
import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import numpy as np
import typing_extensions
from jaxtyping import AbstractArray
from torch import Tensor, nn

from tl_scopes.numerics.values import choice, dense, flag, integer, number, shown


@dataclass(frozen=True)
class Within:
    """Bounds of a whole number, both included."""

    least: int
    most: int | None = None


@dataclass(frozen=True)
class InWords:
    """What a union of many types is called where none of them fits."""

    words: str


Count = Annotated[int, Within(0)]
"""How many: none or more."""
Seed = Annotated[int, Within(0, 2**63 - 1)]
"""What PyTorch's and NumPy's generators both take."""
Types = Mapping[str, Any]
UNPACKS = (getattr(typing, "Unpack", typing_extensions.Unpack), typing_extensions.Unpack)
"""Before Python 3.11 there is one, in 3.11 there are two."""
_WORDS: dict[Any, tuple[str, str]] = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    Tensor: ("a tensor", "tensors"),
    Path: ("a path", "paths"),
    NoneType: ("None", "None"),
}


def argument_types(function: Callable[..., Any]) -> dict[str, Any]:
    """What each argument of a function may be; those of ``**options: Unpack[Keywords]`` by their own names."""
    spaces: dict[str, Any] = getattr(function, "__globals__", {})
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = parameter.annotation
        hint = eval(hint, spaces) if isinstance(hint, str) else hint  # the source's own words
        if typing.get_origin(hint) in UNPACKS:
            found |= typing_extensions.get_type_hints(typing.get_args(hint)[0], include_extras=True)
        elif hint is not parameter.empty and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            found[name] = hint
    return found


def field_types(cls: type, known: Mapping[str, Any]) -> dict[str, Any]:
    """Type of each field of a dataclass; Python 3.10 cannot read a ``ClassVar`` that says no more, and none is a field."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        own = {n: a for n, a in vars(base).get("__annotations__", {}).items() if not str(a).startswith("ClassVar")}
        fields = type(base.__name__, (), {"__annotations__": own, "__module__": base.__module__})
        found |= typing.get_type_hints(fields, localns=dict(known))
    return found


def as_annotated(arguments: dict[str, Any], types: Types) -> None:
    """Make each of a call's arguments what its annotation says.

    Raises:
        TypeError: an argument of another kind.
        ValueError: one of the right kind that is not allowed.
    """
    for name, value in arguments.items():
        if name in types:
            arguments[name] = _as(name, value, types[name])
        elif isinstance(value, dict):
            arguments[name] = {k: _as(k, v, types[k]) if k in types else v for k, v in value.items()}


def _as(argument: str, value: Any, hint: Any) -> Any:
    """The value as one kind."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated and isinstance(members[1], InWords):
        return _named(argument, value, members[0], hint)
    if origin is Annotated:
        return integer(argument, value, least=members[1].least, most=members[1].most)
    if origin in (Union, UnionType):
        return _one_of(argument, value, members)
    if origin is Literal:
        choice(argument, value, members)
        return str(value) if isinstance(value, str) else value
    if origin in (collections.abc.Sequence, collections.abc.Iterable, list):
        items = [_as(f"{argument}[{i}]", item, members[0]) for i, item in enumerate(_items(argument, value, hint))]
        return tuple(items) if isinstance(value, tuple) else items
    if origin is tuple:
        parts = list(_items(argument, value, hint))
        if len(parts) != len(members):
            raise ValueError(f"({argument}={shown(value)}): expected {len(members)} items, got {len(parts)}")
        return tuple(_as(f"{argument}[{i}]", *pair) for i, pair in enumerate(zip(parts, members, strict=True)))
    if origin in (collections.abc.Mapping, dict):
        if not isinstance(value, Mapping):
            raise _wrong(argument, value, hint)
        return {_as(argument, k, members[0]): _as(f"{argument}[{shown(k)}]", v, members[1]) for k, v in value.items()}
    if hint in (int, float, bool):
        return {int: integer, float: number, bool: flag}[hint](argument, value)
    if origin is collections.abc.Callable or hint is Callable:
        fits = callable(value)
    elif origin is np.ndarray:
        fits = isinstance(value, np.ndarray)
    elif hint is Path:
        fits = isinstance(value, str | os.PathLike)
        if fits and "\0" in os.fspath(value):
            raise ValueError(f"({argument}={shown(value)}): a path has no null character")
    elif isinstance(hint, type) and not issubclass(hint, nn.Module | AbstractArray):
        fits = isinstance(value, hint)
    else:
        return value
    if not fits:
        raise _wrong(argument, value, hint)
    if isinstance(value, Tensor):
        return dense(argument, value)
    return str(value) if hint is str else value


def _named(argument: str, value: Any, union: Any, hint: Any) -> Any:
    """The value as one kind of a union that has a name of its own; what is wrong further inside is said as it is."""
    try:
        return _as(argument, value, union)
    except TypeError as error:
        if str(error).startswith(f"({argument}={shown(value)})"):
            raise _wrong(argument, value, hint) from None
        raise


def _one_of(argument: str, value: Any, members: tuple[Any, ...]) -> Any:
    """The value as the first kind that it fits; of several refusals the one that looked furthest into it is raised."""
    refusals: list[Exception] = []
    tried = [m for m in members if not (m is str and Path in members)]  # a path may be a string, but not any string
    for member in sorted(tried, key=lambda hint: hint is not NoneType):
        try:
            return _as(argument, value, member)
        except (TypeError, ValueError) as error:
            refusals.append(error)
    if inside := [refusal for refusal in refusals if not str(refusal).startswith(f"({argument}={shown(value)})")]:
        raise max(inside, key=_place)
    known = next((refusal for refusal in refusals if isinstance(refusal, ValueError)), None)
    if known is not None and not any(typing.get_origin(member) is Literal for member in members):
        raise known
    raise _wrong(argument, value, Union[members], TypeError if known is None else ValueError)  # noqa: UP007


def _place(refusal: Exception) -> list[int]:
    """How far into lists the wrong item stands: ``[1]`` of ``(prompt[1]=5): ...``."""
    return [int(i) for i in re.findall(r"\[(\d+)\]", str(refusal).partition("=")[0])]


def _items(argument: str, value: Any, hint: Any) -> Iterable[Any]:
    """The items of what may stand for a list."""
    loose = isinstance(value, collections.abc.Set | Mapping) and not isinstance(value, collections.abc.MappingView)
    if isinstance(value, collections.abc.Set) and typing.get_origin(hint) is collections.abc.Iterable:
        return value
    if isinstance(value, str | bytes | Tensor | np.ndarray) or loose or not isinstance(value, Iterable):
        if not isinstance(value, Tensor | np.ndarray) or value.ndim == 0:
            raise _wrong(argument, value, hint)
        return dense(argument, value).tolist() if isinstance(value, Tensor) else list(value)
    return value


def _wrong(argument: str, value: Any, hint: Any, kind: type[Exception] = TypeError) -> Exception:
    got = "" if value is None or isinstance(value, bool | int | float | str) else f", got {type(value).__name__}"
    return kind(f"({argument}={shown(value)}): expected {_words(hint)}{got}")


def _words(hint: Any) -> str:
    """What a hint asks for, in words."""
    *first, last = dict.fromkeys(_options(hint))
    return f"{', '.join(first)} or {last}" if first else last


def _options(hint: Any, plural: bool = False) -> list[str]:
    """Everything that a hint allows, in words."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return [members[1].words] if isinstance(members[1], InWords) else _options(members[0], plural)
    if origin in (Union, UnionType):
        kinds = [m for m in members if not (plural and m is NoneType)]
        return [option for kind in kinds for option in _options(kind, plural)]
    if origin is Literal:
        return list(map(repr, members))
    if origin in (collections.abc.Sequence, collections.abc.Iterable, list, tuple):
        return [f"{'lists' if plural else 'a list'} of {' or '.join(_options(members[0], plural=True))}"]
    if origin in (collections.abc.Mapping, dict):
        return ["mappings" if plural else "a mapping"]
    if origin is collections.abc.Callable:
        return ["a function"]
    if origin is np.ndarray:
        return ["arrays" if plural else "an array"]
    if hint is bool:
        return ["True", "False"]
    if hint in _WORDS or hasattr(hint, "in_words"):
        return [_WORDS[hint][plural] if hint in _WORDS else str(hint.in_words)]
    return [f"{hint.__name__} objects" if plural else f"{'an' if hint.__name__[0] in 'AEIOU' else 'a'} {hint.__name__}"]
