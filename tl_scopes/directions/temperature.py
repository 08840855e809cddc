"""Temperature: ``v = y/‖y‖``, the gradient of the effective inverse temperature ``β = ‖y‖``."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tl_scopes.directions.base import ReadOut, Rows, each_alone, one_row
from tl_scopes.model.state import ModelState, require_temperature


@dataclass(frozen=True)
class Temperature:
    """``v = ŷ = y/‖y‖₂``."""

    method: str = "temperature"

    def check(self, state: ModelState, call: str) -> None:
        """Refused where ‖y‖ is constant."""
        require_temperature(state, call)

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """The unit vector along y."""
        beta = torch.linalg.vector_norm(read.y)
        V, weights = one_row(read.y / beta)
        exact = read.slope is None and not state.unembedding_bias
        notes: tuple[str, ...] = ()
        if not exact:
            notes = (
                "The logits are capped, scaled or biased, so ‖y‖ is not the exact inverse temperature of the "
                "distribution; the score is still that of ‖y‖.",
            )
        return Rows(V, weights, None, {"beta": float(beta), "beta_is_inverse_temperature": exact}, notes)
