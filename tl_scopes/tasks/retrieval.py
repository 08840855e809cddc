"""Key–value retrieval: facts of one kind, and a question about one of them.

    Rosa likes pears. Tina likes soup. Frank likes plums. In short, Tina likes soup. In short, Rosa likes -> pears

Causes: the value that stands with the asked key, and the key in the question. The key in the fact joins them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.tasks.text import Task, Text, as_list, deck
from tl_scopes.tasks.words import COLOURS, NAMES

NAME = "retrieval"
OBJECTS = as_list("""
    lamp coat book letter medal camera wallet guitar compass notebook trophy umbrella radio watch helmet jacket
    necklace puppet shield whistle bracelet telescope typewriter calendar hat scarf teapot pistol
    magazine passport photograph violin trumpet ring mask flute sword crown diary globe
""")
ROOMS = as_list("""
    cellar attic kitchen garage garden bedroom hallway office bathroom closet pantry barn workshop library
    shed basement chapel studio laundry stable nursery lobby gallery corridor greenhouse tower
    ballroom classroom elevator warehouse cabin tent theatre parlour vault archive balcony chimney
    courtyard lounge
""")
FOODS = as_list("""
    apples bread cheese carrots pears honey soup rice plums cherries mushrooms pasta salad beans olives
    potatoes grapes peaches walnuts butter salmon chicken lemons onions pancakes cookies chocolate yogurt
    spinach tomatoes bananas popcorn oranges pickles noodles garlic celery almonds raisins pudding
""")


@dataclass(frozen=True)
class Facts:
    """How facts of one kind are stated and asked for, and of which words."""

    fact: str
    question: str
    keys: list[str]
    values: list[str]


FORMS = {
    "places": Facts("The {key} is in the {value}.", "Remember: the {key} is in the", OBJECTS, ROOMS),
    "foods": Facts("{key} likes {value}.", "In short, {key} likes", NAMES, FOODS),
    "tickets": Facts("The ticket of {key} is {value}.", "Again, the ticket of {key} is", NAMES, COLOURS),
    "table": Facts("{key} = {value};", "{key} =", OBJECTS, ROOMS),
}
MOST_BEFORE = 2


def make(rng: random.Random, length: int) -> Example:
    """Facts of one kind, ``length`` of them after the one that is asked for; then a solved question about another."""
    form = rng.choice(sorted(FORMS))
    facts, asked = FORMS[form], rng.randint(1, MOST_BEFORE)
    keys, values = deck(rng, facts.keys), deck(rng, facts.values)
    stated = [(next(keys), next(values)) for _ in range(asked + 1 + length)]
    solved, rival = rng.sample([i for i in range(len(stated)) if i != asked], 2)
    text = Text(rng)
    spans = []
    for i, (key, value) in enumerate(stated):
        stays = i in (asked, solved)
        spans.append(
            text.write(
                f"{' ' * bool(i)}{facts.fact}",
                key=key if stays else (key, next(keys)),
                value=value if stays else (value, next(values)),
            )
        )
    source = (0, len(text.text))
    end = facts.fact[-1]
    text.write(f" {facts.question} {{value}}{end}", key=stated[solved][0], value=stated[solved][1])
    key, value = stated[asked]
    query = text.write(f" {facts.question}", key=key)["key"]
    other = next(values)
    causes = [(spans[asked]["value"], other, other), (query, *stated[rival])]
    return text.example(NAME, form, value, source, causes)


TASK = Task(
    NAME,
    "facts of one kind, and a question about one of them, after a solved one",
    make,
    lengths=(2, 4, 7, 10),
    unit="facts",
    least=2,
    most=min(len(words) for f in FORMS.values() for words in (f.keys, f.values)) // 2 - MOST_BEFORE - 1,
    forms=tuple(sorted(FORMS)),
)
