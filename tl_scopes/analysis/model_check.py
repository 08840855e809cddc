"""What a model is fit for: ``check_model`` tells in seconds, one line each, with the remedy.

It states the class and the processing state, which scopes are defined, compares a bridge's logits with those of the
Hugging Face model inside it, asks whether the model is causal, compares the package's vector-Jacobian product with central
differences on the model itself, and measures how far the scores move when the embeddings are rounded once more in the model's
own dtype. Given a prompt, it compares a half-precision model's ranking of that prompt's tokens with the ranking of the same
weights in float32.
"""

from __future__ import annotations

import torch

from tl_scopes.analysis.probing import FIRST_BLOCK, Probe, embedding_width
from tl_scopes.directions.base import Direction
from tl_scopes.directions.by_name import DEFAULT_METHODS, SCOPES, named_directions, reads
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.lens import LensModel, in_float32, require_lens_model, transformer_lens_version
from tl_scopes.model.lock import model_call, others_wait
from tl_scopes.model.prompts import EncodedPrompt, Ids, encode_prompts
from tl_scopes.model.soundness import disagreement, foresight, refusal, refuse_unreadable, within_rounding
from tl_scopes.model.state import ModelState, model_state
from tl_scopes.numerics.arguments import Seed
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.numerics.statistics import spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.model_report import Finding, ModelReport

PROBE_LENGTH = 8
"""Tokens of the probe prompt: long enough for attention to matter, short enough for seconds."""
VJP_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-2, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Largest accepted disagreement with central differences, by dtype; it measures the difference quotient's noise."""
NOISE_TOLERANCE = 0.1
LEAST_RANK_CORRELATION = 0.9
"""Spearman correlation with float32 from which a half-precision ranking of tokens is called the same."""


@model_call
def check_model(model: LensModel, *, seed: Seed = 0, precision_prompt: str | Ids | None = None) -> ModelReport:
    """A fitness report: class, processing state, valid scopes, Hugging Face's logits, causality, gradients, dtype noise.

    The check of gradients (``"vjp"``) compares ``⟨vᵀJ_t, δ⟩`` with ``(vᵀy(x+hδ) − vᵀy(x−hδ))/2h`` along seeded random δ at
    every token of a seeded random prompt, v the top prediction's row. ``"hugging face"`` compares a bridge's logits with
    those of the model inside it, as every call does once per model before its first answer.

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

    Cost: about twenty forwards on 8 tokens; with a half-precision model and a ``precision_prompt`` two runs on it.

    >>> check_model(model).valid_scopes
    ('semantic', 'contrast', 'fisher', 'temperature', 'total_information', 'moment', 'jacobian')
    """
    model = require_lens_model(model)
    compared = None if precision_prompt is None else _ranked_prompt(model, precision_prompt)
    findings = [Finding("class", True, f"{ModelState(model).kind}, TransformerLens {transformer_lens_version()}")]
    try:
        refuse_unreadable(model)
    except ValueError as error:
        findings.append(Finding("usable", False, str(error)))
        findings += [Finding(scope.function, False, f"not valid: {error}") for scope in SCOPES.values()]
        return ModelReport(tuple(findings))
    state = model_state(model)
    findings += [
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
    findings.append(Finding("usable", True, "evaluation mode or no dropout"))
    for scope in SCOPES.values():
        try:
            scope.require(state)
            findings.append(Finding(scope.function, True, "valid"))
        except ValueError as error:
            findings.append(Finding(scope.function, False, str(error)))
    findings += _taken_for_granted(model)
    findings += _measured(model, seed)
    if compared is not None:
        findings.append(_precision(model, compared))
    return ModelReport(tuple(findings))


def _taken_for_granted(model: LensModel) -> list[Finding]:
    """What every scope relies on: the Hugging Face model's logits, causality, embeddings ``d_model`` wide."""
    findings = []
    difference = disagreement(model)
    if isinstance(difference, str):
        findings.append(Finding("hugging face", True, f"not compared: {difference}"))
    elif within_rounding(model, difference):
        text = f"the logits are those of the model inside, to {difference:.0e} of their spread"
        findings.append(Finding("hugging face", True, text))
    else:
        findings.append(Finding("hugging face", False, refusal(model, difference)))
    seen = foresight(model)
    if within_rounding(model, seen):
        findings.append(Finding("causal", True, "no token influences what is predicted before it"))
    else:
        text = f"later tokens change earlier logits by {seen:.0%} of their spread"
        findings.append(Finding("causal", False, text, "Explain the last position only, one prompt at a time"))
    width = embedding_width(model)
    if width != model.cfg.d_model:
        text = f"hook_embed is {width} wide, not d_model = {model.cfg.d_model}"
        findings.append(Finding("embedding", False, text, f"Pass at={FIRST_BLOCK!r} to the scopes"))
    return findings


def _measured(model: LensModel, seed: int) -> list[Finding]:
    """The two findings about gradients."""
    generator = torch.Generator().manual_seed(seed)
    length = min(PROBE_LENGTH, model.cfg.n_ctx)
    tokens = torch.randint(model.cfg.d_vocab, (length,), generator=generator)
    prompt = encode_prompts(model, tokens, pos=-1, prepend_bos=None)[0]
    at = "hook_embed" if embedding_width(model) == model.cfg.d_model else FIRST_BLOCK
    probe = Probe(model, prompt, at, generator)
    try:
        attr = probe.attribution()
    except ValueError as error:
        return [Finding("vjp", False, str(error))]
    difference, dtype = probe.gradient_error(attr)
    tolerance = VJP_TOLERANCE.get(dtype, 0.1)
    text = f"differs from central differences by {difference:.1e} of its size (accepted: {tolerance:.0e})"
    if dtype != model.W_U.dtype:
        text += f"; the model computes in {dtype}".replace("torch.", "") + " in places"
    remedy = "" if difference <= tolerance else "Do not trust attributions of this model; compare in float64"
    findings = [Finding("vjp", difference <= tolerance, text, remedy)]
    noise = probe.rounding_noise(attr)
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


def _ranked_prompt(model: LensModel, text: str | Ids) -> EncodedPrompt:
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
