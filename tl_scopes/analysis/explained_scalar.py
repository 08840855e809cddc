"""What an attribution explains, rebuilt from it and read off the unchanged run of its prompt.

Legend: ``x`` ``[pos, d_model]`` the activation at the source hook, ``x'`` what takes its place, ``δ = x' − x``; ``h`` the
activation at the target hook and ``V`` the direction's rows there; ``G_t = V·J_t`` ``[k, d_model]``. How changes of the
scalar are measured, and predicted from G: :mod:`tl_scopes.directions.base`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.base import Direction, Measure, Reading, Readings, Rows, Scalar
from tl_scopes.directions.by_name import scope_of
from tl_scopes.directions.joint import apart
from tl_scopes.directions.logits import SEMANTIC
from tl_scopes.directions.scope import Explained
from tl_scopes.kernel.options import RunOptions
from tl_scopes.kernel.pull_back import pull_back
from tl_scopes.kernel.read_out import read_outs, target_string
from tl_scopes.model.completeness import refuse_unfrozen
from tl_scopes.model.forward import forward_pass
from tl_scopes.model.hooks import Y_HOOK, differentiable
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.predictions import Predictions
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.model.soundness import refuse_unseen_future, refuse_wrong
from tl_scopes.model.state import model_state
from tl_scopes.numerics.precision import to_float64
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.methods import BASELINES
from tl_scopes.results.units import kind_of

OTHER_MODEL = 0.1
"""Difference of probabilities from which an attribution is taken to be another model's."""


@dataclass(frozen=True, eq=False)
class Question:
    """What an attribution explains.

    Attributes:
        directions: the rows V at each explained position.
        scalars: the number whose gradient they are; changes of several add.
        targets: the token at each of them whose logit and log p are reported beside.
        target_hook: where V lives.
        name: of the scalar, for readers.
        text: of the targets.
    """

    directions: tuple[Direction, ...]
    scalars: tuple[Scalar, ...]
    targets: tuple[int, ...]
    target_hook: str
    name: str
    text: str

    @property
    def measure(self) -> Measure:
        """How changes are measured."""
        return self.scalars[0].measure

    @property
    def unit(self) -> str:
        """Of the scalar's changes."""
        return self.scalars[0].unit

    def change(self, base: Readings, changed: Readings) -> Float[Tensor, " runs"]:
        """Change of the scalar in every run against the first run of ``base``, float64 on the CPU."""
        each = zip(self.scalars, base, changed, strict=True)
        if self.measure == "norm":
            total = sum(scalar.read(after) - scalar.read(before)[:1] for scalar, before, after in each)
            norms: Tensor = torch.linalg.vector_norm(total, dim=-1).cpu()
            return norms
        return torch.stack([scalar.change(before, after) for scalar, before, after in each]).sum(0)

    def metric(self, base: Readings, run: Readings) -> Float[Tensor, " runs"]:
        """The scalar itself for patching: higher is nearer to ``base`` where it has no value of its own."""
        if self.measure != "signed":
            return 0.0 - self.change(base, run)
        return torch.stack([scalar.read(one).cpu() for scalar, one in zip(self.scalars, run, strict=True)]).sum(0)

    def logit(self, run: Readings) -> Float[Tensor, " runs"]:
        """The targets' logits in every run, added."""
        return torch.stack([one.predictions.logit(t) for one, t in zip(run, self.targets, strict=True)]).sum(0)

    def log_prob(self, run: Readings) -> Float[Tensor, " runs"]:
        """The targets' log-probability in every run."""
        return torch.stack([one.predictions.log_prob(t) for one, t in zip(run, self.targets, strict=True)]).sum(0)


