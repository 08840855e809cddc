"""Parts of a model held constant in the backward: which linearisation a gradient is of.

========================  ==========================================================================================
``"norms"``               the scale ``1/σ`` of every norm; the mean that LayerNorm takes off stays live
``"attention"``           the patterns: queries, keys, their norms, caps on scores and biases of positions with them
``"activations"``         ``act(u)`` becomes ``c u`` with ``c = act(u)/u`` constant (``act'(0)`` at ``u = 0``), a product of
                          two live factors passes half of its gradient to each, and a gate with ``act(0) ≠ 0`` (a
                          sigmoid, the weights of experts) is a constant; a cap on logits is an activation
========================  ==========================================================================================

The forward runs the model's own functions on its own values, and only the graph that it leaves differs. A
``TorchFunctionMode`` sees every function of torch while the model runs; what a function means depends on the module it is
called in, which a wrapper on each module's ``forward`` says. With all three the model is affine in its embeddings, its other
embeddings and its biases together, so that ``Σ⟨leaf, gradient⟩`` is the scalar itself: :mod:`tl_scopes.model.completeness`
asks that of every model once.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from tl_scopes.model.held_functions import PARTS, HoldingMode, Kind, Part, Valve
from tl_scopes.model.patches import patched

Name = Literal["norms", "attention", "activations", "all"]
Frozen = Name | Iterable[Name]
"""What a caller may write: a name, several, or ``"all"``."""


def frozen_parts(frozen: Frozen) -> tuple[Part, ...]:
    """The names, each once and in the order of :data:`PARTS`.

    Raises:
        ValueError: another name.
        TypeError: no name and no iterable of names.
    """
    if isinstance(frozen, str):
        names: list[str] = list(PARTS) if frozen == "all" else [frozen]
    else:
        names = list(frozen)
        if any(not isinstance(name, str) for name in names):
            raise TypeError(f"(frozen={frozen!r}): expected names among {', '.join(map(repr, PARTS))}, or 'all'")
        names = list(PARTS) if "all" in names else names
    if unknown := [name for name in names if name not in PARTS]:
        raise ValueError(f"(frozen={unknown[0]!r}): expected names among {', '.join(map(repr, PARTS))}, or 'all'")
    return tuple(part for part in PARTS if part in names)


STATE = re.compile(
    r"Mamba\w*Mixer|SSM\w*Mixer|DeltaNet|R[Ww][Kk][Vv]|Recurrent\w*Block|Rglru|Lightning|LinearAttention|Hyena"
)
_ATTENTION = re.compile(r"Attention|Attn")
_WHOLE = re.compile(r"Block|Layer|Model|ForCausalLM|LMHead")
"""A class called after what it holds: an attention block has its MLP in it."""
_EXPERTS = re.compile(r"MoA$|MoE$|Moe$|Router|Gating|Experts|MLP")
_QUERY_OR_KEY = re.compile(r"(q|k|qk|query|key)(_|$)")
_ACTIVATION_NAMES = re.compile(
    r"(act|act_fn|activation|activation_fn|activation_function|intermediate_act_fn|gelu_impl)$"
)
_ACTIVATION_HOMES = ("transformers.activations", "torch.nn.modules.activation")
_ORIGINAL = "_original_component"
"""Where a bridge's part keeps the module that it stands for."""


def _kind(module: nn.Module, name: str, outer: Kind) -> Kind:
    """What a module is, by its class, and by its name inside of another."""
    of = type(module).__name__
    if outer == "query":
        return outer
    if "Norm" in of:
        return "query" if outer == "attention" and _QUERY_OR_KEY.match(name) else "norm"
    if STATE.search(of):
        return "state"
    if _ATTENTION.search(of) and not _WHOLE.search(of):
        return "attention"
    return "other" if outer == "norm" or (outer == "attention" and _EXPERTS.search(of)) else outer


def _walk(module: nn.Module, name: str, outer: Kind, seen: dict[nn.Module, tuple[str, Kind, Kind]]) -> None:
    """Every module below, with its name, its kind and that of what it is in."""
    if module in seen:
        return
    kind = _kind(module, name, outer)
    seen[module] = (name, kind, outer)
    for child_name, child in module._modules.items():
        if child is not None:
            _walk(child, name if child_name == _ORIGINAL else child_name, kind, seen)


def _is_activation(module: nn.Module, name: str) -> bool:
    """Is the module an elementwise activation?"""
    home, of = type(module).__module__, type(module).__name__
    if "Softmax" in of or "Attention" in of:
        return False
    return home in _ACTIVATION_HOMES or (bool(_ACTIVATION_NAMES.match(name)) and not module._modules)


_ACTIVE = threading.local()


def holding() -> HoldingMode | None:
    """What holds parts of the run that goes on in this thread; None where nothing is held."""
    return getattr(_ACTIVE, "mode", None)


@contextmanager
def held(parts: Sequence[Part], roots: Iterable[Any], valve: Valve | None = None) -> Iterator[HoldingMode | None]:
    """Run the model inside: gradients of its graph hold these parts constant; a context inside another does nothing.

    ``roots`` are the modules that run, whole models or one block that is computed again. Patterns that are not held are
    behind the valve.
    """
    if (not parts and valve is None) or holding() is not None:
        yield None
        return
    mode = HoldingMode(parts, valve)
    mode.offset = getattr(_ACTIVE, "offset", None)
    seen: dict[nn.Module, tuple[str, Kind, Kind]] = {}
    for root in roots:
        _walk(root, "", "other", seen)
    with ExitStack() as stack:
        for module, (name, kind, outer) in seen.items():
            if _is_activation(module, name):  # patched in any case: a root in one is not that of a norm
                stack.enter_context(patched(module, "forward", functools.partial(_whole, mode)))
                continue
            for attribute, value in list(module.__dict__.items()):
                if _ACTIVATION_NAMES.match(attribute) and callable(value):
                    stack.enter_context(patched(module, attribute, functools.partial(_whole, mode)))
            if kind != outer or _EXPERTS.search(type(module).__name__):  # these may run without what holds them
                stack.enter_context(patched(module, "forward", functools.partial(_inside, mode, kind)))
        _ACTIVE.mode = mode
        stack.callback(setattr, _ACTIVE, "mode", None)
        stack.enter_context(mode)
        yield mode


@contextmanager
def offsets_shown(offset: Callable[[float, Any], Any]) -> Iterator[None]:
    """What stands, in every run inside that holds something, for a number that the model adds to a tensor."""
    _ACTIVE.offset = offset
    try:
        yield
    finally:
        _ACTIVE.offset = None


def _inside(mode: HoldingMode, kind: Kind, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A module's forward, which says where the run is."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with mode.inside(kind):
            return forward(*args, **kwargs)

    return call


def _whole(mode: HoldingMode, f: Callable[..., Tensor]) -> Callable[..., Any]:
    """An activation, taken as one function."""

    def call(u: Any, *args: Any, **kwargs: Any) -> Any:
        return mode.whole_activation(f, u, args, kwargs)

    return call
