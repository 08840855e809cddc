"""What a function of torch is on the graph of a run in which parts are held constant (:mod:`tl_scopes.model.frozen`).

Every rule calls the function itself for the value; what it changes is the way back:

* a root in a norm, a pattern of attention, a gate: no way back at all;
* an elementwise activation: ``c u`` with ``c = act(u)/u`` constant;
* a product of two live factors: half of its gradient;
* a fused norm or a fused attention: the gradient of the same written out.

Or patterns have a :class:`Valve`, and one graph has two linearisations: the exact one, and that with attention held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tl_scopes.model.torch_functions import functions_named

Part = Literal["norms", "attention", "activations"]
PARTS: tuple[Part, ...] = get_args(Part)
Kind = Literal["norm", "attention", "query", "state", "other"]
"""What a module is: ``"query"`` is a norm of queries or keys, and whatever is to be left as it is."""
_SCALES = functions_named("rsqrt", "sqrt", "std", "norm", "vector_norm")
_LAYER_NORM, _RMS_NORM = functions_named("layer_norm"), functions_named("rms_norm")
_SOFTMAX = functions_named("softmax", "log_softmax", "_softmax")
_FUSED_ATTENTION = functions_named("scaled_dot_product_attention")
_POWERS = functions_named("pow", "__pow__")
_PRODUCTS = functions_named("mul", "multiply", "__mul__", "__rmul__")
_VANISHING = functions_named(
    "gelu", "silu", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "tanh", "hardtanh", "hardswish", "mish",
    "softsign", "square", "abs", "tanhshrink", "softshrink", "hardshrink", "erf", "sin", "arctan", "atan", "expm1",
    "log1p", "clamp", "clip",
)  # fmt: skip
"""Elementwise, and 0 at 0; of a clamp that depends on its bounds."""
_GATES = functions_named("sigmoid", "softplus", "exp", "logsigmoid", "hardsigmoid", "cos", "erfc")
"""Elementwise, and not 0 at 0."""
_OUTPUT_GATES = functions_named("sigmoid", "softplus")
_OUTPUT_ACTIVATIONS = functions_named("silu", "gelu", "relu", "clamp", "clip")
"""What stands inside a module of attention on the way of the values: gates of the heads' outputs, a bound on values."""
_IN_PLACE = functions_named("clamp_", "clip_", "relu_")
_SUMS = functions_named("add", "__add__", "__radd__")


NEARLY = 1e-3
"""Below it an activation counts as 0 at 0: one with a small number against division by 0 is not exactly that."""


@dataclass(eq=False)
class Valve:
    """Stands on the way back through every pattern of attention; set between the backwards of one graph.

    Attributes:
        open: may gradients pass?
    """

    open: bool = True

    def __call__(self, gradient: Tensor) -> Tensor:
        """The gradient, or 0."""
        return gradient if self.open else torch.zeros_like(gradient)

    def on(self, value: Any) -> Any:
        """The same value behind this valve, where it is on a graph."""
        if not _live(value):
            return value
        behind = value.view_as(value)
        behind.register_hook(self)
        return behind


