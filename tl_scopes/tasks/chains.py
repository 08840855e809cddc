"""Variable chains: a value is given to one name, and handed on from name to name; the last one is asked for.

    Anna chose red. Ben chose blue. Carl chose the same as Anna. Dora chose the same as Ben. Carl chose -> red

Two hops lead from the asked name to the value here (Carl, Anna, red); with three there is one more name between. A rival
chain of the same form runs beside it. Causes: the value, each name on the right of a link, and the name in the question:
each of them changed for the rival's gives the rival's value. A solved chain stands in front.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from tl_scopes.demo.corpora.passages import Example, Span
from tl_scopes.tasks.text import Task, Text, as_list, deck
from tl_scopes.tasks.words import COLOURS, NAMES

LETTERS = as_list("b c d e f g h j k l m n p q r s t u v w x y z")
ANIMALS = as_list("""
    dog cat horse wolf fox mouse goat sheep pig frog tiger lion rabbit camel monkey donkey turtle snake spider whale
    dolphin zebra giraffe squirrel beaver badger hamster parrot falcon penguin
""")


@dataclass(frozen=True)
class Statements:
    """How a value is given, handed on and asked for, and of which words."""

    given: str
    link: str
    question: str
    names: list[str]
    values: list[str]


FORMS = {
    "colours": Statements(
        "{name} chose {word}.", "{name} chose the same as {word}.", "So {name} chose the colour", NAMES, COLOURS
    ),
    "animals": Statements(
        "{name} drew a {word}.", "{name} drew the same as {word}.", "So {name} drew a", NAMES, ANIMALS
    ),
    "letters": Statements(
        "Let {name} be {word}.", "Let {name} equal {word}.", "The value of {name} is", LETTERS, COLOURS
    ),
}


def make(rng: random.Random, length: int, *, hops: int) -> Example:
    """A chain and its rival, link by link in a random order; ``length`` further values after them."""
    form = rng.choice(sorted(FORMS))
    said = FORMS[form]
    names, values = deck(rng, said.names), deck(rng, said.values)
    text = Text(rng)
    _solved(text, said, [next(names) for _ in range(hops)], next(values))
    start = len(text.text) + 1

    chains = [[next(names) for _ in range(hops)] for _ in range(2)]
    value, rival_value, spare = next(values), next(values), next(values)
    spans: list[list[Span]] = [[], []]
    for step in range(hops):
        for which in rng.sample((0, 1), 2):
            name = chains[which][step]
            if step:
                stated = text.write(f" {said.link}", name=name, word=chains[which][step - 1])
            else:
                stated = text.write(f" {said.given}", name=name, word=(rival_value, next(values)) if which else value)
            spans[which].append(stated["word"])
    for _ in range(length):
        text.write(f" {said.given}", name=(next(names), next(names)), word=(next(values), next(values)))
    source = (start, len(text.text))
    asked = text.write(f" {said.question}", name=chains[0][-1])["name"]

    given, *links = spans[0]
    causes = [(given, spare, spare)]
    causes += [(span, other, rival_value) for span, other in zip([*links, asked], chains[1], strict=True)]
    return text.example(f"chain_{hops}", form, value, source, causes)


def _solved(text: Text, said: Statements, names: list[str], value: str) -> None:
    """A chain of the same form with its answer."""
    text.write(said.given, name=names[0], word=value)
    for word, name in pairwise(names):
        text.write(f" {said.link}", name=name, word=word)
    text.write(f" {said.question} {{value}}.", name=names[-1], value=value)


def _task(hops: int) -> Task:
    """The task of so many hops."""
    fewest = min(len(said.names) for said in FORMS.values())
    return Task(
        f"chain_{hops}",
        f"a value handed on from name to name: which has the last? It is {hops} hops away",
        partial(make, hops=hops),
        lengths=(1, 2, 4),
        unit="further values",
        least=1,
        most=(fewest - 3 * hops) // 2,
        forms=tuple(sorted(FORMS)),
    )


TASKS = (_task(2), _task(3))
