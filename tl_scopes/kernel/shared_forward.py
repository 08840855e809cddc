"""Which prompts share a forward, and which rows of it and of V are whose.

Legend: a *text* is one row of the forward, ``k`` counts rows of V, which are pulled back a few at a time.

* Different texts share a forward because rows of a batch do not see each other: one row of V serves all of them.
* Prompts of the same tokens, asked of different positions or targets, are one text, run once. Their cotangents would add in
  one row of V, so each of them has rows of its own, its *lane*.
* A prompt that is compared with another is two texts, whose gradients add where they are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.kernel.options import DEFAULT_BATCH, RunOptions
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import Run
from tl_scopes.model.prompts import EncodedPrompt

Group = list[int]
"""Numbers of prompts of the same tokens."""
Asked = Sequence[Sequence[Tensor | None]]
"""Rows ``[k, position, ...]`` of each prompt and direction; None for none."""


def shared_forwards(
    prompts: Sequence[EncodedPrompt], options: RunOptions, memory: Memory, rows: int = 1
) -> list[tuple[list[Group], Run]]:
    """Texts of similar length together, as many as fit; refused before any forward where one does not.

    Every text of a batch takes part in all its backwards, so those together are asked equally often. ``rows`` of
    gradients are alive together for each row of V.
    """
    size = 1 if options.wants_cache else options.batch_size or DEFAULT_BATCH
    texts: dict[object, Group] = {}
    for i, prompt in enumerate(prompts):
        same = tuple(tuple(branch.tokens.tolist()) for branch in prompt.branches)
        texts.setdefault((same, prompt.pos if prompt.against else None), []).append(i)
    lengths = [max(len(text.tokens) for text in prompt.branches) for prompt in prompts]
    order = sorted(texts.values(), key=lambda group: (len(group), lengths[group[0]]))
    found = []
    for often, alike in groupby(order, key=len):
        groups = list(alike)
        for first in range(0, len(groups), size):
            batch = groups[first : first + size]
            each = max(len(prompts[group[0]].branches) for group in batch)
            reads = max(len(prompts[i].positions) for group in batch for i in group)
            together = _halved(len(batch)) if options.batch_size is None else [len(batch)]
            ways = [(n, often) for n in together] + [(together[-1], lanes) for lanes in _halved(often)[1:]]
            run = memory.first_that_fits(
                [
                    Run(n * each, lengths[batch[-1][0]], n * lanes * reads, rows, checkpoint)
                    for checkpoint in memory.checkpointing()
                    for n, lanes in ways
                ]
            )
            n = run.batch // each
            lanes = run.reads // (n * reads)
            found += [
                ([group[lane : lane + lanes] for group in batch[i : i + n]], run)
                for i in range(0, len(batch), n)
                for lane in range(0, often, lanes)
            ]
    return found


def _halved(n: int) -> list[int]:
    """n, its half, and so on."""
    return [n >> i for i in range(n.bit_length())]


class Texts:
    """The rows of one batch: the texts, then what some are compared with; and the explained positions, by prompt.

    Args:
        groups: prompts of the same tokens.
    """

    def __init__(self, groups: Sequence[Sequence[EncodedPrompt]]) -> None:
        self.prompts = [prompt for group in groups for prompt in group]
        self.row_of = [n for n, group in enumerate(groups) for _ in group]
        self._lane_of = [lane for group in groups for lane in range(len(group))]
        self._firsts = [group[0] for group in groups]
        compared = [n for n, first in enumerate(self._firsts) if first.against is not None]
        self._other = {n: len(groups) + i for i, n in enumerate(compared)}
        self.all = [*self._firsts, *(first.against for first in self._firsts if first.against is not None)]
        places = [
            [(self._other[n] if branch else n, p) for branch, p in prompt.positions]
            for n, prompt in zip(self.row_of, self.prompts, strict=True)
        ]
        ends = list(accumulate(map(len, places)))
        self.slices = [slice(end - len(each), end) for end, each in zip(ends, places, strict=True)]
        """The explained positions of each prompt."""
        self.read_at = [
            own.start + [p for branch, p in prompt.positions if branch == 0].index(prompt.pos)
            for own, prompt in zip(self.slices, self.prompts, strict=True)
        ]
        """That at which each result's predictions are read."""
        self.rows, self.columns = torch.tensor([place for each in places for place in each]).T

    def starts(self, asked: Asked) -> tuple[list[list[int]], int]:
        """Where the rows of each prompt and direction begin among all rows of V, and how many rows there are.

        Prompts of one lane share rows; zeros stand where one has fewer than another.
        """
        n = len(asked[0])
        sizes = [0] * (n * (1 + max(self._lane_of)))
        for lane, rows in zip(self._lane_of, asked, strict=True):
            for i, m in enumerate(rows):
                sizes[lane * n + i] = max(sizes[lane * n + i], 0 if m is None else len(m))
        begin = [0, *accumulate(sizes)]
        return [begin[lane * n : (lane + 1) * n] for lane in self._lane_of], begin[-1]

    def stacked(self, asked: Asked, at_once: int) -> Iterator[Float[Tensor, "k read ..."]]:
        """All rows of V over all explained positions, a few at a time: each prompt's are 0 at those of the others."""
        starts, n = self.starts(asked)
        like = next(m for rows in asked for m in rows if m is not None)
        for first in range(0, n, at_once):
            V = like.new_zeros(min(at_once, n - first), len(self.rows), *like.shape[2:])
            for rows, own, begins in zip(asked, self.slices, starts, strict=True):
                for m, begin in zip(rows, begins, strict=True):
                    low = max(begin - first, 0)
                    high = min(begin - first + (0 if m is None else len(m)), len(V))
                    if m is not None and low < high:
                        V[low:high, own] = m[low + first - begin : high + first - begin]
            yield V

    def merged(self, gradient: Float[Tensor, "rows text pos ..."]) -> Float[Tensor, "rows text pos ..."]:
        """What comes of both texts of a comparison added at the first where they are the same; 0 where they are not."""
        for n, other in self._other.items():
            shared = self._firsts[n].pos + 1
            gradient[:, n, :shared] += gradient[:, other, :shared]
            gradient[:, n, shared:] = 0
        return gradient
