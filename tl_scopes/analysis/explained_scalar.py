"""The scalar that an attribution explains: rebuilt from it, predicted to first order, and read off a changed run.

Legend: ``x`` ``[pos, d_model]`` the activation at the source hook, ``x'`` what takes its place, ``δ = x' − x``; ``h`` the
activation at the target hook and ``V`` the explanandum's rows there; ``G_t = V·J_t`` ``[k, d_model]``.

==============  =========================================================  ===================================
measure         measured                                                   predicted
==============  =========================================================  ===================================
``signed``      ``s(x') − s(x)``; s a logit, a difference of logits,       ``Σ_t ⟨g_t, δ_t⟩``, error O(δ²)
                log p, ``‖y‖``, a moment, or ``vᵀh``
``norm``        ``‖V (h(x') − h(x))‖₂``, several rows of one's own          ``‖Σ_t G_t δ_t‖₂``, error O(δ²)
``divergence``  ``KL(p(x) ‖ p(x'))``, for Fisher and total information      ``½ Σ_i c_i (Σ_t ⟨G_it, δ_t⟩)²``, error O(δ³)
==============  =========================================================  ===================================

``c_i`` are the weights of the rows in ``tr F_t = Σ_i c_i ‖G_it‖²``: eigenvalues, or one over the number of probes. A
Fisher attribution of low rank predicts the part of the divergence that its own directions explain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import Explanandum
from tl_scopes.directions.fisher import Fisher
from tl_scopes.directions.given import Direction
from tl_scopes.directions.logits import Contrast, LogProb, Semantic
from tl_scopes.directions.moments import Moment, number_tokens
from tl_scopes.directions.temperature import Temperature
from tl_scopes.directions.total_information import TotalInformation
from tl_scopes.kernel.ablation import Reading
from tl_scopes.kernel.interventions import run_changed
from tl_scopes.kernel.options import Capture
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.read_out import read_outs
from tl_scopes.model import prompts as _prompts
from tl_scopes.model.forward import forward_pass
from tl_scopes.model.hooks import Y_HOOK, differentiable
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.model.state import model_state
from tl_scopes.numerics.precision import wide
from tl_scopes.results.attribution import Attribution

Measure = Literal["signed", "norm", "divergence"]
Read = Callable[[Reading], Tensor]
"""From several runs to one value each, ``[runs]``, or ``[runs, k]`` for several rows."""
OTHER_MODEL = 0.1
"""Difference of probabilities from which an attribution is taken to be another model's."""
_TARGETED = (
    "semantic",
    "input_x_gradient",
    "gradient_norm",
    "integrated_gradients",
    "smoothgrad",
    "leave_one_out",
    "attention_rollout",
    "random_attribution",
)


@dataclass(frozen=True, eq=False)
class Explained:
    """What an attribution explains, as something that can be predicted and measured.

    Attributes:
        explanandum: its rows V.
        measure: how changes are measured; see the table at the top of this file.
        name: for readers, e.g. ``"logit of ' dog'"``.
        unit: of the changes.
        read: the scalar (or the k values) of each run; unused by ``divergence``.
        target_hook: where V lives.
        target: the token whose logit and log p are reported beside.
    """

    explanandum: Explanandum
    measure: Measure
    name: str
    unit: str
    read: Read
    target_hook: str
    target: int

    def measured(self, base: Reading, changed: Reading) -> Float[Tensor, " runs"]:
        """Change of every run against the first run of ``base``, float64 on the CPU."""
        if self.measure == "divergence":
            log_p, log_q = (wide(r.logits).log_softmax(-1) for r in (base, changed))
            return (log_p[:1].exp() * (log_p[:1] - log_q)).sum(-1).cpu()
        change = (self.read(changed) - self.read(base)[:1]).cpu()
        return torch.linalg.vector_norm(change, dim=-1) if self.measure == "norm" else change

    def metric(self, base: Reading, run: Reading) -> Float[Tensor, " runs"]:
        """The scalar itself for patching: higher is nearer to ``base`` where it has no value of its own."""
        return self.read(run).cpu() if self.measure == "signed" else 0.0 - self.measured(base, run)


