"""What an attribution explains, rebuilt from it and read off the unchanged run of its prompt.

Legend: ``x`` ``[pos, d_model]`` the activation at the source hook, ``x'`` what takes its place, ``δ = x' − x``; ``h`` the
activation at the target hook and ``V`` the direction's rows there; ``G_t = V·J_t`` ``[k, d_model]``. How changes of the
scalar are measured, and predicted from G: :mod:`tl_scopes.directions.base`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import Direction, Reading, Scalar
from tl_scopes.directions.by_name import scope_of
from tl_scopes.directions.logits import LogProb, Semantic
from tl_scopes.directions.scope import Explained
from tl_scopes.kernel.options import RunOptions
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.read_out import read_outs, target_string
from tl_scopes.model.forward import forward_pass
from tl_scopes.model.hooks import Y_HOOK, differentiable
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.model.soundness import refuse_unseen_future, refuse_wrong
from tl_scopes.model.state import model_state
from tl_scopes.numerics.precision import compute_dtype, to_float64
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.methods import BASELINES

OTHER_MODEL = 0.1
"""Difference of probabilities from which an attribution is taken to be another model's."""


@dataclass(frozen=True, eq=False)
class Question:
    """What an attribution explains.

    Attributes:
        direction: its rows V.
        scalar: the number whose gradient they are.
        target: the token whose logit and log p are reported beside.
        target_hook: where V lives.
    """

    direction: Direction
    scalar: Scalar
    target: int
    target_hook: str


@dataclass(frozen=True, eq=False)
class BaseRun:
    """The unchanged run of an attribution's prompt, and V pulled back from it.

    Attributes:
        prompt: up to the explained position.
        question: what is explained.
        reading: logits and activation at the target hook, of one run.
        x: activation at the source, ``[pos, d_model]``.
        G: ``V·J``, ``[k, pos, d_model]``.
        weights: c of the rows, ``[k]``.
    """

    prompt: EncodedPrompt
    question: Question
    reading: Reading
    x: Float[Tensor, "pos d_model"]
    G: Float[Tensor, "k pos d_model"]
    weights: Float[Tensor, " k"]

    def along(self, delta: Float[Tensor, "pos d_model"]) -> Float[Tensor, "k pos"]:
        """``⟨G_it, δ_t⟩`` of every row and token, float64 on the CPU."""
        products: Tensor = einsum(to_float64(self.G), to_float64(delta), "k pos d_model, pos d_model -> k pos")
        return products.cpu()

    def predicted(self, slopes: Float[Tensor, "k runs"]) -> Float[Tensor, " runs"]:
        """From ``Σ_t ⟨G_it, δ_t⟩`` of every row to the prediction."""
        measure = self.question.scalar.measure
        if measure == "signed":
            return slopes[0]
        if measure == "norm":
            norms: Tensor = torch.linalg.vector_norm(slopes, dim=0)
            return norms
        squares: Tensor = einsum(self.weights.cpu().double(), slopes.square(), "k, k runs -> runs")
        return squares / 2

    def measured(self, changed: Reading) -> Float[Tensor, " runs"]:
        """Change of the scalar in other runs."""
        return self.question.scalar.change(self.reading, changed)

    def target_changes(self, changed: Reading) -> tuple[Float[Tensor, " runs"], Float[Tensor, " runs"]]:
        """Changes of the target's logit and of its log-probability in other runs, on the CPU."""
        target = self.question.target
        runs = ((r.logits[:, target], r.log_prob(target)) for r in (self.reading, changed))
        (z, log_p), (changed_z, changed_log_p) = runs
        return (changed_z - z).cpu(), (changed_log_p - log_p).cpu()

    def noise_floor(self, model: LensModel) -> float:
        """Size of a change that rounding alone can make in the measured scalar, in the model's dtype."""
        scalar, run = self.question.scalar, self.reading
        values = run.logits if scalar.measure == "divergence" else scalar.read(run)[0]
        scale = float(values.abs().max())
        return 64 * torch.finfo(model.W_U.dtype).eps * max(1.0, scale) if math.isfinite(scale) else math.inf


