"""Several predictions in one result: V at each explained position m, pulled back together.

Legend: ``v_{m,i}`` the rows of V at position m with weights ``w_{m,i}``, ``g_{m,i,t} = v_{m,i}ᵀ ∂h_m/∂x_t``.

==========  ===================================================  ======================================
combine     score                                                rows that are pulled back
==========  ===================================================  ======================================
``sum``     ``sqrt(Σ_i w_i ‖Σ_m g_{m,i,t}‖²)``                    one for each i, ``v_{m,i}`` at every m
``norm``    ``sqrt(Σ_m Σ_i w_{m,i} ‖g_{m,i,t}‖²)``                one for each (m, i), or random signs
==========  ===================================================  ======================================

A sum over m costs one vector-Jacobian product: rows of different positions share one cotangent. Gradients of different m may
cancel in it; under ``norm`` they do not. With more rows than probes, n rows of random signs ``ε`` are pulled back,
``Σ_{m,i} ε_{m,i} √w_{m,i} v_{m,i}``: their squares have the mean ``Σ_m Σ_i w_{m,i} ‖g_{m,i,t}‖²``. Only squares are unbiased.

Weights of Fisher rows are eigenvalues over ``Σ_m λ_{m,1}``; scores that are sums of squares (total information) get no root.
One position gives the scope's own rows and score, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.directions.base import Combine, Direction, Rows, Scored, target_note, target_notes
from tl_scopes.numerics.precision import to_float64
from tl_scopes.numerics.statistics import interval_of_mean_square

N_PROBES = 32
"""Rows of random signs where the caller names no number."""
MOST_EXACT = 4096
"""Rows that are pulled back one by one, where no probes may take their place."""
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Joint:
    """The rows of one result.

    Attributes:
        parts: of each explained position.
        V: ``[k, position, ...]``.
        details: of the result.
    """

    parts: Sequence[Rows]
    V: Tensor
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[int | None, ...]:
        """The explained token at each position."""
        return tuple(rows.target for rows in self.parts)

    @property
    def offset(self) -> float:
        """What the bias of the unembedding adds to the scalar."""
        return sum(rows.offset for rows in self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """For the reader, each once."""
        own = target_note(None)
        chosen = target_notes([any(note in rows.notes for note in own) for rows in self.parts])
        return tuple(dict.fromkeys((*chosen, *(n for rows in self.parts for n in rows.notes if n not in own))))

    @property
    def given(self) -> Tensor | None:
        """The caller's own rows, where V is such."""
        return self.parts[0].V if self.parts[0].given else None

    @property
    def adaptive(self) -> bool:
        """May :meth:`next_rows` ask for further rows, so that the graph must be kept?"""
        return self.parts[0].adaptive

    @property
    def single(self) -> bool:
        """Is it one row, whose gradient can be kept and has a sign?"""
        return len(self.V) == 1 and not self.adaptive

    def next_rows(self, norms: Float[Tensor, "k pos"]) -> Tensor | None:
        """Further rows wanted after seeing the norms of all rows so far; None when there are enough."""
        more = self.parts[0].next_rows(norms)
        return None if more is None else more[:, None]

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """From the norms ``‖Σ_m v_{m,i}ᵀJ_{m,t}‖`` to the score."""
        return self.parts[0].score(norms)


@dataclass(frozen=True, eq=False)
class EachAlone(Joint):
    """``norm`` with a row for each position and each of its rows."""

    weights: Float[Tensor, " k"] = field(kw_only=True)

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """``Σ_m Σ_i w_{m,i} ‖g_{m,i,t}‖²``, or its root."""
        squares = to_float64(norms).square()
        total = torch.einsum("k, kp -> p", to_float64(self.weights).to(squares), squares)
        return Scored(total.sqrt() if self.parts[0].root else total, details={"exact": True})


@dataclass(frozen=True, eq=False)
class Probed(Joint):
    """``norm`` by rows of random signs, and by what the parts draw themselves."""

    generator: torch.Generator = field(kw_only=True)

    def next_rows(self, norms: Float[Tensor, "k pos"]) -> Tensor | None:
        """Another round of probes, where the parts have a rule for when to stop."""
        n = self.parts[0].wanted(len(norms), self.score(norms))
        return _probes(self.parts, n, self.generator) if n else None

    def score(self, norms: Float[Tensor, "k pos"]) -> Scored:
        """The mean square or its root, with its standard error (by the delta method), and an interval made on squares."""
        squares = to_float64(norms).square()
        n, scores = len(squares), squares.mean(dim=0)
        stderr = squares.std(dim=0) / math.sqrt(n)
        low, high = interval_of_mean_square(squares, CONFIDENCE)
        if self.parts[0].root:
            scores, low, high = scores.sqrt(), low.sqrt(), high.sqrt()
            stderr = torch.where(scores > 0, stderr / (2 * scores), 0.0)
        details = {"n_probes": n, "confidence": CONFIDENCE, "interval": [low.tolist(), high.tolist()]}
        return Scored(scores, stderr, details)


