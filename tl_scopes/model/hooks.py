"""Hook points: their names, attaching to them, and the state in which a model is differentiated; nothing is left behind."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from tl_scopes.model.lens import (
    LensModel,
    all_modules,
    architecture,
    feeds_a_branch,
    has_rotary_positions,
    residual_hooks,
    stacks,
    weights,
    whole,
)

NamesFilter = bool | str | Sequence[str] | Callable[[str], bool] | None
"""Which activations to keep: TransformerLens' ``names_filter``, or True for all, None for none."""
Y_HOOK = "unembed.hook_in"
RAW_LOGITS_HOOK = "unembed.hook_out"
Hook = Callable[..., Tensor | None]
BY_HEAD_FIRST = ("hook_pattern", "hook_attn_scores")
"""Activations ``[batch, head, query, key]``; with as many heads as tokens their shape alone would not tell."""

OF_MODULES = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}
"""What Hugging Face's Gemma calls an activation of its block, and the hook that has it."""


def hook_of_module(name: str) -> str | None:
    """``model.layers.9.output`` is ``blocks.9.hook_resid_post``; None for what has no hook of the same activation."""
    prefix, _, rest = name.partition("layers.")
    layer, _, part = rest.partition(".")
    return f"blocks.{layer}.{OF_MODULES[part]}" if prefix == "model." and part in OF_MODULES else None


def require_hook(model: LensModel, points: Mapping[str, Any], name: str, argument: str) -> None:
    """Refuse a hook name that does not exist, or never fires, on this model."""
    if name == "hook_pos_embed" and has_rotary_positions(model):
        raise ValueError(
            f"({argument}='hook_pos_embed'): this model has no additive position embedding "
            f"(positional_embedding_type={model.cfg.positional_embedding_type!r}), so nothing flows through "
            "hook_pos_embed. Use 'hook_embed'"
        )
    if name not in points:
        near = difflib.get_close_matches(name, points, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else "; see model.hook_dict"
        raise ValueError(f"({argument}={name!r}): this model has no such hook point{hint}")
    if argument == "at" and feeds_a_branch(model, name):
        block = name.removesuffix("hook_resid_mid")
        raise ValueError(
            f"({argument}={name!r}): on a TransformerBridge this hook is the input of the MLP's branch alone, and what "
            f"flows beside it is not seen there. Use '{block}hook_resid_pre' or '{block}hook_resid_post'; gradients of the "
            f"whole stream in between come with grads_at={name!r}"
        )


def has_hooks_at(model: LensModel, endings: Sequence[str]) -> bool:
    """Has anybody put a hook on a hook point of one of these last names?"""
    points = model.hook_dict.items()
    return any(point.fwd_hooks or point.bwd_hooks for name, point in points if name.rsplit(".", 1)[-1] in endings)


def required_residual_hooks(model: LensModel) -> tuple[str, ...]:
    """The residual stream before every block and after the last one; refuses a model that has no one stream."""
    names = residual_hooks(model)
    if missing := [name for name in names if name not in model.hook_dict]:
        raise ValueError(
            f"TransformerLens shows no {missing[0]} in {architecture(model)}: several residual streams run through it, or "
            "none. Use a scope, or grads_at= with a hook of model.hook_dict"
        )
    return names


def by_position(shape: torch.Size, target: str) -> Callable[[Tensor], None]:
    """Refuses an activation that is not ``[batch, pos, ...]``."""

    def check(activation: Tensor) -> None:
        if activation.shape[:2] != shape or target.rsplit(".", 1)[-1] in BY_HEAD_FIRST:
            raise ValueError(
                f"(target_hook={target!r}): the activation there is {list(activation.shape)}, and a target "
                f"needs [batch, pos, ...] = {[*shape]} first, to be read at one position. Use a hook such "
                "as 'blocks.0.hook_resid_post', 'blocks.0.attn.hook_z' or 'blocks.0.mlp.hook_post'"
            )

    return check


def cut_gradients(model: LensModel) -> list[tuple[str, Hook]]:
    """Hooks that refuse a model which runs its blocks without a graph inside a run that is to have one."""
    if not torch.is_grad_enabled():
        return []

    def watch(activation: Tensor, hook: Any) -> None:
        if not torch.is_grad_enabled():
            raise ValueError(
                f"{architecture(model)} runs some of its blocks without gradient, as its training does, so that autograd "
                "gives something else than the derivative of its logits. Load it so that they have one (HRM-Text: with "
                "L_bp_cycles=[config.L_cycles] * config.H_cycles), or use leave_one_out, which needs no gradient"
            )

    return [(name, watch) for name in (f"{stack}.0.hook_in" for stack in stacks(model)) if name in model.hook_dict]


def fires_again(name: str, argument: str) -> ValueError:
    """The refusal of a hook where several activations pass in one forward."""
    return ValueError(
        f"({argument}={name!r}): this hook fires more than once in a forward (as where HookedTransformer normalizes a "
        "block's input for queries, keys and values apart, or a model runs its blocks several times), so that no one "
        "activation is the one there. Use a hook before or after it, such as hook_embed, hook_resid_pre or attn.hook_v"
    )


@contextmanager
def attached(points: Mapping[str, Any], hooks: Iterable[tuple[str, Hook]]) -> Iterator[None]:
    """Run with hooks on named hook points, in this thread; afterwards only these hooks are gone.

    ``model.hooks()`` is not used: on the 3.9 bridge it skips unknown names and rescans the model per name.
    """
    ours: list[tuple[Any, Any]] = []
    try:
        for name, hook in hooks:
            point = points[name]
            point.add_hook(_in_this_thread(hook))
            ours.append((point, point.fwd_hooks[-1]))
        yield
    finally:
        for point, handle in reversed(ours):
            handle.hook.remove()
            point.fwd_hooks[:] = [h for h in point.fwd_hooks if h is not handle]


def _in_this_thread(hook: Hook) -> Hook:
    """The hook, which lets another thread's run of the model pass as it is."""
    thread = threading.get_ident()

    def mine(activation: Tensor, hook: Any, *, of: Hook = hook) -> Tensor | None:
        return of(activation, hook=hook) if threading.get_ident() == thread else None

    return mine


class _Hidden(MutableMapping[int, Any]):
    """A module's hooks, of which the thread that made this sees those alone that it put there afterwards."""

    def __init__(self, hooks: MutableMapping[int, Any]) -> None:
        self.hooks, self._mine = hooks, set[int]()
        self._thread: int | None = threading.get_ident()

    def reveal(self) -> MutableMapping[int, Any]:
        """The hooks, which every thread sees from now on."""
        self._thread = None
        return self.hooks

    @property
    def _seen(self) -> Mapping[int, Any]:
        if threading.get_ident() != self._thread:
            return self.hooks
        return {key: hook for key, hook in list(self.hooks.items()) if key in self._mine}  # in the order of the others

    def __getitem__(self, key: int) -> Any:
        return self._seen[key]

    def __iter__(self) -> Iterator[int]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)

    def __setitem__(self, key: int, hook: Any) -> None:
        self.hooks[key] = hook
        if threading.get_ident() == self._thread:
            self._mine.add(key)
        else:
            _KEPT.append(self)

    def __delitem__(self, key: int) -> None:
        del self.hooks[key]


