"""Every prediction of a text explained at once: one row of scores per explained position.

Row s is the scope of the prediction made at position s, whose target is the token that really follows. One forward
serves many rows: the final hidden states of all explained positions are read from it, and each row's direction is
pulled back by itself, several at a time (vmapped). A prediction at s needs only tokens up to s, so positions are taken in
blocks and each block runs on the prompt cut after its last position: shorter backwards, for one forward per block. Size of
the blocks and rows pulled back at once are such that the run fits (:mod:`tl_scopes.model.memory`).

After the last attention nothing moves between positions. There the directions of all explained positions of a block go
back together, each at its own place in one cotangent; only from there on does each row go alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tl_scopes.directions.base import Explanandum, ReadOut, Rows
from tl_scopes.directions.by_name import Keywords, Method, named_explananda
from tl_scopes.directions.total_information import TotalInformation
from tl_scopes.kernel.calls import encode
from tl_scopes.kernel.options import Capture, capture_options
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.read_out import read_outs, top_predictions
from tl_scopes.kernel.shared_backward import after_last_attention, last_attention
from tl_scopes.model.forward import forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory, Run
from tl_scopes.model.prompts import EncodedPrompt, Token, token_strings
from tl_scopes.model.state import ModelState, model_state
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.results.matrix import AttributionMatrix

BLOCKS = 6
"""Blocks of positions: more shorten the backwards further but cost one forward each."""
ROWS = 12
"""Rows of V pulled back at once where memory allows: those of one block of a short text together."""
N_SAMPLES = 32
"""Probes of total information per target: half of the scope's, whose stopping rule would need a forward per target."""


def attribution_matrix(
    model: LensModel,
    prompt: str | Tensor,
    *,
    method: Method = "semantic",
    positions: Sequence[int] | None = None,
    foil: Token | None = None,
    rank: int | None = None,
    tol: float | None = None,
    n_samples: int | None = None,
    seed: int | None = None,
    moment: Literal["mean", "variance"] | None = None,
    values: Mapping[int, float] | None = None,
    direction: Tensor | None = None,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    checkpoint: bool | None = None,
    memory_budget: int | None = None,
) -> AttributionMatrix:
    """Influence of every input token on every prediction of a text.

    ``scores[s, t] = ‖v_sᵀ ∂y_s/∂x_t‖₂`` with the direction of ``method`` at each explained position s; exactly 0 for
    ``t > s``. Semantic target: the token that follows in the text; for the last token, the model's top prediction, and
    ``top_target_flagged`` says so.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: one string, or a 1-D or ``[1, pos]`` tensor of token ids.
        method: the scope of every row.
        positions: explained positions (negative counts from the end), in the order of the rows; None is all.
        foil: of ``"contrast"``.
        rank: of ``"fisher"`` (None is 1) and of ``"total_information"`` (None is 8).
        tol: of ``"fisher"`` (None is 1e-4).
        n_samples: probes of ``"total_information"`` (None is 32).
        seed: of the probes (None is 0).
        moment: of ``"moment"`` (None is ``"mean"``).
        values: of ``"moment"``, ``{token id: number}``; None is the model's number tokens.
        direction: of ``"jacobian"``, ``[d_model]`` or ``[k, d_model]`` at the final hidden state, the same for every row.
        prepend_bos: put BOS before a string prompt; None is the model's own default.
        at: hook of the source.
        checkpoint: compute the insides of blocks again in every backward; None where the text does not fit otherwise.
        memory_budget: bytes that may be taken beside the weights; None is what is free. Blocks of positions and rows pulled
            back at once shrink until they fit; the numbers do not depend on it.

    Returns:
        An :class:`AttributionMatrix`; the same numbers as one call of the scope per position. Fisher rows are each
        divided by their own ``λ_1``, kept in ``details["first_eigenvalue"]``: compare scores within a row.

    Raises:
        ValueError: as :func:`tl_scopes.semantic_scope`; a keyword that ``method`` does not read; repeated positions or
            positions outside the prompt; no way to run fits the memory.
        TypeError: a list of prompts.

    Cost: 6 forwards on prefixes of the prompt (more under a tight budget) and one vector-Jacobian product per row of V, the
        part after the last attention shared by a block's positions; the largest tensors are the graph of one prefix and the
        gradients of up to 12 rows. On large vocabularies Fisher searches of up to 8 positions share each pass over the
        unembedding.

    >>> matrix = attribution_matrix(model, "German: der Hund sieht die Katze. English: the dog")
    >>> matrix.scores.shape == (len(matrix.tokens), len(matrix.tokens))
    True

    Reference: paper figs. 3 and 7 (one row per translated word).
    """
    call = "attribution_matrix"
    if not isinstance(prompt, str | Tensor):
        raise TypeError(
            f"{call}(prompt=...): expected one string or one tensor of token ids, got {type(prompt).__name__}"
        )
    model, encoded = encode(model, prompt, -1, prepend_bos, call)
    keywords = Keywords(
        foil=foil, rank=rank, tol=tol, n_samples=n_samples, seed=seed, moment=moment, values=values, direction=direction
    )
    capture = capture_options(
        at=at, batch_size=None, cache=None, grads_at=(), keep_gradient=False, call=call, checkpoint=checkpoint,
        memory_budget=memory_budget,
    )  # fmt: skip
    return matrix_of(model, encoded[0], method, positions, keywords, capture)


