"""Methods that are scored by known causes, a name or a callable of one's own, and where a cause ranks among their scores.

rank     1 + the candidates that are no cause and score at least as high as the best-ranked cause
recall   share of the causes C among the |C| best-ranked candidates, causes behind what they are tied with
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tl_scopes.baselines.by_name import BASELINES
from tl_scopes.demo.corpora.passages import Example, token_positions
from tl_scopes.directions.by_name import SCOPES, reads, ready_scopes
from tl_scopes.evaluation.questions import Question, ReadPrompt
from tl_scopes.jacobian_scopes.jacobian import scopes
from tl_scopes.model.lens import LensModel
from tl_scopes.model.vocabulary import pieces
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.gold import GoldRecord
from tl_scopes.results.variants import variant

BY_SUBSTITUTION = ("leave_one_out",)
"""Baselines that leave out or exchange words."""
TASK_KEYWORDS: Mapping[str, Mapping[str, Any]] = {"integrated_gradients": {"n_steps": 20}}
"""What methods are called with where many prompts of tasks are scored."""
Method = Callable[[LensModel, list[str], list[str]], list[Attribution]]
"""A method of one's own: ``(model, prompts, targets) -> attributions``."""


def known_methods() -> tuple[str, ...]:
    """Names of what can be scored: the scopes that need no more than a prompt, and the baselines."""
    return (*ready_scopes(), *BASELINES)


@dataclass(frozen=True)
class Named:
    """What a method's name stands for.

    Attributes:
        name: of the scope or baseline.
        keywords: what it is called with; scopes with the same ones share a forward.
        signed: do its signed sums rank?
    """

    name: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    signed: bool = False

    @property
    def shares(self) -> bool:
        """Is it a scope?"""
        return self.name in SCOPES


def named(method: str, keywords: Mapping[str, Mapping[str, Any]] | None = None) -> Named:
    """What a name stands for: the one place where names are read. ``keywords`` are those of some methods, by name.

    Raises:
        ValueError: an unknown name.
    """
    try:
        asked = variant(method, known_methods())
    except ValueError as error:
        raise ValueError(f"(methods=...): {error}") from None
    own: dict[str, Any] = dict((keywords or {}).get(asked.name, {}))
    own |= {"rank": asked.rank} if asked.rank else {}
    own |= {"frozen": asked.frozen} if asked.frozen else {}
    return Named(asked.name, own, asked.signed)


def substitutes(methods: Mapping[str, Method | str], own: Sequence[str]) -> tuple[str, ...]:
    """The labels of methods that leave out or exchange words: those named so, and ``own``.

    Raises:
        ValueError: one of ``own`` is no label.
    """
    if unknown := [label for label in own if label not in methods]:
        raise ValueError(f"(by_substitution={tuple(own)}): {unknown[0]!r} is not among the methods {list(methods)}")
    return tuple(
        label
        for label, method in methods.items()
        if label in own or (isinstance(method, str) and named(method).name in BY_SUBSTITUTION)
    )


# -- scores ----------------------------------------------------------------------------------------


