"""The model on changed embeddings: logits at the explained position, and the gradient there if it is asked for.

Legend: ``x`` ``[pos, d_model]`` the activation at the source hook (embeddings by default); ``x'`` what is put in its
place; ``z`` the logits at the explained position; ``g = ∂s/∂x`` at ``x'`` for the explained scalar s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.directions.base import Explanandum, Rows
from tl_scopes.kernel.options import DEFAULT_BATCH, Capture, require_batch_size
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.read_out import read_outs, require_finite, top_predictions
from tl_scopes.model import prompts as _prompts
from tl_scopes.model.forward import forward_pass
from tl_scopes.model.hooks import Y_HOOK, attached, differentiable, require_hook
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory, Run
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.model.state import model_state
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.results.attribution import Attribution

Scalar = Literal["logit", "log_prob"]
"""What is explained of the target."""
Change = Callable[[Tensor], Tensor]
"""From the activation ``[batch, pos, d_model]`` to what takes its place."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run on changed embeddings.

    Attributes:
        x: what the model saw at the source hook, ``[batch, pos, d_model]``.
        hidden: activation at the target hook, ``[batch, ...]``; by default the final hidden state.
        logits: at each row's explained position, ``[batch, d_vocab]``, float32 (float64 for a float64 model).
        gradient: ``∂s/∂x``, ``[batch, pos, d_model]``; None where no scalar was explained.
        rows: the explanandum's rows, one per batch row; empty where no scalar was explained.
    """

    x: Float[Tensor, "batch pos d_model"]
    hidden: Float[Tensor, "batch ..."]
    logits: Float[Tensor, "batch d_vocab"]
    gradient: Float[Tensor, "batch pos d_model"] | None
    rows: list[Rows]

    @property
    def log_probs(self) -> Float[Tensor, "batch d_vocab"]:
        """Log-softmax of the logits."""
        return self.logits.log_softmax(-1)


def run_changed(
    model: LensModel,
    tokens: Int[Tensor, "batch pos"],
    read: Int[Tensor, " batch"],
    *,
    change: Change | None = None,
    more_changes: Iterable[tuple[str, Change]] = (),
    explanandum: Explanandum | None = None,
    indices: Sequence[int] | None = None,
    at: str = "hook_embed",
    target_hook: str = Y_HOOK,
    call: str,
) -> Outcome:
    """Run the model once with ``change`` applied at ``at``; every row has its own read position.

    Args:
        tokens: right-padded.
        read: explained position of each row.
        change: what to do to the activation at ``at``; None leaves it.
        more_changes: further hooks with their changes.
        explanandum: scalar whose gradient is wanted, one row of V per prompt; None runs without a graph.
        indices: number of each row's prompt in the call, for the explanandum's targets; None: row n is prompt n.
        at: source hook.
        target_hook: whose activation is wanted, and where the explanandum's rows live.
        call: name for errors.

    Returns:
        An :class:`Outcome`.

    Raises:
        ValueError: an unknown hook, logits or gradients that are not finite; a graph that does not fit the memory even
            with checkpointing.

    Cost: one forward with logits at one position per row; with an explanandum one backward to the source, checkpointed
    where it does not fit otherwise.
    """
    changes = [*([] if change is None else [(at, change)]), *more_changes]
    with ExitStack() as stack:
        stack.enter_context(differentiable(model))
        if explanandum is None:
            stack.enter_context(torch.no_grad())
        # made anew here: tensors from a caller's inference mode cannot enter a graph
        tokens, read = tokens.clone(), read.clone()
        points = model.hook_dict
        for name, _ in changes:
            require_hook(model, points, name, call, "at")
        stack.enter_context(attached(points, [(name, _as_hook(c)) for name, c in changes]))
        again = False
        if explanandum is not None:
            memory = Memory(
                model, source=at, target=target_hook, checkpoint=None, budget=None, call=call, adjustable=False
            )
            again = memory.batch_plan(tokens.shape[1], len(tokens), fixed=True).checkpoint
        run = forward_pass(model, tokens, read, source=at, target=target_hook, checkpoint=again, call=call)
        require_finite(run, call)
        logits = run.logits.to(compute_dtype(run.logits.dtype))
        if explanandum is None:
            return Outcome(run.source.detach(), run.hidden.detach(), logits, None, [])
        state = model_state(model)
        reads = read_outs(model, run, range(len(tokens)) if indices is None else indices, call)
        chosen = explanandum.rows(reads, state)
        V = torch.stack([rows.V for rows in chosen], dim=1)
        (pulled,) = list(pull_back(run.hidden, [run.source], V, Capture(at=at, target_hook=target_hook), call))
        return Outcome(run.source.detach(), run.hidden.detach(), logits, pulled[0][0], chosen)


def _as_hook(change: Change) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:
        return change(activation)

    return hook


def rows_per_forward(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    batch_size: int | None,
    call: str,
    *,
    at: str = "hook_embed",
    most: int = DEFAULT_BATCH,
) -> int:
    """The caller's batch size, checked; else as many copies of the longest prompt as fit with their graph, up to ``most``."""
    require_batch_size(batch_size, call)
    if batch_size is not None:
        return batch_size
    require_hook(model, model.hook_dict, at, call, "at")
    longest = max(p.pos for p in prompts) + 1
    with differentiable(model):
        memory = Memory(model, source=at, target=Y_HOOK, checkpoint=False, budget=None, call=call)
        while most > 1 and not memory.fits(Run(most, longest, most)):
            most //= 2
    return most