def matrix_of(
    model: LensModel,
    text: EncodedPrompt,
    method: Method,
    positions: Sequence[int] | None,
    keywords: Keywords,
    capture: Capture,
    on_read: Callable[[int, ReadOut], None] | None = None,
) -> AttributionMatrix:
    """:func:`attribution_matrix` of a prompt that is already encoded; ``on_read`` is shown what each row was read from."""
    call = "attribution_matrix"
    n = len(text.tokens)
    explained = _positions(positions, n, call)
    state = model_state(model)
    if method in ("semantic", "contrast"):
        keywords = replace(keywords, target=[int(text.tokens[p + 1]) if p + 1 < n else None for p in explained])
    if method == "total_information" and keywords.n_samples is None:
        keywords = replace(keywords, n_samples=N_SAMPLES)
    (explanandum,) = named_explananda(model, [method], len(explained), keywords, call)
    if isinstance(explanandum, TotalInformation):
        explanandum = replace(explanandum, rtol=None)
    explanandum.check(state, call)

    scores = torch.zeros(len(explained), n, dtype=compute_dtype(model.W_U.dtype))
    rows: dict[int, Rows] = {}
    predictions: dict[int, list[tuple[str, float]]] = {}
    order = sorted(range(len(explained)), key=lambda i: explained[i])
    with differentiable(model), tqdm(total=len(order), desc=call, unit="target", disable=None) as bar:
        memory = capture.memory(model, call)
        plan = _plan(memory, max(explained) + 1, len(order))
        for first in range(0, len(order), plan.reads):
            block = order[first : first + plan.reads]
            for i, row, row_scores, read in _block(
                model, state, text, explained, block, explanandum, capture, memory, plan, call
            ):
                rows[i], predictions[i] = row, _top_predictions(model, read)
                if on_read is not None:
                    on_read(i, read)
                scores[i, : len(row_scores)] = row_scores.to(scores)
                bar.update()
    in_order = [rows[i] for i in range(len(explained))]
    tops = tuple(predictions[i] for i in range(len(explained)))
    return _result(model, state, text, explained, explanandum.method, capture.at, scores, in_order, tops)


def _positions(positions: Sequence[int] | None, n: int, call: str) -> list[int]:
    """Explained positions, non-negative and different."""
    if positions is None:
        return list(range(n))
    asked = list(positions)
    outside = [p for p in asked if isinstance(p, bool) or not isinstance(p, int) or not -n <= p < n]
    if outside or not asked:
        raise ValueError(f"{call}(positions={asked}): the prompt has {n} tokens; positions must be in {-n}..{n - 1}")
    found = [p % n for p in asked]
    if len(set(found)) != len(found):
        raise ValueError(f"{call}(positions={asked}): each position once")
    return found


