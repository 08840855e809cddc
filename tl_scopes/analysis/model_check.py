"""What a model is fit for: ``check_model`` tells in seconds, one line each, with the remedy.

It states the class and the processing state, which scopes are defined, compares the package's vector-Jacobian
product with central differences on the model itself, and measures how far the scores move when the embeddings are
rounded once more in the model's own dtype. Given a prompt, it compares a half-precision model's ranking of that prompt's
tokens with the ranking of the same weights in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tl_scopes.directions.base import Direction
from tl_scopes.directions.by_name import DEFAULT_METHODS, SCOPES, named_directions, reads
from tl_scopes.directions.logits import Semantic
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.forward import run_with_hooks
from tl_scopes.model.hooks import attached
from tl_scopes.model.lens import LensModel, in_float32, require_lens_model
from tl_scopes.model.lock import model_call, others_wait
from tl_scopes.model.prompts import EncodedPrompt, encode_prompts
from tl_scopes.model.state import ModelState, model_state, refuse_unusable
from tl_scopes.numerics.arguments import Seed
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.numerics.statistics import spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.model_report import Finding, ModelReport, scope_subject

PROBE_LENGTH = 8
"""Tokens of the probe prompt: long enough for attention to matter, short enough for seconds."""
VJP_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-2, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Largest accepted disagreement with central differences, by dtype; it measures the difference quotient's noise."""
NOISE_TOLERANCE = 0.1
LEAST_RANK_CORRELATION = 0.9
"""Spearman correlation with float32 from which a half-precision ranking of tokens is called the same."""


@model_call
def check_model(model: LensModel, *, seed: Seed = 0, precision_prompt: str | Tensor | None = None) -> ModelReport:
    """A fitness report: class, processing state, valid scopes, a finite-difference check, dtype noise.

    The check compares ``⟨vᵀJ_t, δ⟩`` with ``(vᵀy(x+hδ) − vᵀy(x−hδ))/2h`` along seeded random δ at every token of a
    seeded random prompt, v the top prediction's row.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer``.
        seed: of the probe prompt and the directions; the global RNG is not used.
        precision_prompt: at least 3 tokens on which a bfloat16 or float16 model is compared with its own weights in
            float32 (finding ``"precision"``): Spearman's rank correlation of the scores, for every valid scope, target
            the half-precision model's top prediction. While it runs, a float32 copy of the weights is in memory.

    Returns:
        A :class:`ModelReport`; ``print(report)`` shows one line per finding, ``report.ok`` sums up.

    Raises:
        TypeError: not a TransformerLens model.
        ValueError: a ``precision_prompt`` of fewer than 3 tokens, or that does not encode.

    Cost: about a dozen forwards on 8 tokens; with a half-precision model and a ``precision_prompt`` two runs on it.

    >>> check_model(model).valid_scopes
    ('semantic', 'contrast', 'fisher', 'temperature', 'total_information', 'moment', 'jacobian')
    """
    model = require_lens_model(model)
    compared = None if precision_prompt is None else _ranked_prompt(model, precision_prompt)
    state = model_state(model)
    findings = [
        Finding("class", True, f"{state.kind}, TransformerLens {state.provenance()['transformer_lens']}"),
        Finding("dtype", True, f"{model.W_U.dtype}".removeprefix("torch.")),
        Finding(
            "final norm",
            not state.folded_norm,
            "folded into the unembedding" if state.folded_norm else "its own gain, not folded",
            "Load the weights unprocessed: tl_scopes.load_model(name)" if state.folded_norm else "",
        ),
        Finding(
            "unembedding",
            not state.centred_unembedding,
            "centred: Semantic explains the logit relative to the mean logit"
            if state.centred_unembedding
            else "not centred",
            "Use contrast_scope, or load the weights unprocessed" if state.centred_unembedding else "",
        ),
    ]
    try:
        refuse_unusable(model)
    except ValueError as error:
        findings.append(Finding("usable", False, str(error)))
        findings += [Finding(scope_subject(name), False, f"not valid: {error}") for name in SCOPES]
        return ModelReport(tuple(findings))
    findings.append(Finding("usable", True, "evaluation mode or no dropout"))
    for name, scope in SCOPES.items():
        try:
            scope.require(state)
            findings.append(Finding(scope_subject(name), True, "valid"))
        except ValueError as error:
            findings.append(Finding(scope_subject(name), False, str(error)))
    findings += _measured(model, seed)
    if compared is not None:
        findings.append(_precision(model, compared))
    return ModelReport(tuple(findings))


def _measured(model: LensModel, seed: int) -> list[Finding]:
    """The two findings that need the model to run."""
    generator = torch.Generator().manual_seed(seed)
    length = min(PROBE_LENGTH, model.cfg.n_ctx)
    tokens = torch.randint(model.cfg.d_vocab, (length,), generator=generator)
    prompt = encode_prompts(model, tokens, pos=-1, prepend_bos=None)[0]
    try:
        attr = _probe(model, prompt)
    except ValueError as error:
        return [Finding("vjp", False, str(error))]
    dtype = model.W_U.dtype
    difference = _finite_difference_error(model, prompt, attr, generator)
    tolerance = VJP_TOLERANCE.get(dtype, 0.1)
    text = f"differs from central differences by {difference:.1e} of its size (accepted: {tolerance:.0e})"
    remedy = "" if difference <= tolerance else "Do not trust attributions of this model; compare in float64"
    findings = [Finding("vjp", difference <= tolerance, text, remedy)]
    noise = _rounding_noise(model, prompt, attr, generator)
    remedy = "" if noise <= NOISE_TOLERANCE else "Load the model in float32"
    findings.append(
        Finding(
            "dtype noise",
            noise <= NOISE_TOLERANCE,
            f"one more rounding of the embeddings moves the scores by {noise:.1e} of the largest",
            remedy,
        )
    )
    return findings


