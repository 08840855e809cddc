"""Every prediction of a text explained at once: one row of scores per explained position.

Row s is the scope of the prediction made at position s, whose target is the token that really follows. One forward
serves many rows: the final hidden states and logits of up to :data:`READS` explained positions are read from it, in one pass
over the unembedding, and each row's direction is pulled back by itself, several at a time (vmapped). A prediction at s needs
only tokens up to s, so positions are taken in blocks, and the rows of each go back through a run on the prompt cut after its
last position: shorter backwards, for one forward per block, which ends before the unembedding (the last block has the run
that was read). Positions read at once, size of the blocks and rows pulled back at once are such that the run fits
(:mod:`tl_scopes.model.memory`).

After the last attention nothing moves between positions. There the directions of all explained positions of a block go
back together, each at its own place in one cotangent; only from there on does each row go alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.directions.base import Direction, ReadOut, Rows, held_by, target_note
from tl_scopes.directions.by_name import SCOPES, check_methods, named_directions
from tl_scopes.directions.scope import Scope
from tl_scopes.kernel.attributed import provenance, refuse_influence_from_the_future
from tl_scopes.kernel.calls import encode_one, show_keywords
from tl_scopes.kernel.options import MatrixKeywords, RunOptions, run_options, split_keywords
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.read_out import read_outs, target_string, top_predictions
from tl_scopes.kernel.shared_backward import after_last_attention, last_attention
from tl_scopes.model.forward import ForwardPass, forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.lens import LensModel
from tl_scopes.model.lock import model_call
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import Run
from tl_scopes.model.prompts import EncodedPrompt, GivenTokens, OnePrompt
from tl_scopes.model.soundness import require_causal
from tl_scopes.model.state import ModelState, model_state
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.parts import even_parts
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.numerics.progress import progress
from tl_scopes.results.matrix import AttributionMatrix

ROWS = 16
"""Rows of V pulled back at once where memory allows: those of one block of a short text together."""
READS = 64
"""Positions that one forward reads where memory allows: a pass over the unembedding for a dozen takes as long."""
OnRead = Callable[[int, ReadOut], None]
"""Called with the number of a row and what the model held at its position."""


@model_call
@show_keywords
def attribution_matrix(
    model: LensModel,
    prompt: OnePrompt,
    *,
    method: str = "semantic",
    positions: Sequence[int] | None = None,
    **keywords: Unpack[MatrixKeywords],
) -> AttributionMatrix:
    """Influence of every input token on every prediction of a text.

    ``scores[s, t] = ‖v_sᵀ ∂y_s/∂x_t‖₂`` with the direction of ``method`` at each explained position s; exactly 0 for
    ``t > s``. Semantic target: the token that follows in the text; for the last token, the model's top prediction, and
    ``top_target_flagged`` says so.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: one string, a 1-D or ``[1, pos]`` tensor of token ids, what a tokenizer returned, a chat as a list
            of messages, or what :func:`tl_scopes.generate` gave.
        method: the scope of every row.
        positions: explained positions (negative counts from the end), in the order of the rows; None is all, and of what
            was generated those at which its answer was predicted.
        keywords: of the scopes that read them, with their defaults, but for ``n_samples``, which is 32 here.
        prepend_bos, chat_options, at, checkpoint, memory_budget, frozen: as in :func:`tl_scopes.semantic_scope`. Blocks of
            positions and rows pulled back at once shrink until they fit; the numbers do not depend on it.

    Returns:
        An :class:`AttributionMatrix` that leaves special tokens out of views and rankings
        (``.without("nothing")`` shows them); the same numbers as one call of the scope per position. Fisher rows are each
        divided by their own ``λ_1``, kept in ``details["first_eigenvalue"]``: compare scores within a row.

    Raises:
        ValueError: as :func:`tl_scopes.semantic_scope`; a keyword that ``method`` does not read; repeated positions or
            positions outside the prompt; no way to run fits the memory.
        TypeError: a list of prompts.

    Cost: for n positions about √n/2 forwards on prefixes of the prompt (more under a tight budget), a pass over the
        unembedding for each 64 positions, and one vector-Jacobian product per row of V, the part after the last attention
        shared by a block's positions; the largest tensors are the graph of one prefix, the logits of up to 64 positions (of
        one block in a long text) and the gradients of up to 16 rows. On large vocabularies Fisher searches of up to 28
        positions share each pass over the unembedding.

    >>> matrix = attribution_matrix(model, "German: der Hund sieht die Katze. English: the dog")
    >>> matrix.scores.shape == (len(matrix.tokens), len(matrix.tokens))
    True
    >>> said = generate(model, "German: der Hund sieht die Katze. English: the", 3)
    >>> attribution_matrix(model, said).target_strs
    (' dog', ' sees', ' the')

    Reference: paper figs. 3 and 7 (one row per translated word).
    """
    own, given = split_keywords(keywords)
    options = run_options(**given)
    model, text = encode_one(model, prompt, options)
    if positions is None and isinstance(prompt, GivenTokens):
        positions = range(max(prompt.answer_start - 1, 0), len(text.tokens) - 1) or None
    return matrix_of(model, text, method, positions, own, options).without("special")


def matrix_of(
    model: LensModel,
    text: EncodedPrompt,
    method: str,
    positions: Sequence[int] | None,
    keywords: Mapping[str, Any],
    options: RunOptions,
    on_read: OnRead | None = None,
) -> AttributionMatrix:
    """:func:`attribution_matrix` of a prompt that is already encoded; ``on_read`` is shown what each row was read from."""
    explained = _positions(positions, len(text.tokens))
    if explained != [len(text.tokens) - 1]:
        require_causal(model)  # positions share a forward, on the prompt up to the last of them
    check_methods([method], "method")
    scope, own = SCOPES[method], dict(keywords)
    if scope.targeted:
        own["target"] = [int(text.tokens[p + 1]) if p + 1 < len(text.tokens) else None for p in explained]
    (direction,) = named_directions(model, [method], len(explained), own, argument="method", of_rows=True)
    state = model_state(model)
    direction.check(state)
    found = _Matrix(model, state, text, explained, direction, options, on_read).rows()
    rows = [found[i] for i in range(len(explained))]
    return _result(model, text, rows, explained, scope, direction.method, {"at": options.at} | options.linearisation)


def _positions(positions: Sequence[int] | None, n: int) -> list[int]:
    """Explained positions, non-negative and different."""
    if positions is None:
        return list(range(n))
    asked = list(positions)
    outside = [p for p in asked if isinstance(p, bool) or not isinstance(p, int) or not -n <= p < n]
    if outside or not asked:
        raise ValueError(f"(positions={asked}): the prompt has {n} tokens; positions must be in {-n}..{n - 1}")
    found = [p % n for p in asked]
    if len(set(found)) != len(found):
        raise ValueError(f"(positions={asked}): each position once")
    return found


@dataclass(frozen=True, eq=False)
class _Row:
    """One explained position: its direction, its scores, and what the model predicts there."""

    rows: Rows
    scores: Float[Tensor, " pos"]
    predictions: list[tuple[str, float]]
    attention: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Matrix:
    """One text on one model, and the direction whose rows are wanted at the explained positions."""

    model: LensModel
    state: ModelState
    text: EncodedPrompt
    explained: Sequence[int]
    direction: Direction
    options: RunOptions
    on_read: OnRead | None = None

    def rows(self) -> dict[int, _Row]:
        """Every row, by its number."""
        found: dict[int, _Row] = {}
        order = sorted(range(len(self.explained)), key=lambda i: self.explained[i])
        with differentiable(self.model), progress(total=len(order), unit="target") as bar:
            memory = self.options.memory(self.model, held=held_by([self.direction], self.model.W_U))
            plan = _plan(memory, max(self.explained) + 1, len(order))
            for first in range(0, len(order), plan.reads):
                for i, row in self._read(order[first : first + plan.reads], memory, plan):
                    found[i] = row
                    bar.update()
        return found

    def _read(self, group: Sequence[int], memory: Memory, plan: Run) -> Iterator[tuple[int, _Row]]:
        """The rows of positions that one forward reads. Its graph is the last block's; those before have their own."""
        table = self.direction.held(1, self.model.W_U) is not None
        run = self._forward(group, plan, table=table or None)
        reads = read_outs(self.model, run, group)
        if self.on_read is not None:
            for read in reads:
                self.on_read(read.index, read)
        predictions = [top_predictions(self.model, read.predictions)[0] for read in reads]
        rows = self.direction.rows(reads, self.state)
        parts = even_parts(len(group), -(-len(self.explained) // blocks(len(self.explained))))
        own = parts[-1]
        run = replace(run, y=run.y[own], hidden=run.hidden[own], predictions=run.predictions[own].alone())
        del reads  # a vocabulary each, perhaps
        for part in reversed(parts):
            if part is not own:
                del run  # one graph at a time
                run = self._forward(group[part], plan, table=False)
            scores = self._scores(run, group[part], rows[part], memory, plan)
            attention = run.predictions.of.attention
            for i, row, of_row, top in zip(group[part], rows[part], scores, predictions[part], strict=True):
                yield i, _Row(row, of_row, top, attention)

    def _forward(self, positions: Sequence[int], plan: Run, table: bool | None) -> ForwardPass:
        """One run on the prompt up to the last of some explained positions, given by their rows."""
        columns = self._columns(positions)
        mid = self._mid(plan)
        return forward_pass(
            self.model,
            self.text.tokens[None, : int(columns.max()) + 1],
            columns,
            replace(self.options.recording(), cache=lambda name: name == mid, table=table),
            rows=torch.zeros_like(columns),
            checkpoint=plan.checkpoint,
        )

    def _columns(self, positions: Sequence[int]) -> Int[Tensor, " read"]:
        """Where in the prompt the rows of these numbers are explained."""
        return torch.tensor([self.explained[i] for i in positions])

    def _mid(self, plan: Run) -> str | None:
        """Where positions begin to be alone. Not with checkpointing: what is computed again is kept as long as its graph."""
        return None if plan.checkpoint else self._last_attention

    @cached_property
    def _last_attention(self) -> str | None:
        return last_attention(self.model)

    def _scores(
        self, run: ForwardPass, positions: Sequence[int], rows: Sequence[Rows], memory: Memory, plan: Run
    ) -> list[Float[Tensor, " pos"]]:
        """The scores of a block of positions, whose rows of V are pulled back through the graph of their run."""
        columns = self._columns(positions)
        owner = torch.tensor([n for n, row in enumerate(rows) for _ in range(len(row.V))])
        alike = replace(plan, length=run.source.shape[1], pulled=len(rows))
        at_once = memory.rows_at_once(alike, min(ROWS, len(owner)))
        norms = self._norms(run, self._mid(plan), rows, owner, columns, at_once)
        found = []
        for n, (position, row) in enumerate(zip(columns.tolist(), rows, strict=True)):
            found.append(row.score(norms[owner == n]).scores)
            refuse_influence_from_the_future(found[-1], position)
        return found

    def _norms(
        self, run: ForwardPass, mid: str | None, rows: Sequence[Rows], owner: Tensor, columns: Tensor, at_once: int
    ) -> Float[Tensor, "row pos"]:
        """``‖v·J‖`` of every row of V; row j of V belongs to one explained position and is 0 at all others."""
        end, given = after_last_attention(run, mid, [row.V for row in rows], columns, self.options, at_once)
        parts = []
        for first in range(0, len(given), at_once):
            chunk = given[first : first + at_once]
            V = chunk.new_zeros(len(chunk), len(rows), chunk.shape[1])
            V[torch.arange(len(chunk)), owner[first : first + at_once]] = chunk
            more = first + at_once < len(given)
            for (pulled,) in pull_back(end, [run.source], V, self.options, retain_graph=more, at_once=at_once):
                parts.append(row_norms(pulled[:, 0]).cpu())
        return torch.cat(parts)


def blocks(n: int) -> int:
    """Blocks of n positions: more shorten the backwards further, but cost a forward each.

    B blocks cost ``B f + (n/2)(1 + 1/B) v``, least at ``√(n v / 2f)``; a row's backward v is about half a forward f.
    """
    return max(1, round(math.sqrt(n) / 2))


def _plan(memory: Memory, length: int, n: int) -> Run:
    """How many positions one forward reads: those of several blocks of a short text, fewer until the longest fits.

    A pass over the unembedding costs much the same for a few positions as for :data:`READS`.
    """
    size = -(-n // blocks(n))
    sizes = [min(n, max(size, READS // size * size))]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return memory.first_that_fits([Run(1, length, reads, 1, c) for c in memory.checkpointing() for reads in sizes])


def _result(
    model: LensModel,
    text: EncodedPrompt,
    rows: Sequence[_Row],
    explained: Sequence[int],
    scope: Scope,
    method: str,
    details: dict[str, Any],
) -> AttributionMatrix:
    """The frozen matrix with each row's target and the details that differ between rows."""
    n, said = len(text.tokens), target_note(None)  # ``top_target_flagged`` says it
    own = [tuple(note for note in row.rows.notes if note not in said) for row in rows]
    shared = [note for note in dict.fromkeys(note for notes in own for note in notes) if all(note in o for o in own)]
    scores = torch.zeros(len(rows), n, dtype=compute_dtype(model.W_U.dtype))
    for i, row in enumerate(rows):
        scores[i, : len(row.scores)] = row.scores.to(scores)
    by_row = {name: [of_row(row.rows.details) for row in rows] for name, of_row in scope.kept_of_rows.items()}
    for name in scope.rebuilt_from:
        first, *others = found = [row.rows.details.get(name) for row in rows]
        if any(other != first for other in others):
            by_row[name] = found
        elif first is not None:
            details[name] = first
    if any(alone := [[note for note in notes if note not in shared] for notes in own]):
        by_row["notes"] = alone
    if any(row.attention for row in rows):  # rows of one text run on beginnings of it, short ones among them
        by_row["attention"] = [list(row.attention) for row in rows]
    if "foil" in details:
        details["foil_str"] = target_string(model, details["foil"])
    details |= by_row | {"by_row": list(by_row)}
    targets = tuple(row.rows.target for row in rows)
    return AttributionMatrix(
        scores=scores,
        tokens=text.tokens,
        str_tokens=text.str_tokens,
        positions=tuple(explained),
        method=method,
        targets=targets,
        target_strs=tuple(target_string(model, target) for target in targets),
        top_target_flagged=scope.targeted and n - 1 in explained,
        details=details,
        notes=(*text.notes, *shared),
        provenance=provenance(model, details),
        special=text.special,
        text=text.text,
        offsets=text.offsets,
        units=text.units,
        top_predictions=tuple(row.predictions for row in rows),
        direction=rows[0].rows.V.cpu() if rows[0].rows.given else None,
    )