def require_combine(directions: Sequence[Direction], combine: Combine | None) -> None:
    """Refuse a way to combine predictions that one of the scopes does not have, before anything runs."""
    for direction in directions:
        if combine is not None and combine not in direction.combines:
            known = " or ".join(map(repr, direction.combines))
            why = (
                "its directions have no sign of their own" if combine == "sum" else "it is a sum over positions already"
            )
            raise ValueError(f"(combine={combine!r}): {direction.method} knows {known} only: {why}")


def surely_several(direction: Direction, positions: int, combine: Combine | None) -> bool:
    """Is it known before a run that a result over so many positions has several rows?

    ``direction.fewest`` are the rows that it has at every position, as far as that is known; a direction may do without.
    """
    return getattr(direction, "fewest", 1) > 1 or (positions > 1 and (combine or direction.combines[0]) == "norm")


def joint(
    direction: Direction,
    parts: Sequence[Rows],
    combine: Combine | None,
    n_probes: int | None,
    generator: Callable[[], torch.Generator],
) -> Joint:
    """The rows of one result from those of its explained positions."""
    if len(parts) == 1:
        return Joint(parts, parts[0].V[:, None], parts[0].details)
    how = combine or direction.combines[0]
    details = {"combine": how, **_by_position(parts)}
    fixed, random = sum(len(rows.weights) for rows in parts), len(parts[0].V) - len(parts[0].weights)
    if how == "sum" and parts[0].root:
        return Joint(parts, torch.stack([rows.V for rows in parts], dim=1), details)
    if not random and (fixed <= (n_probes or N_PROBES) or not parts[0].root):
        if fixed > MOST_EXACT:
            raise ValueError(
                f"{direction.method} has {fixed} rows at these {len(parts)} positions, one vector-Jacobian product each. Ask "
                'for fewer positions, a lower rank, or method="sampled"'
            )
        return EachAlone(parts, apart([rows.V for rows in parts]), details, weights=_weights(parts))
    drawn = generator()
    V = _probes(parts, random or n_probes or N_PROBES, drawn, [rows.V[len(rows.weights) :] for rows in parts])
    return Probed(parts, V, details, generator=drawn)


def _weights(parts: Sequence[Rows]) -> Float[Tensor, " k"]:
    """Of all positions' rows, relative to the sum of what theirs are relative to."""
    by = [rows.relative_to for rows in parts if rows.relative_to is not None]
    shares = [b / sum(by) for b in by] or [1.0] * len(parts)
    return torch.cat([rows.weights * share for rows, share in zip(parts, shares, strict=True)])


def _owners(counts: Sequence[int]) -> Int[Tensor, " k"]:
    """The position of each row, of so many for each."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def _fixed(parts: Sequence[Rows]) -> Tensor:
    """The rows of all positions that have a weight."""
    return torch.cat([rows.V[: len(rows.weights)] for rows in parts])


def apart(parts: Sequence[Tensor]) -> Tensor:
    """The rows of each position at that position, 0 at all others."""
    rows, owners = torch.cat(list(parts)), _owners(list(map(len, parts)))
    V = rows.new_zeros(len(rows), len(parts), *rows.shape[1:])
    V[torch.arange(len(rows)), owners] = rows
    return V


def _probes(parts: Sequence[Rows], n: int, generator: torch.Generator, drawn: Sequence[Tensor] | None = None) -> Tensor:
    """n rows in which every position has its own rows by random signs, and what it draws itself, or drew before."""
    rows, weights = _fixed(parts), _weights(parts)
    signs = (torch.randint(2, (n, len(rows)), generator=generator) * 2 - 1).to(weights) * weights.sqrt()
    out = rows.new_zeros(n, len(parts), *rows.shape[1:])
    owners = _owners([len(part.weights) for part in parts]).to(rows.device)
    out.index_add_(1, owners, torch.einsum("nk, k... -> nk...", signs.to(rows), rows))
    for m, part in enumerate(parts):
        more = part.more(n) if drawn is None else drawn[m]
        if more is not None and len(more):
            out[:, m] += more
    return out


def _by_position(parts: Sequence[Rows]) -> dict[str, Any]:
    """Details that all positions have alike, and the others as a list under ``"by_position"``."""
    first = parts[0].details
    alike = {name: value for name, value in first.items() if all(rows.details.get(name) == value for rows in parts)}
    names = [name for name in first if name not in alike]
    return {**alike, "by_position": {name: [rows.details.get(name) for rows in parts] for name in names}}
