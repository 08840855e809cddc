"""Tensors ``[..., query, key]`` that are put off: recorded as steps, and made when somebody needs them.

A function of torch that treats rows by themselves (:mod:`tl_scopes.model.row_steps`) is put off in turn; one that mixes them,
or that is not known here, is given the whole tensor, made then and there.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from tl_scopes.model.row_steps import Kind, Step, mapped, whole
from tl_scopes.model.torch_functions import functions_named

PRODUCTS = functions_named("matmul", "__matmul__", "bmm")
BIASED_PRODUCTS = functions_named("baddbmm")
BROADCAST = functions_named(
    "add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "mul", "__mul__", "__rmul__", "where", "masked_fill",
    "lt", "le", "gt", "ge", "eq", "ne", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "less_equal",
    "logical_and", "logical_or", "bitwise_and", "bitwise_or", "__and__", "__or__",
)  # fmt: skip
"""Elementwise functions by which masks and biases are made of one row and one column."""
ELEMENTWISE = BROADCAST | functions_named(
    "div", "true_divide", "__truediv__", "__div__", "floor_divide", "__floordiv__", "neg", "__neg__", "tanh", "to", "float",
    "double", "half", "bfloat16", "bool", "type", "type_as", "clone", "contiguous", "detach", "isnan", "isneginf", "isinf",
    "nan_to_num", "maximum", "minimum", "logical_not", "bitwise_not", "__invert__", "zeros_like", "ones_like",
)  # fmt: skip
IN_PLACE = {
    func: function
    for name, function in (
        ("add", torch.add),
        ("sub", torch.sub),
        ("mul", torch.mul),
        ("div", torch.div),
        ("masked_fill", Tensor.masked_fill),
    )
    for func in functions_named(f"{name}_", f"__i{name}__", f"__itrue{name}__")
}
"""Functions that overwrite their first argument, by the function that does not."""
SOFTMAX = functions_named("softmax")
LARGEST = functions_named("max", "amax")
_REDUCTIONS = LARGEST | functions_named("all", "any", "sum")
CAT = functions_named("cat", "concat")
_RESHAPES = functions_named("view", "reshape", "unsqueeze", "squeeze", "flatten")
_EXPANSIONS = functions_named("expand", "broadcast_to")
_WHERE, _PLACED = functions_named("where"), functions_named("to", "type", "zeros_like", "ones_like")
_TRIANGLES = functions_named("tril", "triu")
FACTORIES = functions_named("ones", "zeros", "full")
CASTS = functions_named("to", "float", "double", "half", "bfloat16", "bool", "type", "type_as", "contiguous", "clone")
_COPIES = functions_named("clone")
_DROPOUT = functions_named("dropout")
METADATA = functions_named("size", "dim", "is_floating_point", "is_complex", "numel", "nelement", "ndimension") | {
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "is_meta", "is_quantized", "layout")
}


class Deferred(Tensor):
    """Stands for a tensor of rows that nobody has made yet: its shape, dtype and device, and the step that makes it."""

    step: Step
    value: Tensor | None

    @staticmethod
    def __new__(cls, step: Step) -> Deferred:
        """Put the step off."""
        like = step.like
        made: Deferred = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=step.device)
        made.step, made.value = step, None
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function of torch, outside of the run."""
        return applied(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What reaches torch's own operators gets the whole tensor."""
        return func(*made(args), **made(kwargs or {}))

    def make(self) -> Tensor:
        """The whole tensor."""
        if self.value is None:
            self.value = whole(self.step)
        return self.value


def made(value: Any) -> Any:
    """A value, or several, with nothing put off."""
    return mapped(value, lambda v: v.make() if isinstance(v, Deferred) else v)


# -- recording -----------------------------------------------------------------------------------


def applied(func: Any, args: Any, kwargs: Any) -> Any:
    """A function of something put off: put off too, or of the whole tensor where it mixes rows or is not known."""
    if func in METADATA:
        with torch._C.DisableTorchFunction():
            return func(*args, **kwargs)
    args, kwargs = mapped((args, kwargs), lambda v: v.value if isinstance(v, Deferred) and v.value is not None else v)
    if func in CASTS and isinstance(args[0], Tensor) and not isinstance(args[0], Deferred):
        args, kwargs = mapped((args, kwargs), lambda v: v.step.like.dtype if isinstance(v, Deferred) else v)
        return Tensor.to(*args, **kwargs)
    recorded = record(func, args, kwargs)
    return func(*made(args), **made(kwargs)) if recorded is None else recorded


def record(func: Any, args: Any, kwargs: Any) -> Any:
    """The function put off; None where it does not treat rows by themselves."""
    first = args[0] if args else None
    if func in IN_PLACE and isinstance(first, Deferred):
        result = record(IN_PLACE[func], args, kwargs)
        if result is None or result.step.like.shape != first.step.like.shape:
            return None
        first.step = result.step
        return first
    if func in _DROPOUT and isinstance(first, Deferred):
        p, training = [*args[1:], *(0.5, True)[len(args) - 1 :]][:2]
        idle = not kwargs.get("training", training) or not kwargs.get("p", p)
        return first if idle else None
    found = _form(func, args, kwargs)
    if found is None:
        return None
    func, args, kwargs, kind = found
    result = _put_off(func, args, kwargs, kind)
    if isinstance(first, Deferred) and isinstance(result, Deferred) and _same(func, first, result, args):
        return Deferred(first.step) if func in _COPIES else first
    return result


def _same(func: Any, first: Deferred, result: Deferred, args: Any) -> bool:
    """Is the result the very tensor it was made of?"""
    if func in CASTS:
        return bool(result.step.like.dtype == first.step.like.dtype)
    return func is Tensor.__getitem__ and all(item == slice(None) for item in args[1])


def _put_off(func: Any, args: Any, kwargs: Any, kind: Kind) -> Any:
    """The step, or the several results of one; None where its result is not one of rows."""
    args, kwargs = mapped((args, kwargs), lambda v: v.step if isinstance(v, Deferred) else v)
    leaves = _leaves((args, kwargs))
    known = [v for v in leaves if isinstance(v, Step)]
    device = known[0].device if known else next(v.device for v in leaves if isinstance(v, Tensor))
    length = known[0].length if known else None
    scores = kind == "product" or any(step.scores for step in known)
    if known and not scores and any(isinstance(v, Tensor) and v.shape[-2:] == (length, length) for v in leaves):
        return None  # scores that are there already, and whoever watches them is to see all that follows
    like = _result(func, args, kwargs)
    whole_step = Step(func, args, kwargs, like, device, kind, scores)
    if isinstance(like, Tensor):
        return Deferred(whole_step) if length in (None, like.shape[-2]) else None
    parts = [
        Deferred(Step(func, (whole_step, i), {}, part, device, "item", whole_step.scores))
        for i, part in enumerate(like)
    ]
    return type(like)(parts)


_RESULTS: dict[Any, Any] = {}
"""Results of functions without numbers, by :func:`_form_of` of their arguments: the layers of a model ask for the same ones,
and asking torch takes longer than a layer of a small model."""
MOST_RESULTS = 4096


def _result(func: Any, args: Any, kwargs: Any) -> Any:
    """Shape and dtype of a function's result, or of its several."""
    form = _form_of((func, args, kwargs))
    found = _RESULTS.get(form)
    if found is None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            found = func(*mapped(args, _outline), **mapped(kwargs, _outline))
        if len(_RESULTS) >= MOST_RESULTS:
            _RESULTS.clear()
        _RESULTS[form] = found
    return found


def _outline(value: Any) -> Any:
    """A tensor's shape and dtype without its numbers."""
    if isinstance(value, Step):
        return value.like
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return value


def _form_of(value: Any) -> Any:
    """What a function's result depends on but for its numbers, as a key: 1, 1.0 and True are three."""
    if isinstance(value, Step):
        return Step, value.like.shape, value.like.stride(), value.like.dtype
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.dtype
    if isinstance(value, (list, tuple)):
        return type(value), *map(_form_of, value)
    if isinstance(value, dict):
        return dict, *((name, _form_of(v)) for name, v in value.items())
    if isinstance(value, slice):
        return slice, value.start, value.stop, value.step
    return type(value), value


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    mapped(value, found.append)
    return found


def _form(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any, Kind] | None:
    """The function with its arguments as they hold for any rows, and how it takes them; None where it mixes rows."""
    x = args[0] if args else None
    if kwargs.get("out") is not None:
        return None
    if func in CAT and x is not None:
        tensors, dim = x, kwargs.get("dim", args[1] if len(args) > 1 else 0)
        wide = [t for t in tensors if t.shape[-1] == t.shape[-2]]
        last = dim in (-1, tensors[0].ndim - 1)
        return (func, args, kwargs, "rows") if last and len(wide) == 1 and isinstance(wide[0], Deferred) else None
    if func in ELEMENTWISE or (func in LARGEST and len(args) == 2 and isinstance(args[1], Tensor)):
        return _elementwise(func, args, kwargs)
    if not isinstance(x, Deferred):
        return None
    if func in SOFTMAX | _REDUCTIONS:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        keeps = func in SOFTMAX or kwargs.get("keepdim", args[2] if len(args) > 2 else False)
        return (func, args, kwargs, "rows") if keeps and dim in (-1, x.ndim - 1) else None
    if func in _RESHAPES | _EXPANSIONS:
        shape = _result_shape(func, args, kwargs)
        kind: Kind = "expand" if func in _EXPANSIONS else "reshape"
        ends = shape[-2:] == x.step.like.shape[-2:]
        change = _expand if kind == "expand" else _reshape
        return (change, (x, shape[:-2]), {}, kind) if ends else None
    if func in _TRIANGLES:
        diagonal = kwargs.get("diagonal", args[1] if len(args) > 1 else 0)
        return (func, (x,), {"diagonal": diagonal}, "triangle") if x.shape[-1] == x.shape[-2] else None
    if func is Tensor.__getitem__:
        index = _index(x.step.like.shape, args[1])
        return None if index is None else (func, (x, index), {}, "rows")
    return None


def _elementwise(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any, Kind] | None:
    x = args[0]
    if func in _WHERE and len(args) != 3:
        return None
    devices = [v for v in (*args, *kwargs.values()) if isinstance(v, (str, torch.device))]
    if func in _PLACED and any(
        torch.device(v) != x.step.device for v in devices if isinstance(v, torch.device) or not v.startswith("torch.")
    ):
        return None
    drop = (str, torch.device)
    args = tuple(v for v in args if not isinstance(v, torch.device)) if devices else args
    kwargs = {name: v for name, v in kwargs.items() if not isinstance(v, drop)} if devices else kwargs
    return func, args, kwargs, "rows"


def _result_shape(func: Any, args: Any, kwargs: Any) -> torch.Size:
    with torch._C.DisableTorchFunction(), torch.no_grad():
        like = func(args[0].step.like, *args[1:], **kwargs)
    return cast(Tensor, like).shape


def _reshape(x: Tensor, lead: torch.Size) -> Tensor:
    return x.reshape(*lead, *x.shape[-2:])


def _expand(x: Tensor, lead: torch.Size) -> Tensor:
    return x.expand(*lead, *x.shape[-2:])


def _index(shape: torch.Size, index: Any) -> tuple[Any, ...] | None:
    """An index that takes all rows, written so that it holds for any of them; None for another."""
    items = list(index) if isinstance(index, tuple) else [index]
    if any(not (item is None or item is Ellipsis or isinstance(item, (int, slice))) for item in items):
        return None
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    n = len(shape) - sum(item is not None and item is not Ellipsis for item in items)
    dots = next(i for i, item in enumerate(items) if item is Ellipsis)
    items[dots : dots + 1] = [slice(None)] * n
    if len(items) < 2 or not all(isinstance(item, slice) for item in items[-2:]):
        return None
    queries, keys = shape[-2:]
    if items[-2].indices(queries) != (0, queries, 1):
        return None
    start, stop, step = items[-1].indices(keys)
    if (start, stop, step) == (0, keys, 1):
        items[-1] = slice(None)
    elif keys == queries or step != 1:
        return None
    else:
        items[-1] = slice(start, stop - keys or None)
    items[-2] = slice(None)
    return tuple(items)


def constant(func: Any, args: Any, kwargs: Any, length: int) -> Deferred | None:
    """Ones, zeros or a number for every query and key, put off; None where the tensor is of another shape."""
    with torch._C.DisableTorchFunction():
        like = func(*args, **{**kwargs, "device": "meta"})
        device = torch.empty(0, device=kwargs.get("device")).device
    if like.ndim < 2 or like.shape[-2:] != (length, length) or kwargs.get("requires_grad"):
        return None
    value = {"ones": 1, "zeros": 0}.get(func.__name__)
    value = kwargs.get("fill_value", args[-1]) if value is None else value
    return Deferred(Step(torch.full, (like.shape[:-2], value), {}, like, device, "constant"))


def mask(func: Any, args: Any, kwargs: Any, length: int) -> Deferred | None:
    """What is made of one row and one column, put off; None where it is made of something else."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    columns = [t for t in tensors if t.ndim > 1 and t.shape[-2] == length and t.shape[-1] == 1]
    rows = [t for t in tensors if t.ndim > 0 and t.shape[-1] == length and (t.ndim == 1 or t.shape[-2] == 1)]
    if not columns or not rows or any(t.ndim > 1 and t.shape[-2:] == (length, length) for t in tensors):
        return None
    return cast(Deferred, record(func, args, kwargs))


def product(func: Any, args: Any, kwargs: Any, length: int) -> Deferred | None:
    """A product of queries and keys, put off; None where it is another product."""
    biased = func in BIASED_PRODUCTS
    pair = [kwargs.get("batch1", args[1]), kwargs.get("batch2", args[2])] if biased and len(args) > 2 else []
    pair = [kwargs.get("batch1"), kwargs.get("batch2")] if biased and not pair else pair or list(args[:2])
    if len(pair) != 2 or not all(isinstance(t, Tensor) and t.ndim >= 3 for t in pair):
        return None
    if pair[0].shape[-2] != length or pair[1].shape[-1] != length:
        return None
    if biased:
        weights = {name: kwargs.get(name, 1) for name in ("beta", "alpha")}
        return cast(Deferred, _put_off(_biased, (args[0], *pair), weights, "product"))
    return cast(Deferred, _put_off(torch.matmul, tuple(pair), {}, "product"))


def _biased(bias: Tensor, q: Tensor, k: Tensor, beta: float, alpha: float) -> Tensor:
    return torch.baddbmm(bias, q, k, beta=beta, alpha=alpha)
