"""One passage under the AOPC protocol: score, remove, measure. The conventions are in :mod:`tl_scopes.evaluation.aopc`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import reduce
from torch import Tensor

from tl_scopes.baselines import gradient_free as controls
from tl_scopes.baselines.by_name import BASELINES, WITHOUT_TARGET
from tl_scopes.directions.base import Direction
from tl_scopes.directions.by_name import DEFAULT_METHODS, named_directions, reads, ready_scopes
from tl_scopes.directions.logits import Of, Semantic
from tl_scopes.evaluation.questions import Passage, question, with_own_bos
from tl_scopes.kernel.ablation import Ablation, ablated, substitutes
from tl_scopes.kernel.batching import repeated, rows_per_forward
from tl_scopes.kernel.explain import explain_inside
from tl_scopes.kernel.interventions import along, run_changed
from tl_scopes.kernel.options import GradientProbe, RunOptions
from tl_scopes.kernel.pulled_rows import norm_of_product
from tl_scopes.model.held_functions import Part
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.numerics.norms import inner_products, row_norms
from tl_scopes.numerics.precision import to_float64
from tl_scopes.numerics.ranking import PAPER_FRACTIONS, most_influential, number_removed
from tl_scopes.numerics.statistics import spearman
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.methods import legend
from tl_scopes.results.units import Entries, grouping, joined
from tl_scopes.results.variants import Variant, variant
from tl_scopes.results.verdict import Unit

Beside = Literal["sufficiency", "leave_one_out"]
Method = Callable[..., Attribution]
"""A method of one's own: ``method(model, tokens, target=id, pos=pos) -> Attribution``, as scopes with a target are; of an
answer of several tokens, ``target`` and ``pos`` are lists."""
AOPC_METHODS = (*DEFAULT_METHODS, "input_x_gradient", "integrated_gradients", "random")
"""The methods of the paper's Table 1."""
DEFAULT_ROWS = 32
"""Ablated inputs per forward where the caller names no batch size."""
PAPER_ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Protocol:
    """How one passage is measured.

    Attributes:
        fractions: the k.
        explained: token that target-aware methods explain: the passage's own last, or the top prediction.
        scored: token whose log-probability Δ measures.
        ablation: what a removed embedding becomes.
        seed: of Random and of the resampling.
        paper: the released scripts' variants of the methods and candidates.
        beside: further measurements.
        prepend_bos: as everywhere.
        unit: what is removed as a whole.
    """

    fractions: tuple[float, ...] = PAPER_FRACTIONS
    explained: Literal["truth", "argmax"] = "truth"
    scored: Literal["truth", "argmax"] = "truth"
    ablation: Ablation = "zero"
    seed: int = 0
    paper: bool = False
    beside: tuple[Beside, ...] = ()
    prepend_bos: bool | None = None
    unit: Unit = "token"


def known_methods() -> tuple[str, ...]:
    """Names of what can be measured, those of Table 1 first."""
    return tuple(dict.fromkeys((*AOPC_METHODS, *ready_scopes(), *BASELINES)))


def shared_direction(model: LensModel, method: str, target: Sequence[int], protocol: Protocol) -> Direction | None:
    """The direction of a method that shares the forward, e.g. ``"fisher@16"``; None for the others.

    Of several targets, the tokens of an answer, the log-probability is explained.
    """
    of: Of = "log_prob" if len(target) > 1 else "logit"
    asked = variant(method, known_methods())
    if asked.name == "input_x_gradient" and not protocol.paper:
        return Semantic(tuple(target), of)
    if asked.name in ("gradient_norm", "input_x_gradient"):
        return Semantic(tuple(target), "log_prob")
    if asked.name not in ready_scopes():
        return None
    keywords: dict[str, Any] = {"rank": asked.rank}
    if reads("target", [asked.name]):
        keywords |= {"target": list(target), "of": of}
    (direction,) = named_directions(model, [asked.name], len(target), keywords)
    return direction


