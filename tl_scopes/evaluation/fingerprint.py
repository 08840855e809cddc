"""What a stored run must have in common with the call that goes on with it: the model to the bit, its hooks, functions.

    weights   every parameter and buffer: name, dtype, shape, bits; read anew in every call, so no edit goes unseen
    modules   class of every module and the plain numbers that it keeps (scales, epsilons, switches); the configuration
    hooks     what is attached to the model from outside, by place: the name of the function and a digest of its code

A function is its code with constants, defaults, closure and the module's own values that it reads; of installed packages
the name alone.
"""

from __future__ import annotations

import functools
import hashlib
import site
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import model_state
from tl_scopes.numerics.arguments import call_name
from tl_scopes.results.digests import digest_tensors

_PLAIN = (bool, int, float, str, bytes, type(None))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_LIBRARIES = ("transformer_lens", "transformers", "torch")
"""Their own hooks are part of a model, and some come with its first run; what users gave them is not."""
_NO_NUMBERS = frozenset(
    ("training", "device", "n_devices", "seed", "init_weights", "use_attn_result", "use_attn_in", "use_split_qkv_input",
     "use_hook_mlp_in", "use_hook_tokens", "model_name", "tokenizer_name", "name_or_path", "fwd_hooks",
     "bwd_hooks", "ctx")
)  # fmt: skip
"""Of modules and the configuration: where and how a model runs, not what it computes."""
_SECONDS = 3.0
"""Reading the weights shows its progress where it takes longer."""


def model_fingerprint(model: LensModel, *, weights: bool) -> dict[str, Any]:
    """Digests of weights and modules, and what is attached; ``weights=False`` leaves the first out, which takes long."""
    digest, network = hashlib.blake2b(digest_size=8), cast("nn.Module", model)
    if weights:
        tensors = [*network.named_parameters(), *network.named_buffers()]
        total = sum(t.numel() * t.element_size() for _, t in tensors)
        description = f"{call_name() or 'model'}: reading weights"
        with tqdm(total=total, desc=description, unit="B", unit_scale=True, delay=_SECONDS, disable=None) as bar:
            digest_tensors(digest, tensors, bar.update)
    modules = hashlib.blake2b(digest_size=8)
    for name, module in network.named_modules():
        modules.update(f"{name}\0{type(module).__qualname__}\0{_kept_numbers(module)}\n".encode("utf-8", "replace"))
    modules.update(repr(_kept_numbers(model.cfg)).encode("utf-8", "replace"))
    return {
        "weights": digest.hexdigest() if weights else None,
        "modules": modules.hexdigest(),
        "hooks": attached_functions(model),
    }


def model_settings(model: LensModel, *, stored: bool) -> dict[str, Any]:
    """What the settings of a run say of the model; the weights are read only for a run that is stored."""
    names = ("model_class", "model_name", "dtype", "folded_norm", "centred_unembedding", "tl_scopes")
    provenance = model_state(model).provenance()
    return {**{n: provenance[n] for n in names}, **model_fingerprint(model, weights=stored)}


def attached_functions(model: LensModel) -> dict[str, list[str]]:
    """What users attached to hook points and modules, by their name; the libraries' own are not."""
    found: dict[str, list[str]] = {}
    for name, module in cast("nn.Module", model).named_modules():
        hooks = [hook for kind in _HOOKS for hook in (getattr(module, kind, None) or {}).values()]
        for hook in hooks:
            given = list(_foreign(hook)) if _by_libraries(hook) else [hook]
            found.setdefault(name, []).extend(function_fingerprint(f, model) for f in given)
    return {name: functions for name, functions in found.items() if functions}


def function_fingerprint(function: Any, model: LensModel | None = None) -> str:
    """A callable's name and a digest of its code and of all that it holds."""
    digest = hashlib.blake2b(digest_size=8)
    _feed(digest, function, {} if model is None else {id(model): (0, model)})
    return f"{_name(function)} {digest.hexdigest()}"


def _name(function: Any) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return str(getattr(inner, "__qualname__", type(inner).__qualname__))


def _foreign(hook: Any) -> Iterator[Any]:
    """The functions that a library's hook was made around."""
    inner = hook.func if isinstance(hook, functools.partial) else hook
    kept = [*getattr(hook, "args", ()), *getattr(hook, "keywords", {}).values()]
    cells = getattr(inner, "__closure__", None) or ()
    for value in [*kept, *(c.cell_contents for c in cells if _filled(c))]:
        if callable(value) and not _by_libraries(value) and not isinstance(value, nn.Module | type):
            yield value


