"""Attributions that no gradient enters: measured removals, attention, noise.

=======================  ==========================================================  =========================
method                   score of token t                                            cost
=======================  ==========================================================  =========================
``leave_one_out``        ``|s(x with token t removed) − s(x)|``                      1 forward per token
``attention_rollout``    row ``pos`` of ``Π_l ½(mean_h pattern_l + 1)``              1 forward
``random_attribution``   uniform noise                                               1 forward
=======================  ==========================================================  =========================

``s`` is the target's log-probability or logit at the explained position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from tl_scopes.kernel.ablation import Ablation, ablated_log_probs, prompt_generator, require_ablation, substitutes
from tl_scopes.kernel.calls import encode, one_or_many
from tl_scopes.kernel.interventions import (
    Scalar,
    batches,
    cut_prompts,
    measured_attribution,
    rows_per_forward,
    run_changed,
    says_target,
)
from tl_scopes.model.forward import forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Prompt, Target, encode_targets, pad_right
from tl_scopes.results.attribution import Attribution


@one_or_many
def leave_one_out(
    model: LensModel,
    prompt: Prompt,
    *,
    ablation: Ablation = "zero",
    seed: int = 0,
    target: Target = None,
    of: Scalar = "log_prob",
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
) -> list[Attribution]:
    """Measured change of the target when each token's embedding is removed by itself.

    ``score_t = |s(x with x_t replaced) − s(x)|``, read at ``pos``; nats (or logits). Not a gradient: each entry is an
    intervention. Signed changes of both scalars are ``details["delta_log_prob"]`` and ``details["delta_logit"]``.

    Args:
        model, prompt, target, pos, prepend_bos, at: as in :func:`semantic_scope`.
        ablation: what takes the row's place: ``"zero"``, the ``"mean"`` row of the prompt's tokens up to ``pos`` that
            are not special, or ``"resample"``, the row of another of them.
        seed: of the resampling.
        of: which change is the score.
        batch_size: removals per forward.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list; special tokens are removed in turn as well.

    Raises:
        ValueError: as :func:`semantic_scope`; an unknown ablation.

    Cost: ``pos + 2`` forwards in batches, no backward.

    >>> attr = leave_one_out(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> attr.top(1)[0].str_token
    ' Hund'

    Reference: Li et al. 2016 (arXiv 1612.08220).
    """
    call = "leave_one_out"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    require_ablation(ablation, call)
    if of not in ("logit", "log_prob"):
        raise ValueError(f"{call}(of={of!r}): expected 'logit' or 'log_prob'")
    targets = encode_targets(model, target, len(prompts), call=call)
    size, results = rows_per_forward(model, prompts, batch_size, call, at=at), []
    for given, wanted in zip(prompts, targets, strict=True):
        candidates = [p for p in range(given.pos + 1) if p not in given.special]
        values = substitutes(ablation, candidates or range(given.pos + 1), given.tokens, seed)
        sets: list[list[int]] = [[], *([p] for p in range(given.pos + 1))]
        logits, log_probs = ablated_log_probs(model, given, sets, values, batch_size=size, at=at, call=call)
        chosen = int(logits[0].argmax()) if wanted is None else wanted
        changes = {
            name: (table[1:, chosen] - table[0, chosen]).cpu().double()
            for name, table in (("delta_logit", logits), ("delta_log_prob", log_probs))
        }
        results.append(
            measured_attribution(
                model,
                given,
                changes[f"delta_{of}"].abs(),
                logits[0],
                method=call,
                target=chosen,
                details={"of": of, "at": at, "ablation": ablation, **{k: v.tolist() for k, v in changes.items()}},
                notes=says_target(wanted),
            )
        )
    return results


@one_or_many
def attention_rollout(
    model: LensModel,
    prompt: Prompt,
    *,
    target: Target = None,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    batch_size: int | None = None,
) -> list[Attribution]:
    """Share of attention that flows from each token to the explained position through all layers.

    ``score = row pos of A_L ⋯ A_1`` with ``A_l = ½ mean_h(pattern_l) + ½ 1``; dimensionless, the scores sum to 1. It is
    the same for every target, which it does not look at.

    Args:
        model, prompt, pos, prepend_bos, batch_size: as in :func:`semantic_scope`.
        target: only named in the result.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; a layer without ``attn.hook_pattern``.

    Cost: one forward per batch, keeping the attention patterns ``[batch, head, pos, pos]`` of every layer.

    >>> attr = attention_rollout(model, "German: der Hund sieht die Katze. English: the")
    >>> round(float(attr.scores.sum()), 4)
    1.0

    Reference: Abnar and Zuidema 2020 (arXiv 2005.00928).
    """
    call = "attention_rollout"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    targets = encode_targets(model, target, len(prompts), call=call)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    results: dict[int, Attribution] = {}
    for batch in batches(prompts, rows_per_forward(model, prompts, batch_size, call)):
        tokens = pad_right(cut_prompts([prompts[i] for i in batch]))
        read = torch.tensor([prompts[i].pos for i in batch])
        with differentiable(model), torch.no_grad():
            run = forward_pass(model, tokens, read, source="hook_embed", cache=names, call=call)
        flow = torch.eye(tokens.shape[1], dtype=torch.float64).expand(len(batch), -1, -1)
        for name in names:
            pattern = reduce(run.activations[name].cpu().double(), "batch head q k -> batch q k", "mean")
            flow = (pattern + torch.eye(tokens.shape[1], dtype=torch.float64)) / 2 @ flow
        for n, i in enumerate(batch):
            end = prompts[i].pos + 1
            results[i] = measured_attribution(
                model, prompts[i], flow[n, end - 1, :end], run.logits[n], method=call, target=targets[i], details={}
            )
    return [results[i] for i in range(len(prompts))]


@one_or_many
def random_attribution(
    model: LensModel,
    prompt: Prompt,
    *,
    seed: int = 0,
    target: Target = None,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    batch_size: int | None = None,
) -> list[Attribution]:
    """Uniform noise for each token: what a method must beat.

    ``score_t ~ U[0, 1)`` for tokens up to ``pos``; depends on the seed and the prompt's tokens alone.

    Args:
        model, prompt, pos, prepend_bos, batch_size: as in :func:`semantic_scope`.
        seed: of the noise; the global RNG is not used.
        target: only named in the result.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`.

    Cost: one forward per batch, for the predictions that come with every result.

    >>> a = random_attribution(model, "German: der Hund", seed=3)
    >>> bool((a.scores == random_attribution(model, "German: der Hund", seed=3).scores).all())
    True
    """
    call = "random_attribution"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    targets = encode_targets(model, target, len(prompts), call=call)
    results: dict[int, Attribution] = {}
    for batch in batches(prompts, rows_per_forward(model, prompts, batch_size, call)):
        tokens = pad_right(cut_prompts([prompts[i] for i in batch]))
        read = torch.tensor([prompts[i].pos for i in batch])
        run = run_changed(model, tokens, read, call=call)
        for n, i in enumerate(batch):
            noise = random_scores(prompts[i].tokens, prompts[i].pos + 1, seed)
            results[i] = measured_attribution(
                model, prompts[i], noise, run.logits[n], method=call, target=targets[i], details={"seed": seed}
            )
    return [results[i] for i in range(len(prompts))]


def random_scores(tokens: Tensor, n: int, seed: int) -> Float[Tensor, " n"]:
    """Uniform noise for the first ``n`` tokens of a prompt."""
    return torch.rand(n, generator=prompt_generator(seed, tokens), dtype=torch.float64)
