"""The model on changed embeddings: logits at the explained position, and the gradient there if it is asked for.

Legend: ``x`` ``[pos, d_model]`` the activation at the source hook (embeddings by default); ``x'`` what is put in its
place; ``z`` the logits at the explained position; ``g = ∂s/∂x`` at ``x'`` for the explained scalar s.

Ablations replace a token's row of x by

=============  ===========================================================================================
``"zero"``     0
``"mean"``     the mean row over the prompt's tokens that may be removed
``"resample"`` the row of another such token of the prompt, drawn once per prompt (the same for all methods)
=============  ===========================================================================================

Draws come from a generator seeded by the caller's seed and the prompt's tokens: they do not depend on the batch, on
other prompts or on the global random state, which is not touched.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes import prompts as _prompts
from tl_scopes.attribution import Attribution
from tl_scopes.capture import Y_HOOK, attached, differentiable, forward_pass, require_hook
from tl_scopes.directions import Explanandum, ReadOut, Rows, chosen_target, each_alone
from tl_scopes.kernel import pull_back, read_outs, require_finite, top_predictions
from tl_scopes.memory import Memory, Run
from tl_scopes.model import LensModel, ModelState, compute_dtype, model_state
from tl_scopes.options import DEFAULT_BATCH, Capture, require_batch_size
from tl_scopes.prompts import EncodedPrompt

Ablation = Literal["zero", "mean", "resample"]
ABLATIONS = ("zero", "mean", "resample")
Scalar = Literal["logit", "log_prob"]
"""What is explained of the target."""
Change = Callable[[Tensor], Tensor]
"""From the activation ``[batch, pos, d_model]`` to what takes its place."""


@dataclass(frozen=True)
class LogProb:
    """``v = a_target − Σ_i p_i a_i``, the gradient at y of the target's log-probability (minus its cross-entropy)."""

    targets: tuple[int | None, ...]
    method: str = "log_prob"

    def check(self, state: ModelState, call: str) -> None:
        """Valid on every model, processed or not."""

    @each_alone
    def rows(self, read: ReadOut, state: ModelState) -> Rows:
        """``Aᵀ(e_target − p)``; 1 − p_target is summed over the other tokens, so that it does not cancel."""
        target, notes = chosen_target(self.targets[read.index], read)
        weights = -read.logits.softmax(-1)
        weights[target] = 0
        weights[target] = -weights.sum()
        if read.slope is not None:
            weights = weights * read.slope
        v = read.W_U.to(weights) @ weights
        details = {"log_prob": float(read.logits.log_softmax(-1)[target])}
        return Rows(v[None], torch.ones(1, dtype=v.dtype, device=v.device), target, details, notes)


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


def prompt_generator(seed: int, tokens: Int[Tensor, " pos"]) -> torch.Generator:
    """A generator of its own for each prompt and seed, wherever and in whatever order the prompt is run."""
    stamp = zlib.crc32(tokens.to(torch.int64).cpu().numpy().tobytes())
    return torch.Generator().manual_seed((int(seed) * 0x9E3779B1 + stamp) % 2**63)


def require_ablation(ablation: str, call: str) -> None:
    """Refuse an ablation that is not known."""
    if ablation not in ABLATIONS:
        raise ValueError(f"{call}(ablation={ablation!r}): expected one of {ABLATIONS}")


def substitutes(
    ablation: Ablation, candidates: Sequence[int], tokens: Int[Tensor, " pos"], seed: int
) -> Callable[[Float[Tensor, "pos d_model"]], Float[Tensor, "pos d_model"]]:
    """What each removed row of x becomes, as a function of x; see the table at the top of this file."""
    chosen = torch.tensor(sorted(candidates), dtype=torch.int64)
    source = torch.arange(len(tokens))
    if ablation == "resample" and len(chosen) > 1:
        # a cyclic shift of a random order: nobody stays in place
        order = chosen[torch.randperm(len(chosen), generator=prompt_generator(seed, tokens))]
        source[order] = order.roll(1)

    def values(x: Tensor) -> Tensor:
        if ablation == "zero":
            return torch.zeros_like(x)
        if ablation == "mean":
            mean = x[chosen.to(x.device)].to(compute_dtype(x.dtype)).mean(dim=0)
            return mean.to(x).expand_as(x)
        return x[source[: len(x)].to(x.device)]

    return values


@dataclass(frozen=True, eq=False)
class Reading:
    """What several runs on one prompt gave at its explained position.

    Attributes:
        logits: float32 (float64 for a float64 model).
        hidden: activation at the target hook; by default the final hidden state.
    """

    logits: Float[Tensor, "runs d_vocab"]
    hidden: Float[Tensor, "runs ..."]


def run_ablated(
    model: LensModel,
    prompt: EncodedPrompt,
    sets: Sequence[Sequence[int]],
    values: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    at: str = "hook_embed",
    target_hook: str = Y_HOOK,
    call: str,
) -> Reading:
    """What is read with each set of positions replaced.

    All sets of one prompt are one batch, up to ``batch_size`` rows at a time. Positions after the explained one are
    cut off: nothing there can reach it.
    """
    length = prompt.pos + 1
    removed = torch.zeros(len(sets), length, dtype=torch.bool)
    for row, positions in enumerate(sets):
        removed[row, [p for p in positions if p < length]] = True
    runs = []
    for part in torch.split(removed, batch_size):

        def change(x: Tensor, part: Tensor = part) -> Tensor:
            return torch.where(part.to(x.device)[..., None], values(x[0]), x)

        runs.append(
            run_changed(model, *repeated(prompt, len(part)), change=change, at=at, target_hook=target_hook, call=call)
        )
    return Reading(torch.cat([r.logits for r in runs]), torch.cat([r.hidden for r in runs]))


def ablated_log_probs(
    model: LensModel,
    prompt: EncodedPrompt,
    sets: Sequence[Sequence[int]],
    values: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    at: str = "hook_embed",
    call: str,
) -> tuple[Float[Tensor, "sets d_vocab"], Float[Tensor, "sets d_vocab"]]:
    """Logits and log-probabilities at the explained position with each set of positions replaced."""
    logits = run_ablated(model, prompt, sets, values, batch_size=batch_size, at=at, call=call).logits
    return logits, logits.log_softmax(-1)


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
