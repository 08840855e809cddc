"""A few-shot mapping: words with labels, one of each kind; the last word has the label of its kind.

    small apple -> north; old dog -> silver; red hammer -> left; dry apple -> north; young dog -> silver
    apple -> north; dog -> silver; hammer -> left; pear -> north; cow -> silver

Labels mean nothing, so a single example decides: the one of the same thing, or of the same kind of thing. Another kind comes
twice, which shows how it goes. Causes: the deciding label, and the last word.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.tasks.text import Task, Text, as_list, deck

NAME = "few_shot"
KINDS = {
    "animal": """
        dog cow horse sheep pig goat wolf fox tiger lion rabbit camel monkey donkey zebra giraffe squirrel bear
        mouse elephant""",
    "fruit": """
        apple pear peach cherry banana grape mango lemon melon plum strawberry pineapple papaya kiwi coconut apricot
        raspberry blueberry lime fig""",
    "tool": """
        hammer saw drill wrench screwdriver shovel rake chisel pliers axe hoe spade sander crowbar mallet
        ladder trowel scissors knife toolbox""",
    "clothing": """
        shirt jacket trousers sweater skirt coat socks gloves hat scarf dress blouse shorts jeans boots
        sandals belt tie vest pajamas""",
    "vehicle": """
        car truck bus train bicycle motorcycle van tram boat ship ferry airplane helicopter scooter taxi tractor
        canoe yacht submarine jeep""",
    "instrument": """
        piano guitar violin flute trumpet drum cello clarinet harp saxophone banjo trombone oboe accordion
        tuba bassoon ukulele harmonica viola mandolin""",
    "country": """
        France Spain Italy Germany Japan China India Brazil Canada Mexico Egypt Kenya Norway Sweden Poland Greece
        Turkey Peru Chile Cuba""",
    "job": """
        doctor teacher nurse lawyer farmer baker plumber carpenter engineer pilot chef butcher dentist
        electrician mechanic journalist soldier firefighter accountant librarian""",
    "body": """
        arm leg knee elbow shoulder finger thumb ankle wrist chin ear nose foot toe hip neck mouth eye
        stomach forehead""",
}
WORDS = {kind: words.split() for kind, words in KINDS.items()}
LOOKS = as_list("""
    old young small big new cheap strange pretty clean dirty dark bright heavy light round long short broken wet dry
    soft hard warm cold rare common famous quiet loud painted striped spotted
""")
LABELS = as_list("""
    red blue green yellow black white purple orange brown pink grey silver gold north south east west up down left
    right inside outside first second third
""")
FORMS = {  # an example, the question, and whether one thing is a kind of its own
    "arrows": ("{word} -> {label}; ", "{word} ->", False),
    "lines": ("Input: {word}\nOutput: {label}\n", "Input: {word}\nOutput:", False),
    "same thing, arrows": ("{word} -> {label}; ", "{word} ->", True),
    "same thing, lines": ("Input: {word}\nOutput: {label}\n", "Input: {word}\nOutput:", True),
    "same thing, groups": ("The {word} is in group {label}. ", "The {word} is in group", True),
}
MOST_BEFORE = 2


def make(rng: random.Random, length: int) -> Example:
    """Examples of different kinds, ``length`` of them after the deciding one."""
    form = rng.choice(sorted(FORMS))
    shown, asked, same = FORMS[form]
    decides = rng.randint(1, MOST_BEFORE)
    kinds, labels, looks = rng.sample(sorted(WORDS), decides + 1 + length), deck(rng, LABELS), deck(rng, LOOKS)
    members = {kind: deck(rng, WORDS[kind]) for kind in kinds}
    things = {kind: next(members[kind]) for kind in kinds}
    given = [next(labels) for _ in kinds]
    rivals = [i for i in range(len(kinds)) if i != decides]
    rival, twice = rng.choice(rivals), rng.choice(rivals)

    def member(i: int) -> str:
        return f"{next(looks)} {things[kinds[i]]}" if same else next(members[kinds[i]])

    text = Text(rng)
    spans = []
    for i in (*range(len(kinds)), twice):
        label = given[i] if i in (decides, twice) else (given[i], next(labels))
        spans.append(text.write(shown, word=(member(i), member(i)), label=label))
    source = (0, len(text.text.rstrip()))
    query = text.write(asked, word=member(decides))["word"]
    other = next(labels)
    causes = [(spans[decides]["label"], other, other), (query, member(rival), given[rival])]
    return text.example(NAME, form, given[decides], source, causes)


TASK = Task(
    NAME,
    "words with labels that mean nothing, one of each kind: which label has another one of a kind?",
    make,
    lengths=(0, 1, 2, 3),
    unit="examples",
    least=0,
    most=len(KINDS) - MOST_BEFORE - 1,
    forms=tuple(sorted(FORMS)),
)
