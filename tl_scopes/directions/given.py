"""A direction of the caller's own: a probe, a steering vector, an SAE decoder row, at any hook point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tl_scopes.directions.base import ReadOut, Rows, each_alone
from tl_scopes.model.state import ModelState


@dataclass(frozen=True, eq=False)
class Direction:
    """The user's rows, at any hook point."""

    V: Tensor
    method: str = "jacobian"

    def check(self, state: ModelState, call: str) -> None:
        """Refuse what is not one or several finite, non-zero rows."""
        if not isinstance(self.V, Tensor) or not self.V.is_floating_point():
            raise TypeError(f"{call}(direction=...): expected a floating-point tensor, got {type(self.V).__name__}")
        if self.V.ndim < 1 or self.V.numel() == 0:
            raise ValueError(f"{call}(direction=...): shape {list(self.V.shape)}; expected [d_model] or [k, d_model]")
        if not bool(torch.isfinite(self.V).all()):
            raise ValueError(f"{call}(direction=...): holds NaN or infinity")

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
                f"jacobian_scope(direction=...): shape {list(self.V.shape)} does not fit the activation "
                f"{list(feature)} at the target hook; expected {list(feature)} or [k, *{list(feature)}]"
            )
        return Rows(V, torch.ones(len(V), dtype=V.dtype, device=V.device), given=True)
