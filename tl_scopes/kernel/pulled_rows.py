"""The rows of V of a batch, pulled back to the source: ``G = V·J``, and what is measured in the same backwards.

Rows of all prompts and directions are pulled together. Each backward gives norms at the source, what every probe makes of the
gradient at its own hook, and the shares of the leaves that are no token's; with a valve, a second backward of the same graph
holds attention (:mod:`tl_scopes.model.held_functions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.joint import Joint
from tl_scopes.kernel.attributed import refuse_influence_of_padding
from tl_scopes.kernel.options import GradientProbe, RunOptions
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.shared_forward import Texts
from tl_scopes.model.forward import ForwardPass
from tl_scopes.model.held_functions import Valve
from tl_scopes.model.leaves import Leaves, shares_of
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.precision import to_float64

Size = Callable[[Tensor, Tensor], Tensor]
"""``(gradients [rows, batch, pos, d_model], activation [batch, pos, d_model])`` to the size of each row at each token."""


def norm_of_gradient(gradients: Float[Tensor, "rows *place d"], x: Tensor) -> Tensor:
    """``‖G_{i,t}‖₂``."""
    return row_norms(gradients)


def norm_of_product(gradients: Float[Tensor, "rows *place d"], x: Float[Tensor, "*place d"]) -> Tensor:
    """``‖x_t ⊙ G_{i,t}‖₂``."""
    return row_norms(to_float64(x) * to_float64(gradients))


@dataclass(frozen=True, eq=False)
class Pulled:
    """What came of pulling the rows of a batch back.

    Attributes:
        norms: sizes at the source, ``[prompt][direction]`` of ``[k, pos]``, on the CPU.
        probed: of each probe, ``[probe][prompt][direction]`` of ``[k, pos, ...]``, on the CPU.
        shares: of the leaves of each kind, ``[kind][prompt][direction]`` of ``[k, 1]``.
        gradients: ``[source][row]`` of ``[text, pos, ...]``, where there is one row each and somebody asked.
        row_of: the first row of V of each ``[prompt][direction]``.
    """

    norms: list[list[Tensor]]
    probed: list[list[list[Tensor]]]
    shares: dict[str, list[list[Tensor]]]
    gradients: list[list[Tensor]]
    row_of: list[list[int]]


@dataclass(frozen=True, eq=False)
class Backwards:
    """What the backwards of one call have in common: what is kept of them, what is measured in them, what is held."""

    options: RunOptions
    probes: Sequence[GradientProbe]
    valve: Valve | None = None
    size: Size = norm_of_gradient

    @property
    def linearisations(self) -> list[dict[str, Any]]:
        """What each result of a direction says of its gradient, in :attr:`details`."""
        exact = self.options.linearisation
        return [exact] if self.valve is None else [exact, {"frozen": ["attention"]}, {"through": ["attention"]}]

    def rows(
        self,
        run: ForwardPass,
        chosen: Sequence[Sequence[Joint]],
        texts: Texts,
        leaves: Leaves,
        at_once: int,
        adaptive: bool,
    ) -> list[Pulled]:
        """Pull all rows back, and the further rows that adaptive directions ask for when they see the norms.

        The rows of one batch are pulled together, ``at_once`` in one backward. One result for each linearisation.
        """
        options, probes, ways = self.options, self.probes, range(len(self.linearisations))
        sources = [run.source, *(run.activations[name] for name in options.grads_at)]
        inside = {probe.name: run.activations[probe.name] for probe in probes}
        leaves = {kind: list(of_kind) for kind, of_kind in leaves.items()}  # a block computed again makes more
        lengths = [len(text.tokens) for text in texts.all]
        asked: list[list[Tensor | None]] = [[r.V for r in rows] for rows in chosen]
        starts, left = texts.starts(asked)
        row_of = starts
        own = 1 + len(probes) + len(leaves)
        measured: list[list[list[Tensor]]] = [[[] for _ in texts.prompts] for _ in ways for _ in range(own)]
        gradients: list[list[list[Tensor]]] = [[[] for _ in sources] for _ in ways]
        while left:
            parts: list[list[Tensor]] = [[] for _ in measured]
            for V in texts.stacked(asked, at_once):
                left -= len(V)
                for way, pulled in self._each_way(run, [*sources, *inside.values()], leaves, V, adaptive or left > 0):
                    of_leaves = shares_of(leaves, pulled.pop()) if leaves else []
                    pulled = [texts.merged(gradient) for gradient in pulled]
                    norms, *probed = parts[way * own : (way + 1) * own]
                    norms.append(self.size(pulled[0], run.source.detach()).cpu())
                    refuse_influence_of_padding(norms[-1], lengths)
                    within = dict(zip(inside, pulled[len(sources) :], strict=True))
                    for part, probe in zip(probed, probes, strict=False):
                        part.append(probe.reduce(within[probe.name], inside[probe.name].detach()).cpu())
                    for part, share in zip(probed[len(probes) :], of_leaves, strict=True):
                        part.append(share.cpu())
                    if options.wants_gradient:
                        for kept, gradient in zip(gradients[way], pulled[: len(sources)], strict=True):
                            kept += gradient
            for quantity, part in zip(measured, parts, strict=True):
                new = torch.cat(part)
                for n, (prompt, text) in enumerate(zip(texts.prompts, texts.row_of, strict=True)):
                    fresh = [
                        new[start : start + (0 if a is None else len(a)), text, : len(prompt.tokens)]
                        for start, a in zip(starts[n], asked[n], strict=True)
                    ]
                    old = quantity[n]
                    quantity[n] = [torch.cat(both) for both in zip(old, fresh, strict=True)] if old else fresh
            asked = [
                [r.next_rows(x) for r, x in zip(rows, measured[0][n], strict=True)] for n, rows in enumerate(chosen)
            ]
            starts, left = texts.starts(asked)
        by_way = [measured[way * own : (way + 1) * own] for way in ways]
        shares = [dict(zip(leaves, m[1 + len(probes) :], strict=True)) for m in by_way]
        return [
            Pulled(m[0], m[1 : 1 + len(probes)], of_leaves, g, row_of)
            for m, of_leaves, g in zip(by_way, shares, gradients, strict=True)
        ]

    def _each_way(
        self, run: ForwardPass, sources: Sequence[Tensor], leaves: Leaves, V: Tensor, more: bool
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """``V·J`` at each source, and at all leaves together where there are any, by each linearisation, numbered.

        ``more`` rows may come, so that the graph is kept.
        """

        def pulled(keep: bool) -> list[list[Tensor]]:
            required = 1 + len(self.options.grads_at)
            optional = [leaf for of_kind in leaves.values() for leaf in of_kind]
            found = pull_back(
                run.hidden,
                sources,
                V,
                self.options,
                retain_graph=keep,
                n_required=required,
                optional=optional,
                at_once=len(V),
            )
            return list(found)

        if self.valve is None:
            yield from ((0, gradients) for gradients in pulled(more))
            return
        exact = pulled(True)
        self.valve.open = False
        try:
            held = pulled(more)
        finally:
            self.valve.open = True
        for whole, part in zip(exact, held, strict=True):
            difference = [a - b for a, b in zip(whole, part, strict=True)]
            yield from enumerate((whole, part, difference))
