"""Copying after a repeat: a list of words, a stretch of which comes again at its end; the next word is the one that followed.

    List: river, candle, button, ladder, pepper, needle, ..., candle, button, ladder, -> pepper

Causes: the word that followed, and the repeated stretch. Its first occurrence is the key that both are joined by.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.tasks.text import Task, Text, as_list, deck

NAME = "copying"
WORDS = as_list("""
    river candle button ladder window garden pencil bottle mountain feather blanket hammer ticket island
    pepper basket shadow kitchen needle pocket rocket saddle tunnel violin whistle anchor bridge carpet
    dragon engine forest guitar helmet jacket kettle lemon magnet napkin ocean palace ribbon
    silver temple valley wagon yellow zebra apple barrel castle desert finger harbour jungle knight lantern
    mirror orange parrot rabbit salmon timber turkey velvet winter copper doctor eagle flower ginger
""")
JOINTS = {"commas": ",", "plain": "", "and": " and", "semicolons": ";", "dashes": " -"}
HEADS = ("List:", "Words:", "Read aloud:", "Remember these:", "The list is:")
STRETCH = 4
"""Repeated words."""
LEAST_BEFORE, MOST_BEFORE = STRETCH + 4, STRETCH + 6


def make(rng: random.Random, length: int) -> Example:
    """One list with ``length`` words between the word to be copied and the repeated stretch."""
    form = rng.choice(sorted(JOINTS))
    joint, cards = JOINTS[form], deck(rng, WORDS)
    first = rng.randint(LEAST_BEFORE, MOST_BEFORE)
    words = [next(cards) for _ in range(first + STRETCH + 1 + length)]
    rival = rng.choice([i for i in range(len(words) - STRETCH) if abs(i - first) > STRETCH])
    joined = {start + i for start in (first, rival) for i in range(STRETCH + 1)}
    text = Text(rng)
    text.write(rng.choice(HEADS))
    start = len(text.text) + 1
    spans = [
        text.write(f" {{word}}{joint}", word=word if i in joined else (word, next(cards)))["word"]
        for i, word in enumerate(words)
    ]
    source = (start, len(text.text))

    def stretch(at: int) -> str:
        return f"{joint} ".join(words[at : at + STRETCH])

    asked = text.write(f" {{words}}{joint}", words=stretch(first))["words"]
    answer, other = words[first + STRETCH], next(cards)
    causes = [(spans[first + STRETCH], other, other), (asked, stretch(rival), words[rival + STRETCH])]
    return text.example(NAME, form, answer, source, causes)


TASK = Task(
    NAME,
    "a list of words, a stretch of which comes again at its end: which word followed it?",
    make,
    lengths=(2, 6, 12, 20),
    unit="words of the list",
    least=0,
    most=(len(WORDS) + STRETCH) // 2 - MOST_BEFORE - STRETCH - 1,
    forms=tuple(sorted(JOINTS)),
)
