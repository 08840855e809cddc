"""A verdict on an attribution: do its strongest tokens matter, more than random ones do?

Legend: ``S`` the k units with the highest scores, ``R_1 … R_n`` sets of k units drawn without replacement from all that may
be removed (the strong ones too); ``Δ(S) = log p(target | S removed) − log p(target)``. The p-value

    p = (1 + #{i : Δ(R_i) ≤ Δ(S)}) / (n + 1)

is at most 0.05 for a ranking that knows nothing in 1 of 21 prompts with ``n = 20``. The ranking as a whole is judged by
Spearman's correlation of score and ``|Δ({t})|`` over single removals of the strongest and of random other units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from tl_scopes.analysis.explained_scalar import Question, prompt_of, question_of, require_vocabulary, target_hook_of
from tl_scopes.directions.base import Readings, joined
from tl_scopes.directions.by_name import scope_of
from tl_scopes.kernel.ablation import Ablation, run_ablated, substitutes
from tl_scopes.kernel.batching import rows_per_forward
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.soundness import refuse_unseen_future, refuse_wrong
from tl_scopes.numerics.arguments import Seed, integer
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.ranking import most_influential, other_sets
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.units import members as token_positions
from tl_scopes.results.verdict import LEAST_CANDIDATES, Unit, Verdict

MOST_SINGLE = 30
"""Units that are removed alone, half of them the strongest."""
Positions = tuple[int, ...]


@overload
def verdict(
    model: LensModel,
    attribution: Attribution,
    k: int = ...,
    n_random: int = ...,
    unit: Unit = ...,
    *,
    ablation: Ablation = ...,
    seed: int = ...,
    batch_size: int | None = ...,
) -> Verdict: ...
@overload
def verdict(
    model: LensModel,
    attribution: Sequence[Attribution],
    k: int = ...,
    n_random: int = ...,
    unit: Unit = ...,
    *,
    ablation: Ablation = ...,
    seed: int = ...,
    batch_size: int | None = ...,
) -> list[Verdict]: ...
@model_call
def verdict(
    model: LensModel,
    attribution: Attribution | Sequence[Attribution],
    k: int = 3,
    n_random: int = 20,
    unit: Unit = "token",
    *,
    ablation: Ablation = "zero",
    seed: Seed = 0,
    batch_size: int | None = None,
) -> Verdict | list[Verdict]:
    """Do the strongest tokens matter, more than others? Measured by removing them, and random ones, in one sentence.

    ``Δ(S) = log p(target | S removed) − log p(target)`` in nats, of the ``k`` strongest units and of ``n_random`` sets of k
    drawn from all units that may be removed; ``p = (1 + #{Δ(random) ≤ Δ(strongest)}) / (n + 1)``. Beside it Spearman's
    correlation of score and ``|Δ|`` over up to 30 single removals. A scope that explains something other than the target
    (Fisher, temperature, total information, moments, a direction) is measured on its own scalar too.

    Args:
        model: the model that made the attribution.
        attribution: of any scope or baseline; hidden and special tokens stay in place, and those of an answer. A list gives
            a list, and those of one prompt share their runs.
        k: units removed together.
        n_random: random sets; all other sets where there are no more than that. Fewer than 19 cannot reach p ≤ 0.05.
        unit: ``"token"``, or ``"word"``, ``"sentence"``, ``"line"``, ``"paragraph"`` or ``"turn"``, as by
            :meth:`Attribution.by_unit`.
        ablation: what takes the place of a token: ``"zero"``, the ``"mean"`` row of those that may be removed, or
            ``"resample"``, another one's row.
        seed: of the draws; the global RNG is not used.
        batch_size: removals per forward; None lets the package choose.

    Returns:
        A :class:`Verdict`; print it for the sentence, ``.effect``, ``.random``, ``.p``, ``.rank_correlation``, ``.plot()``,
        ``.html()``. With fewer than 8 units ``effect`` is None and the sentence says so.

    Raises:
        ValueError: an attribution by word, of another model, or of an unknown method; a number or a name out of range.
        TypeError: not a TransformerLens model; a number of the wrong type.

    Cost: one forward of about ``n_random + 32`` rows, without gradients.

    >>> german = "German: ich hoffe, dass der Hund die schwarze Katze sieht. English: I hope that the dog"
    >>> found = verdict(model, semantic_scope(model, german, target=" sees"))
    >>> found.better, found.effect < found.random.low
    (True, True)

    Reference: this package; permutation test of a ranking by removals.
    """
    integer("k", k, least=1)
    integer("n_random", n_random, least=1)
    several = [attribution] if isinstance(attribution, Attribution) else list(attribution)
    if not several:
        raise ValueError("(attribution=[]): expected an attribution, or at least one in a list")
    removal = Removal(k, n_random, unit, ablation, seed)
    found = judge(model, several, [plan_of(a, removal) for a in several], batch_size)
    return found[0] if isinstance(attribution, Attribution) else found


@dataclass(frozen=True)
class Removal:
    """How it is judged: the arguments of :func:`verdict`."""

    k: int
    n_random: int
    unit: Unit
    ablation: Ablation
    seed: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What is removed for one attribution.

    Attributes:
        removal: how it is judged.
        units: positions of each unit that may be removed.
        strongest: numbers of the strongest, strongest first.
        drawn: numbers in each random set.
        exhaustive: are these all other sets?
        singles: numbers of those removed alone.
        scores: of all units.
    """

    removal: Removal
    units: list[Positions]
    strongest: tuple[int, ...]
    drawn: list[tuple[int, ...]]
    exhaustive: bool
    singles: list[int]
    scores: Tensor

    def positions(self, numbers: Sequence[int]) -> Positions:
        """Of the tokens in these units."""
        return tuple(sorted(p for i in numbers for p in self.units[i]))

    @property
    def sets(self) -> list[Positions]:
        """All that is removed: the strongest, the random sets, single ones."""
        if not self.strongest:
            return []
        return [self.positions(s) for s in (self.strongest, *self.drawn, *((i,) for i in self.singles))]


def judge(
    model: LensModel,
    attributions: Sequence[Attribution],
    plans: Sequence[Plan],
    batch_size: int | None = None,
    base: tuple[Readings, Question] | None = None,
) -> list[Verdict]:
    """The verdict on each attribution; ``base`` is the unchanged run of the only one, where it is at hand."""
    model = require_lens_model(model)
    refuse_wrong(model)
    for attribution in attributions:
        require_vocabulary(model, attribution)
        refuse_unseen_future(model, [attribution])
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, attribution in enumerate(attributions):
        at, hook = attribution.details.get("at", "hook_embed"), target_hook_of(attribution)
        removable = frozenset(p for unit in plans[i].units for p in unit)
        key = (tuple(attribution.tokens.tolist()), attribution.pos, attribution.span, at, hook, removable)
        groups.setdefault(key, []).append(i)
    found: dict[int, Verdict] = {}
    for members in groups.values():
        chosen = [(attributions[i], plans[i]) for i in members]
        found.update(zip(members, _together(model, chosen, batch_size, base), strict=True))
    return [found[i] for i in range(len(attributions))]


def plan_of(attribution: Attribution, removal: Removal) -> Plan:
    """Which units are removed, by the scores and the seed; refuses what cannot be, before any run."""
    prompt_of(attribution)
    of = attribution if removal.unit == "token" else attribution.by_unit(removal.unit)
    candidates = [p for p in of.shown if p not in of.special and p not in of.answer]
    grouped = token_positions(of.details) or [[p] for p in range(len(of))]
    units = [tuple(t for t in grouped[p] if t <= attribution.pos) for p in candidates]
    scores, n, k = of.scores[candidates], len(units), removal.k
    if n < LEAST_CANDIDATES:
        return Plan(removal, units, (), [], False, [], scores)
    if k >= n:
        raise ValueError(f"(k={k}): k must be below {n}, the number of {removal.unit}s that may be removed")
    ranked = most_influential(scores.tolist(), range(n), n)
    strongest = tuple(ranked[:k])
    generator = prompt_generator(removal.seed, attribution.tokens)
    drawn, exhaustive = other_sets(n, strongest, removal.n_random, generator)
    half = MOST_SINGLE // 2 if n > MOST_SINGLE else n
    others = [ranked[half + i] for i in torch.randperm(n - half, generator=generator).tolist()]
    return Plan(removal, units, strongest, drawn, exhaustive, ranked[:half] + others[: MOST_SINGLE - half], scores)


def _together(
    model: LensModel,
    chosen: Sequence[tuple[Attribution, Plan]],
    batch_size: int | None,
    base: tuple[Readings, Question] | None,
) -> Iterator[Verdict]:
    """Verdicts on attributions of one prompt: each set is removed once, and the unchanged prompt is a row like any other."""
    first, plan = chosen[0]
    removal = plan.removal
    prompt, at = prompt_of(first), str(first.details.get("at", "hook_embed"))
    sets = list(dict.fromkeys(s for _, p in chosen for s in p.sets))
    removable = sorted(p for unit in plan.units for p in unit)
    values = substitutes(removal.ablation, removable, prompt.tokens, removal.seed)
    size = rows_per_forward(model, [prompt], batch_size, at=at)
    questions: list[Question] = []
    unchanged: Readings | None = None
    if base is not None:
        unchanged, questions = base[0], [base[1]]
    effects: list[list[Tensor]] = [[] for _ in chosen]
    own: list[list[Tensor]] = [[] for _ in chosen]
    rows = sets if unchanged is not None else [(), *sets]
    for changed in run_ablated(model, prompt, rows, values, batch_size=size, at=at, target_hook=target_hook_of(first)):
        if unchanged is None:
            unchanged = tuple(one[:1] for one in changed)
            questions = [question_of(model, a, joined(unchanged)) for a, _ in chosen]
            changed = tuple(one[1:] for one in changed)
        for i, ((attribution, _), question) in enumerate(zip(chosen, questions, strict=True)):
            change = question.log_prob(changed) - question.log_prob(unchanged)
            effects[i].append(change.to(changed[0].predictions.dtype).cpu())
            if _explains_something_else(attribution):
                own[i].append(question.change(unchanged, changed))
    numbers = {s: n for n, s in enumerate(sets)}
    for (attribution, plan), question, effect, scalar in zip(chosen, questions, effects, own, strict=True):
        at_sets = [numbers[s] for s in plan.sets]
        of_sets = torch.cat(effect)[at_sets] if sets else torch.zeros(0)
        measured = torch.cat(scalar)[at_sets].to(of_sets) if scalar and plan.sets else None
        yield _verdict(model, attribution, plan, question, of_sets, measured)


def _explains_something_else(attribution: Attribution) -> bool:
    """Is the explained scalar another thing than the target's logit or log p?"""
    scope = scope_of(attribution.method)
    return scope is not None and not scope.targeted


def _verdict(
    model: LensModel,
    attribution: Attribution,
    plan: Plan,
    question: Question,
    effects: Tensor,
    scalars: Tensor | None,
) -> Verdict:
    """From what was measured, in the order of :attr:`Plan.sets`."""
    removal, judged, n = plan.removal, bool(plan.strongest), len(plan.drawn)
    return Verdict(
        attribution=attribution,
        k=removal.k,
        unit=removal.unit,
        n_candidates=len(plan.units),
        strongest=tuple(plan.units[i] for i in plan.strongest),
        effect=float(effects[0]) if judged else None,
        drawn=effects[1 : n + 1],
        exhaustive=plan.exhaustive,
        singles=tuple(plan.units[i] for i in plan.singles),
        single_scores=plan.scores[plan.singles],
        single_effects=effects[n + 1 :],
        scalar=None if scalars is None else question.name,
        scalar_unit=None if scalars is None else question.unit,
        scalar_effect=None if scalars is None else float(scalars[0]),
        scalar_drawn=None if scalars is None else scalars[1 : n + 1],
        ablation=removal.ablation,
        seed=removal.seed,
        target_str=question.text,
        sets=tuple(plan.positions(s) for s in plan.drawn),
    )
