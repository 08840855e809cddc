"""The frozen result of a chain: what each unit of a written text rests on, followed back to the prompt.

Legend: ``s_u,t`` the score of token t in the row of written unit u, which explains the unit's tokens together; ``S_u`` the
sum of ``s²`` (of scores that add, of s) over the row, special tokens left out.

    P[u, q] = Σ_{t in q} s²_u,t / R_u     share of prompt unit q
    G[u, v] = Σ_{t in v} s²_u,t / R_u     share of an earlier written unit v; strictly lower triangular
    R_u     = S_u − Σ_{t in u} s²_u,t     without what the unit's first tokens do for its last ones, ``self_share``

    direct  w P      k hops  w Gᵏ P      total  w (I − G)⁻¹ P

with weights w of the units that are the answer. Shares are not derivatives: each row of ``[P | G]`` adds up to 1, unless it
is all 0, and so does ``total``, whatever the model does. So it says which source ranks first, not how much there is of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.model.units import Unit
from tl_scopes.numerics.arguments import Count, public_call
from tl_scopes.numerics.walks import by_length, strongest, visits
from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.chain_units import TextUnit, prompt_units, require_names, step_weights
from tl_scopes.results.methods import legend
from tl_scopes.results.units import Entries, Units, by_name, joined

if TYPE_CHECKING:
    import pandas as pd

WEIGHT_SUM = 1e-6
"""How far from 1 the weights of an answer may add up to."""


class Source(NamedTuple):
    """A prompt unit and its share of the answer."""

    number: int
    text: str
    share: float


class Link(NamedTuple):
    """A place on a path back from the answer, a written unit or at its end a prompt unit, and its share in the one before."""

    part: str
    number: int
    text: str
    share: float


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Displayable, Serializable):
    """Rows of all written units, and what they come to.

    Attributes:
        scores: ``[unit, pos]`` on the CPU: each row as the scope gave it, special tokens included; 0 from the unit's last
            token on.
        steps: the written units, in order.
        sources: the prompt's units.
        weights: ``[unit]`` of the answer; they add up to 1.
        tokens: ``[pos]`` ids of prompt and written text.
        str_tokens: their texts.
        answer_start: position of the first written token.
        method: name of the scope or baseline.
        unit: what steps are.
        hops: rows of :attr:`by_hop` beside the direct one; None is all that are not 0.
        special: positions of special tokens.
        text: prompt and written text, where they are known.
        offsets: characters of each token in it.
        units: parts of the text that have names: turns.
        details: of the rows.
        notes: sentences a reader must know.
        provenance: class, name, dtype and processing state of the model; library versions.
    """

    _along: ClassVar = {"steps": "unit", "str_tokens": "pos", "offsets": "pos"}
    _within: ClassVar = {"special": "pos", "answer_start": "pos"}
    _finite: ClassVar = ("scores", "weights")
    _at_least: ClassVar = {"scores": 0, "weights": 0}

    scores: Float[Tensor, "unit pos"]
    steps: tuple[TextUnit, ...]
    sources: tuple[TextUnit, ...]
    weights: Float[Tensor, " unit"]
    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    answer_start: int
    method: str
    unit: str = "sentence"
    hops: int | None = None
    special: frozenset[int] = frozenset()
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    units: tuple[Unit, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        n, start = len(self.tokens), self.answer_start
        self.require(self.offsets is None or self.text is not None, "offsets", "come with text")
        self.require(self.hops is None or self.hops >= 0, "hops", f"{self.hops} is below 0")
        for name, units, low, high in (("sources", self.sources, 0, start), ("steps", self.steps, start, n)):
            places = [p for unit in units for p in unit.positions]
            self.require(len(units) > 0 and all(u.positions for u in units), name, "none, or one without a token")
            self.require(all(low <= p < high for p in places), name, f"positions outside {low}..{high - 1}")
            self.require(len({*places}) == len(places), name, "a token is in two units")
        ordered = all(max(a.positions) < min(b.positions) for a, b in pairwise(self.steps))
        self.require(ordered, "steps", "not in their order in the text")
        for u, step in enumerate(self.steps):
            later = self.scores[u, max(step.positions) :]
            self.require(not bool(later.any()), "scores", f"row {u} has influence from its own last token or later")
        total = float(self.weights.double().sum())
        self.require(abs(total - 1) <= WEIGHT_SUM, "weights", f"they add up to {total:.6g}, not 1")

    def __repr__(self) -> str:
        best = ", ".join(f"{s.text.strip()[:20]!r} {s.share:.2f}" for s in self.top(3))
        return f"Chain({self.method}, {len(self.steps)} steps, {len(self.sources)} prompt units, total: {best})"

    # -- rows --------------------------------------------------------------------------------------

    @cached_property
    def _parts(self) -> dict[str, Tensor]:
        """Shares of each row: of the prompt's units, of earlier steps, of itself, of special tokens."""
        values = self.scores.double()
        parts = values if legend(self.method).additive else values.square()
        whole = parts.sum(dim=1)
        special = parts[:, sorted(self.special)].sum(dim=1)
        of_steps = joined(parts, [step.positions for step in self.steps], True)
        own, earlier = of_steps.diagonal(), of_steps.tril(-1)
        prompt = joined(parts, [source.positions for source in self.sources], True)
        rest = (prompt.sum(dim=1) + earlier.sum(dim=1))[:, None]
        # Before the division, so that a row of nothing has shares of 0.
        prompt, earlier = (torch.where(rest > 0, part / rest, 0.0) for part in (prompt, earlier))
        kept = rest[:, 0] + own
        return {
            "prompt": prompt,
            "earlier": earlier,
            "self": torch.where(kept > 0, own / kept, 0.0),
            "special": torch.where(whole > 0, special / whole, 0.0),
        }

    @property
    def graph(self) -> Float[Tensor, "unit unit"]:
        """``G``: the share of each step that comes from each earlier one; strictly lower triangular, float64."""
        return self._parts["earlier"]

    @property
    def from_prompt(self) -> Float[Tensor, "unit source"]:
        """``P``: the share of each step that comes from each prompt unit, float64."""
        return self._parts["prompt"]

    @property
    def self_share(self) -> Float[Tensor, " unit"]:
        """Of each row without special tokens, the share of the step's own earlier tokens, which is taken out."""
        return self._parts["self"]

    @property
    def special_share(self) -> Float[Tensor, " unit"]:
        """Of each whole row, the share of special tokens, which is taken out."""
        return self._parts["special"]

    @property
    def rootless(self) -> tuple[int, ...]:
        """Numbers of the steps that nothing before them has a share in: their rows of ``[P | G]`` are all 0."""
        return tuple((~torch.cat([self.from_prompt, self.graph], dim=1).any(dim=1)).nonzero()[:, 0].tolist())

    # -- what they come to -------------------------------------------------------------------------

    @property
    def answer(self) -> tuple[int, ...]:
        """Numbers of the steps that are the answer: those with a weight."""
        return tuple(u for u, w in enumerate(self.weights.tolist()) if w > 0)

    @property
    def answer_text(self) -> str:
        """The answer's own text."""
        return "".join(self.steps[u].text for u in self.answer)

    @property
    def direct(self) -> Float[Tensor, " source"]:
        """``w P``: the share of each prompt unit in the answer's own rows."""
        return self._weights @ self.from_prompt

    @property
    def by_hop(self) -> Float[Tensor, "hop source"]:
        """``w Gᵏ P`` for k = 0, 1, …: what reaches the answer through exactly k other steps."""
        most = max(self.answer) if self.hops is None else self.hops
        return by_length(self._weights, self.graph, most) @ self.from_prompt

    @property
    def total(self) -> Float[Tensor, " source"]:
        """``w (I − G)⁻¹ P``: what reaches the answer through any steps, by one triangular solve in float64."""
        return visits(self._weights, self.graph) @ self.from_prompt

    @property
    def through(self) -> Float[Tensor, " unit"]:
        """``w (I − G)⁻¹ − w``: how much of the answer's influence passes each step on its way."""
        return visits(self._weights, self.graph) - self._weights

    @property
    def path(self) -> tuple[Link, ...]:
        """The single way back with the largest product of shares: answer, steps, a prompt unit; empty where there is none."""
        found = strongest(self._weights, self.graph, self.from_prompt)
        if found is None:
            return ()
        (first, *others), source = found
        links = [Link("step", first, self.steps[first].text, float(self.weights[first]))]
        for a, b in pairwise((first, *others)):
            links.append(Link("step", b, self.steps[b].text, float(self.graph[a, b])))
        last = links[-1].number
        return (*links, Link("prompt", source, self.sources[source].text, float(self.from_prompt[last, source])))

    @property
    def _weights(self) -> Float[Tensor, " unit"]:
        return self.weights.double()

    @public_call
    def top(self, k: Count = 5, among: Sequence[str] = ()) -> list[Source]:
        """The ``k`` prompt units with the largest total, largest first; ties by their order; of these names alone.

        Raises:
            ValueError: a name that no unit has.
        """
        require_names(self.sources, among)
        total = self.total.tolist()
        numbers = [q for q, source in enumerate(self.sources) if not among or source.name in among]
        ranked = sorted(numbers, key=lambda q: (-total[q], q))[:k]
        return [Source(q, self.sources[q].text, total[q]) for q in ranked]

    @public_call
    def shares(self) -> dict[str, float]:
        """The total of the prompt's units by their names: turns by role, documents that the caller named.

        Raises:
            ValueError: no prompt unit has a name.
        """
        names = {q: source.name or "rest" for q, source in enumerate(self.sources)}
        if not any(source.name for source in self.sources):
            raise ValueError(
                "the prompt's units have no names; call it on by_unit('turn') of a chat, or on by_unit({name: (start, end)})"
            )
        return by_name(names, self.total)

    @public_call
    def of(self, step: int) -> Chain:
        """The same rows, asked of another step (negative numbers count from the end).

        Raises:
            ValueError: no such step.
        """
        return replace(self, weights=step_weights(step, len(self.steps)))

    @public_call
    def by_unit(self, units: Units, *, language: str = "en") -> Chain:
        """The same rows over other units of the prompt, as :meth:`Attribution.by_unit` cuts them; the steps stay.

        Raises:
            ValueError: as :meth:`Attribution.by_unit`.
        """
        return replace(self, sources=prompt_units(self.entries, units, language))

    @property
    def entries(self) -> Entries:
        """The tokens as units are made of them."""
        written = tuple(range(self.answer_start, len(self.tokens)))
        return Entries(self.str_tokens, self.special, self.text, self.offsets, self.units, answer=written)

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt unit, then one per step, with their texts: ``direct``, ``total``, ``self_share``.

        A step's ``direct`` is its share in the answer's own rows, its ``total`` what passes it.
        """
        import pandas as pd

        units = [("prompt", q, s.name, s.text) for q, s in enumerate(self.sources)]
        units += [("step", u, s.name, s.text) for u, s in enumerate(self.steps)]
        return pd.DataFrame(units, columns=["part", "number", "name", "text"]).assign(
            direct=torch.cat([self.direct, self._weights @ self.graph]).tolist(),
            total=torch.cat([self.total, self.through]).tolist(),
            self_share=[float("nan")] * len(self.sources) + self.self_share.tolist(),
        )
