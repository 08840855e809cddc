"""Invariant: on a model that is known to do a task, the task's prompts are accepted and methods find the cause.

Agreement and coreference are done by a small model that was taught them (`taught`), and is asked prompts that it has not
seen; all others by weights written by hand (`planted`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from planted import copier, the_other
from taught import taught

from tl_scopes import gold_alignment, tasks
from tl_scopes.results.gold import GoldAlignment
from tl_scopes.tasks import few_shot

pytestmark = [pytest.mark.slow, pytest.mark.one_lens]
N = 30
METHODS = ["semantic", "input_x_gradient/all", "random"]
KINDS = {word: kind for kind, words in few_shot.WORDS.items() for word in words}
SET = (" be", " equal", " is")
BY_HAND: dict[str, tuple[str, int, dict[str, Any]]] = {
    "copying": ("plain", 6, {}),
    "retrieval": ("table", 3, {"marks": ("=",)}),
    "few_shot": ("arrows", 0, {"marks": ("->",), "kinds": KINDS}),
    "chain_2": ("letters", 1, {"marks": SET, "hops": 2}),
    "chain_3": ("letters", 1, {"marks": SET, "hops": 3}),
    "hint": ("animal", 0, {}),
    "injection": ("ignore", 0, {}),
    "indirect_object": ("went", 0, {}),
    "translation": ("lines", 0, {"marks": (":",), "kinds": {"English": "language", "French": "language"}}),
}
"""Task: surface form, length, and how the hand-made model is made."""
ASKS_FIRST = ("hint", "injection")
"""Tasks whose last word stands in other places too, between which the gradient of this model's attention is large."""
TAUGHT = {"agreement": "now", "coreference": "name"}


def drawn(task: str, form: str, length: int, n: int, seed: int = 0) -> list[tasks.Example]:
    """About n prompts of one surface form."""
    found = tasks.examples(task, n * len(tasks.TASKS[task].forms), seed, length=length)
    return [e for e in found if e.slot == form]


def texts_of(found: list[tasks.Example]) -> list[str]:
    return [t for e in found for s in (*e.causes, *e.others) for t in (e.prompt, e.answer, e.swapped(s), s.answer)]


def made_by_hand(task: str, found: list[tasks.Example]) -> Any:
    texts = texts_of(found)
    if task == "translation":
        told = {s.answer: s.replacement for e in found for s in e.causes}
        told |= {e.answer: e.prompt[slice(*e.causes[0].span)] for e in found}
        return copier(texts, **BY_HAND[task][2], meaning={answer: f" {word}" for answer, word in told.items()})
    if task != "indirect_object":
        return copier(texts, **BY_HAND[task][2])
    names = {e.prompt[slice(*s.span)] for e in found for s in e.causes} | {
        s.replacement for e in found for s in e.causes
    }
    return the_other(texts, names)


def require_found(result: GoldAlignment, task: str, method: str) -> None:
    frame = result.to_frame().query("task == @task").set_index("method")
    assert frame.top1_low[method] > frame.chance[method], frame.top1
    assert frame.top1_low["random"] < frame.chance["random"] < frame.top1_high["random"] + 0.05
    assert result.compare(method, "random", name=task).low > 0


@pytest.mark.parametrize("task", BY_HAND)
def test_on_a_model_whose_weights_do_a_task_the_planted_cause_is_found(task: str) -> None:
    form, length, _ = BY_HAND[task]
    found = drawn(task, form, length, 180 if task == "translation" else 45)
    if task == "translation":  # one dictionary
        found = [e for e in found if "French" in e.prompt]
    if task == "retrieval":  # the first word of a text has no space before it: this model does not know it again
        found = [e for e in found if not e.prompt.startswith(f"{e.causes[1].replacement} =")]
    result = gold_alignment(made_by_hand(task, found), METHODS, tasks={task: found}, n=N)
    assert result.acceptance[task].rate > 0.9, result.acceptance
    require_found(result, task, "input_x_gradient/all")
    if task in ASKS_FIRST:
        assert result.compare("input_x_gradient/all", "semantic", name=task).low > 0
    else:
        require_found(result, task, "semantic")


@cache
def result_of_lessons() -> GoldAlignment:
    least = {task: tasks.TASKS[task].least for task in TAUGHT}
    lessons = {task: drawn(task, form, least[task], 400, seed=1) for task, form in TAUGHT.items()}
    unseen = {task: drawn(task, form, least[task], 60, seed=2) for task, form in TAUGHT.items()}
    model = taught(lessons, [e for found in unseen.values() for e in found])
    return gold_alignment(model, METHODS, tasks=unseen, n=N)


@pytest.mark.parametrize("task", TAUGHT)
def test_on_a_model_that_was_taught_a_task_the_cause_is_found(task: str) -> None:
    result = result_of_lessons()
    assert result.acceptance[task].rate > 0.8, result.acceptance
    for method in ("semantic", "input_x_gradient/all"):
        require_found(result, task, method)


def test_every_task_has_a_model_that_does_it() -> None:
    assert {*BY_HAND, *TAUGHT} == {*tasks.TASKS}
