"""Gendered coreference: the pronoun has the gender of the person.

    Susan opened the window and felt tired. The heavy table stood near the mill. Then -> she

Cause: the person, by name or by kinship. Two finished texts of the same form stand in front, one about a woman, one about a
man.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Example, Span
from tl_scopes.tasks.neutral import Neutral
from tl_scopes.tasks.text import Task, Text, as_list, deck, pair

NAME = "coreference"
PRONOUNS = ("she", "he")
WOMEN = as_list("""
    Mary Anna Susan Laura Emma Sarah Alice Jane Julia Linda Karen Nancy Lisa Helen Ruth Diana Rose Kate Clara Grace
    Emily Barbara Margaret Elizabeth
""")
MEN = as_list("""
    John Tom James Paul David Mark Peter Robert Michael Kevin Daniel Steven Brian George Edward Frank Henry Jack Simon
    Martin William Richard Charles Thomas
""")
FEMALE = as_list("mother sister aunt grandmother daughter niece wife girlfriend")
MALE = as_list("father brother uncle grandfather son nephew husband boyfriend")
DID = as_list("""
    opened closed cleaned painted bought sold moved found lost dropped fixed washed carried hid broke repaired
    borrowed polished covered lifted
""")
THINGS = as_list("""
    window door box letter car picture bicycle chair gate piano jar tablecloth vase clock sofa fridge kite sword flag
    trumpet
""")
FEELINGS = as_list("tired angry happy nervous hungry bored worried calm cheerful busy excited sleepy thirsty sad proud")


FORMS = {
    "name": ("{person} {did} the {thing} and felt {feeling}.", "Then", (WOMEN, MEN)),
    "later": ("Last night {person} {did} the {thing}, {feeling} as always.", "When it was over,", (WOMEN, MEN)),
    "kin": ("My {person} {did} the {thing} and was {feeling}.", "After that,", (FEMALE, MALE)),
}
WENT = ("went home", "went away", "fell asleep", "sat down", "left")


def make(rng: random.Random, length: int) -> Example:
    """A sentence about a person, ``length`` neutral ones, and the beginning of another about the same person."""
    form = rng.choice(sorted(FORMS))
    told, going_on, words = FORMS[form]
    people = [deck(rng, of_gender) for of_gender in words]
    did, things, feelings = deck(rng, DID), deck(rng, THINGS), deck(rng, FEELINGS)
    neutral, text, ends = Neutral(rng), Text(rng), deck(rng, WENT)

    def tell(gender: int) -> Span:
        person = next(people[gender])
        return text.write(told, person=person, did=pair(did), thing=pair(things), feeling=pair(feelings))["person"]

    for gender in rng.sample((0, 1), 2):
        tell(gender)
        neutral.write(text, 1)
        text.write(f" {going_on} {PRONOUNS[gender]} {next(ends)}. ")
    start, gender = len(text.text), rng.randrange(2)
    cause = tell(gender)
    neutral.write(text, length)
    source = (start, len(text.text))
    text.write(f" {going_on}")
    causes = [(cause, next(people[1 - gender]), PRONOUNS[1 - gender])]
    return text.example(NAME, form, PRONOUNS[gender], source, causes)


TASK = Task(
    NAME,
    "a sentence about a person, and the beginning of another: she or he?",
    make,
    lengths=(0, 1, 2),
    unit="sentences",
    least=0,
    most=Neutral.most - 2,
    forms=tuple(sorted(FORMS)),
)