class _Secant(torch.autograd.Function):
    """``f(u)``, whose backward is that of ``c u``, ``c = f(u)/u`` constant."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """``f(u)``."""
        value = f(u)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            zero = torch.zeros((), dtype=u.dtype, device=u.device, requires_grad=True)
            (slope,) = torch.autograd.grad(f(zero), zero)
        ctx.save_for_backward(torch.where(u == 0, slope, value / u))
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """``g c``."""
        return gradients[0] * ctx.saved_tensors[0], None


class _HeldScale(torch.autograd.Function):
    """A fused norm, whose backward holds ``1/σ``: ``(g w − mean(g w)) / σ``, without the mean where none was taken off."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None, centred: bool
    ) -> Tensor:
        """The norm's own value."""
        ctx.save_for_backward(inverse, weight)
        ctx.centred, ctx.dtype = centred, x.dtype
        ctx.bias = None if bias is None else bias.shape
        return value.clone() if value is x else value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, Tensor | None, None]:
        """As in the class."""
        (g,) = gradients
        inverse, weight = ctx.saved_tensors
        of_bias = g.sum_to_size(ctx.bias) if ctx.needs_input_grad[4] else None
        g = g if weight is None else g * weight
        dims = tuple(n for n in range(-inverse.ndim, 0) if inverse.shape[n] == 1 and g.shape[n] != 1)
        g = g - g.mean(dims, keepdim=True) if ctx.centred and dims else g
        return (g * inverse).to(ctx.dtype), None, None, None, of_bias, None


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """``F.layer_norm`` with its scale held."""
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    w, b = (None if p is None else p.detach() for p in (weight, bias))
    value, _, inverse = torch.native_layer_norm(input.detach(), shape, w, b, eps)
    return cast(Tensor, _HeldScale.apply(input, value, inverse, w, bias, True))  # type: ignore[no-untyped-call]


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """``F.rms_norm`` with its scale held."""
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    x, w = input.detach(), None if weight is None else weight.detach()
    value = F.rms_norm(x, shape, w, eps)
    wide = x if x.dtype == torch.float64 else x.float()
    mean = wide.square().mean(tuple(range(-len(shape), 0)), keepdim=True)
    inverse = (mean + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return cast(Tensor, _HeldScale.apply(input, value, inverse, w, None, False))  # type: ignore[no-untyped-call]


def _live(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _vanishes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Is an elementwise function 0 at 0? Only a clamp may not be."""
    if not getattr(func, "__name__", "").startswith(("clamp", "clip")):
        return True
    low, high = [*args[1:], None, None][:2]
    low, high = kwargs.get("min", low), kwargs.get("max", high)
    numbers = all(bound is None or isinstance(bound, (int, float)) for bound in (low, high))
    return numbers and (low is None or low <= 0) and (high is None or high >= 0)


class HoldingMode(TorchFunctionMode):
    """Watches the functions of torch in one run of the model, and holds what is asked for.

    Attributes:
        held: how often each part was held.
        kinds: what the modules are that the run is inside of, innermost last.
        offset: what stands for a number that is added to a tensor outside of norms and attention; None leaves it.
        valve: of patterns, where those are not held.
    """

    def __init__(self, parts: Iterable[Part], valve: Valve | None = None) -> None:
        super().__init__()
        self.valve = valve
        self.norms, self.attention, self.activations = (part in parts for part in PARTS)
        self.held = dict.fromkeys(PARTS, 0)
        self.kinds: list[Kind] = ["other"]
        self.offset: Callable[[float, Any], Any] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function's own value, on another graph where a part is held."""
        kwargs = kwargs or {}
        rule = _RULES.get(func)
        if rule is None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return rule(self, func, args, kwargs)

    @contextmanager
    def inside(self, kind: Kind) -> Iterator[None]:
        """In a module of this kind."""
        self.kinds.append(kind)
        try:
            yield
        finally:
            self.kinds.pop()

    def _constant(self, part: Part, result: Tensor) -> Tensor:
        self.held[part] += result.requires_grad
        return result.detach()

    def _behind_valve(self, value: Tensor) -> Tensor:
        assert self.valve is not None
        self.held["attention"] += value.requires_grad
        found: Tensor = self.valve.on(value)
        return found

    def _secant(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        self.held["activations"] += 1
        return cast(Tensor, _Secant.apply(args[0], lambda u: func(u, *args[1:], **kwargs)))  # type: ignore[no-untyped-call]

    def scale(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A root, which stands in norms alone."""
        result = func(*args, **kwargs)
        if self.norms and self.kinds[-1] in ("norm", "other") and _live(result):
            return self._constant("norms", result)
        return result

    def fused_norm(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A whole norm."""
        given = args[0] if args else kwargs.get("input")
        if not (self.norms and self.kinds[-1] in ("norm", "other") and _live(given)):
            return func(*args, **kwargs)
        self.held["norms"] += 1
        return (_layer_norm if func in _LAYER_NORM else _rms_norm)(*args, **kwargs)

    def softmax(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A pattern of attention, or weights of experts."""
        result = func(*args, **kwargs)
        kind = self.kinds[-1]
        if kind == "attention" and (self.attention or self.valve is not None):
            return self._constant("attention", result) if self.attention else self._behind_valve(result)
        return self._constant("activations", result) if self.activations and kind in ("other", "norm") else result

    def fused_attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Attention as one function: its queries and keys are constants, and a mask of scores with them."""
        if not self.attention and self.valve is None:
            return func(*args, **kwargs)
        hold = torch.detach if self.attention else self._behind_valve
        self.held["attention"] += self.attention
        names = ("query", "key", "value", "attn_mask")
        given = dict(zip(names, args, strict=False)) | kwargs
        live = {n: hold(v) if n != "value" and isinstance(v, Tensor) else v for n, v in given.items()}
        return func(*(live.pop(n) for n in names[: min(len(args), 4)]), *args[4:], **live)

    def power(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A power: a root of a norm, or an activation."""
        exponent = args[1] if len(args) > 1 else kwargs.get("exponent")
        if not isinstance(exponent, (int, float)) or not _live(args[0]):
            return func(*args, **kwargs)
        if exponent in (-0.5, 0.5):
            return self.scale(func, args, kwargs)
        return self.elementwise(func, args, kwargs) if exponent > 0 else func(*args, **kwargs)

    def elementwise(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An activation that is 0 at 0."""
        args, kwargs = _first(args, kwargs)
        kind = self.kinds[-1]
        acts = kind == "other" or (kind == "attention" and func in _OUTPUT_ACTIVATIONS)
        if not (self.activations and acts and _live(args[0])) or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        if _vanishes(func, args, kwargs):
            return self._secant(func, args, kwargs)
        return self._constant("activations", func(*args, **kwargs))

    def in_place(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An activation that overwrites what it is given."""
        u = args[0]
        if not (self.activations and self.kinds[-1] in ("other", "attention") and _live(u)):
            return func(*args, **kwargs)
        return u.copy_(self._secant(lambda x, *more, **named: func(x.clone(), *more, **named), args, kwargs))

    def gate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An activation that is not 0 at 0."""
        result = func(*args, **kwargs)
        kind = self.kinds[-1]
        acts = kind == "other" or (kind == "attention" and func in _OUTPUT_GATES)
        return self._constant("activations", result) if self.activations and acts else result

    def product(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A product, of two live factors perhaps."""
        result = func(*args, **kwargs)
        if self.activations and self.kinds[-1] == "other" and _live(args[0]) and len(args) > 1 and _live(args[1]):
            self.held["activations"] += 1
            result.register_hook(_half)
        return result

    def sum(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A sum: a number that the model adds is shown to who asks."""
        if self.offset is None or self.kinds[-1] != "other" or len(args) != 2 or kwargs:
            return func(*args, **kwargs)
        return func(*(self.offset(a, b) if isinstance(a, (int, float)) else a for a, b in (args, args[::-1])))

    def whole_activation(self, f: Callable[..., Tensor], u: Any, args: Any, kwargs: Any) -> Any:
        """An activation that may be written out in several functions, taken as one."""
        with self.inside("query"):
            if not (self.activations and torch.is_grad_enabled() and _live(u)):
                return f(u, *args, **kwargs)
            if _vanishes_at_0(f, u):
                return self._secant(f, (u, *args), kwargs)
            return self._constant("activations", f(u, *args, **kwargs))


def _half(gradient: Tensor) -> Tensor:
    return gradient * 0.5


def _first(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments with the tensor in first place, where it came by name."""
    if args:
        return args, kwargs
    others = dict(kwargs)
    return (others.pop("input"),), others


def _vanishes_at_0(f: Callable[..., Tensor], like: Tensor) -> bool:
    with torch.no_grad():
        return bool(f(torch.zeros((), dtype=like.dtype, device=like.device)).abs() < NEARLY)


_RULES: dict[Any, Callable[[HoldingMode, Any, Any, Any], Any]] = {
    func: rule
    for functions, rule in (
        (_VANISHING, HoldingMode.elementwise),
        (_GATES, HoldingMode.gate),
        (_IN_PLACE, HoldingMode.in_place),
        (_SUMS, HoldingMode.sum),
        (_PRODUCTS, HoldingMode.product),
        (_POWERS, HoldingMode.power),
        (_SCALES, HoldingMode.scale),
        (_LAYER_NORM | _RMS_NORM, HoldingMode.fused_norm),
        (_SOFTMAX, HoldingMode.softmax),
        (_FUSED_ATTENTION, HoldingMode.fused_attention),
    )
    for func in functions
}