def prompt_of(attribution: Attribution) -> EncodedPrompt:
    """The prompt of an attribution, up to the explained position."""
    if "words" in attribution.details:
        raise ValueError(
            "(attribution=...): this one is by word, and words have no token ids; pass the attribution that "
            "by_word() was called on"
        )
    end = attribution.pos + 1
    return EncodedPrompt(
        tokens=attribution.tokens[:end],
        str_tokens=attribution.str_tokens[:end],
        pos=attribution.pos,
        special=frozenset(p for p in attribution.special if p < end),
    )


def base_run(model: LensModel, attribution: Attribution, at: str | None = None) -> BaseRun:
    """One forward on the unchanged prompt, and the direction's rows pulled back to ``at``.

    Args:
        at: None is the attribution's own source.

    Raises:
        ValueError: an attribution by word, of an unknown method or of another model; a model that the direction is not
            defined on.

    Cost: one forward, one vector-Jacobian product per row of V.
    """
    model = require_lens_model(model)
    refuse_wrong(model)
    prompt = prompt_of(attribution)
    require_vocabulary(model, attribution)
    refuse_unseen_future(model, [attribution])
    state = model_state(model)
    at = str(attribution.details.get("at", "hook_embed")) if at is None else at
    options = RunOptions(at=at, target_hook=target_hook_of(attribution))
    with differentiable(model):
        run = forward_pass(model, prompt.tokens.clone()[None], torch.tensor([prompt.pos]), options.recording())
        logits = run.logits.to(compute_dtype(run.logits.dtype))
        question = question_of(model, attribution, logits[0])
        question.direction.check(state)
        (read,) = read_outs(model, run, [0])
        (rows,) = question.direction.rows([read], state)
        parts = [pulled[:, 0] for (pulled,) in pull_back(run.hidden, [run.source], rows.V[:, None], options)]
    weights, probes = rows.weights, len(rows.V) - len(rows.weights)
    if "eigenvalues" in rows.details:
        weights = weights * rows.details["eigenvalues"][0]  # a Fisher scope's are relative to the first
    if probes:
        weights = torch.cat([weights, torch.full((probes,), 1 / probes).to(weights)])
    reading = Reading(logits, run.hidden.detach())
    return BaseRun(prompt, question, reading, run.source.detach()[0], torch.cat(parts), weights)


def target_hook_of(attribution: Attribution) -> str:
    """Where the rows of an attribution live."""
    return str(attribution.details.get("target_hook", Y_HOOK))


def require_vocabulary(model: LensModel, attribution: Attribution) -> None:
    """Refuse ids that the model does not have, before it runs on them."""
    if int(attribution.tokens.max()) >= model.cfg.d_vocab:
        raise ValueError("(attribution=...): it has token ids outside this model's vocabulary")


def question_of(model: LensModel, attribution: Attribution, logits: Float[Tensor, " d_vocab"]) -> Question:
    """Rebuild what an attribution explains from its method, target and details, and the logits of its unchanged prompt.

    Raises:
        ValueError: an unknown method, something needed was not kept, or another model made the attribution.
    """
    top = _top_token(model, attribution, logits)
    target = top if attribution.target is None else attribution.target
    method, details = attribution.method, attribution.details
    direction: Direction
    if (scope := scope_of(method)) is not None:
        direction = scope.rebuild(model, Explained(method, target, details, attribution.direction))
    elif method in BASELINES:
        direction = LogProb((target,)) if details.get("of") == "log_prob" else Semantic((target,))
    else:
        raise ValueError(
            f"(attribution=...): method {method!r} does not say which scalar it explains. Use one of this package's "
            "scopes or baselines"
        )
    scalar = direction.scalar(target, lambda token: str(target_string(model, token)))
    return Question(direction, scalar, target, target_hook_of(attribution))


def _top_token(model: LensModel, attribution: Attribution, logits: Float[Tensor, " d_vocab"]) -> int:
    """The model's top prediction; refuse a model that predicts otherwise than the attribution says."""
    p = logits.softmax(-1)
    top = int(p.argmax())
    if attribution.top_predictions:
        (text, probability), *others = attribution.top_predictions
        own = target_string(model, top)
        clear = own != text and probability - (others[0][1] if others else 0.0) > OTHER_MODEL
        if clear or abs(float(p[top]) - probability) > OTHER_MODEL:
            raise ValueError(
                f"(attribution=...): this model predicts {own!r} with p = {float(p[top]):.2f}, and the attribution "
                f"was made where {text!r} had p = {probability:.2f}. Pass the model that made it"
            )
    return top