def batches(prompts: Sequence[EncodedPrompt], size: int) -> Iterator[list[int]]:
    """Numbers of the prompts that run together, of similar length."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i].pos)
    for first in range(0, len(order), size):
        yield order[first : first + size]


def cut_prompts(prompts: Sequence[EncodedPrompt]) -> list[EncodedPrompt]:
    """The prompts up to their explained positions: nothing after them can matter."""
    return [replace(p, tokens=p.tokens[: p.pos + 1], str_tokens=p.str_tokens[: p.pos + 1]) for p in prompts]


def says_target(wanted: int | None) -> tuple[str, ...]:
    """The note that says that the target was the model's choice."""
    return () if wanted is not None else ("No target was given: the model's own top prediction is explained.",)


def repeated(prompt: EncodedPrompt, n: int) -> tuple[Tensor, Tensor]:
    """Tokens and read positions of ``n`` copies of one prompt, cut after the explained position."""
    tokens = repeat(prompt.tokens[: prompt.pos + 1], "pos -> n pos", n=n)
    return tokens, torch.full((n,), prompt.pos)


def measured_attribution(
    model: LensModel,
    prompt: EncodedPrompt,
    scores: Tensor,
    logits: Float[Tensor, " d_vocab"],
    *,
    method: str,
    target: int | None,
    details: dict[str, Any],
    notes: tuple[str, ...] = (),
    gradient: Tensor | None = None,
) -> Attribution:
    """The frozen result of a baseline; scores of tokens after ``pos`` are 0 and may be left off."""
    dtype = compute_dtype(logits.dtype)
    log_probs = logits.log_softmax(-1)
    top, top_tokens = top_predictions(model, log_probs)
    if target is not None:
        details = {**details, "target_probability": float(log_probs[target].exp())}
    return Attribution(
        scores=_padded(scores, len(prompt.tokens)).to(dtype),
        tokens=prompt.tokens,
        str_tokens=prompt.str_tokens,
        pos=prompt.pos,
        method=method,
        target=target,
        target_str=None if target is None else _prompts.token_strings(model, torch.tensor([target]))[0],
        top_predictions=top,
        top_tokens=top_tokens,
        gradient=None if gradient is None else _padded(gradient, len(prompt.tokens)).to(dtype),
        details=details,
        notes=notes,
        provenance=model_state(model).provenance(),
        special=prompt.special,
        text=prompt.text,
        offsets=prompt.offsets,
    )


def _padded(values: Tensor, n: int) -> Tensor:
    """Zeros for the positions after the last one given."""
    out = torch.zeros(n, *values.shape[1:], dtype=values.dtype)
    out[: len(values)] = values.detach().cpu()
    return out


def along(alphas: Sequence[float], baseline: Change) -> Change:
    """Row n of the batch moves to ``x' + α_n (x − x')``."""
    column = torch.tensor(alphas, dtype=torch.float64)[:, None, None]

    def change(x: Tensor) -> Tensor:
        start, a = baseline(x), column.to(x)
        return torch.where(a == 1, x, start + a * (x - start))

    return change
