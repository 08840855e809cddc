"""Eigenvalues of the Fisher information: the result of :func:`tl_scopes.fisher_spectrum`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_scopes.results.base import Displayable, Serializable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class FisherSpectrum(Displayable, Serializable):
    """Leading eigenvalues of F at one position of each prompt.

    Attributes:
        eigenvalues: ``[prompt, k]``, descending, nats per squared unit of y.
        trace: ``[prompt]``, ``tr F``.
        entropy: ``[prompt]`` nats, of the next-token distribution.
        moved: for each prompt and direction the tokens whose logits a step along it moves most, weighted by
            probability: ``(tokens up, tokens down)``; which is up is a matter of the eigenvector's arbitrary sign.
        prompts: the text of each prompt, or none of them.
    """

    _along: ClassVar = {"moved": "prompt?", "prompts": "prompt?"}

    eigenvalues: Float[Tensor, "prompt k"]
    trace: Float[Tensor, " prompt"]
    entropy: Float[Tensor, " prompt"]
    moved: list[list[tuple[list[str], list[str]]]]
    prompts: list[str]

    @property
    def share(self) -> Float[Tensor, "prompt k"]:
        """Cumulative explained share ``Σ_{i≤r} λ_i / tr F``."""
        return self.eigenvalues.cumsum(dim=1) / self.trace[:, None]

    def to_frame(self) -> pd.DataFrame:
        """Mean and standard deviation of the share over prompts, by rank."""
        import pandas as pd

        share = self.share.double().numpy()
        spread = share.std(axis=0, ddof=1) if len(share) > 1 else np.full(share.shape[1], np.nan)
        return pd.DataFrame(
            {
                "rank": range(1, share.shape[1] + 1),
                "eigenvalue": self.eigenvalues.double().mean(dim=0).numpy(),
                "share_mean": share.mean(axis=0),
                "share_sd": spread,
            }
        )

    def __repr__(self) -> str:
        n, k = self.eigenvalues.shape
        first = float(self.share[:, 0].mean())
        return f"FisherSpectrum({n} prompt{'s' * (n != 1)}, {k} eigenvalues, rank-1 share {first:.1%})"
