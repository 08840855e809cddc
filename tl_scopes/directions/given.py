"""A direction of the caller's own: a probe, a steering vector, an SAE decoder row, at any hook point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tl_scopes.directions.base import Combine, Measure, Reading, ReadOut, Rows, Scalar, each_alone
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.hooks import Y_HOOK
from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import ModelState
from tl_scopes.numerics.precision import to_float64


@dataclass(frozen=True, eq=False)
class GivenDirection:
    """The user's rows, at any hook point."""

    combines: ClassVar[tuple[Combine, ...]] = ("sum", "norm")
    V: Tensor
    hook: str = Y_HOOK
    method: str = "jacobian"

    def held(self, reads: int, W_U: Tensor) -> None:
        """No whole distribution is looked at."""

    def check(self, state: ModelState) -> None:
        """Refuse what is not one or several finite, non-zero rows."""
        if not isinstance(self.V, Tensor) or not self.V.is_floating_point():
            raise TypeError(f"(direction=...): expected a floating-point tensor, got {type(self.V).__name__}")
        if self.V.ndim < 1 or self.V.numel() == 0:
            raise ValueError(f"(direction=...): shape {list(self.V.shape)}; expected [d_model] or [k, d_model]")
        if not bool(torch.isfinite(self.V).all()):
            raise ValueError("(direction=...): holds NaN or infinity")

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """The rows as they were given, all with weight 1; heads may be given as one flat row."""
        V, feature = self.V.detach().to(read.hidden), read.hidden.shape
        flat = len(feature) > 1 and V.ndim <= 2 and V.shape[-1] == feature.numel()
        if flat:
            V = V.reshape(*V.shape[:-1], *feature)
        if V.shape == feature:
            V = V[None]
        if V.shape[1:] != feature:
            raise ValueError(
                f"(direction=...): shape {list(self.V.shape)} does not fit the activation "
                f"{list(feature)} at the target hook; expected {list(feature)} or [k, *{list(feature)}]"
            )
        zero = [i for i, row in enumerate(V) if not row.any()]
        notes: tuple[str, ...] = ()
        if zero:
            which = "The direction is" if len(V) == 1 else f"Rows {zero} of the direction are"
            notes = (
                f"{which} all zero, so nothing is explained by {'it' if len(V) == 1 else 'them'}: its scores are 0.",
            )
        return Rows(V, torch.ones(len(V), dtype=V.dtype, device=V.device), notes=notes, given=True)

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """``vᵀh``, or the projection of h on several rows."""
        V, k = self.V, len(self.V)

        def read(run: Reading) -> Tensor:
            hidden = to_float64(run.hidden).flatten(1)
            out = hidden @ V.to(hidden).flatten(1).T
            return out[:, 0] if k == 1 else out

        measure: Measure = "signed" if k == 1 else "norm"
        name = f"v·{self.hook}" if k == 1 else f"projection of {self.hook} on {k} rows"
        return Scalar(name, "units of v·h", read, measure)


def _given(model: LensModel, n: int, keywords: Keywords) -> GivenDirection:
    if keywords["direction"] is None:
        raise ValueError("(direction=None): the Jacobian scope needs a direction, [d_model] or [k, d_model]")
    return GivenDirection(keywords["direction"])


def _given_again(model: LensModel, explained: Explained) -> GivenDirection:
    if explained.direction is None:
        raise ValueError("(attribution=...): its direction was not kept, so what it explains cannot be told")
    return GivenDirection(explained.direction, str(explained.details.get("target_hook", Y_HOOK)))


JACOBIAN = Scope(
    name="jacobian",
    label="Jacobian",
    summary="What moves an activation along a direction of your own",
    title="Jacobian Scope: which {tokens} move the activation along the given direction",
    unit="units of v·h per unit of {at}",
    direction=_given,
    rebuild=_given_again,
    keywords={"direction": None},
    needs=("direction",),
)
