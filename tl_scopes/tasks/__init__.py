"""Prompts whose causes are known by construction, for any model.

Each task is a file of its own with its words (some are shared) and surface forms. An example has its answer, the words that
decide it, each with a counterpart that decides another answer, and other content words that may be exchanged without the
answer changing. All places are characters, so that any tokenizer does. What a model makes of an example is for
:mod:`tl_scopes.evaluation.acceptance` to say.

    from tl_scopes import tasks

    example = tasks.examples("retrieval", 1)[0]
    example.prompt, example.answer, [example.prompt[slice(*swap.span)] for swap in example.causes]
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Example, Swap
from tl_scopes.numerics.arguments import Seed, integer, public_call
from tl_scopes.tasks import (
    agreement,
    chains,
    copying,
    coreference,
    few_shot,
    hint,
    indirect_object,
    injection,
    retrieval,
    translation,
)
from tl_scopes.tasks.text import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        copying.TASK,
        retrieval.TASK,
        *chains.TASKS,
        agreement.TASK,
        indirect_object.TASK,
        coreference.TASK,
        translation.TASK,
        few_shot.TASK,
        hint.TASK,
        injection.TASK,
    )
}
MOST_DRAWN = 1000
"""Draws in a row that may be prompts already seen."""


@public_call
def examples(name: str, n: int, seed: Seed = 0, *, length: int | None = None) -> list[Example]:
    """Different prompts of a task with their answers and causes, the same on every machine.

    The first of ``n`` examples are those of a smaller ``n``.

    Args:
        name: of the task, in ``TASKS``.
        n: number of examples.
        seed: of the examples; the global random state is not used.
        length: what stands between the first cause and the end of the prompt, in the task's ``unit``; None takes the task's
            ``lengths`` in turn. The distance in words is each example's ``distance``.

    Returns:
        Examples, whose ``causes`` and ``others`` are swaps of characters of ``prompt``.

    Raises:
        ValueError: an unknown task; n below 1; a length that the task has no words for; more examples than there are.

    >>> from tl_scopes import tasks
    >>> example = tasks.examples("indirect_object", 1)[0]
    >>> example.prompt[slice(*example.causes[0].span)] == example.answer.strip()
    True
    """
    if name not in TASKS:
        raise ValueError(f"(name={name!r}): unknown; the tasks are {list(TASKS)}")
    integer("n", n, least=1)
    task = TASKS[name]
    if length is not None and not task.least <= length <= task.most:
        raise ValueError(f"(length={length}): {name!r} has {task.least} to {task.most} {task.unit}")
    lengths = task.lengths if length is None else (length,)
    rng = random.Random(f"{name}/{length}/{seed}")
    found: dict[str, Example] = {}
    drawn = 0
    while len(found) < n:
        example = task.make(rng, lengths[len(found) % len(lengths)])
        drawn = drawn + 1 if example.prompt in found else 0
        if drawn > MOST_DRAWN:
            raise ValueError(f"(n={n}): {name!r} has about {len(found)} different examples of that length")
        found.setdefault(example.prompt, example)
    return list(found.values())


__all__ = ["TASKS", "Example", "Swap", "Task", "examples"]