def _ranked_prompt(model: LensModel, text: str | Tensor) -> EncodedPrompt:
    """The ``precision_prompt``, long enough to rank its tokens."""
    (prompt,) = encode_prompts(model, text, pos=-1, prepend_bos=None, argument="precision_prompt")
    if len(prompt.tokens) < 3:
        raise ValueError(f"(precision_prompt=...): {len(prompt.tokens)} tokens; a ranking needs at least 3")
    return prompt


def _precision(model: LensModel, prompt: EncodedPrompt) -> Finding:
    """Spearman's rank correlation of a half-precision model's scores with those of its weights in float32."""
    dtype = str(model.W_U.dtype).removeprefix("torch.")
    if compute_dtype(model.W_U.dtype) == model.W_U.dtype:
        return Finding("precision", True, f"{dtype}: nothing to compare")
    state = model_state(model)
    half = _all_scopes(model, state, prompt, None)
    with others_wait(model), in_float32(model):
        full = _all_scopes(model, model_state(model), prompt, half["semantic"].target)
    correlation = {name: spearman(half[name].scores.tolist(), full[name].scores.tolist()) for name in half}
    same = all(value >= LEAST_RANK_CORRELATION for value in correlation.values())
    text_of = ", ".join(f"{name} {value:.3f}" for name, value in correlation.items())
    return Finding(
        "precision",
        same,
        f"rank correlation of {dtype} with float32 over {len(prompt.tokens)} tokens: {text_of}",
        "" if same else "Load the model in float32",
    )


def _all_scopes(
    model: LensModel, state: ModelState, prompt: EncodedPrompt, target: int | None
) -> dict[str, Attribution]:
    """The valid ones among the paper's scopes, of one prompt, by name."""
    directions: list[Direction] = []
    for name in DEFAULT_METHODS:
        try:
            SCOPES[name].require(state)
        except ValueError:
            continue
        own = {"target": target} if reads("target", [name]) else {}
        directions += named_directions(model, [name], 1, own)
    return {attr.method: attr for attr in explain(model, [prompt], directions, RunOptions())[0]}


def _probe(model: LensModel, prompt: EncodedPrompt) -> Attribution:
    """The Semantic Scope of the probe prompt with its gradient."""
    return explain(model, [prompt], [Semantic((None,))], RunOptions(keep_gradient=True))[0][0]


def _explained_scalar(model: LensModel, prompt: EncodedPrompt, shift: Tensor | None, target: int) -> float:
    """The target's logit with ``shift`` ``[pos, d_model]`` added to the embeddings."""

    def perturb(x: Tensor, hook: object) -> Tensor:
        return x if shift is None else x + shift.to(x)

    with torch.no_grad():
        logits = run_with_hooks(model, prompt.tokens[None], [("hook_embed", perturb)])
    return float(logits[0, prompt.pos, target].double())


def _finite_difference_error(
    model: LensModel, prompt: EncodedPrompt, attr: Attribution, generator: torch.Generator
) -> float:
    """Largest ``|⟨g, δ⟩ − Δz/2h|`` over a few directions, relative to the size of ``⟨g, δ⟩``."""
    g, target = attr.gradient, attr.target
    assert g is not None
    assert target is not None
    eps: float = torch.finfo(model.W_U.dtype).eps
    step = eps ** (1 / 3) / max(float(g.norm()), 1e-12)
    errors: list[float] = []
    for _ in range(4):
        # Half along the gradient, half random: a direction with a derivative to measure.
        random = torch.randn(g.shape, generator=generator, dtype=g.dtype)
        delta = g / g.norm() + random / random.norm()
        up = _explained_scalar(model, prompt, step * delta, target)
        down = _explained_scalar(model, prompt, -step * delta, target)
        predicted = float((g * delta).sum())
        errors.append(abs((up - down) / (2 * step) - predicted) / abs(predicted))
    return max(errors)


def _rounding_noise(model: LensModel, prompt: EncodedPrompt, attr: Attribution, generator: torch.Generator) -> float:
    """Largest change of a score, relative to the largest, when x is perturbed by half a unit in the last place."""

    def perturb(x: Tensor, hook: object) -> Tensor:
        noise = torch.rand(x.shape, generator=generator).to(x.device) - 0.5
        return (x.to(compute_dtype(x.dtype)) * (1 + torch.finfo(x.dtype).eps * noise)).to(x.dtype)

    with attached(model.hook_dict, [("hook_embed", perturb)]):
        again = _probe(model, prompt)
    return float((again.scores - attr.scores).abs().max() / attr.scores.max())
