"""A forward that begins at a later block, whose input is known: the blocks before it are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

from torch import Tensor

from tl_scopes.model.hooks import Hook
from tl_scopes.model.lens import LensModel, blocks
from tl_scopes.model.patches import patched


@contextmanager
def beginning_at(model: LensModel, layer: int, residual: Tensor) -> Iterator[list[tuple[str, Hook]]]:
    """Blocks before ``layer`` give back what they are given; the hooks put the residual stream ``[1, pos, d_model]`` in.

    Whether a model can be run so must be seen by running it: later blocks may need more of earlier ones than the stream.
    """

    def put(activation: Tensor, hook: Any) -> Tensor:
        return residual.to(activation.device).expand_as(activation)

    with ExitStack() as stack:
        for block in islice(blocks(model), layer):
            stack.enter_context(patched(block, "forward", _left_out))
        yield [(stream_before(layer), put)]


def stream_before(layer: int) -> str:
    """The hook at a block's input."""
    return f"blocks.{layer}.hook_resid_pre"


def _left_out(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A block that does nothing."""

    def call(stream: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return stream

    return call
