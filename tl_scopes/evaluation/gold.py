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

On any other model the prompts are those of ``tl_scopes.tasks`` that it takes as they are meant
(:mod:`tl_scopes.evaluation.gold_tasks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from tl_scopes.demo.corpora import ALL_CORPORA, CORPORA, examples_in_passages
from tl_scopes.demo.corpora.passages import Example, Passage, to_the_end
from tl_scopes.directions.by_name import DEFAULT_METHODS
from tl_scopes.evaluation.gold_methods import (
    Method,
    Places,
    attributions,
    gold_record,
    known_methods,
    places,
    substitutes,
)
from tl_scopes.evaluation.gold_tasks import Wanted, draw, score_tasks
from tl_scopes.evaluation.methods import chosen_methods
from tl_scopes.evaluation.questions import Question, question
from tl_scopes.evaluation.shares import Shard, require_shared_folder
from tl_scopes.kernel.batching import repeated
from tl_scopes.kernel.interventions import run_changed
from tl_scopes.kernel.options import check_batch_size
from tl_scopes.model.frozen import Frozen
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import token_strings
from tl_scopes.model.soundness import refuse_wrong, require_causal
from tl_scopes.model.targets import encode_targets
from tl_scopes.model.vocabulary import pieces
from tl_scopes.numerics.arguments import Seed, integer
from tl_scopes.numerics.progress import progress
from tl_scopes.results.gold import GoldAlignment, GoldRecord

__all__ = ["Method", "gold_alignment", "known_methods"]
SCOPE_METHODS = DEFAULT_METHODS
CORPUS_N, TASK_N = 200, 100
"""Examples of each corpus, accepted prompts of each task, where none is said."""


@model_call
def gold_alignment(
    model: LensModel,
    methods: Sequence[str] | Mapping[str, Method | str] = SCOPE_METHODS,
    *,
    corpora: Sequence[str] | None = None,
    tasks: Sequence[str] | Mapping[str, Sequence[Example]] | None = None,
    n: int | None = None,
    seed: Seed = 0,
    batch_size: int = 32,
    answers: Literal["token", "whole"] = "token",
    by_substitution: Sequence[str] = (),
    out: str | Path | None = None,
    frozen: Frozen = (),
    shard: Shard | None = None,
) -> GoldAlignment:
    """Share of prompts whose known cause ranks first, by method: of the demo's corpora, or of tasks on any model.

    ``top1 = mean[argmax_t score_t ∈ causes]`` over the held-out prompts that the model answers right, or over the prompts
    of a task that it takes as they are meant; the target of every method is the right answer, read at the last token of the
    prompt. Differences between methods of a few points are within the intervals: read those.

    Args:
        model: for corpora a bundled model, or any model with the demo's tokenizer trained on them; for tasks any model.
        methods: names among the scopes (``"semantic"``, ``"fisher"``, ``"temperature"``) and the baselines
            (``"input_x_gradient"``, ``"gradient_norm"``, ``"integrated_gradients"``, ``"smoothgrad"``,
            ``"leave_one_out"``, ``"attention_rollout"``, ``"random"``), or ``{label: name or callable}`` with callables
            ``(model, prompts, targets) -> attributions``. A gradient's name may say what it holds constant,
            ``"semantic/all"``, ``"input_x_gradient/norms+attention"``. Input × Gradient and integrated gradients rank by
            their signed sums, highest first, as ``"input_x_gradient:signed"`` and ``"input_x_gradient/all:signed"``.
        corpora: names from ``tl_scopes.demo.CORPORA``, all of which None is where no tasks are given, or
            ``tl_scopes.demo.CHAINS``, which ``"demo-llama"`` speaks: of each chain one word, the words before it given.
        tasks: names from ``tl_scopes.tasks.TASKS``, or ``{name: examples}`` of your own. Their prompts are scored where the
            model says the answer, follows each swapped cause and keeps the answer under three other swaps. Answers are whole.
        n: examples per corpus (None is 200), of which those whose answer nothing determines (noisy series) are not drawn;
            or accepted prompts wanted of each task (None is 100), for which at most 5 × n are drawn. Tasks with fewer than
            30 accepted prompts have no figures.
        seed: of the examples and of the bootstrap; the global RNG is not used.
        batch_size: prompts per forward.
        answers: of corpora, ``"token"`` explains the one token that follows each prompt; ``"whole"`` all that follows in the
            passage as one answer, whose causes are those of all its words: in translations the rest of the sentence, and
            with a tokenizer that splits words all tokens of the word. An answer is right where each of its tokens is the
            top prediction. Callables are given its text.
        by_substitution: labels of your own methods that leave out or exchange words, as ``"leave_one_out"`` does. Prompts of
            tasks are accepted by such a test, so that these methods stand in a block of their own.
        out: of tasks, a folder for the run. The scores of each batch of prompts are on the disk before the next begins, and
            the same call continues a run that was stopped. Under ``accelerate launch --multi_gpu`` the processes test
            acceptance together and each scores every WORLD_SIZE-th accepted prompt; the result is whole in the last one to
            end. A prompt that cannot be scored is in ``.failures`` with its reason.
        frozen: what all gradients hold constant that do not say it themselves, as in :func:`tl_scopes.semantic_scope`;
            names that are given in a list then say so.
        shard: ``(i, n)``: this call is job i of n (from 0) that share the folder ``out``.

    Returns:
        A :class:`GoldAlignment`; ``print`` it, ``.to_frame()``, ``.comparisons()``, ``.acceptance`` by task, ``.plot()``.

    Raises:
        ValueError: an unknown method, corpus or task, or corpora and tasks; a part that cannot be held in the model; n
            below 1, of tasks below 30; a corpus with an answer that the model's tokenizer splits, where one token is
            explained; a model that answers no prompt of the corpora right; ``out`` holding another run.

    Cost: for each corpus ``n`` forwards and one vector-Jacobian product per method and prompt, in batches; baselines their
    own. For each task at most ``5 n`` forwards, and about five more for each prompt that is answered; then for each of at
    most n accepted prompts the methods' own cost, with 20 steps for integrated gradients.

    >>> result = gold_alignment(model, ["semantic"], corpora=["translation"], n=8)
    >>> result.to_frame().top1.between(0, 1).all().item()
    True
    """
    model = require_lens_model(model)
    chosen: dict[str, Method | str] = chosen_methods(methods, frozen, known_methods(), model)
    apart = substitutes(chosen, by_substitution)
    check_batch_size(batch_size)
    require_shared_folder(shard, out)
    if tasks is not None:
        if corpora is not None or answers != "token":
            what = "corpora=..." if corpora is not None else f"answers={answers!r}"
            raise ValueError(
                f"({what}): this is for the demo's corpora, and tasks= is for any model; leave one of them out"
            )
        refuse_wrong(model)
        require_causal(model)
        if not getattr(model.tokenizer, "is_fast", False):
            raise ValueError(
                "(tasks=...): causes are characters, and this model has no tokenizer that knows its tokens' own"
            )
        size = TASK_N if n is None else n
        return score_tasks(model, chosen, Wanted(draw(tasks, size, seed), size, seed, batch_size, apart), out, shard)
    if out is not None:
        raise ValueError("(out=...): runs of tasks= are stored; a run of the corpora takes minutes")
    names = list(CORPORA) if corpora is None else list(corpora)
    unknown = [c for c in names if c not in ALL_CORPORA]
    if unknown or not names or len(set(names)) != len(names):
        wrong = f"unknown {unknown}" if unknown else "expected different names, at least one"
        raise ValueError(f"(corpora={names}): {wrong}; the corpora are {list(ALL_CORPORA)}")
    size = integer("n", CORPUS_N if n is None else n, least=1)
    drawn = {corpus: _determined(corpus, size, seed, answers) for corpus in names}
    if answers == "token":
        _require_answers_of_one_token(model, drawn)
    records: list[GoldRecord] = []
    accuracy: dict[str, float] = {}
    with progress(total=len(names) * len(chosen), unit="method", leave=True) as bar:
        for corpus, found in drawn.items():
            right: list[bool] = []
            asked: list[Question] = []
            where: list[Places] = []
            if answers == "whole":
                asked = [question(model, (e.prompt, e.answer), None) for e in found]
                right = [_is_right(model, one) for one in asked]
            for name, attributed in attributions(model, chosen, found, asked, batch_size):
                where = where or [places(model.tokenizer, e) for e in found]
                right = right or [a.top_predictions[0][0] == e.answer for a, e in zip(attributed, found, strict=True)]
                of_each = enumerate(zip(right, attributed, found, where, strict=True))
                records += [
                    gold_record(name, chosen[name], i, a, e, own) for i, (answered, a, e, own) in of_each if answered
                ]
                bar.update()
            accuracy[corpus] = float(np.mean(right))
    if not records:
        raise ValueError(
            "the model answers none of the prompts right, so there is nothing to align; use the demo model "
            "(tl_scopes.load_model()), one trained on its corpora, or tasks=[...], which are for any model"
        )
    return GoldAlignment(tuple(records), accuracy, size, seed, answers, by_substitution=apart)


def _determined(corpus: str, n: int, seed: int, answers: Literal["token", "whole"] = "token") -> list[Example]:
    """``n`` held-out examples with causes; more are drawn where some have none."""
    drawn = n
    found: list[tuple[Passage, Example]] = []
    while len(found) < n:
        found = [(p, e) for p, e in examples_in_passages(corpus, drawn, seed) if e.determined and e.causes][:n]
        drawn *= 2
    return [example if answers == "token" else to_the_end(passage, example) for passage, example in found]


def _is_right(model: LensModel, asked: Question) -> bool:
    """Is every token of the answer the top prediction?"""
    said = run_changed(model, *repeated(model, asked.given, 1)).predictions.top
    return tuple(said.tolist()) == asked.truth


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
            f"{'; '.join(refused.values())}. {remedy}answers='whole' explains all tokens of an answer; "
            "tasks=[...] are prompts for any model"
        )
