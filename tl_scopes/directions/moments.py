"""Numeric moments: the mean and the variance of a forecast over number tokens.

Legend: ``n_i`` the number that token i stands for; ``q`` the next-token distribution renormalised over number tokens;
``m = Σ q_i n_i``; ``s² = Σ q_i (n_i − m)²``. The direction is the gradient at y,

    v = Aᵀ ∂m/∂z,   ∂m/∂z_i = q_i (n_i − m)            (mean)
    v = Aᵀ ∂s²/∂z,  ∂s²/∂z_i = q_i ((n_i − m)² − s²)   (variance)

with ``A = ∂z/∂y`` the model's real read-out; both are 0 off the number tokens.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tl_scopes.directions.base import Combine, Reading, ReadOut, Rows, Scalar, each_alone, one_row
from tl_scopes.directions.scope import Explained, Keywords, Scope
from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import ModelState
from tl_scopes.numerics.precision import to_float64

LEAST_MASS = 0.5
"""Probability on number tokens below which the moments describe too little of the prediction."""
_NUMBERS: weakref.WeakKeyDictionary[Any, dict[int, float]] = weakref.WeakKeyDictionary()


def number_tokens(model: LensModel) -> dict[int, float]:
    """Every vocabulary token whose text is a whole number, with or without a leading space: ``{id: number}``."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("this model has no tokenizer to find number tokens with; pass values={token id: number}")
    if tokenizer not in _NUMBERS:
        texts = tokenizer.batch_decode([[i] for i in range(model.W_U.shape[1])])
        _NUMBERS[tokenizer] = {
            i: float(text) for i, text in enumerate(texts) if text.strip().isascii() and text.strip().isdigit()
        }
    return _NUMBERS[tokenizer]


def mass_notes(mass: float) -> tuple[str, ...]:
    """The sentence for a prediction that is hardly a number."""
    if mass >= LEAST_MASS:
        return ()
    return (
        f"Only {mass:.1%} of the probability is on number tokens: the moments describe a small part of the prediction.",
    )


@dataclass(frozen=True, eq=False)
class Moment:
    """``v = Aᵀ ∂m/∂z`` or ``Aᵀ ∂s²/∂z``."""

    combines: ClassVar[tuple[Combine, ...]] = ("sum", "norm")
    moment: Literal["mean", "variance"]
    values: Mapping[int, float]
    own_values: bool = False
    """Did the caller choose the values? Then the result keeps them, to tell what it explains."""

    @property
    def method(self) -> str:
        """``moment_mean`` or ``moment_variance``."""
        return f"moment_{self.moment}"

    def held(self, reads: int, W_U: Tensor) -> int:
        """Log-probabilities of one position in float64."""
        return 20 * W_U.shape[1]

    def check(self, state: ModelState) -> None:
        """Valid on every model; refuse values that are no numbers of the vocabulary."""
        if len(set(self.values.values())) < 2:
            raise ValueError(
                f"(values=...): {len(self.values)} number tokens; a moment needs at least 2 different numbers. "
                "Pass values={token id: number}"
            )
        d_vocab = state.model.W_U.shape[1]
        outside = [i for i in self.values if not 0 <= i < d_vocab]
        if outside:
            raise ValueError(f"(values=...): token id {outside[0]} is outside the vocabulary 0..{d_vocab - 1}")

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """The gradient of the moment at y."""
        log_p = to_float64(read.logits).log_softmax(-1)
        ids = torch.tensor(list(self.values), device=log_p.device)
        n = torch.tensor(list(self.values.values()), dtype=torch.float64, device=log_p.device)
        log_p = log_p[ids]
        q = (log_p - log_p.logsumexp(0)).exp()
        mean = (q * n).sum()
        variance = (q * (n - mean).square()).sum()
        slope = q * (n - mean) if self.moment == "mean" else q * ((n - mean).square() - variance)
        if read.slope is not None:
            slope = slope * to_float64(read.slope)[ids]
        columns = to_float64(read.W_U[:, ids.to(read.W_U.device)])
        v = (columns @ slope.to(columns)).to(read.y)
        mass = float(log_p.exp().sum())
        details: dict[str, Any] = {"mean": float(mean), "variance": float(variance), "probability_on_numbers": mass}
        if self.own_values:
            details["values"] = {str(i): float(v) for i, v in self.values.items()}
        V, ones = one_row(v)
        return Rows(V, ones, None, details, mass_notes(mass))

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        """The moment over the number tokens."""
        values = self.values

        def read(run: Reading) -> Tensor:
            q: Tensor = to_float64(run.predictions.logits_of(list(values))).softmax(-1)
            n = torch.tensor(list(values.values()), dtype=torch.float64).to(q)
            mean = q @ n
            return mean if self.moment == "mean" else (q * (n - mean[:, None]).square()).sum(-1)

        square = "squared " if self.moment == "variance" else ""
        return Scalar(f"{self.moment} of the forecast", f"{square}units of the number", read)


def _moment(model: LensModel, n: int, keywords: Keywords) -> Moment:
    own = keywords["values"]
    return Moment(keywords["moment"], number_tokens(model) if own is None else dict(own), own is not None)


def _moment_again(model: LensModel, explained: Explained) -> Moment:
    if explained.details.get("beginnings", 1) > 1:
        raise ValueError(
            "(attribution=...): its numbers take several tokens each, and what is predicted of them is read off "
            f"{explained.details['beginnings']} texts, one for each beginning of a number; one text is changed here"
        )
    own = explained.details.get("values")
    values = number_tokens(model) if own is None else {int(i): float(v) for i, v in own.items()}
    return Moment("mean" if explained.method == "moment_mean" else "variance", values)


MOMENT = Scope(
    name="moment",
    label="Numeric moment",
    summary="What moves the mean or spread of a predicted number",
    title="Moment Scope ({variant}): which {tokens} move the forecast",
    unit="units of the number per unit of {at}",
    units={"moment_variance": "squared units of the number per unit of {at}"},
    direction=_moment,
    rebuild=_moment_again,
    keywords={"moment": "mean", "values": None},
    results=("moment_mean", "moment_variance"),
    asked=("moment",),
    rebuilt_from=("values",),
)