@dataclass(frozen=True, eq=False)
class BaseRun:
    """The unchanged run of an attribution's prompt, and V pulled back from it.

    Attributes:
        prompt: up to the explained position.
        question: what is explained.
        readings: predictions and activation at the target hook at each explained position, of one run.
        x: activation at the source, ``[pos, d_model]``.
        G: ``V·J``, ``[k, pos, d_model]``.
        weights: c of the rows, ``[k]``.
    """

    prompt: EncodedPrompt
    question: Question
    readings: Readings
    x: Float[Tensor, "pos d_model"]
    G: Float[Tensor, "k pos d_model"]
    weights: Float[Tensor, " k"]

    def along(self, delta: Float[Tensor, "pos d_model"]) -> Float[Tensor, "k pos"]:
        """``⟨G_it, δ_t⟩`` of every row and token, float64 on the CPU."""
        products: Tensor = einsum(to_float64(self.G), to_float64(delta), "k pos d_model, pos d_model -> k pos")
        return products.cpu()

    def predicted(self, slopes: Float[Tensor, "k runs"]) -> Float[Tensor, " runs"]:
        """From ``Σ_t ⟨G_it, δ_t⟩`` of every row to the prediction."""
        measure = self.question.measure
        if measure == "signed":
            return slopes[0]
        if measure == "norm":
            norms: Tensor = torch.linalg.vector_norm(slopes, dim=0)
            return norms
        squares: Tensor = einsum(self.weights.cpu().double(), slopes.square(), "k, k runs -> runs")
        return squares / 2

    def measured(self, changed: Readings) -> Float[Tensor, " runs"]:
        """Change of the scalar in other runs."""
        return self.question.change(self.readings, changed)

    def target_changes(self, changed: Readings) -> tuple[Float[Tensor, " runs"], Float[Tensor, " runs"]]:
        """Changes of the targets' logits and of their log-probability in other runs, on the CPU."""
        asked, before = self.question, self.readings
        return (
            (asked.logit(changed) - asked.logit(before)).cpu(),
            (asked.log_prob(changed) - asked.log_prob(before)).to(changed[0].predictions.dtype).cpu(),
        )

    def noise_floor(self, model: LensModel) -> float:
        """Size of a change that rounding alone can make in the measured scalar, in the model's dtype."""
        scale = 0.0
        for scalar, run in zip(self.question.scalars, self.readings, strict=True):
            values = run.predictions.logits if scalar.measure == "divergence" else scalar.read(run)[0]
            scale += float(values.abs().max())
        return 64 * torch.finfo(model.W_U.dtype).eps * max(1.0, scale) if math.isfinite(scale) else math.inf


def prompt_of(attribution: Attribution) -> EncodedPrompt:
    """The prompt of an attribution, up to the explained position."""
    if (kind := kind_of(attribution.details) or attribution.details.get("row_unit")) is not None:
        raise ValueError(
            f"(attribution=...): this one is by {kind}, and {kind}s have no token ids; pass the attribution that "
            f"by_{'word' if kind == 'word' else 'unit'}() was called on"
        )
    if "foil_log_prob" in attribution.details:
        raise ValueError(
            "(attribution=...): it compares two answers, each of them in a text of its own, and one text is changed here. "
            "Take the attribution of one answer, semantic_scope(target=...)"
        )
    end = attribution.pos + 1
    return EncodedPrompt(
        tokens=attribution.tokens[:end],
        str_tokens=attribution.str_tokens[:end],
        pos=attribution.pos,
        special=frozenset(p for p in attribution.special if p < end),
        span=attribution.span,
        answer=tuple(p for p in attribution.answer if p < end),
    )


def base_run(model: LensModel, attribution: Attribution, at: str | None = None) -> BaseRun:
    """One forward on the unchanged prompt, and the direction's rows pulled back to ``at``, the attribution's parts frozen.

    Args:
        at: None is the attribution's own source.

    Raises:
        ValueError: an attribution by word, the difference of a split, one of an unknown method or of another model; a model
            that the direction is not defined on.

    Cost: one forward, one vector-Jacobian product per row of V.
    """
    model = require_lens_model(model)
    refuse_wrong(model)
    if "through" in attribution.details:
        raise ValueError(
            "(attribution=...): the difference of two gradients predicts no change of the model; give .exact or .frozen of "
            "the split"
        )
    prompt = prompt_of(attribution)
    require_vocabulary(model, attribution)
    refuse_unseen_future(model, [attribution])
    state = model_state(model)
    at = str(attribution.details.get("at", "hook_embed")) if at is None else at
    options = RunOptions(
        at=at, target_hook=target_hook_of(attribution), frozen=tuple(attribution.details.get("frozen", ()))
    )
    refuse_unfrozen(model, options.frozen)
    with differentiable(model):
        read = torch.tensor([p for _, p in prompt.positions])
        recording, rows = options.recording(), torch.zeros_like(read)
        run = forward_pass(model, prompt.tokens.clone()[None], read, recording, rows=rows)
        question = question_of(model, attribution, run.predictions)
        found: list[Rows] = []
        for direction, one in zip(question.directions, read_outs(model, run, [0] * len(read)), strict=True):
            direction.check(state)
            found += direction.rows([one], state)
        # a change of several numbers is that of their sum; divergences of several positions are each a form of their own
        V = (
            apart([one.V for one in found])
            if question.measure == "divergence"
            else torch.stack([one.V for one in found], 1)
        )
        parts = [pulled[:, 0] for (pulled,) in pull_back(run.hidden, [run.source], V, options)]
    weights = torch.cat([_weights(one) for one in found[: len(found) if question.measure == "divergence" else 1]])
    every = Reading(run.predictions, run.hidden.detach())
    readings = tuple(every[m : m + 1] for m in range(len(read)))
    return BaseRun(prompt, question, readings, run.source.detach()[0], torch.cat(parts), weights)


