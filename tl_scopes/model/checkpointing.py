"""Activation checkpointing: keep each block's input, compute its inside again in the backward.

Without it a forward keeps every activation of every block for the backward; with it only the inputs of the blocks
``[n_layers, batch, pos, d_model]`` and the inside of one block at a time, for one more forward per backward. The
numbers are the same bit for bit: the same operations run on the same values.

Hugging Face's own ``gradient_checkpointing_enable`` acts in training mode only; this wraps each block's ``forward`` on the
instance and takes the wrapper off again. A block computed again needs the hooks of the first time, because a hook that
returns its activation changes the graph (on the bridge q, k, v and z are converted for it); the caller passes stand-ins that
do the same operations and record nothing. A user's own hooks inside blocks do fire again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from tl_scopes.model.attention_plan import AttentionPlan, planned
from tl_scopes.model.frozen import held
from tl_scopes.model.held_functions import Part, Valve
from tl_scopes.model.lens import LensModel, blocks, eagerly, hook_points, restore_patterns
from tl_scopes.model.patches import patched
from tl_scopes.model.slopes import slopes_only

Attach = Callable[[int], AbstractContextManager[None]]
"""A fresh context in which the stand-in hooks of the i-th block are attached."""


@dataclass(eq=False)
class _Again(AbstractContextManager[None]):
    """The surroundings of one block computed again; entered once per backward."""

    attach: Callable[[], AbstractContextManager[None]]
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> None:
        self.stack.enter_context(self.attach())

    def __exit__(self, *error: object) -> None:
        self.stack.close()


@contextmanager
def checkpointed_blocks(
    model: LensModel, attach: Attach, frozen: Sequence[Part], valve: Valve | None, plan: AttentionPlan
) -> Iterator[None]:
    """Checkpoint every transformer block of forwards in this context; their backwards may run after it, and hold the
    frozen parts constant, have the valve before patterns, and compute attention by the plan.

    What ``attach`` refers to lives as long as the graph: it must not hold a tensor of the graph.
    """
    with ExitStack() as stack:
        for i, block in enumerate(blocks(model)):
            stack.enter_context(
                patched(block, "forward", partial(_checkpointed, block, i, attach, (frozen, valve), plan))
            )
        yield


def _checkpointed(
    block: Any,
    i: int,
    attach: Attach,
    hold: tuple[Sequence[Part], Valve | None],
    plan: AttentionPlan,
    forward: Callable[..., Any],
) -> Callable[..., Any]:
    """The i-th block's forward, checkpointed."""
    again = replace(plan, chosen=[])

    def whole(*args: Any, **kwargs: Any) -> Any:
        # As a run of one block: nothing stays on its modules that would hold what is to be freed.
        with (
            eagerly(),
            slopes_only([block]),
            restore_patterns([block]),
            held(hold[0], [block], hold[1]),
            planned(again, hook_points(block)),
        ):
            return forward(*args, **kwargs)

    def call(*args: Any, **kwargs: Any) -> Any:
        # No random state to save: active dropout is refused before any forward.
        return checkpoint(
            whole,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _Again(lambda: attach(i))),
            **kwargs,
        )

    return call