def attributions(
    model: LensModel,
    methods: Mapping[str, Method | str],
    found: Sequence[Example],
    asked: Sequence[Question],
    batch_size: int,
    keywords: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[tuple[str, list[Attribution]]]:
    """Every method in turn on all examples; the package's own scopes share one forward. ``asked`` has whole answers."""
    prompts, targets = [e.prompt for e in found], [e.answer for e in found]
    given: list[Any] = list(prompts)
    aims: list[str | int | None] = list(targets)
    for i, one in enumerate(asked):
        if one.given.answer:
            given[i], aims[i] = ReadPrompt.of(one.given), None
    yield from attributed_by(model, methods, (given, aims), (prompts, targets), batch_size, keywords)


def attributed_by(
    model: LensModel,
    methods: Mapping[str, Method | str],
    given: tuple[list[Any], Sequence[str | int | None]],
    typed: tuple[Sequence[Any], Sequence[Any]],
    batch_size: int,
    keywords: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[tuple[str, list[Attribution]]]:
    """Every method in turn on prompts and their targets; scopes with the same keywords share one forward.

    The package's methods get prompts and targets as ``given``, one's own as they were ``typed``.
    """
    prompts, aims = given
    names = {label: named(method, keywords) for label, method in methods.items() if isinstance(method, str)}
    shared: dict[str, list[Attribution]] = {}
    for label, method in methods.items():
        if not isinstance(method, str):
            yield label, _own(label, method(model, list(typed[0]), list(typed[1])), len(prompts))
            continue
        chosen = names[label]
        if chosen.shares:
            if label not in shared:
                together = {
                    other: one.name for other, one in names.items() if one.shares and one.keywords == chosen.keywords
                }
                own = list(dict.fromkeys(together.values()))
                aimed: dict[str, Any] = {"target": aims if reads("target", own) else None, "batch_size": batch_size}
                results = scopes(model, prompts, methods=own, **aimed, **chosen.keywords)
                shared |= {other: [each[name] for each in results] for other, name in together.items()}
            yield label, shared[label]
        else:
            yield label, BASELINES[chosen.name](model, prompts, target=aims, batch_size=batch_size, **chosen.keywords)


def _own(label: str, returned: object, n: int) -> list[Attribution]:
    """What a callable gave, one result for each prompt."""
    fits = isinstance(returned, list | tuple) and len(returned) == n
    if not isinstance(returned, list | tuple) or not fits or not all(isinstance(a, Attribution) for a in returned):
        raise TypeError(f"(methods=...): {label!r} must return one Attribution for each of {n} prompts")
    return list(returned)


# -- ranks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where an example's causes are, in its own tokens without a BOS.

    Attributes:
        n: its tokens.
        causes: those that overlap a deciding word.
        source: those of the source region.
    """

    n: int
    causes: frozenset[int]
    source: frozenset[int]


def places(tokenizer: Any, example: Example) -> Places:
    """From characters to tokens."""
    spans = {"causes": [s.span for s in example.causes], "source": [example.source]}
    found = {k: frozenset(token_positions(tokenizer, example.prompt, v, False)) for k, v in spans.items()}
    return Places(len(pieces(tokenizer, example.prompt)), **found)


def ranking(method: Method | str, attribution: Attribution) -> list[float]:
    """What ranks the tokens: scores, or signed sums where the method's name says so.

    Raises:
        ValueError: a result without the signed sums that are asked for.
    """
    if not (isinstance(method, str) and named(method).signed):
        return list(attribution.scores.tolist())
    if attribution.signed is None:
        raise ValueError(f"(methods=...): {method!r}: this result of {attribution.method} has no signed sums")
    return list(attribution.signed.tolist())


def gold_record(
    label: str, method: Method | str, index: int, attribution: Attribution, example: Example, where: Places
) -> GoldRecord:
    """Rank of the best cause among all candidates and among those of the source."""
    bos = int(0 in attribution.special)
    causes = {p + bos for p in where.causes}
    n = where.n + bos  # an answer's tokens are no candidates
    candidates = [p for p in range(min(attribution.pos + 1, n)) if p not in attribution.special]
    inside = [p for p in candidates if p - bos in where.source] or candidates
    scores = ranking(method, attribution)
    return GoldRecord(
        corpus=example.corpus,
        index=index,
        method=label,
        rank=best_rank(scores, candidates, causes),
        rank_in_source=best_rank(scores, inside, causes & set(inside) or causes),
        chance=len(causes) / len(candidates),
        chance_in_source=len(causes & set(inside)) / len(inside),
        recall=recall(scores, candidates, causes),
    )


def best_rank(scores: Sequence[float] | Tensor, candidates: Sequence[int], causes: set[int]) -> int:
    """1 + the number of candidates that are no cause and score at least as high as the best cause."""
    best = max(float(scores[p]) for p in causes)
    return 1 + sum(float(scores[p]) >= best for p in candidates if p not in causes)


def recall(scores: Sequence[float], candidates: Sequence[int], causes: set[int]) -> float:
    """Share of the causes among as many best-ranked candidates; ties count against them."""
    order = sorted(candidates, key=lambda p: (-float(scores[p]), p in causes))
    return len(causes & set(order[: len(causes)])) / len(causes)
