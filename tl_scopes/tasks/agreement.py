"""Agreement with an attractor: the verb has the number of the subject, whatever stands between them.

    The girl near the fences is here. The cups by the road are here. The key behind the cabinets -> is

Cause: the subject. Every noun between it and the verb has the other number. Two finished sentences stand in front.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.tasks.text import Task, Text, as_list, deck

NAME = "agreement"
SUBJECTS = as_list("""
    key cup girl boy lamp book chair letter picture bottle plate shirt coat ticket coin painting teacher farmer
    driver doctor actor singer painter pilot spoon candle pillow photo pencil guitar basket toy
""")
ATTRACTORS = as_list("""
    cabinet road fence door table garden river house tree wall window school bridge tower station market park
    field hotel castle farm shop theatre museum mountain island village statue boat train car truck
""")
PREPOSITIONS = as_list("near behind beside by above below")
FORMS = {  # singular verb, plural verb, the rest of a finished sentence
    "now": ("is", "are", "here"),
    "then": ("was", "were", "there"),
    "left": ("has", "have", "disappeared"),
}


def make(rng: random.Random, length: int) -> Example:
    """One sentence up to its verb, with ``length`` attractors, after two finished ones."""
    form = rng.choice(sorted(FORMS))
    subjects, attractors = deck(rng, SUBJECTS), deck(rng, ATTRACTORS)
    text = Text(rng)
    for plural in rng.sample((False, True), 2):
        text.write("The {subject}", subject=_two(subjects, plural))
        text.write(f" {rng.choice(PREPOSITIONS)} the {{noun}}", noun=_two(attractors, not plural))
        text.write(f" {FORMS[form][plural]} {FORMS[form][2]}. ")
    start, plural, subject = len(text.text), rng.random() < 0.5, next(subjects)
    cause = text.write("The {subject}", subject=_noun(subject, plural))["subject"]
    for _ in range(length):
        text.write(f" {rng.choice(PREPOSITIONS)} the {{noun}}", noun=_two(attractors, not plural))
    causes = [(cause, _noun(subject, not plural), FORMS[form][not plural])]
    return text.example(NAME, form, FORMS[form][plural], (start, len(text.text)), causes)


def _noun(noun: str, plural: bool) -> str:
    """In its number."""
    return f"{noun}s" if plural else noun


def _two(nouns: Iterator[str], plural: bool) -> tuple[str, str]:
    """A noun and another of the same number."""
    return _noun(next(nouns), plural), _noun(next(nouns), plural)


TASK = Task(
    NAME,
    "a sentence up to its verb, whose number is the subject's; every noun between them has the other number",
    make,
    lengths=(1, 2, 3),
    unit="nouns of the other number",
    least=1,
    most=len(ATTRACTORS) // 2 - 2,
    forms=tuple(sorted(FORMS)),
)
