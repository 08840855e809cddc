"""Temperature: ``v = y/‖y‖``, the gradient of the effective inverse temperature ``β = ‖y‖`` (paper eq. 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tl_scopes.directions.base import Combine, ReadOut, Rows, Scalar, each_alone, one_row
from tl_scopes.directions.scope import Scope
from tl_scopes.model.state import ModelState, require_temperature
from tl_scopes.numerics.precision import to_float64


@dataclass(frozen=True)
class Temperature:
    """``v = ŷ = y/‖y‖₂``."""

    combines: ClassVar[tuple[Combine, ...]] = ("sum", "norm")
    method: str = "temperature"

    def held(self, reads: int, W_U: Tensor) -> None:
        """No whole distribution is looked at."""

    def check(self, state: ModelState) -> None:
        """Refused where ‖y‖ is constant."""
        require_temperature(state)

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """The unit vector along y."""
        beta = torch.linalg.vector_norm(read.y)
        V, weights = one_row(read.y / beta)
        exact = read.predictions.linear and not state.unembedding_bias
        notes: tuple[str, ...] = ()
        if not exact:
            notes = (
                "The logits are capped, scaled or biased, so ‖y‖ is not the exact inverse temperature of the "
                "distribution; the score is still that of ‖y‖.",
            )
        return Rows(V, weights, None, {"beta": float(beta), "beta_is_inverse_temperature": exact}, notes)

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """``‖y‖``."""
        return Scalar(
            "confidence ‖y‖", "units of y", lambda run: torch.linalg.vector_norm(to_float64(run.hidden), dim=-1)
        )


TEMPERATURE = Scope(
    name="temperature",
    label="Temperature",
    summary="What moves the model's confidence",
    title="Temperature Scope: which {tokens} move the model's confidence",
    unit="‖y‖ per unit of {at}",
    direction=lambda model, n, keywords: Temperature(),
    rebuild=lambda model, explained: Temperature(),
    require=require_temperature,
    kept_of_rows={"beta": lambda details: details["beta"]},
)
