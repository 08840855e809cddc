"""What the hooks of one run record, and what becomes of it: predictions, and gradients where they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.model.attention_plan import Path
from tl_scopes.model.followed import Followed, followed
from tl_scopes.model.hooks import Hook
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions, Table, Unembedded


class Recorder:
    """The hooks of one run at the explained (row, column) pairs, and what they record.

    Hooks hold the dictionaries they write, never the object that holds the hooks: such a cycle would keep a graph alive
    until the garbage collector runs.
    """

    def __init__(self, rows: Int[Tensor, " read"], columns: Int[Tensor, " read"], table: bool) -> None:
        self.rows, self.columns, self.table = rows, columns, table
        self.got: dict[str, Tensor] = {}
        self.picked: dict[str, Tensor] = {}
        self.repeated: set[str] = set()
        self._leaves: dict[str, Tensor] = {}
        self._stand_ins: dict[Hook, Hook] = {}

    def observe(self, name: str, once: bool) -> Hook:
        """Record the activation, and whether there is a second one where there must be one only."""
        got, repeated = self.got, self.repeated

        def hook(activation: Tensor, hook: Any) -> None:
            repeated.update({name} & got.keys() if once else ())
            got.setdefault(name, activation)

        self._stand_ins[hook] = lambda activation, hook: None
        return hook

    def differentiate(self, name: str, whole: bool = False) -> Hook:
        """Record the activation on the graph; begin the graph here if there is none yet.

        What is recorded is what goes on from this hook, and not what a branch beside it takes; ``whole`` records both.
        """
        got, leaves, repeated = self.got, self._leaves, self.repeated

        def hook(activation: Tensor, hook: Any) -> Tensor:
            repeated.update({name} & got.keys())
            if not activation.requires_grad:
                # A copy goes on, so that a user's in-place edit further down never meets a leaf.
                got[name] = leaves[name] = activation.detach().requires_grad_(True)
                return leaves[name].clone()
            mine = activation if whole else activation.view_as(activation)
            got.setdefault(name, mine)
            return mine  # on the bridge, q/k/v/z are off the path unless the hook returns them

        self._stand_ins[hook] = lambda activation, hook: leaves[name].clone() if name in leaves else activation
        return hook

    def pick(self, name: str, check: Callable[[Tensor], None]) -> Hook:
        """Record the explained positions of the activation, once ``check`` lets it pass."""
        at, picked, repeated = _index(self.rows, self.columns), self.picked, self.repeated

        def hook(activation: Tensor, hook: Any) -> Tensor:
            check(activation)
            repeated.update({name} & picked.keys())
            picked.setdefault(name, at(activation))
            return activation

        def same(activation: Tensor, hook: Any) -> Tensor:
            at(activation)
            return activation

        self._stand_ins[hook] = same
        return hook

    def read_out(self, activation: Tensor, hook: Any) -> Tensor:
        """Record y, and let nothing else go on to the unembedding."""
        y = _index(self.rows, self.columns)(activation)
        self.picked["y"] = y
        return y[None] if self.table else y[None, :0].detach()

    def raw(self, activation: Tensor, hook: Any) -> Tensor:
        """Record ``y W_U + b_U``, or follow what becomes of it."""
        self.picked["raw_logits"] = activation
        return activation if self.table else followed(activation)

    def predictions(self, model: LensModel, logits: Tensor, attention: tuple[Path, ...]) -> Predictions | None:
        """Of what the model returned; None where it is no elementwise function of the raw logits."""
        W_U = model.W_U.detach()
        if self.table:
            slope = _read_out_slope(self.picked["raw_logits"], logits)
            table = logits[0].detach().to(W_U.device)
            return Predictions.all_of(Table(table, None if slope is None else slope.to(W_U.device), W_U), attention)
        if not isinstance(logits, Followed) or (steps := logits.noted) is None:
            return None
        y = self.picked["y"].detach().to(W_U.device)
        return Predictions.all_of(Unembedded(y, W_U, model.b_U.detach(), steps), attention)

    def replay(self, hook: Hook) -> Hook:
        """A hook that does to the graph what ``hook`` did, for a block computed again.

        It records nothing and refers to no tensor of the graph (leaves have no history), so that the graph is not
        kept alive by what it holds.
        """
        return self._stand_ins[hook]


def _index(rows: Tensor, columns: Tensor) -> Callable[[Tensor], Tensor]:
    """Cuts (row, column) pairs out of an activation, wherever it lives."""
    return lambda activation: activation[rows.to(activation.device), columns.to(activation.device)]


def _read_out_slope(
    raw: Float[Tensor, "1 read d_vocab"], logits: Float[Tensor, "1 read d_vocab"]
) -> Float[Tensor, "read d_vocab"] | None:
    """Derivative of the returned logits by the raw ones; None where it is 1 everywhere.

    A cap or a scale acts on each logit by itself, so one backward through it gives the whole diagonal.
    """
    if logits is raw or not raw.requires_grad:
        return None
    (slope,) = torch.autograd.grad(logits.sum(), raw, retain_graph=True)
    return None if bool((slope == 1).all()) else slope[0]
