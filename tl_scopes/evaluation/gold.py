"""Gold alignment: does a method put the token first that is known to cause the answer?

Attribution for language models has no ground truth. The demo corpora have one: each example carries the *set* of words
that decide its answer by construction. Over the held-out examples that the model answers right, with candidates all
positions up to the explained one except special tokens,

    top1 = mean over prompts of [the candidate with the highest score is a cause]
    mrr  = mean over prompts of 1 / (rank of the best-ranked cause)

and the same with candidates inside the source region only (the foreign sentence, the statements). ``chance`` is top1 of
a random ranking: causes over candidates. Intervals are 95 % percentile bootstraps over prompts.

With ``answers="whole"`` the answer is all that follows in the passage (the rest of a translation), its causes are those of
all its words, and the methods explain ``Σ log p`` of its tokens; candidates are the prompt's tokens, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tl_scopes.baselines import gradient_free as controls
from tl_scopes.baselines import gradients as baselines
from tl_scopes.baselines.integrated_gradients import integrated_gradients
from tl_scopes.demo.corpora import ALL_CORPORA, CORPORA, examples_in_passages
from tl_scopes.demo.corpora.passages import Example, Passage, to_the_end, token_positions
from tl_scopes.directions.by_name import DEFAULT_METHODS, SCOPES, reads, ready_scopes
from tl_scopes.evaluation.protocol import OF_ONE
from tl_scopes.evaluation.questions import Question, question
from tl_scopes.jacobian_scopes.jacobian import scopes
from tl_scopes.kernel.batching import repeated
from tl_scopes.kernel.interventions import run_changed
from tl_scopes.kernel.options import check_batch_size
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import GivenTokens, token_strings
from tl_scopes.model.targets import encode_targets
from tl_scopes.model.units import Unit
from tl_scopes.model.vocabulary import pieces
from tl_scopes.numerics.arguments import Seed, call_name, integer
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.gold import GoldAlignment, GoldRecord

SCOPE_METHODS = DEFAULT_METHODS
BASELINES: dict[str, Callable[..., list[Attribution]]] = {
    "input_x_gradient": baselines.input_x_gradient,
    "gradient_norm": baselines.gradient_norm,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": baselines.smoothgrad,
    "leave_one_out": controls.leave_one_out,
    "attention_rollout": controls.attention_rollout,
    "random": controls.random_attribution,
}
Method = Callable[[LensModel, list[str], list[str]], list[Attribution]]
"""A method of one's own: ``(model, prompts, targets) -> attributions``."""


def known_methods() -> tuple[str, ...]:
    """Names of what can be scored: the scopes that need no more than a prompt, and the baselines."""
    return (*ready_scopes(), *BASELINES)


