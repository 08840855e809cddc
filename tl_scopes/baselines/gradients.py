"""The methods that Jacobian Scopes are compared with: same call, same result, same target.

Attributions without gradients are in :mod:`tl_scopes.baselines.gradient_free`.

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

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from einops import reduce
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.baselines.aims import Aim, aims
from tl_scopes.directions.logits import Of, Semantic
from tl_scopes.kernel.attributed import attributed
from tl_scopes.kernel.batching import copies, packed, rows_per_forward
from tl_scopes.kernel.calls import asked, prompt_call
from tl_scopes.kernel.explain import explain_inside
from tl_scopes.kernel.interventions import each_its_own, run_changed, slices
from tl_scopes.kernel.options import FrozenSourceKeywords, GradientProbe, RunKeywords, RunOptions, run_options
from tl_scopes.kernel.pulled_rows import norm_of_gradient, norm_of_product
from tl_scopes.model.held_functions import PARTS
from tl_scopes.model.hooks import Y_HOOK
from tl_scopes.model.leaves import KINDS, UNEMBEDDING
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Prompt, Target
from tl_scopes.numerics.arguments import Seed, integer
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.norms import inner_products, row_norms
from tl_scopes.numerics.precision import to_float64
from tl_scopes.numerics.progress import progress
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.completeness import ROUNDING, WHOLE, sums_up
from tl_scopes.results.completeness import TOKENS as OF_TOKENS


@prompt_call
def input_x_gradient(
    model: LensModel,
    prompt: Prompt,
    *,
    target: Target = None,
    of: Of | None = None,
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Size of each token's elementwise product of embedding and gradient.

    ``score_t = ‖x_t ⊙ ∂s/∂x_t‖₂``, read at ``pos``; logits (or nats) over the units of the embedding. The signed sum
    ``Σ_d x_td g_td``, the first-order effect of removing the token, is ``.signed`` (but under ``combine="norm"``, which
    has no sign). With ``frozen="all"`` these sums are parts of the scalar itself, and ``details["completeness"]`` has
    their sum, every part that is no token's by its name, and the whole.

    Args:
        model, prompt, target, options: as in :func:`semantic_scope`.
        of: the explained scalar: the target's ``"logit"``, as in the paper's text, or its ``"log_prob"`` (minus the
            cross-entropy), as in the authors' released scripts; None as in :func:`semantic_scope`.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; an unknown ``of``.

    Cost: one forward and one backward to the source per batch; with ``frozen="all"`` on a model with position embeddings or
    biases, whose gradients come with it, prompts of a list run one by one.

    >>> attr = input_x_gradient(model, "German: der Hund sieht die Katze. English: the", target=" dog", frozen="all")
    >>> parts = attr.details["completeness"]
    >>> list(parts)
    ['tokens', 'positions', 'norm offsets', 'biases', 'rounding', 'whole']
    >>> abs(sum(parts.values()) - 2 * parts["whole"]) < 1e-9
    True

    Reference: paper eq. 10; Shrikumar et al. 2016 (arXiv 1605.01713).
    """
    return _gradients(model, prompt, "input_x_gradient", target, of, run_options(**options))