def _weights(rows: Rows) -> Float[Tensor, " k"]:
    """c of one position's rows."""
    probes = len(rows.V) - len(rows.weights)
    weights = rows.weights if rows.relative_to is None else rows.weights * rows.relative_to
    return torch.cat([weights, torch.full((probes,), 1 / max(probes, 1)).to(weights)])


def target_hook_of(attribution: Attribution) -> str:
    """Where the rows of an attribution live."""
    return str(attribution.details.get("target_hook", Y_HOOK))


def require_vocabulary(model: LensModel, attribution: Attribution) -> None:
    """Refuse ids that the model does not have, before it runs on them."""
    if int(attribution.tokens.max()) >= model.cfg.d_vocab:
        raise ValueError("(attribution=...): it has token ids outside this model's vocabulary")


def question_of(model: LensModel, attribution: Attribution, unchanged: Predictions) -> Question:
    """Rebuild what an attribution explains from its method, targets and details, and what its unchanged prompt gave.

    Raises:
        ValueError: an unknown method, something needed was not kept, or another model made the attribution.
    """
    _require_same_model(model, attribution, unchanged[-1:])
    given = attribution.targets or (attribution.target,)
    targets = tuple(top if t is None else t for top, t in zip(unchanged.top.tolist(), given, strict=True))
    method = attribution.method
    scope = scope_of(method)
    if scope is None and method not in BASELINES:
        raise ValueError(
            f"(attribution=...): method {method!r} does not say which scalar it explains. Use one of this package's "
            "scopes or baselines"
        )
    rebuild = SEMANTIC.rebuild if scope is None else scope.rebuild
    several, text = len(targets) > 1, "".join(str(target_string(model, target)) for target in targets)
    details = [_details_at(attribution, m) for m in range(len(targets))]
    directions = tuple(
        rebuild(model, Explained(method, target, own, attribution.direction))
        for target, own in zip(targets, details, strict=True)
    )

    foils = [own["foil"] for own in details if "foil" in own]

    def name(token: int) -> str:
        return text if token == targets[0] else "".join(str(target_string(model, foil)) for foil in foils)

    scalars = tuple(one.scalar(target, name) for one, target in zip(directions, targets, strict=True))
    said = scalars[0].name
    if several and scope is not None and not scope.targeted:
        said += f" at {len(targets)} positions"
    return Question(directions, scalars, targets, target_hook_of(attribution), said, text)


def _details_at(attribution: Attribution, m: int) -> dict[str, Any]:
    """What the direction noted at one of the explained positions."""
    by_position = attribution.details.get("by_position", {})
    return {**attribution.details, **{name: values[m] for name, values in by_position.items()}}


def _require_same_model(model: LensModel, attribution: Attribution, last: Predictions) -> None:
    """Refuse a model that predicts otherwise than the attribution says."""
    if not attribution.top_predictions:
        return
    top = int(last.top)
    p = float(last.log_prob(top).exp())
    (text, probability), *others = attribution.top_predictions
    own = target_string(model, top)
    clear = own != text and probability - (others[0][1] if others else 0.0) > OTHER_MODEL
    if clear or abs(p - probability) > OTHER_MODEL:
        raise ValueError(
            f"(attribution=...): this model predicts {own!r} with p = {p:.2f}, and the attribution "
            f"was made where {text!r} had p = {probability:.2f}. Pass the model that made it"
        )