@dataclass(frozen=True, eq=False)
class Linearised:
    """The unchanged run, and V pulled back from it.

    Attributes:
        x: activation at the source, ``[pos, d_model]``.
        G: ``V·J``, ``[k, pos, d_model]``.
        weights: c of the rows, ``[k]``.
        measure: how changes of the explained scalar are measured.
    """

    x: Float[Tensor, "pos d_model"]
    G: Float[Tensor, "k pos d_model"]
    weights: Float[Tensor, " k"]
    measure: Measure

    def along(self, delta: Float[Tensor, "pos d_model"]) -> Float[Tensor, "k pos"]:
        """``⟨G_it, δ_t⟩`` of every row and token, float64 on the CPU."""
        products: Tensor = einsum(wide(self.G), wide(delta), "k pos d_model, pos d_model -> k pos")
        return products.cpu()

    def predicted(self, slopes: Float[Tensor, "k runs"]) -> Float[Tensor, " runs"]:
        """From ``Σ_t ⟨G_it, δ_t⟩`` of every row to the prediction."""
        if self.measure == "signed":
            return slopes[0]
        if self.measure == "norm":
            norms: Tensor = torch.linalg.vector_norm(slopes, dim=0)
            return norms
        squares: Tensor = einsum(self.weights.cpu().double(), slopes.square(), "k, k runs -> runs")
        return squares / 2


def prompt_of(attribution: Attribution, call: str) -> EncodedPrompt:
    """The prompt of an attribution, up to the explained position."""
    if "words" in attribution.details:
        raise ValueError(
            f"{call}(attribution=...): this one is by word, and words have no token ids; pass the attribution that "
            "by_word() was called on"
        )
    end = attribution.pos + 1
    return EncodedPrompt(
        tokens=attribution.tokens[:end],
        str_tokens=attribution.str_tokens[:end],
        pos=attribution.pos,
        special=frozenset(p for p in attribution.special if p < end),
    )


def explained_by(model: LensModel, attribution: Attribution, call: str) -> Explained:
    """Rebuild what an attribution explains from its method, target and details.

    Raises:
        ValueError: an unknown method, something needed was not kept, or another model made the attribution.
    """
    top = _top_token(model, attribution, call)
    target = top if attribution.target is None else attribution.target
    details, method = attribution.details, attribution.method
    word = repr(_prompts.token_strings(model, torch.tensor([target]))[0])

    def logit(run: Reading) -> Tensor:
        return wide(run.logits[:, target])

    def made(explanandum: Explanandum, measure: Measure, name: str, unit: str, read: Read = logit) -> Explained:
        hook = str(details.get("target_hook", Y_HOOK))
        return Explained(explanandum, measure, name, unit, read, hook, target)

    if method in _TARGETED and details.get("of") == "log_prob":
        read = lambda run: wide(run.logits).log_softmax(-1)[:, target]  # noqa: E731
        return made(LogProb((target,)), "signed", f"log p of {word}", "nats", read)
    if method in _TARGETED:
        return made(Semantic((target,)), "signed", f"logit of {word}", "logits")
    if method == "contrast":
        foil = int(details["foil"])
        name = f"logit of {word} less that of {_prompts.token_strings(model, torch.tensor([foil]))[0]!r}"
        return made(
            Contrast((target,), (foil,)),
            "signed",
            name,
            "nats of log-odds",
            lambda run: wide(run.logits[:, target] - run.logits[:, foil]),
        )
    if method == "temperature":
        norm = lambda run: torch.linalg.vector_norm(wide(run.hidden), dim=-1)  # noqa: E731
        return made(Temperature(), "signed", "confidence ‖y‖", "units of y", norm)
    if method == "fisher":
        return made(Fisher(int(details.get("rank", 1)), 1e-4), "divergence", "KL(p ‖ p′)", "nats")
    if method == "total_information":
        rank, probes = int(details.get("rank", 0)), max(2, int(details.get("n_samples", 64)))
        how = details.get("estimator", "sampled")
        return made(TotalInformation(how, rank, probes, None, 0), "divergence", "KL(p ‖ p′)", "nats")
    if method in ("moment_mean", "moment_variance"):
        return _moment(model, attribution, made)
    if method == "jacobian":
        V = attribution.direction
        if V is None:
            raise ValueError(f"{call}(attribution=...): its direction was not kept, so what it explains cannot be told")
        measure: Measure = "signed" if len(V) == 1 else "norm"
        name = (
            f"v·{details['target_hook']}" if len(V) == 1 else f"projection of {details['target_hook']} on {len(V)} rows"
        )
        return made(Direction(V), measure, name, "units of v·h", _projection(V, measure))
    raise ValueError(
        f"{call}(attribution=...): method {method!r} does not say which scalar it explains. Use one of this package's "
        "scopes or baselines"
    )