@model_call
def gold_alignment(
    model: LensModel,
    methods: Sequence[str] | Mapping[str, Method] = SCOPE_METHODS,
    *,
    corpora: Sequence[str] | None = None,
    n: int = 200,
    seed: Seed = 0,
    batch_size: int = 32,
    answers: Literal["token", "whole"] = "token",
) -> GoldAlignment:
    """Share of prompts of the bundled corpora whose known cause ranks first, by method and corpus.

    ``top1 = mean[argmax_t score_t ∈ causes]`` over the held-out prompts that the model answers right; the target of
    every method is the right answer, read at the last token of the prompt. Differences between methods of a few points
    are within the intervals: read those.

    Args:
        model: a bundled model, or any model with the demo's tokenizer trained on its corpora.
        methods: names among the scopes (``"semantic"``, ``"fisher"``, ``"temperature"``) and the baselines
            (``"input_x_gradient"``, ``"gradient_norm"``, ``"integrated_gradients"``, ``"smoothgrad"``,
            ``"leave_one_out"``, ``"attention_rollout"``, ``"random"``), or ``{name: callable}`` with callables
            ``(model, prompts, targets) -> attributions``.
        corpora: names from ``tl_scopes.demo.CORPORA``, all of which None is, or ``tl_scopes.demo.CHAINS``, which
            ``"demo-llama"`` speaks: of each chain one word, the words before it given.
        n: examples per corpus. Examples whose answer nothing determines (noisy series) are not drawn.
        seed: of the examples and of the bootstrap; the global RNG is not used.
        batch_size: prompts per forward.
        answers: ``"token"`` explains the one token that follows each prompt; ``"whole"`` all that follows in the passage as
            one answer, whose causes are those of all its words: in translations the rest of the sentence, and with a
            tokenizer that splits words all tokens of the word. An answer is right where each of its tokens is the top
            prediction. Callables are given its text.

    Returns:
        A :class:`GoldAlignment`; ``print`` it, ``.to_frame()``, ``.plot()``.

    Raises:
        ValueError: an unknown method or corpus; n below 1; a corpus with an answer that the model's tokenizer splits, where
            one token is explained; a method of one prediction, where answers are whole; a model that answers no prompt right.

    Cost: ``n`` forwards and one vector-Jacobian product per method and prompt for each corpus, in batches.

    >>> result = gold_alignment(model, ["semantic"], corpora=["translation"], n=8)
    >>> result.to_frame().top1.between(0, 1).all().item()
    True
    """
    model = require_lens_model(model)
    unknown = [] if isinstance(methods, Mapping) else [m for m in methods if m not in known_methods()]
    if not methods or unknown or len(set(methods)) != len(methods):
        raise ValueError(
            f"(methods={methods!r}): expected different names among {known_methods()}, or {{name: callable}}"
        )
    names = list(CORPORA) if corpora is None else list(corpora)
    unknown = [c for c in names if c not in ALL_CORPORA]
    if unknown or not names or len(set(names)) != len(names):
        wrong = f"unknown {unknown}" if unknown else "expected different names, at least one"
        raise ValueError(f"(corpora={names}): {wrong}; the corpora are {list(ALL_CORPORA)}")
    integer("n", n, least=1)
    check_batch_size(batch_size)
    drawn = {corpus: _determined(corpus, n, seed, answers) for corpus in names}
    if answers == "token":
        _require_answers_of_one_token(model, drawn)
    elif alone := [m for m in methods if not isinstance(methods, Mapping) and m in OF_ONE]:
        raise ValueError(
            f"(answers='whole'): {', '.join(map(repr, alone))}: one prediction is explained there; leave it out"
        )
    records: list[GoldRecord] = []
    accuracy: dict[str, float] = {}
    with tqdm(total=len(names) * len(methods), desc=call_name(), unit="method", disable=None) as bar:
        for corpus, found in drawn.items():
            right: list[bool] = []
            asked: list[Question] = []
            if answers == "whole":
                asked = [question(model, (e.prompt, e.answer), None) for e in found]
                right = [_is_right(model, one) for one in asked]
            for name, attributions in _attributions(model, methods, found, asked, batch_size):
                right = right or [a.top_predictions[0][0] == e.answer for a, e in zip(attributions, found, strict=True)]
                of_each = enumerate(zip(right, attributions, found, strict=True))
                records += [_record(model, name, i, a, example) for i, (answered, a, example) in of_each if answered]
                bar.update()
            accuracy[corpus] = float(np.mean(right))
    if not records:
        raise ValueError(
            "the model answers none of the prompts right, so there is nothing to align; use the demo model "
            "(tl_scopes.load_model()) or one trained on its corpora"
        )
    return GoldAlignment(tuple(records), accuracy, n, seed, answers)


def _determined(corpus: str, n: int, seed: int, answers: Literal["token", "whole"] = "token") -> list[Example]:
    """``n`` held-out examples with causes; more are drawn where some have none."""
    drawn = n
    found: list[tuple[Passage, Example]] = []
    while len(found) < n:
        found = [(p, e) for p, e in examples_in_passages(corpus, drawn, seed) if e.determined and e.causes][:n]
        drawn *= 2
    return [example if answers == "token" else to_the_end(passage, example) for passage, example in found]


@dataclass(frozen=True, eq=False)
class _Answered(GivenTokens):
    """A prompt with its answer, explained as a whole by every scope, also by those that take no target."""

    tokens: Tensor
    answer_start: int
    offsets: tuple[tuple[int, int], ...] | None = None
    units: tuple[Unit, ...] = ()

    @property
    def text(self) -> str:
        """Not known: places are counted in the prompt's text."""
        return ""