def method_scores(
    model: LensModel,
    given: EncodedPrompt,
    target: Sequence[int],
    methods: Mapping[str, Method | str],
    protocol: Protocol,
) -> dict[str, Tensor]:
    """Scores ``[pos]`` of every method but Random for one passage, those that can from one forward.

    What holds parts of the model constant shares a forward with what holds the same ones.
    """
    scores: dict[str, Tensor] = {}
    shared: dict[tuple[Part, ...], dict[Direction, list[str]]] = {}
    one: dict[str, Any] = {"target": target[0], "pos": given.pos}
    alone = {"target": list(target), "pos": list(given.span)} if given.span else one
    for label, method in methods.items():
        if not isinstance(method, str):
            scores[label] = _own_scores(method(model, given.tokens, **alone), label, given)
        elif (explained := shared_direction(model, method, target, protocol)) is not None:
            held = variant(method, known_methods()).frozen
            shared.setdefault(held, {}).setdefault(explained, []).append(label)
        elif (asked := variant(method, known_methods())).name == "integrated_gradients" and protocol.paper:
            scores[label] = paper_integrated_gradients(model, given, target[0], asked)
        elif method != "random":
            own: dict[str, Any] = {"frozen": asked.frozen} if asked.frozen else {}
            own |= {"of": "log_prob"} if given.span and asked.name not in WITHOUT_TARGET else {}
            own |= {"ablation": protocol.ablation, "seed": protocol.seed} if asked.name == "leave_one_out" else {}
            found = BASELINES[asked.name](model, given.tokens, **alone, **own)
            scores[label] = found.signed if asked.signed else found.scores
    for held, of_each in shared.items():
        scores |= _shared_scores(model, given, of_each, methods, held)
    return scores


def _own_scores(found: object, label: str, given: EncodedPrompt) -> Tensor:
    """Scores that a caller's own method gave."""
    if not isinstance(found, Attribution) or len(found) != len(given.tokens):
        raise TypeError(
            f"(methods=...): {label!r} must return an Attribution of {len(given.tokens)} tokens, got {type(found).__name__}"
        )
    return found.scores


def _shared_scores(
    model: LensModel,
    given: EncodedPrompt,
    shared: Mapping[Direction, Sequence[str]],
    methods: Mapping[str, Method | str],
    held: tuple[Part, ...],
) -> dict[str, Tensor]:
    """Scores of the methods that are directions at y, from one forward; Input × Gradient's from its gradient."""
    scores: dict[str, Tensor] = {}
    asked = {label: variant(m, known_methods()) for label, m in methods.items() if isinstance(m, str)}
    times_input = {label: int(one.signed) for label, one in asked.items() if one.name == "input_x_gradient"}
    both = [GradientProbe("hook_embed", norm_of_product), GradientProbe("hook_embed", inner_products, "if one row")]
    taps = both[: 1 + max(times_input.values())] if times_input else []
    (results,) = explain_inside(model, [given], list(shared), taps, RunOptions(frozen=held))
    for explained, (attribution, inside) in zip(shared, results, strict=True):
        for label in shared[explained]:
            scores[label] = inside[times_input[label]] if label in times_input else attribution.scores
    return scores


def paper_integrated_gradients(model: LensModel, given: EncodedPrompt, target: int, asked: Variant) -> Tensor:
    """The released scripts' IG, ``‖x_t ⊙ (1/5) Σ_α α·∇CE(α x)_t‖₂``, or the signed sums, ``[pos]``; 0 after ``pos``."""
    run = run_changed(
        model,
        *repeated(model, given, len(PAPER_ALPHAS)),
        changes=[("hook_embed", along(PAPER_ALPHAS, torch.zeros_like))],
        direction=Semantic((target,), "log_prob"),
        indices=[0] * len(PAPER_ALPHAS),
        at=RunOptions(frozen=asked.frozen).recording(),
    )
    assert run.gradient is not None
    gradient = to_float64(run.gradient)
    alphas = torch.tensor(PAPER_ALPHAS, dtype=torch.float64).to(gradient)[:, None, None]
    mean = reduce(alphas * gradient, "a pos d_model -> pos d_model", "mean")
    scores = torch.zeros(len(given.tokens), dtype=torch.float64)
    product = to_float64(run.x[-1]) * mean
    scores[: given.pos + 1] = (product.sum(-1) if asked.signed else row_norms(product)).cpu()
    return scores


