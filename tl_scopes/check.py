"""What a model is fit for: ``check_model`` tells in seconds, one line each, with the remedy.

It states the class and the processing state, which scopes are defined, compares the package's vector-Jacobian
product with central differences on the model itself, and measures how far the scores move when the embeddings are
rounded once more in the model's own dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tl_scopes.attribution import Attribution
from tl_scopes.capture import attached
from tl_scopes.directions import Fisher, Semantic, Temperature
from tl_scopes.kernel import Capture, explain
from tl_scopes.model import LensModel, compute_dtype, model_state, refuse_unusable, require_lens_model, source_device
from tl_scopes.prompts import EncodedPrompt, encode_prompts

PROBE_LENGTH = 8
"""Tokens of the probe prompt: long enough for attention to matter, short enough for seconds."""
VJP_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-2, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Largest accepted disagreement with central differences, by dtype; it measures the difference quotient's noise."""
NOISE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, whether it is in order, and the remedy if it is not."""

    subject: str
    ok: bool
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = "ok  " if self.ok else "NO  "
        return f"{mark}{self.subject:<22}{self.text}" + (f". {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class ModelReport:
    """Findings about a model; prints one line each.

    Attributes:
        findings: in the order they print.
    """

    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))

    __repr__ = __str__

    def __getitem__(self, subject: str) -> Finding:
        for finding in self.findings:
            if finding.subject == subject:
                return finding
        raise KeyError(f"{subject!r}; the report has {[f.subject for f in self.findings]}")

    @property
    def ok(self) -> bool:
        """Is everything in order?"""
        return all(f.ok for f in self.findings)

    @property
    def valid_scopes(self) -> tuple[str, ...]:
        """Names of the scopes that this model supports."""
        names = ("semantic", "contrast", "fisher", "temperature", "jacobian")
        return tuple(n for n in names if self[f"{n}_scope"].ok)


def check_model(model: LensModel, *, seed: int = 0) -> ModelReport:
    """A fitness report: class, processing state, valid scopes, a finite-difference check, dtype noise.

    The check compares ``⟨vᵀJ_t, δ⟩`` with ``(vᵀy(x+hδ) − vᵀy(x−hδ))/2h`` along seeded random δ at every token of a
    seeded random prompt, v the top prediction's row.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer``.
        seed: of the probe prompt and the directions; the global RNG is not used.

    Returns:
        A :class:`ModelReport`; ``print(report)`` shows one line per finding, ``report.ok`` sums up.

    Raises:
        TypeError: not a TransformerLens model.

    Cost: about a dozen forwards on 8 tokens.

    >>> check_model(model).valid_scopes
    ('semantic', 'contrast', 'fisher', 'temperature', 'jacobian')
    """
    call = "check_model"
    model = require_lens_model(model, call)
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
        refuse_unusable(model, call)
    except ValueError as error:
        reason = str(error).removeprefix(f"{call}: ")
        findings.append(Finding("usable", False, reason))
        names = ("semantic", "contrast", "fisher", "temperature", "jacobian")
        findings += [Finding(f"{n}_scope", False, "not valid: " + reason) for n in names]
        return ModelReport(tuple(findings))
    findings.append(Finding("usable", True, "evaluation mode or no dropout"))
    for name, explanandum in (
        ("semantic", None),
        ("contrast", None),
        ("fisher", Fisher(1, 1e-4)),
        ("temperature", Temperature()),
        ("jacobian", None),
    ):
        try:
            if explanandum is not None:
                explanandum.check(state, call)
            findings.append(Finding(f"{name}_scope", True, "valid"))
        except ValueError as error:
            findings.append(Finding(f"{name}_scope", False, str(error).removeprefix(f"{call}: ")))
    findings += _measured(model, seed)
    return ModelReport(tuple(findings))


def _measured(model: LensModel, seed: int) -> list[Finding]:
    """The two findings that need the model to run."""
    generator = torch.Generator().manual_seed(seed)
    length = min(PROBE_LENGTH, model.cfg.n_ctx)
    tokens = torch.randint(model.cfg.d_vocab, (length,), generator=generator)
    prompt = encode_prompts(model, tokens, pos=-1, prepend_bos=None, call="check_model")[0][0]
    try:
        attr = _probe(model, prompt)
    except ValueError as error:
        return [Finding("vjp", False, str(error).removeprefix("check_model: "))]
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


def _probe(model: LensModel, prompt: EncodedPrompt) -> Attribution:
    """The Semantic Scope of the probe prompt with its gradient."""
    return explain(model, [prompt], [Semantic((None,))], Capture(keep_gradient=True), "check_model")[0][0]


def _explained_scalar(model: LensModel, prompt: EncodedPrompt, shift: Tensor | None, target: int) -> float:
    """The target's logit with ``shift`` ``[pos, d_model]`` added to the embeddings."""

    def perturb(x: Tensor, hook: object) -> Tensor:
        return x if shift is None else x + shift.to(x)

    with torch.no_grad(), attached(model.hook_dict, [("hook_embed", perturb)]):
        tokens = prompt.tokens[None].to(source_device(model))
        logits = model(tokens, return_type="logits", attention_mask=torch.ones_like(tokens))
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