def _is_right(model: LensModel, asked: Question) -> bool:
    """Is every token of the answer the top prediction?"""
    log_probs = run_changed(model, *repeated(model, asked.given, 1)).log_probs
    return tuple(log_probs.argmax(-1).tolist()) == asked.truth


def _require_answers_of_one_token(model: LensModel, drawn: Mapping[str, Sequence[Example]]) -> None:
    """Refuse corpora with an answer that the model's tokenizer splits, before any run: no one logit is its."""
    if model.tokenizer is None:
        return  # refused with the prompts
    refused = {}
    for corpus, found in drawn.items():
        for i, answer in enumerate(e.answer for e in found):
            try:
                encode_targets(model, answer, 1)
            except ValueError:
                split = token_strings(model, torch.tensor(pieces(model.tokenizer, answer)))
                refused[corpus] = f"{answer!r} of example {i} of {corpus!r} is {split}"
                break
    if refused:
        fit = [corpus for corpus in drawn if corpus not in refused]
        remedy = f"Ask for those that fit, corpora={fit}; " if fit else ""
        raise ValueError(
            f"(corpora={list(drawn)}): every answer must be one token, and this model's tokenizer splits some: "
            f"{'; '.join(refused.values())}. {remedy}answers='whole' explains all tokens of an answer"
        )


def _attributions(
    model: LensModel,
    methods: Sequence[str] | Mapping[str, Method],
    found: Sequence[Example],
    asked: Sequence[Question],
    batch_size: int,
) -> Iterator[tuple[str, list[Attribution]]]:
    """Every method in turn on all examples; the package's own scopes share one forward. ``asked`` has whole answers."""
    prompts, targets = [e.prompt for e in found], [e.answer for e in found]
    if isinstance(methods, Mapping):
        for name, method in methods.items():
            returned = method(model, prompts, targets)
            fits = isinstance(returned, list | tuple) and len(returned) == len(prompts)
            if not fits or not all(isinstance(a, Attribution) for a in returned):
                raise TypeError(
                    f"(methods=...): {name!r} must return one Attribution for each of {len(prompts)} prompts"
                )
            yield name, list(returned)
        return
    given: list[Any] = list(prompts)
    aims: list[str | None] = list(targets)
    for i, one in enumerate(asked):
        if one.given.answer:
            given[i], aims[i] = _Answered(one.given.tokens, one.given.answer[0]), None
    own = [m for m in methods if m in SCOPES]
    aimed = aims if reads("target", own) else None
    shared = scopes(model, given, methods=own, target=aimed, batch_size=batch_size) if own else []
    for m in methods:
        if m in own:
            yield m, [s[m] for s in shared]
        else:
            yield m, BASELINES[m](model, given, target=aims, batch_size=batch_size)


def _record(model: LensModel, method: str, index: int, attribution: Attribution, example: Example) -> GoldRecord:
    """Rank of the best cause among all candidates and among those of the source."""
    tokenizer, bos = model.tokenizer, 0 in attribution.special
    causes = set(token_positions(tokenizer, example.prompt, [s.span for s in example.causes], bos))
    source = set(token_positions(tokenizer, example.prompt, [example.source], bos))
    n = len(pieces(tokenizer, example.prompt)) + bos  # an answer's tokens are no candidates
    candidates = [p for p in range(min(attribution.pos + 1, n)) if p not in attribution.special]
    inside = [p for p in candidates if p in source] or candidates
    return GoldRecord(
        corpus=example.corpus,
        index=index,
        method=method,
        rank=_best_rank(attribution.scores, candidates, causes),
        rank_in_source=_best_rank(attribution.scores, inside, causes & set(inside) or causes),
        chance=len(causes) / len(candidates),
        chance_in_source=len(causes & set(inside)) / len(inside),
    )


def _best_rank(scores: torch.Tensor, candidates: Sequence[int], causes: set[int]) -> int:
    """1 + the number of candidates that are no cause and score at least as high as the best cause."""
    best = max(float(scores[p]) for p in causes)
    return 1 + sum(float(scores[p]) >= best for p in candidates if p not in causes)