def _plan(memory: Memory, length: int, n: int) -> Run:
    """How many positions share a forward: at least :data:`BLOCKS` blocks, more until the longest fits."""
    sizes: list[int] = []
    size = -(-n // BLOCKS)
    while not sizes or sizes[-1] > 1:
        sizes.append(size)
        size = -(-size // 2)
    return memory.first_that_fits([Run(1, length, reads, 1, c) for c in memory.checkpointing() for reads in sizes])


def _block(
    model: LensModel,
    state: ModelState,
    text: EncodedPrompt,
    explained: Sequence[int],
    block: Sequence[int],
    explanandum: Explanandum,
    capture: Capture,
    memory: Memory,
    plan: Run,
    call: str,
) -> list[tuple[int, Rows, Tensor, ReadOut]]:
    """Rows, scores and read-outs of one block of targets, from one forward on the prompt up to the last of them."""
    columns = torch.tensor([explained[i] for i in block])
    tokens = text.tokens[None, : int(columns.max()) + 1]
    # A checkpointed block computed again is kept for as long as its graph: two of them where memory allows one.
    mid = None if plan.checkpoint else last_attention(model)
    run = forward_pass(
        model,
        tokens,
        columns,
        rows=torch.zeros_like(columns),
        source=capture.at,
        cache=lambda name: name == mid,
        checkpoint=plan.checkpoint,
        call=call,
    )
    reads = read_outs(model, run, block, call)
    rows = explanandum.rows(reads, state)
    owner = torch.tensor([n for n, row in enumerate(rows) for _ in range(len(row.V))])
    most = min(ROWS, len(owner))
    at_once = memory.rows_at_once(replace(plan, length=tokens.shape[1], reads=len(block)), most)
    end, given = after_last_attention(run, mid, [row.V for row in rows], columns, capture, at_once, call)
    parts = []
    for first in range(0, len(given), at_once):
        chunk = given[first : first + at_once]
        # Row j of V belongs to one explained position and is 0 at all others.
        V = chunk.new_zeros(len(chunk), len(block), chunk.shape[1])
        V[torch.arange(len(chunk)), owner[first : first + at_once]] = chunk
        more = first + at_once < len(given)
        for (pulled,) in pull_back(end, [run.source], V, capture, call, retain_graph=more, at_once=at_once):
            parts.append(row_norms(pulled[:, 0]).cpu())
    norms = torch.cat(parts)
    out = []
    for n, (i, row) in enumerate(zip(block, rows, strict=True)):
        mine = norms[owner == n]
        scores = row.score(mine).scores
        if bool(scores[explained[i] + 1 :].any()):
            raise ValueError(
                f"{call}: tokens after position {explained[i]} influence the prediction there, so this model is not "
                "causal; Jacobian Scopes explain causal language models"
            )
        out.append((i, row, scores, reads[n]))
    return out


def _top_predictions(model: LensModel, read: ReadOut) -> list[tuple[str, float]]:
    """What the model holds most probable at one explained position."""
    log_probs = read.logits.to(compute_dtype(model.W_U.dtype)).log_softmax(-1)
    return top_predictions(model, log_probs)[0]


def _result(
    model: LensModel,
    state: ModelState,
    text: EncodedPrompt,
    explained: Sequence[int],
    method: str,
    at: str,
    scores: Tensor,
    rows: Sequence[Rows],
    predictions: tuple[list[tuple[str, float]], ...],
) -> AttributionMatrix:
    """The frozen matrix with each row's target and the details that differ between rows."""
    targets = tuple(row.target for row in rows)
    texts = [None if t is None else token_strings(model, torch.tensor([t]))[0] for t in targets]
    details: dict[str, Any] = {"at": at}
    if method == "fisher":
        details["first_eigenvalue"] = [row.details["eigenvalues"][0] for row in rows]
        details["explained_share"] = [row.details["explained_share"] for row in rows]
    if method == "temperature":
        details["beta"] = [row.details["beta"] for row in rows]
    flagged = method in ("semantic", "contrast") and len(text.tokens) - 1 in explained
    notes = tuple(dict.fromkeys(note for row in rows for note in row.notes))
    return AttributionMatrix(
        scores=scores,
        tokens=text.tokens,
        str_tokens=text.str_tokens,
        positions=tuple(explained),
        method=method,
        targets=targets,
        target_strs=tuple(texts),
        top_target_flagged=flagged,
        details=details,
        notes=notes,
        provenance=state.provenance(),
        special=text.special,
        top_predictions=predictions,
    )
