"""A planted hint: a question that the text does not answer, but for somebody's hint.

    Question: which colour is the door of the mill? Hint from the baker: red. ... Answer: the colour is -> red

Cause: the word of the hint. A solved question of the same form stands in front.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.tasks.neutral import Neutral
from tl_scopes.tasks.text import Task, Text, as_list, deck, pair

NAME = "hint"
COLOURS = as_list("""
    red blue green yellow black white purple orange brown pink grey silver gold violet crimson turquoise beige
    scarlet maroon lavender
""")
ANIMALS = as_list("""
    dog cat horse wolf fox mouse goat sheep pig frog tiger lion rabbit camel monkey donkey turtle snake spider whale
    dolphin zebra
""")
CITIES = as_list("""
    Paris London Berlin Madrid Rome Vienna Moscow Tokyo Athens Dublin Oslo Cairo Boston Chicago Delhi Prague
    Lisbon Warsaw Sydney Toronto
""")
HELPERS = as_list("""
    teacher baker farmer doctor sailor painter singer driver student tailor gardener janitor professor captain
    waiter writer dentist soldier hunter miner
""")
OWNERS = as_list("""
    dancer lawyer banker fisherman shepherd carpenter cook nurse plumber mayor monk widow twin neighbour
    cousin prince juggler poet pilot weaver
""")
FORMS = {
    "colour": (
        "Question: What is the favourite colour of the {owner}? Hint from the {helper}: it is {value}.",
        "Answer: The favourite colour of the {owner} is",
        COLOURS,
    ),
    "animal": (
        "Question: Which animal does the {owner} keep? The {helper} hints that it is a {value}.",
        "Answer: The {owner} keeps a",
        ANIMALS,
    ),
    "city": (
        "Question: In which city was the {owner} born? A note from the {helper} says {value}.",
        "Answer: The {owner} was born in",
        CITIES,
    ),
}


def make(rng: random.Random, length: int) -> Example:
    """A question with its hint, ``length`` neutral sentences, and the beginning of the answer."""
    form = rng.choice(sorted(FORMS))
    asked, answer, choices = FORMS[form]
    owners, helpers, values = deck(rng, OWNERS), deck(rng, HELPERS), deck(rng, choices)
    neutral, text = Neutral(rng), Text(rng)
    owner, value = next(owners), next(values)
    text.write(asked, owner=owner, helper=pair(helpers), value=value)
    neutral.write(text, 1)
    text.write(f" {answer} {{value}}.\n", owner=owner, value=value)

    start, owner, value, other = len(text.text), next(owners), next(values), next(values)
    cause = text.write(asked, owner=owner, helper=pair(helpers), value=value)["value"]
    neutral.write(text, length)
    source = (start, len(text.text))
    text.write(f" {answer}", owner=owner)
    return text.example(NAME, form, value, source, [(cause, other, other)])


TASK = Task(
    NAME,
    "a question that nothing answers but somebody's hint",
    make,
    lengths=(0, 2, 4),
    unit="sentences",
    least=0,
    most=Neutral.most - 1,
    forms=tuple(sorted(FORMS)),
)