def _by_libraries(hook: Any) -> bool:
    inner = hook.func if isinstance(hook, functools.partial) else hook
    return str(getattr(inner, "__module__", "")).partition(".")[0] in _LIBRARIES


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _kept_numbers(holder: Any) -> list[tuple[str, Any]]:
    """The plain public values that an object keeps."""
    found = [(k, v) for k, v in vars(holder).items() if not k.startswith("_") and k not in _NO_NUMBERS]
    return sorted((k, repr(v)) for k, v in found if _is_plain(v))


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(v) and isinstance(k, str) for k, v in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, _PLAIN)


# -- functions ---------------------------------------------------------------------------------------------


def _feed(digest: Any, value: Any, seen: dict[int, tuple[int, Any]]) -> None:
    """Let the digest see a value and all that it holds; what was seen before, by its number."""

    def say(*words: object) -> None:
        digest.update("\0".join(map(str, words)).encode("utf-8", "surrogatepass") + b"\1")

    if isinstance(value, _PLAIN):
        say(type(value).__name__, repr(value))
        return
    if not isinstance(value, tuple | frozenset):
        if id(value) in seen:
            say("again", seen[id(value)][0])
            return
        seen[id(value)] = len(seen), value  # held, so that no other value gets its id
    if isinstance(value, types.CodeType):
        _feed(digest, value.co_code, seen)
        _feed(digest, (value.co_names, value.co_consts, value.co_varnames, value.co_flags), seen)
    elif isinstance(value, functools.partial):
        say("partial")
        _feed(digest, (value.func, value.args, dict(value.keywords)), seen)
    elif isinstance(value, types.MethodType):
        _feed(digest, (value.__func__, value.__self__), seen)
    elif isinstance(value, types.FunctionType):
        say("function", value.__qualname__)
        if not _installed(value.__code__.co_filename):
            cells = [c.cell_contents if _filled(c) else None for c in value.__closure__ or ()]
            read = {n: value.__globals__[n] for n in _names(value.__code__) if n in value.__globals__}
            _feed(digest, (value.__code__, value.__defaults__, value.__kwdefaults__, cells, read), seen)
    elif isinstance(value, Tensor | np.ndarray | np.generic):
        digest_tensors(digest, [("", torch.as_tensor(value))])
    elif isinstance(value, types.ModuleType | types.BuiltinFunctionType):
        say(value.__name__)
    elif isinstance(value, Mapping):
        say("mapping", len(value))
        for key, entry in value.items():
            _feed(digest, key, seen)
            _feed(digest, entry, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        say(type(value).__name__, len(value))
        for entry in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            _feed(digest, entry, seen)
    elif isinstance(value, type):
        say("class", value.__qualname__)
        if not _installed(_file(value)):
            own: dict[str, Any] = {k: v for k, v in vars(value).items() if isinstance(v, types.FunctionType)}
            own |= {k: v for k, v in vars(value).items() if not k.startswith("__") and isinstance(v, _PLAIN)}
            _feed(digest, own, seen)
    else:
        say("object")
        _feed(digest, type(value), seen)
        if isinstance(value, nn.Module):
            digest_tensors(digest, [*value.named_parameters(), *value.named_buffers()])
        apart = (*_HOOKS, "_parameters", "_buffers", "_modules") if isinstance(value, nn.Module) else ()
        _feed(digest, {k: v for k, v in getattr(value, "__dict__", {}).items() if k not in apart}, seen)


def _file(cls: type) -> str | None:
    """Where a class is written; None for Python's own, "" for one of a session."""
    if cls.__module__ in sys.builtin_module_names:
        return None
    return str(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")


def _names(code: types.CodeType) -> list[str]:
    """Names that code reads, and the functions inside it."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return sorted({*code.co_names, *(n for c in inner for n in _names(c))})


@functools.cache
def _libraries() -> tuple[str, ...]:
    own = Path(__file__).resolve().parents[1]
    paths = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()} - {"", "/"}
    data = {sysconfig.get_paths()["data"], sysconfig.get_paths()["scripts"]}
    return tuple(f"{p}/" for p in {*(paths - data), str(own)})


def _installed(file: str | None) -> bool:
    """Is this code of an installed package, or of this one? They are known by their version."""
    return file is None or file.startswith("<frozen") or file.startswith(_libraries())
