"""From the rows of ``V·J`` to one score per token.

Legend: ``G = V·J``, ``[k, pos, d_model]``, the gradients pulled back for the ``k`` rows of V; ``w``, ``[k]``,
their weights. ``score_t = sqrt(Σ_i w_i ‖G_{i,t}‖²)``: one row with weight 1 is the influence ``‖vᵀJ_t‖₂``
(paper eq. 1); Fisher rows with ``w_i = λ_i/λ_1`` give the Fisher Scope of any rank.
Squares and sums run in float64 whatever the model's dtype, so that small gradients do not underflow.
"""

from __future__ import annotations

from einops import einsum, reduce
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.precision import to_float64


def row_norms(gradients: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows"]:
    """``‖G_{i,t}‖₂`` of every row and token."""
    return reduce(to_float64(gradients).square(), "... d_model -> ...", "sum").sqrt()


def inner_products(gradient: Float[Tensor, "rows *place d"], x: Float[Tensor, "*place d"]) -> Tensor:
    """``⟨G_i, x⟩`` at every place, signed."""
    return einsum(to_float64(gradient), to_float64(x), "rows ... d, ... d -> rows ...")


def root_of_squares(norms: Float[Tensor, "k pos"], weights: Float[Tensor, " k"]) -> Float[Tensor, " pos"]:
    """``sqrt(Σ_i w_i ‖G_{i,t}‖²)``."""
    return einsum(to_float64(weights), norms.square(), "k, k pos -> pos").sqrt()