_KEPT: list[_Hidden] = []
"""Those that another thread put a hook into: torch's handle of it refers to them weakly, and takes it off through them."""


@contextmanager
def without_hooks(model: LensModel) -> Iterator[None]:
    """The model without others' hooks, in this thread: a measurement is no run of the user's. What is put on it inside acts,
    what other threads put on it meanwhile does not."""
    _KEPT[:] = [hidden for hidden in _KEPT if hidden.hooks]
    places = [
        (point, name) for point in set(model.hook_dict.values()) for name in ("_forward_hooks", "_backward_hooks")
    ]
    try:
        for point, name in places:
            setattr(point, name, _Hidden(getattr(point, name)))
        yield
    finally:
        for point, name in places:
            hooks = getattr(point, name)
            if isinstance(hooks, _Hidden):
                setattr(point, name, hooks.reveal())


@contextmanager
def differentiable(model: LensModel) -> Iterator[None]:
    """Grad mode on, parameters frozen, Hugging Face's own checkpointing off; all as before on exit, also after an error.

    That acts in training mode, and would run a block again in the backward without what a run puts on it; a run that
    needs checkpointing has the package's.

    Works inside ``torch.no_grad()`` and ``torch.set_grad_enabled(False)``; inference mode is left at the door of a call, see
    :func:`tl_scopes.model.lock.model_call`.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        trainable = [p for p in weights(model) if p.requires_grad]
        stack.callback(lambda: [p.requires_grad_(True) for p in trainable])
        for parameter in trainable:
            parameter.requires_grad_(False)
        for module in all_modules(whole(model)):
            if module.training and vars(module).get("gradient_checkpointing") is True:
                vars(module)["gradient_checkpointing"] = False
                stack.callback(vars(module).__setitem__, "gradient_checkpointing", True)
        yield


def cached_names(points: Mapping[str, Any], cache: NamesFilter) -> list[str]:
    """All hook names that the filter picks."""
    return cache_names(points, cache)[0]


def cache_names(points: Mapping[str, Any], cache: NamesFilter) -> tuple[list[str], list[str]]:
    """All names that the filter picks, and those it names outright (which must fire)."""
    if cache is None or cache is False:
        return [], []
    if cache is True:
        return list(points), []
    if callable(cache):
        return [name for name in points if cache(name)], []
    names = [cache] if isinstance(cache, str) else list(cache)
    return names, names
