"""Numbers that take several tokens: their distribution, and what moves its mean and variance, over all tokens of a number.

Legend: number n is written by tokens ``a_1 … a_k``; ``u`` a beginning of some number, the empty one too; ``z_u``, ``p_u`` and
``y_u`` logits, prediction and final hidden state after the prompt and u; ``A_u = ∂z_u/∂y_u``.

    log P(n) = Σ_i log p_{a_1 … a_{i−1}}(a_i)                   by teacher forcing, a row of a batch for each u
    q = P / Σ P,  m = Σ q n,  s² = Σ q (n − m)²
    c_n = q_n (n − m) for the mean,  q_n ((n − m)² − s²) for the variance        (the gradient by log P(n))
    v_u = Σ_n c_n Σ_i A_uᵀ (e_{a_i} − p_u),  u = a_1 … a_{i−1}
    g_t = Σ_u v_uᵀ ∂y_u/∂x_t

With one token per digit there are ten rows: the prompt, and the prompt with 1 … 9 after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from tl_scopes.directions.base import Combine, ReadOut, Rows, Scalar, each_alone, one_row
from tl_scopes.directions.moments import mass_notes
from tl_scopes.kernel.attributed import Answer, attributed
from tl_scopes.kernel.batching import rows_per_forward
from tl_scopes.kernel.interventions import run_changed
from tl_scopes.model.lens import LensModel
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.model.soundness import require_causal
from tl_scopes.model.state import ModelState
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.precision import to_float64
from tl_scopes.numerics.unembedding import transpose_times
from tl_scopes.results.attribution import Attribution
from tl_scopes.timeseries.encoding import NUMBERS, number_pieces

MomentName = Literal["moment_mean", "moment_variance"]


@dataclass(frozen=True, eq=False)
class _Steps:
    """``v_u`` of each beginning: a direction whose rows are known by their number in the batch."""

    combines: ClassVar[tuple[Combine, ...]] = ()
    method: str
    weights: Sequence[dict[int, float]]
    """Of each beginning: ``Σ c_n`` by the token that goes on from it."""

    def held(self, reads: int, W_U: Tensor) -> int:
        """Probabilities in float64, and what they are changed to."""
        return 40 * W_U.shape[1]

    def check(self, state: ModelState) -> None:
        """Valid on every model."""

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """``Aᵀ Σ c (e − p)``; float64 up to the sum over the vocabulary, where p may be peaked."""
        weights = self.weights[read.index]
        slope = to_float64(read.logits).softmax(-1) * -sum(weights.values())
        for token, weight in weights.items():
            slope[token] += weight
        if read.slope is not None:
            slope = slope * to_float64(read.slope)
        slope = slope.to(read.W_U.device, read.y.dtype)
        return Rows(*one_row(transpose_times(read.W_U.T, slope[None])[0].to(read.y)))

    def scalar(self, target: int, text: object) -> Scalar:
        """A moment over several runs is read off none of them."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Spelled:
    """The numbers after one prompt, by teacher forcing.

    Attributes:
        predicted: at the explained position of the prompt itself.
        number_log_probs: ``log P(n)`` of 10 … 99.
    """

    model: LensModel
    prompt: EncodedPrompt
    at: str
    batch_size: int | None
    beginnings: Sequence[tuple[int, ...]]
    paths: Sequence[Sequence[tuple[int, int]]]
    predicted: Predictions
    number_log_probs: Float[ndarray, " 90"]

    @property
    def probabilities(self) -> Float[ndarray, " 90"]:
        """``P(n)``."""
        return np.asarray(np.exp(self.number_log_probs))

    def moment(self, name: MomentName) -> Attribution:
        """Influence on the mean or the variance, its gradient kept, and the numbers' log-probabilities in its details.

        Cost: a forward and a backward on a row for each beginning.
        """
        n, p = np.array(NUMBERS, dtype=np.float64), self.probabilities
        q = np.exp(self.number_log_probs - self.number_log_probs.max())
        q /= q.sum()
        mean = float(q @ n)
        variance = float(q @ (n - mean) ** 2)
        c = q * (n - mean) if name == "moment_mean" else q * ((n - mean) ** 2 - variance)
        weights: list[dict[int, float]] = [{} for _ in self.beginnings]
        for path, weight in zip(self.paths, c.tolist(), strict=True):
            for row, token in path:
                weights[row][token] = weights[row].get(token, 0.0) + weight
        end, direction = self.prompt.pos + 1, _Steps(name, weights)
        total: Tensor | None = None
        for rows, tokens, read in _batches(self.model, self.prompt, self.beginnings, self.batch_size, self.at):
            run = run_changed(self.model, tokens, read, direction=direction, indices=rows, at=self.at)
            assert run.gradient is not None
            part = reduce(to_float64(run.gradient[:, :end]), "u pos d_model -> pos d_model", "sum").cpu()
            total = part if total is None else total + part
            del run  # before the next is made
        assert total is not None
        logs = self.number_log_probs.tolist()
        details = {
            "mean": mean,
            "variance": variance,
            "probability_on_numbers": float(p.sum()),
            "beginnings": len(self.beginnings),
            "at": self.at,
            "number_logits": logs,
            "number_log_probs": logs,
        }
        answer = Answer(row_norms(total), None, details, mass_notes(float(p.sum())), gradient=total)
        return attributed(self.model, self.prompt, self.predicted, name, answer)


