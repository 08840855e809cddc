"""What a model predicts at many positions at once, without a table ``[read, d_vocab]``.

    z = f(y W_U + b_U)        n = log Σ_v exp z_v        log p_v = z_v − n

Legend: ``y`` ``[read, d_model]`` final hidden states; ``f`` what the model does to each raw logit by itself (a cap, a
scale); ``a_v = ∂z_v/∂y`` the read-out's row of token v.

100 predictions over 262,144 tokens are 100 MiB, and their softmax, their copies and their slopes as much again. Asked for
are ``n``, the top token, the logits of a few tokens, a mean of logits or of rows: each is a sum over the vocabulary, made
in blocks of it. ``n`` and the top tokens come of one walk over ``W_U``, which everything that is asked about a run shares; a
mean, an entropy, rows of log-probabilities and ranks of tokens below the top ones take one more each, rows under a cap two.

A small table is the model's own, and walked over likewise; so is one of any size where f is not such a function, or
somebody has a hook at the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from tl_scopes.model.followed import Step
from tl_scopes.numerics.largest import largest_of
from tl_scopes.numerics.precision import compute_dtype, to_float64
from tl_scopes.numerics.unembedding import transpose_times

TABLE = 2**22
"""Logits that the model itself makes, as one table: 16 MiB in float32, less work than a second look at the unembedding."""
BLOCK = 2**19
"""Logits that exist at once where no table is made, and working space in one that is; or one token of every position. Two
megabytes in float32 stay in the cache while they are looked at."""
SLOPED = 4
"""Blocks that the graph of a cap takes: so much smaller are they where slopes are asked for."""
LEADING = 7
"""Top tokens that are known of every position."""


# -- where logits come from ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Table:
    """All logits, as the model returned them.

    Attributes:
        logits: at each explained position.
        slope: their derivative by the raw ones; None where it is 1.
        W_U: the unembedding.
    """

    logits: Float[Tensor, "read d_vocab"]
    slope: Float[Tensor, "read d_vocab"] | None
    W_U: Float[Tensor, "d_model d_vocab"]

    def block(self, rows: Any, tokens: Any) -> Tensor:
        """The logits of some tokens at some positions."""
        return self.logits[:, tokens][rows]

    def own(self, rows: Any, tokens: Int[Tensor, " read"]) -> Float[Tensor, " read"]:
        """The logit of one token at each position."""
        return self.logits[rows, tokens]

    @property
    def sloped(self) -> bool:
        """Is there such a derivative?"""
        return self.slope is not None

    def slopes(self, rows: Any, tokens: Any) -> Tensor | None:
        """The derivative of a block by the raw logits; None where it is 1."""
        return None if self.slope is None else self.slope[:, tokens][rows]

    def own_slopes(self, rows: Any, tokens: Int[Tensor, " read"]) -> Float[Tensor, " read"] | None:
        """That of one token at each position."""
        return None if self.slope is None else self.slope[rows, tokens]


@dataclass(frozen=True, eq=False)
class Unembedded:
    """Logits that are made of the final hidden states when they are asked for.

    Attributes:
        y: at each explained position, where the unembedding lives.
        W_U, b_U: the unembedding.
        steps: f, as the model's own functions.
    """

    y: Float[Tensor, "read d_model"]
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"]
    steps: tuple[Step, ...]

    @cached_property
    def logits(self) -> Float[Tensor, "read d_vocab"]:
        """All of them: for what needs whole distributions."""
        return self.block(slice(None), slice(None))

    def block(self, rows: Any, tokens: Any) -> Tensor:
        """The logits of some tokens at some positions."""
        return self._passed_on(lambda: self._raw(rows, tokens))

    def own(self, rows: Any, tokens: Int[Tensor, " read"]) -> Float[Tensor, " read"]:
        """The logit of one token at each position."""
        return self._passed_on(lambda: self._own_raw(rows, tokens))

    @cached_property
    def slope(self) -> Float[Tensor, "read d_vocab"] | None:
        """The derivative of all of them by the raw ones, None where it is 1: for what needs whole distributions."""
        return self.slopes(slice(None), slice(None))

    def slopes(self, rows: Any, tokens: Any) -> Tensor | None:
        """That of a block."""
        return self._slope(self._raw, rows, tokens)

    def own_slopes(self, rows: Any, tokens: Int[Tensor, " read"]) -> Float[Tensor, " read"] | None:
        """That of one token at each position."""
        return self._slope(self._own_raw, rows, tokens)

    @property
    def sloped(self) -> bool:
        """Is there a derivative that is not 1?"""
        return any(step.changes for step in self.steps)

    def _slope(self, raw_of: Callable[[Any, Any], Tensor], rows: Any, tokens: Any) -> Tensor | None:
        if not self.sloped:
            return None
        with torch.enable_grad():
            raw = raw_of(rows, tokens).requires_grad_(True)
            (slope,) = torch.autograd.grad(self._passed_on(lambda: raw).sum(), raw)
        return slope

    def _raw(self, rows: Any, tokens: Any) -> Tensor:
        return F.linear(self.y[rows], self.W_U.T[tokens], self.b_U[tokens])

    def _own_raw(self, rows: Any, tokens: Any) -> Tensor:
        """Rounded once, as in a block: the sum of products and bias is made in float32 or float64."""
        tokens, dtype = tokens.to(self.y.device), compute_dtype(self.y.dtype)
        products = torch.bmm(self.y[rows][:, None].to(dtype), self.W_U.T[tokens][..., None].to(dtype))[:, 0, 0]
        return (products + self.b_U[tokens]).to(self.y.dtype)

    def _passed_on(self, raw: Callable[[], Tensor]) -> Tensor:
        z = raw()  # held here alone, so that each step frees what it was given
        for step in self.steps:
            z = step.func(z, *step.args, **step.kwargs)
        return z


# -- what is asked of them -------------------------------------------------------------------------


class _Walked(NamedTuple):
    largest: Float[Tensor, " read"]
    normaliser: Float[Tensor, " read"]
    top: Int[Tensor, " read"]
    leading: Int[Tensor, "read leading"]
    leading_logits: Float[Tensor, "read leading"]
    finite: bool


class Logits:
    """The logits of one run at all its explained positions, walked over once.

    Attributes:
        source: where they come from.
        attention: how each attention was computed, in the order of the run; nothing of a short prompt, whose attention is
            as the model writes it.
    """

    def __init__(self, source: Table | Unembedded, attention: tuple[str, ...] = ()) -> None:
        self.source, self.attention = source, attention
        self.n, self.d_vocab = (
            source.logits.shape if isinstance(source, Table) else (len(source.y), source.W_U.shape[1])
        )
        self.ranks: dict[tuple[int, int], int] = {}
        self.dtype = compute_dtype(source.W_U.dtype)

    def blocks(self, n: int) -> Iterator[slice]:
        """The vocabulary in parts, for n positions at once."""
        size = max(1, BLOCK // max(1, n))
        return (slice(first, min(first + size, self.d_vocab)) for first in range(0, self.d_vocab, size))

    @cached_property
    def walked(self) -> _Walked:
        """Of every position ``n``, by the largest logit so far and ``Σ exp(z − largest)``, and the top tokens."""
        n, device = self.n, self.source.W_U.device
        largest = torch.full((n,), -torch.inf, dtype=self.dtype, device=device)
        total = to_float64(torch.zeros_like(largest))
        top = torch.zeros(n, dtype=torch.int64, device=device)
        leading, ids = largest.new_zeros(n, 0), top.new_zeros(n, 0)
        finite = torch.ones((), dtype=torch.bool, device=device)
        for tokens in self.blocks(n):
            z = self.source.block(slice(None), tokens).to(self.dtype)
            further, at, first = largest_of(z, LEADING)
            best = further[:, 0]
            top = torch.where(best > largest, first + tokens.start, top)
            finite &= torch.isfinite(best + 0 * z.amin(dim=1)).all()
            leading, ids = torch.cat([leading, further], 1), torch.cat([ids, at + tokens.start], 1)
            kept = leading.topk(min(LEADING, leading.shape[1])).indices
            leading, ids = leading.gather(1, kept), ids.gather(1, kept)
            new = torch.maximum(largest, best)
            total = total * to_float64(largest - new).exp() + to_float64((z - new[:, None]).exp_().sum(-1))
            largest = new
            del z  # before the next is made
        return _Walked(largest, to_float64(largest) + total.log(), top, ids, leading, bool(finite))

    @cached_property
    def linear(self) -> bool:
        """Are they the raw ones up to a constant: is the slope 1 everywhere?"""
        slopes = (self.source.slopes(slice(None), tokens) for tokens in self.blocks(SLOPED * self.n))
        return all(slope is None or bool((slope == 1).all()) for slope in slopes)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What is predicted at some of a run's explained positions.

    Attributes:
        of: the run's logits.
        rows: which.
    """

    of: Logits
    rows: Int[Tensor, " read"]

    @classmethod
    def all_of(cls, source: Table | Unembedded, attention: tuple[str, ...] = ()) -> Predictions:
        """At all of them; ``attention`` is how the run computed each of its attentions, where that was planned."""
        logits = Logits(source, attention)
        return cls(logits, torch.arange(logits.n, device=source.W_U.device))

    def __len__(self) -> int:
        """How many."""
        return len(self.rows)

    def __getitem__(self, index: slice | Tensor) -> Predictions:
        """At fewer positions."""
        return Predictions(self.of, self.rows[index])

    def alone(self) -> Predictions:
        """The same without the run's table at other positions."""
        source = self.of.source
        if not isinstance(source, Table):
            return self
        return Predictions.all_of(Table(self.logits, self.slope, source.W_U), self.of.attention)

    @property
    def dtype(self) -> torch.dtype:
        """Where it is computed: float32, or float64."""
        return self.of.dtype

    @property
    def finite(self) -> bool:
        """Is every logit of the run a number?"""
        return self.of.walked.finite

    @property
    def logits(self) -> Float[Tensor, "read d_vocab"]:
        """All of them in the model's dtype, as a table."""
        source = self.of.source
        return source.logits if self._every else source.block(self.rows, slice(None))

    @property
    def slope(self) -> Float[Tensor, "read d_vocab"] | None:
        """Derivative of each logit by its raw value ``y W_U + b_U``, as a table; None where it is 1."""
        slope = self.of.source.slope
        return slope if slope is None or self._every else slope[self.rows]

    @property
    def _every(self) -> bool:
        return torch.equal(self.rows, torch.arange(self.of.n, device=self.rows.device))

    @property
    def linear(self) -> bool:
        """Is that derivative 1 at every position of the run?"""
        return self.of.linear

    @property
    def normaliser(self) -> Float[Tensor, " read"]:
        """n, float64."""
        return self.of.walked.normaliser[self.rows.to(self.of.walked.normaliser.device)]

    @property
    def top(self) -> Int[Tensor, " read"]:
        """The most probable token."""
        return self.of.walked.top[self.rows]

    def leading(self) -> tuple[Int[Tensor, "read leading"], Float[Tensor, "read leading"]]:
        """The most probable tokens with their probabilities."""
        found = self.of.walked
        log_p = to_float64(found.leading_logits[self.rows]) - self.normaliser[:, None]
        return found.leading[self.rows], log_p.exp()

    def ranks(self, tokens: Sequence[int]) -> list[int]:
        """The rank of one token at each position: 1 is the top. One walk over the unembedding; none if asked again."""
        pairs, known = list(zip(self.rows.tolist(), tokens, strict=True)), self.of.ranks
        if new := sorted(set(pairs) - known.keys()):
            rows, at = torch.tensor(new, device=self.rows.device).T
            asked = Predictions(self.of, rows)
            z, (leading, own) = asked.logit(at)[:, None], asked._led(at)
            above = (leading > z).sum(1)
            if (far := (~own.any(1)).nonzero()[:, 0]).numel():
                above[far] = 0
                for t in self.of.blocks(2 * len(far)):
                    found = self.of.source.block(rows[far], t).to(self.dtype) > z[far]
                    other = torch.arange(t.start, t.stop, device=at.device) != at[far, None]
                    above[far] += (found & other).sum(1)
            known.update(zip(new, (above + 1).tolist(), strict=True))
        return [known[pair] for pair in pairs]

    def logit(self, tokens: int | Sequence[int] | Tensor) -> Float[Tensor, " read"]:
        """The logit of a token, or of one at each position; that of a top token is the one that was seen in the walk."""
        each = torch.as_tensor(tokens, device=self.rows.device).expand(len(self))
        found = self.of.source.own(self.rows, each).to(self.dtype)
        if isinstance(self.of.source, Table):
            return found
        leading, own = self._led(each)
        return torch.where(own.any(1), leading.gather(1, own.int().argmax(1, keepdim=True))[:, 0], found)

    def _led(self, tokens: Int[Tensor, " read"]) -> tuple[Float[Tensor, "read leading"], Tensor]:
        """The largest logits, and which of them is that of one token at each position."""
        walked = self.of.walked
        return walked.leading_logits[self.rows], walked.leading[self.rows] == tokens[:, None]

    def log_prob(self, tokens: int | Sequence[int] | Tensor) -> Float[Tensor, " read"]:
        """Its log-probability, float64."""
        found = to_float64(self.logit(tokens)) - self.normaliser
        return found - found.detach().clamp(min=0.0)  # rounding alone is above 0; its gradient is the formula's

    def logits_of(self, tokens: Sequence[int]) -> Float[Tensor, "read tokens"]:
        """The logits of a few tokens."""
        return self.of.source.block(self.rows, torch.tensor(tokens, device=self.rows.device)).to(self.dtype)

    def log_probs(self) -> Float[Tensor, "read d_vocab"]:
        """Log-probabilities of all tokens, as a table in float64."""
        return to_float64(self.logits).log_softmax(-1)

    def mean_logit(self, p: Float[Tensor, " d_vocab"]) -> Float[Tensor, " read"]:
        """``Σ_v p_v z_v``, float64."""
        parts = [to_float64(self.of.source.block(self.rows, t)) @ p[t] for t in self.of.blocks(2 * len(self))]
        return torch.stack(parts).sum(0)

    def entropy(self) -> Float[Tensor, " read"]:
        """``−Σ_v p_v log p_v``, nats, float64."""
        total = torch.zeros_like(self.normaliser)
        for t in self.of.blocks(8 * len(self)):  # several float64 at once
            log_p = to_float64(self.of.source.block(self.rows, t)) - self.normaliser[:, None]
            total -= (log_p.exp() * log_p).sum(-1)
        return total

    def logit_rows(self, targets: Sequence[int]) -> Float[Tensor, "read d_model"]:
        """``a_target = slope_target · w_target``, the gradient at y of a token's logit."""
        w = self.of.source.W_U.T[torch.tensor(targets, device=self.rows.device)].to(self.dtype)
        return w * self.own_slopes(targets)[:, None]

    def log_prob_rows(
        self, targets: Sequence[int], b_U: Float[Tensor, " d_vocab"] | None = None
    ) -> tuple[Float[Tensor, "read d_model"], Float[Tensor, " read"]]:
        """``Aᵀ(e_target − p)``, the gradient at y of a token's log-probability, and the same of ``b_U`` in place of ``W_U``.

        ``1 − p_target`` is summed over the other tokens, so that it does not cancel. One walk over the unembedding.
        """
        source, at = self.of.source, torch.tensor(targets, device=self.rows.device)
        largest = self.of.walked.largest[self.rows]
        scale = (to_float64(largest) - self.normaliser).exp().to(largest)
        others, offset = torch.zeros_like(self.normaliser), torch.zeros_like(self.normaliser)
        mean = others.new_zeros(len(self), source.W_U.shape[0])
        for tokens in self.of.blocks(SLOPED * len(self) if source.sloped else len(self)):
            p = source.block(self.rows, tokens).to(self.dtype)  # rows that are named one by one are copies
            p.sub_(largest[:, None]).exp_().mul_(scale[:, None])
            mine = ((at >= tokens.start) & (at < tokens.stop)).nonzero()[:, 0]
            p[mine, at[mine] - tokens.start] = 0
            others += to_float64(p.sum(-1))
            slope = source.slopes(self.rows, tokens)
            p = p if slope is None else p.mul_(slope)
            mean += transpose_times(source.W_U.T[tokens], p)
            if b_U is not None:
                offset += to_float64(p @ b_U[tokens].to(p))
            del p
        own = self.own_slopes(targets)
        if b_U is not None:
            offset = others * to_float64(own) * to_float64(b_U[at]) - offset
        return (others[:, None] * to_float64(self.logit_rows(targets)) - mean).to(self.dtype), offset

    def own_slopes(self, targets: Sequence[int]) -> Float[Tensor, " read"]:
        """Derivative of the logit of each position's own token by its raw value."""
        found = self.of.source.own_slopes(self.rows, torch.tensor(targets, device=self.rows.device))
        return (
            torch.ones(len(targets), dtype=self.dtype, device=self.rows.device)
            if found is None
            else found.to(self.dtype)
        )
