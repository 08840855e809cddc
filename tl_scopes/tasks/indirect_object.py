"""Indirect object: two people, one of whom gives the other something.

    When Mary and John met at the station, John gave a guitar to -> Mary

Causes: the person who is named once, and the giver's second name: swapped for the other person's, the giver receives.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.tasks.neutral import Neutral
from tl_scopes.tasks.text import Task, Text, as_list, deck, pair

NAME = "indirect_object"
PEOPLE = as_list("""
    Mary John Tom Anna James Susan Paul Laura David Emma Mark Sarah Peter Alice Robert Jane Michael Julia Kevin
    Linda Daniel Karen Steven Nancy Brian Lisa George Helen Edward Ruth Frank Diana Henry Rose Jack Kate Simon
    Clara Martin Grace
""")
PLACES = as_list("""
    station market library museum beach office school theatre restaurant hospital airport garden stadium bakery
    hotel lake zoo church cinema farm
""")
GIFTS = as_list("""
    guitar book ring letter camera ticket map flower bottle basket present watch necklace painting puppy kite
    drum scarf hat cake
""")
WEATHER = as_list(
    "cold warm windy rainy sunny foggy snowy stormy cloudy dry humid chilly hot mild dull bright wet cool"
)
FORMS = {
    "met": ("On a {weather} day, {one} and {two} met at the {place}.", "Then {giver} gave a {gift} to"),
    "went": ("When {one} and {two} went to the {place}, the air was {weather}.", "{giver} handed a {gift} to"),
    "talked": ("It was {weather} when {one} and {two} talked at the {place}.", "Later, {giver} sent a {gift} to"),
    "worked": ("{one} and {two} worked at the {place} on a {weather} day.", "Afterwards {giver} offered a {gift} to"),
}


def make(rng: random.Random, length: int) -> Example:
    """A sentence with two people, ``length`` neutral ones, and the giving."""
    form = rng.choice(sorted(FORMS))
    scene, giving = FORMS[form]
    people = deck(rng, PEOPLE)
    receiver, giver, other = (next(people) for _ in range(3))
    first = rng.random() < 0.5
    text = Text(rng)
    spans = text.write(
        scene,
        one=receiver if first else giver,
        two=giver if first else receiver,
        place=pair(deck(rng, PLACES)),
        weather=pair(deck(rng, WEATHER)),
    )
    Neutral(rng).write(text, length)
    source = (0, len(text.text))
    asked = text.write(f" {giving}", giver=giver, gift=pair(deck(rng, GIFTS)))["giver"]
    causes = [(spans["one" if first else "two"], other, other), (asked, receiver, giver)]
    return text.example(NAME, form, receiver, source, causes)


TASK = Task(
    NAME,
    "two people, one of whom gives the other something: to whom?",
    make,
    lengths=(0, 1, 2),
    unit="sentences",
    least=0,
    most=Neutral.most,
    forms=tuple(sorted(FORMS)),
)