@prompt_call
def gradient_norm(
    model: LensModel,
    prompt: Prompt,
    *,
    target: Target = None,
    of: Of = "log_prob",
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Size of the gradient of the target's log-probability, the classical saliency.

    ``score_t = ‖∂ log p_target/∂x_t‖₂``, read at ``pos``; nats per unit of embedding. With ``of="logit"`` it is the
    Semantic Scope.

    Args:
        model, prompt, target, options: as in :func:`semantic_scope`.
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
    return _gradients(model, prompt, "gradient_norm", target, of, run_options(**options))


def _gradients(
    model: LensModel, prompt: Prompt, method: str, target: Target, of: Of | None, options: RunOptions
) -> list[Attribution]:
    """Norms of the gradient, or of its product with the input: the Semantic Scope's own backward, read otherwise."""
    model, prompts, directions = asked(model, prompt, ["semantic"], {"target": target, "of": of}, options)
    products = method == "input_x_gradient"
    signed = products and options.combine != "norm"
    probes = [GradientProbe(options.at, inner_products, "one row")] * signed
    adds_up = signed and options.frozen == PARTS and options.at == RunOptions.at
    probes += [GradientProbe(Y_HOOK, inner_products, "one row")] * adds_up
    results = []
    size = norm_of_product if products else norm_of_gradient
    for ((scope, measured),) in explain_inside(model, prompts, directions, probes, options, leaves=adds_up, size=size):
        result = replace(scope, method=method)
        if signed:
            details = {**scope.details, "signed": measured[0][: scope.pos + 1].tolist()}
            result = replace(result, signed=measured[0].to(scope.scores), details=details)
        if adds_up:
            result = _completed(result, float(to_float64(measured[1]).sum()), measured[2])
        results.append(result)
    return results


def _completed(result: Attribution, at_y: float, shares: Tensor) -> Attribution:
    """With the parts that add up to the explained scalar: the tokens', and by name what is no token's."""
    assert result.signed is not None
    named = dict(zip(KINDS, shares.tolist(), strict=True))
    whole = at_y + named[UNEMBEDDING]
    parts = {OF_TOKENS: float(to_float64(result.signed).sum())} | {kind: part for kind, part in named.items() if part}
    parts |= {ROUNDING: whole - sum(parts.values()), WHOLE: whole}
    details = {**result.details, "completeness": parts}
    return replace(result, details=details, notes=(*result.notes, sums_up(details)))


@prompt_call
def smoothgrad(
    model: LensModel,
    prompt: Prompt,
    *,
    n_samples: int = 20,
    sigma: float | None = None,
    seed: Seed = 0,
    target: Target = None,
    of: Of | None = None,
    **options: Unpack[FrozenSourceKeywords],
) -> list[Attribution]:
    """Norm of the gradient averaged over noisy copies of the embeddings.

    ``score_t = ‖(1/n) Σ_i ∂s/∂x_t (x + σ ε_i)‖₂`` with standard normal ε, read at ``pos``; logits (or nats) per unit of
    embedding.

    Args:
        model, prompt, target, options: as in :func:`semantic_scope`; ``batch_size`` counts copies.
        n_samples: noisy copies.
        sigma: standard deviation of the noise; None is 0.1 × the root mean square of the prompt's embeddings.
        seed: of the noise, which depends on it and the prompt alone; the global RNG is not used.
        of: the explained scalar.

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
    chosen = run_options(**options)
    model, asked_for = aims(model, prompt, target, of, chosen)
    prompts = [aim.prompt for aim in asked_for]
    integer("n_samples", n_samples, least=1)
    if sigma is not None and sigma < 0:
        raise ValueError(f"(sigma={sigma!r}): expected a number of at least 0")
    results: dict[int, Attribution] = {}
    size = rows_per_forward(model, prompts, chosen.batch_size, at=chosen.at)
    with progress(total=len(prompts) * n_samples, unit="copy") as bar:
        smoothed = partial(_smoothed, model, n_samples, sigma, seed, size, chosen, bar.update)
        for group in packed(prompts, [n_samples] * len(prompts), size):
            results.update(zip(group, smoothed([asked_for[i] for i in group]), strict=True))
    return [results[i] for i in range(len(prompts))]


def _smoothed(
    model: LensModel,
    n_samples: int,
    sigma: float | None,
    seed: int,
    size: int,
    options: RunOptions,
    advance: Callable[[int], object],
    together: Sequence[Aim],
) -> list[Attribution]:
    """The mean gradient over noisy copies of prompts that run together; ``advance`` is told of each batch's copies."""
    at, prompts = options.at, [aim.prompt for aim in together]
    ones = [1] * len(prompts)
    plain = run_changed(model, *copies(model, prompts, ones), at=at)
    readings = [tuple(r[k : k + 1] for r in plain.readings) for k in range(len(ones))]
    x = [to_float64(plain.x[k, : prompt.pos + 1]) for k, prompt in enumerate(prompts)]
    targets = [aim.chosen(own) for aim, own in zip(together, readings, strict=True)]
    width = [0.1 * float(own.square().mean().sqrt()) if sigma is None else float(sigma) for own in x]
    of = tuple(aim.of for aim in together for _ in aim.given)
    explained = Semantic(tuple(t for own in targets for t in own), of)
    numbers = [range(part.start, part.stop) for part in slices([len(own) for own in targets])]
    generators = [prompt_generator(seed, prompt.tokens) for prompt in prompts]
    totals = [torch.zeros_like(own) for own in x]
    step = size if len(prompts) == 1 else n_samples
    for first in range(0, n_samples, step):
        n = min(step, n_samples - first)
        rows = [n] * len(prompts)
        noise = [
            w * torch.randn(n, *own.shape, generator=generator, dtype=torch.float64)
            for w, own, generator in zip(width, x, generators, strict=True)
        ]
        run = run_changed(
            model,
            *copies(model, prompts, rows),
            changes=[(at, each_its_own(prompts, rows, [partial(_add, own) for own in noise]))],
            direction=explained,
            indices=[i for own in numbers for i in [*own] * n],
            at=options.recording(),
        )
        assert run.gradient is not None
        for total, prompt, own in zip(totals, prompts, slices(rows), strict=True):
            total += reduce(to_float64(run.gradient[own, : prompt.pos + 1]), "n pos d_model -> pos d_model", "sum")
        advance(sum(rows))
        del run  # before the next is made
    found = []
    for aim, reading, total, w in zip(together, readings, totals, width, strict=True):
        details = {"at": at, "n_samples": n_samples, "sigma": w, "seed": seed} | options.linearisation
        answer = aim.answer(row_norms(total / n_samples), reading, details, ())
        found.append(attributed(model, aim.prompt, reading[-1].predictions, "smoothgrad", answer))
    return found


def _add(noise: Tensor, x: Tensor) -> Tensor:
    return x + noise.to(x)
