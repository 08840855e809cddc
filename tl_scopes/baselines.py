"""The methods that Jacobian Scopes are compared with: same call, same result, same target.

Attributions without gradients are in :mod:`tl_scopes.controls`.

Legend: ``x_t`` the activation of token t at the source hook (its embedding by default); ``s`` the explained scalar, the
target's logit ``z_target`` or log-probability at the explained position, as ``of=`` says; ``g_t = ∂s/∂x_t``.

=======================  ==========================================================  =========================
baseline                 score of token t                                            cost
=======================  ==========================================================  =========================
``input_x_gradient``     ``‖x_t ⊙ g_t‖₂``                                            1 forward, 1 backward
``gradient_norm``        ``‖g_t‖₂`` of the log-probability                           1 forward, 1 backward
``integrated_gradients`` ``‖(x_t − x'_t) ⊙ ∫₀¹ g_t(x' + α(x − x')) dα‖₂``            n_steps of both, 3 forwards
``smoothgrad``           ``‖mean_n g_t(x + σ ε_n)‖₂``                                n_samples of both
=======================  ==========================================================  =========================

All take any model the Semantic Scope takes; what is signed is in ``details``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from einops import reduce
from torch import Tensor

from tl_scopes.attribution import Attribution
from tl_scopes.call_form import encode, one_or_many
from tl_scopes.directions import Explanandum, Semantic
from tl_scopes.interventions import (
    LogProb,
    Scalar,
    batches,
    cut_prompts,
    measured_attribution,
    prompt_generator,
    repeated,
    rows_per_forward,
    run_changed,
    says_target,
)
from tl_scopes.model import LensModel
from tl_scopes.paths import integrate_path, path_baseline
from tl_scopes.precision import wide
from tl_scopes.prompts import Prompt, Target, encode_targets, pad_right
from tl_scopes.quadrature import NEAR_ZERO
from tl_scopes.scores import row_norms


def explained_scalar(of: Scalar, targets: Sequence[int | None], call: str) -> Explanandum:
    """The explanandum whose gradient a baseline takes."""
    if of == "logit":
        return Semantic(tuple(targets))
    if of == "log_prob":
        return LogProb(tuple(targets))
    raise ValueError(f"{call}(of={of!r}): expected 'logit' or 'log_prob'")


@one_or_many
def input_x_gradient(
    model: LensModel,
    prompt: Prompt,
    *,
    target: Target = None,
    of: Scalar = "logit",
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
    keep_gradient: bool = False,
) -> list[Attribution]:
    """Size of each token's elementwise product of embedding and gradient.

    ``score_t = ‖x_t ⊙ ∂s/∂x_t‖₂``, read at ``pos``; logits (or nats) over the units of the embedding. The signed sum
    ``Σ_d x_td g_td``, the first-order effect of removing the token, is ``details["signed"]``.

    Args:
        model, prompt, target, pos, prepend_bos, at, batch_size, keep_gradient: as in :func:`semantic_scope`.
        of: the explained scalar: the target's ``"logit"``, as in the paper's text, or its ``"log_prob"`` (minus the
            cross-entropy), as in the authors' released scripts.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; an unknown ``of``.

    Cost: one forward and one backward to the source per batch.

    >>> attr = input_x_gradient(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> len(attr.details["signed"]) == len(attr)
    True

    Reference: paper eq. 10; Shrikumar et al. 2016 (arXiv 1605.01713).
    """
    return _gradients(
        "input_x_gradient", model, prompt, target, of, pos, prepend_bos, at, batch_size, keep_gradient, times_input=True
    )


@one_or_many
def gradient_norm(
    model: LensModel,
    prompt: Prompt,
    *,
    target: Target = None,
    of: Scalar = "log_prob",
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
    keep_gradient: bool = False,
) -> list[Attribution]:
    """Size of the gradient of the target's log-probability, the classical saliency.

    ``score_t = ‖∂ log p_target/∂x_t‖₂``, read at ``pos``; nats per unit of embedding. With ``of="logit"`` it is the
    Semantic Scope.

    Args:
        model, prompt, target, pos, prepend_bos, at, batch_size, keep_gradient: as in :func:`semantic_scope`.
        of: the explained scalar; the loss is what saliency maps differentiate.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; an unknown ``of``.

    Cost: one forward and one backward to the source per batch.

    >>> attr = gradient_norm(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> attr.method
    'gradient_norm'

    Reference: Simonyan et al. 2013 (arXiv 1312.6034), Li et al. 2016 (arXiv 1506.01066).
    """
    return _gradients(
        "gradient_norm", model, prompt, target, of, pos, prepend_bos, at, batch_size, keep_gradient, times_input=False
    )


def _gradients(
    call: str,
    model: LensModel,
    prompt: Prompt,
    target: Target,
    of: Scalar,
    pos: int | Sequence[int],
    prepend_bos: bool | None,
    at: str,
    batch_size: int | None,
    keep_gradient: bool,
    times_input: bool,
) -> list[Attribution]:
    """Norms of the gradient, or of its product with the input, in batches."""
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    explained = explained_scalar(of, encode_targets(model, target, len(prompts), call=call), call)
    results: dict[int, Attribution] = {}
    for batch in batches(prompts, rows_per_forward(model, prompts, batch_size, call, at=at)):
        tokens = pad_right(cut_prompts([prompts[i] for i in batch]))
        read = torch.tensor([prompts[i].pos for i in batch])
        run = run_changed(model, tokens, read, explanandum=explained, indices=batch, at=at, call=call)
        assert run.gradient is not None
        for n, i in enumerate(batch):
            end = prompts[i].pos + 1
            gradient = wide(run.gradient[n, :end])
            product = run.x[n, :end].to(gradient) * gradient
            rows = run.rows[n]
            details = {**rows.details, "of": of, "at": at}
            if times_input:
                details["signed"] = reduce(product, "pos d_model -> pos", "sum").tolist()
            results[i] = measured_attribution(
                model,
                prompts[i],
                row_norms(product if times_input else gradient),
                run.logits[n],
                method=call,
                target=rows.target,
                details=details,
                notes=rows.notes,
                gradient=gradient if keep_gradient else None,
            )
    return [results[i] for i in range(len(prompts))]


@one_or_many
def integrated_gradients(
    model: LensModel,
    prompt: Prompt,
    *,
    n_steps: int = 50,
    baseline: Literal["zero", "mean", "pad"] | Tensor = "zero",
    target: Target = None,
    of: Scalar = "logit",
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
) -> list[Attribution]:
    """Gradients integrated along the straight path from a baseline to the prompt's embeddings.

    ``score_t = ‖(x_t − x'_t) ⊙ ∫₀¹ ∂s/∂x_t (x' + α(x − x')) dα‖₂``, read at ``pos``; logits (or nats). The signed sums
    over d (``details["signed"]``) add up to ``s(x) − s(x')`` up to the quadrature's error, the *completeness gap*.

    The path is cut at α = 0.05 and each part has a rule of its own (:mod:`tl_scopes.paths`), because in trained models
    nearly all of the error sits next to the baseline, where the input is out of distribution.

    Args:
        model, prompt, target, pos, prepend_bos, at: as in :func:`semantic_scope`.
        n_steps: gradients in all, at least 2; three fifths of them on α > 0.05.
        baseline: x': ``"zero"``; ``"mean"``, the mean row of the prompt's tokens up to ``pos`` that are not special;
            ``"pad"``, the padding token's rows; or a tensor that broadcasts to ``[pos, d_model]``.
        of: the explained scalar.
        batch_size: path points per forward; None lets the package choose.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list. ``details``: ``signed``; ``change``, which is
        ``s(x) − s(x')``; ``completeness_gap``, the signed sum − change; and of the part [0, 0.05] alone ``near_zero``:
        its ``signed_sum``, ``change`` and ``gap``. A note is added when the gap is above 5 % of the change.

    Raises:
        ValueError: as :func:`semantic_scope`; fewer than 2 steps; a baseline that does not fit; no padding token.

    Cost: ``n_steps`` forwards and backwards in batches over α, and three forwards for the ends.

    >>> attr = integrated_gradients(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> abs(sum(attr.details["signed"]) - attr.details["change"] - attr.details["completeness_gap"]) < 1e-9
    True

    Reference: paper eq. 13, 14; Sundararajan et al. 2017 (arXiv 1703.01365). Differs from the released code, which
    takes five points of the cross-entropy's gradient and keeps a factor α.
    """
    call = "integrated_gradients"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 2:
        raise ValueError(
            f"{call}(n_steps={n_steps!r}): expected an integer of at least 2, one for each part of the path"
        )
    targets = encode_targets(model, target, len(prompts), call=call)
    size, results = rows_per_forward(model, prompts, batch_size, call, at=at), []
    for given, wanted in zip(prompts, targets, strict=True):
        start = path_baseline(model, given, baseline, at, call)

        def scalar(chosen: int | None) -> Explanandum:
            return explained_scalar(of, [chosen], call)

        path = integrate_path(model, given, start, scalar, wanted, n_steps=n_steps, at=at, batch_size=size, call=call)
        gap = path.signed_sum - path.change
        near = {"signed_sum": path.near_sum, "change": path.near_change, "gap": path.near_sum - path.near_change}
        notes = path.notes
        if abs(gap) > 0.05 * abs(path.change):
            notes += (
                f"The completeness gap is {gap:.2g} where {path.change:.2g} had to be explained; {near['gap']:.2g} "
                f"of it arises on α < {NEAR_ZERO}, next to the baseline. Raise n_steps or choose another baseline.",
            )
        details = {
            "of": of,
            "at": at,
            "n_steps": n_steps,
            "baseline": baseline if isinstance(baseline, str) else "given",
            "signed": reduce(path.product, "pos d_model -> pos", "sum").tolist(),
            "change": path.change,
            "completeness_gap": gap,
            "near_zero": {"up_to": NEAR_ZERO, **near},
        }
        results.append(
            measured_attribution(
                model,
                given,
                row_norms(path.product),
                path.logits,
                method=call,
                target=path.target,
                details=details,
                notes=notes,
            )
        )
    return results


@one_or_many
def smoothgrad(
    model: LensModel,
    prompt: Prompt,
    *,
    n_samples: int = 20,
    sigma: float | None = None,
    seed: int = 0,
    target: Target = None,
    of: Scalar = "logit",
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
) -> list[Attribution]:
    """Norm of the gradient averaged over noisy copies of the embeddings.

    ``score_t = ‖(1/n) Σ_i ∂s/∂x_t (x + σ ε_i)‖₂`` with standard normal ε, read at ``pos``; logits (or nats) per unit of
    embedding.

    Args:
        model, prompt, target, pos, prepend_bos, at: as in :func:`semantic_scope`.
        n_samples: noisy copies.
        sigma: standard deviation of the noise; None is 0.1 × the root mean square of the prompt's embeddings.
        seed: of the noise, which depends on it and the prompt alone; the global RNG is not used.
        of: the explained scalar.
        batch_size: copies per forward.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list; ``details["sigma"]``.

    Raises:
        ValueError: as :func:`semantic_scope`; ``n_samples`` below 1; a negative sigma.

    Cost: ``n_samples`` forwards and backwards, in batches, and one plain forward.

    >>> attr = smoothgrad(model, "German: der Hund sieht die Katze. English: the", target=" dog", n_samples=4)
    >>> attr.details["sigma"] > 0
    True

    Reference: Smilkov et al. 2017 (arXiv 1706.03825).
    """
    call = "smoothgrad"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    if isinstance(n_samples, bool) or not isinstance(n_samples, int) or n_samples < 1:
        raise ValueError(f"{call}(n_samples={n_samples!r}): expected a positive integer")
    if sigma is not None and not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"{call}(sigma={sigma!r}): expected a number of at least 0")
    targets = encode_targets(model, target, len(prompts), call=call)
    size, results = rows_per_forward(model, prompts, batch_size, call, at=at), []
    for given, wanted in zip(prompts, targets, strict=True):
        plain = run_changed(model, *repeated(given, 1), at=at, call=call)
        chosen = int(plain.logits[0].argmax()) if wanted is None else wanted
        width = 0.1 * float(wide(plain.x).square().mean().sqrt()) if sigma is None else float(sigma)
        explained = explained_scalar(of, [chosen], call)
        generator = prompt_generator(seed, given.tokens)
        total = torch.zeros_like(wide(plain.x[0]))
        for first in range(0, n_samples, size):
            n = min(size, n_samples - first)
            noise = width * torch.randn(n, *plain.x.shape[1:], generator=generator, dtype=torch.float64)

            def change(x: Tensor, noise: Tensor = noise) -> Tensor:
                return x + noise.to(x)

            run = run_changed(
                model, *repeated(given, n), change=change, explanandum=explained, indices=[0] * n, at=at, call=call
            )
            assert run.gradient is not None
            total += reduce(wide(run.gradient), "n pos d_model -> pos d_model", "sum")
        results.append(
            measured_attribution(
                model,
                given,
                row_norms(total / n_samples),
                plain.logits[0],
                method=call,
                target=chosen,
                details={"of": of, "at": at, "n_samples": n_samples, "sigma": width, "seed": seed},
                notes=says_target(wanted),
            )
        )
    return results