def _projection(V: Tensor, measure: Measure) -> Read:
    """``vᵀh`` of each run, or ``V h``."""

    def read(run: Reading) -> Tensor:
        hidden = wide(run.hidden).flatten(1)
        out = hidden @ V.to(hidden).flatten(1).T
        return out[:, 0] if measure == "signed" else out

    return read


def _moment(model: LensModel, attribution: Attribution, made: Callable[..., Explained]) -> Explained:
    """The mean or the variance over number tokens."""
    own = attribution.details.get("values")
    values = number_tokens(model) if own is None else {int(i): float(v) for i, v in own.items()}
    which: Literal["mean", "variance"] = "mean" if attribution.method == "moment_mean" else "variance"

    def read(run: Reading) -> Tensor:
        q: Tensor = wide(run.logits[:, list(values)]).softmax(-1)
        n = torch.tensor(list(values.values()), dtype=torch.float64).to(q)
        mean = q @ n
        return mean if which == "mean" else (q * (n - mean[:, None]).square()).sum(-1)

    return made(Moment(which, values), "signed", f"{which} of the forecast", "units of the number", read)


def _top_token(model: LensModel, attribution: Attribution, call: str) -> int:
    """The model's top prediction; refuse a model that predicts otherwise than the attribution says."""
    prompt = prompt_of(attribution, call)
    if int(prompt.tokens.max()) >= model.cfg.d_vocab:
        raise ValueError(f"{call}(attribution=...): it has token ids outside this model's vocabulary")
    run = run_changed(model, prompt.tokens[None], torch.tensor([prompt.pos]), call=call)
    p = run.logits[0].softmax(-1)
    top = int(p.argmax())
    if attribution.top_predictions:
        (text, probability), *others = attribution.top_predictions
        own = _prompts.token_strings(model, torch.tensor([top]))[0]
        clear = own != text and probability - (others[0][1] if others else 0.0) > OTHER_MODEL
        if clear or abs(float(p[top]) - probability) > OTHER_MODEL:
            raise ValueError(
                f"{call}(attribution=...): this model predicts {own!r} with p = {float(p[top]):.2f}, and the attribution "
                f"was made where {text!r} had p = {probability:.2f}. Pass the model that made it"
            )
    return top


def linearise(model: LensModel, prompt: EncodedPrompt, explained: Explained, at: str, call: str) -> Linearised:
    """One forward, and the explanandum's rows pulled back to ``at``; one vector-Jacobian product per row."""
    state = model_state(model)
    explained.explanandum.check(state, call)
    with differentiable(model):
        run = forward_pass(
            model,
            prompt.tokens.clone()[None],
            torch.tensor([prompt.pos]),
            source=at,
            target=explained.target_hook,
            call=call,
        )
        (read,) = read_outs(model, run, [0], call)
        (rows,) = explained.explanandum.rows([read], state)
        capture = Capture(at=at, target_hook=explained.target_hook)
        parts = [pulled[:, 0] for (pulled,) in pull_back(run.hidden, [run.source], rows.V[:, None], capture, call)]
    weights, probes = rows.weights, len(rows.V) - len(rows.weights)
    if isinstance(explained.explanandum, Fisher):
        weights = weights * rows.details["eigenvalues"][0]
    if probes:
        weights = torch.cat([weights, torch.full((probes,), 1 / probes).to(weights)])
    return Linearised(run.source.detach()[0], torch.cat(parts), weights, explained.measure)


def noise_floor(model: LensModel, explained: Explained, base: Reading) -> float:
    """Size of a change that rounding alone can make in the measured scalar, in the model's dtype."""
    scale = (
        float(base.logits.abs().max())
        if explained.measure == "divergence"
        else float(explained.read(base)[0].abs().max())
    )
    return 64 * torch.finfo(model.W_U.dtype).eps * max(1.0, scale) if math.isfinite(scale) else math.inf