def spelled(
    model: LensModel, prompt: EncodedPrompt, *, at: str = "hook_embed", batch_size: int | None = None
) -> Spelled:
    """The distribution over numbers after a prompt, where they take several tokens.

    Cost: one forward without a graph, on a row for each beginning of a number.
    """
    require_causal(model)  # beginnings of several lengths are padded to one
    pieces = number_pieces(model)
    beginnings = sorted({p[:i] for p in pieces for i in range(len(p))}, key=lambda u: (len(u), u))
    if (length := prompt.pos + 1 + max(map(len, beginnings))) > model.cfg.n_ctx:
        raise ValueError(
            f"(series=...): a number takes up to {max(map(len, pieces))} tokens, and the history with all but the last of "
            f"them is {length}, more than the model's context of {model.cfg.n_ctx}; shorten the series"
        )
    place = {u: row for row, u in enumerate(beginnings)}
    paths = [[(place[p[:i]], p[i]) for i in range(len(p))] for p in pieces]
    logs: dict[int, Tensor] = {}
    first: Predictions | None = None
    for rows, tokens, read in _batches(model, prompt, beginnings, batch_size, at):
        run = run_changed(model, tokens, read, at=at)
        first = run.predictions[:1].alone() if first is None else first
        logs |= dict(zip(rows, run.predictions.log_probs().cpu(), strict=True))
        del run  # before the next is made
    assert first is not None
    found = np.array([sum(float(logs[row][token]) for row, token in path) for path in paths])
    return Spelled(model, prompt, at, batch_size, beginnings, paths, first, found)


def _batches(
    model: LensModel, prompt: EncodedPrompt, beginnings: Sequence[tuple[int, ...]], batch_size: int | None, at: str
) -> Iterator[tuple[range, Tensor, Tensor]]:
    """The prompt with each beginning after it: numbers of the beginnings, padded tokens, read positions."""
    longest = max(map(len, beginnings))
    size = rows_per_forward(model, [replace(prompt, pos=prompt.pos + longest)], batch_size, at=at, most=16)
    prefix = prompt.tokens[: prompt.pos + 1]
    for first in range(0, len(beginnings), size):
        rows = range(first, min(first + size, len(beginnings)))
        chosen = [beginnings[i] for i in rows]
        width = max(map(len, chosen))
        tokens = torch.stack([torch.cat([prefix, prefix.new_tensor([*u, *[0] * (width - len(u))])]) for u in chosen])
        yield rows, tokens, torch.tensor([prompt.pos + len(u) for u in chosen])