def measure_passage(
    model: LensModel,
    passage: Passage,
    methods: Mapping[str, Method | str],
    protocol: Protocol,
    random: Sequence[Sequence[int]] | None,
    batch_size: int | None,
) -> dict[str, Any]:
    """One passage: scores, removals, one batch of ablated inputs."""
    asked = question(model, passage, protocol.prepend_bos)
    given, truth = asked.given, asked.truth
    counted = range(len(given.tokens)) if protocol.paper else asked.removable
    candidates = [p for p in counted if protocol.paper or p not in given.special]
    if not candidates:
        raise ValueError("the passage has no token that may be removed, only special tokens")
    units = removable_units(given, candidates, protocol.unit)
    values = substitutes(protocol.ablation, candidates, given.tokens, protocol.seed)
    explained = truth
    if protocol.explained == "argmax":
        explained = (int(run_changed(model, *repeated(model, given, 1)).predictions.top[0]),)
    scores = method_scores(model, given, explained, methods, protocol)
    for label, method in methods.items():
        if method == "random":
            scores[label] = controls.random_scores(given.tokens, len(given.tokens), protocol.seed)

    of_units = {label: unit_scores(scores[label], units, method, protocol) for label, method in methods.items()}
    m = [number_removed(k, len(units)) for k in protocol.fractions]
    end = given.answer[0] if given.answer else len(given.tokens)
    outside = [p for positions in random or () for p in positions if not 0 <= p < end]
    if outside:
        raise ValueError(f"(random_positions=...): {outside[0]} is outside the passage's {end} tokens")
    removed = {
        label: [list(map(int, positions)) for positions in random]
        if methods[label] == "random" and random is not None
        else [_tokens(units, most_influential(of_units[label], range(len(units)), size)) for size in m]
        for label in methods
    }
    wanted = [(), *(frozenset(s) for sets in removed.values() for s in sets)]
    kept = {label: [frozenset(candidates) - set(s) for s in sets] for label, sets in removed.items()}
    if "sufficiency" in protocol.beside:
        wanted += [s for sets in kept.values() for s in sets]
    if "leave_one_out" in protocol.beside:
        wanted += [frozenset(unit) for unit in units]
    distinct = list(dict.fromkeys(map(frozenset, wanted)))
    size = rows_per_forward(model, [given], batch_size, most=DEFAULT_ROWS)
    scored = truth if protocol.scored == "truth" else [None]
    found = ablated(model, given, [sorted(s) for s in distinct], values, scored, batch_size=size)
    top = tuple(int(one.top) for one in found.first)
    log_p = to_float64(found.log_prob)
    change = (log_p - log_p[0]).tolist()
    delta = dict(zip(distinct, change, strict=True))
    record: dict[str, Any] = {
        "n": len(units),
        "truth": truth[0],
        "top": top[0],
        "target": explained[0],
        "scored": found.tokens[0],
        "log_prob": float(found.log_prob[0]),
        "deltas": {label: [delta[frozenset(s)] for s in sets] for label, sets in removed.items()},
        "removed": removed,
    }
    if len(truth) > 1:
        record |= {"answer": list(truth), "answer_top": list(top)}
    if (kept_bos := with_own_bos(model, passage, asked)) is not None:
        with_it = run_changed(model, *repeated(model, kept_bos.given, 1)).predictions
        record["without_bos"] = {
            "log_prob": sum(float(one.log_prob(t)) for one, t in zip(found.first, truth, strict=True)),
            "log_prob_with": float(with_it.log_prob(truth).sum()),
            "right": top == truth,
            "right_with": tuple(with_it.top.tolist()) == truth,
        }
    if "sufficiency" in protocol.beside:
        record["sufficiency"] = {label: [-delta[s] for s in sets] for label, sets in kept.items()}
    if "leave_one_out" in protocol.beside:
        truth_of = [abs(delta[frozenset(unit)]) for unit in units]
        record |= _agreement(of_units, truth_of)
    return record


def removable_units(given: EncodedPrompt, candidates: Sequence[int], unit: Unit) -> list[list[int]]:
    """The tokens that are removed together: one alone, or those of one unit that may be removed."""
    if unit == "token":
        return [[p] for p in candidates]
    found = grouping(Entries(given.str_tokens, given.special, given.text, given.offsets, given.units), unit)
    assert found is not None
    kept = set(candidates)
    units = [[p for p in positions if p in kept] for positions in found.positions]
    return [unit for unit in units if unit]


def unit_scores(
    scores: Tensor, units: Sequence[Sequence[int]], method: Method | str, protocol: Protocol
) -> list[float]:
    """The score of each unit; Random's is drawn for each, whatever its size."""
    if protocol.unit == "token" or method == "random":
        return [float(scores[unit[0]]) for unit in units]
    asked = variant(method, known_methods()) if isinstance(method, str) else None
    additive = asked is not None and (asked.signed or legend(asked.name).additive)
    found: list[float] = joined(scores, units, additive).tolist()
    return found


def _tokens(units: Sequence[Sequence[int]], chosen: Sequence[int]) -> list[int]:
    """Positions in some units."""
    return [p for i in chosen for p in units[i]]


def _agreement(scores: Mapping[str, list[float]], truth: Sequence[float]) -> dict[str, dict[str, float | None]]:
    """Spearman's rho and overlap of the top 5 % with each unit's own measured |Δ log p|."""
    every = range(len(truth))
    m = number_removed(0.05, len(truth))
    best = set(sorted(every, key=lambda i: (-truth[i], i))[:m])
    rho: dict[str, float | None] = {}
    hit: dict[str, float | None] = {}
    for label, own in scores.items():
        correlation = spearman(own, list(truth))
        rho[label] = None if math.isnan(correlation) else correlation
        hit[label] = len(best & set(most_influential(own, every, m))) / m
    return {"loo_spearman": rho, "loo_top5_hit": hit}
