"""What a scope may be asked for besides its scores, checked: the keywords that all scopes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tl_scopes.model.hooks import Y_HOOK, NamesFilter
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory

DEFAULT_BATCH = 16
"""Prompts per forward where the caller names no batch size."""


@dataclass(frozen=True)
class Capture:
    """What every scope may ask of the run besides its scores.

    Attributes:
        at: source hook.
        target_hook: hook where V lives.
        batch_size: prompts per forward; None for the default.
        cache: activations to bring back.
        grads_at: hooks whose gradient joins the cache.
        keep_gradient: keep ``[pos, d_model]`` at the source.
        checkpoint: compute the insides of blocks again in the backward; None where the run does not fit otherwise.
        memory_budget: bytes that a run may take beside the weights; None is what is free.
    """

    at: str = "hook_embed"
    target_hook: str = Y_HOOK
    batch_size: int | None = None
    cache: NamesFilter = None
    grads_at: tuple[str, ...] = ()
    keep_gradient: bool = False
    checkpoint: bool | None = None
    memory_budget: int | None = None

    @property
    def wants_cache(self) -> bool:
        """Is an ``ActivationCache`` to be returned?"""
        return bool(self.grads_at) or (self.cache is not None and self.cache is not False)

    def memory(self, model: LensModel, call: str, taps: Sequence[Tap] = ()) -> Memory:
        """What decides how to run the model so that it fits."""
        return Memory(
            model,
            source=self.at,
            target=self.target_hook,
            grads=(*self.grads_at, *(tap.name for tap in taps)),
            cache=self.cache,
            checkpoint=self.checkpoint,
            budget=self.memory_budget,
            call=call,
        )


@dataclass(frozen=True, eq=False)
class Tap:
    """A hook inside the model, and what is kept there of the gradients that pass it.

    Attributes:
        name: hook; its activation is ``[batch, pos, ...]``.
        reduce: ``(gradients [rows, batch, pos, ...], activation [batch, pos, ...])`` to ``[rows, batch, pos, ...]``.
        joined: how rows of V become one number: ``"score"`` as in the score, by weighted squares; ``"one row"``: there
            must be one only, for signed numbers; ``"first"``: they are all the same.
    """

    name: str
    reduce: Callable[[Tensor, Tensor], Tensor]
    joined: Literal["score", "one row", "first"] = "score"


def require_batch_size(batch_size: int | None, call: str) -> None:
    """Refuse what is no number of rows."""
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise ValueError(f"{call}(batch_size={batch_size!r}): expected a positive integer or None")


def capture_options(
    *,
    at: str,
    batch_size: int | None,
    cache: NamesFilter,
    grads_at: str | Sequence[str],
    keep_gradient: bool,
    call: str,
    target_hook: str = Y_HOOK,
    checkpoint: bool | None = None,
    memory_budget: int | None = None,
) -> Capture:
    """The common keywords of a scope, checked."""
    if memory_budget is not None and (isinstance(memory_budget, bool) or memory_budget < 1):
        raise ValueError(f"{call}(memory_budget={memory_budget!r}): expected a positive number of bytes or None")
    if checkpoint is not None and not isinstance(checkpoint, bool):
        raise ValueError(f"{call}(checkpoint={checkpoint!r}): expected True, False or None")
    require_batch_size(batch_size, call)
    names = (grads_at,) if isinstance(grads_at, str) else tuple(grads_at)
    return Capture(at, target_hook, batch_size, cache, names, keep_gradient, checkpoint, memory_budget)
