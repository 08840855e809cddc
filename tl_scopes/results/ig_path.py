"""Gradients on the way from the zero input to a prompt: the result of :func:`tl_scopes.ig_path`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.written import minus

if TYPE_CHECKING:
    import pandas as pd

_STARTS = {
    "zero": "the zero input",
    "mean": "the mean of its embeddings",
    "pad": "padding",
    "prompt": "another prompt",
    "given": "the given embeddings",
}


@dataclass(frozen=True, eq=False)
class IGPath(Displayable, Serializable):
    """Gradients of one prompt on the way from a baseline, the zero input, to itself; result of :func:`ig_path`.

    Attributes:
        alphas: ``[alpha]``, the grid; where the model jumps at 0, a small number in its place (``notes``).
        grad_norms: ``[alpha, pos]``, ``‖∂z_target/∂x_t‖₂`` at ``x' + α (x − x')``; 0 after ``pos``.
        logits: ``[alpha]``, the target's logit.
        entropy: ``[alpha]``, nats of the whole prediction.
        sink_share: ``[alpha]``, share of the gradient norms on the first ``sink_tokens`` positions.
        slopes: ``[alpha]``, ``dz_target/dα = Σ_t ⟨x_t − x'_t, g_t⟩`` (positions included where they are scaled).
        tokens: ``[pos]`` ids.
        str_tokens: their texts.
        pos: explained position.
        target: explained token.
        target_str: its text.
        scale_positions: were additive position embeddings scaled too?
        sink_tokens: how many first positions count as sink.
        provenance: of the model.
        baseline: x': ``"zero"``, ``"mean"``, ``"pad"``, ``"token 5"``, ``"prompt"`` (another one) or ``"given"``.
        notes: sentences a reader must know.
    """

    _later: ClassVar = ("baseline", "notes")
    _along: ClassVar = {"str_tokens": "pos"}
    _within: ClassVar = {"pos": "pos"}
    _at_least: ClassVar = {"grad_norms": 0, "sink_tokens": 0}

    alphas: Float[Tensor, " alpha"]
    grad_norms: Float[Tensor, "alpha pos"]
    logits: Float[Tensor, " alpha"]
    entropy: Float[Tensor, " alpha"]
    sink_share: Float[Tensor, " alpha"]
    slopes: Float[Tensor, " alpha"]
    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    pos: int
    target: int
    target_str: str
    scale_positions: bool = False
    sink_tokens: int = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = "zero"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(bool((self.alphas.diff() > 0).all()), "alphas", "must increase")

    @property
    def start(self) -> str:
        """Where the path begins, in words."""
        return _STARTS.get(self.baseline, self.baseline)

    @property
    def residual(self) -> Float[Tensor, " alpha"]:
        """``[alpha]``: trapezoid integral of the slopes from the first α, less the change of the logit; 0 if exact."""
        steps = (self.alphas[1:] - self.alphas[:-1]) * (self.slopes[1:] + self.slopes[:-1]) / 2
        integral = torch.cat([torch.zeros_like(self.slopes[:1]), steps.cumsum(0)])
        return integral - (self.logits - self.logits[0])

    @property
    def completeness_residual(self) -> float:
        """Last entry of :attr:`residual`, in logits: what the grid's trapezoid rule misses over the whole path."""
        return float(self.residual[-1])

    def to_frame(self) -> pd.DataFrame:
        """One row per α: logit, entropy, sink share, slope, residual."""
        import pandas as pd

        names = ("alphas", "logits", "entropy", "sink_share", "slopes", "residual")
        return pd.DataFrame({n.removesuffix("s") if n != "sink_share" else n: getattr(self, n).tolist() for n in names})

    def __repr__(self) -> str:
        numbers = minus(
            f"logit {float(self.logits[0]):.3g} -> {float(self.logits[-1]):.3g}, "
            f"sink share {float(self.sink_share[0]):.0%} -> {float(self.sink_share[-1]):.0%}, "
            f"residual {self.completeness_residual:.2g}"
        )
        return f"IGPath({len(self.alphas)} points, {len(self.tokens)} tokens, target={self.target_str!r}, {numbers})"
