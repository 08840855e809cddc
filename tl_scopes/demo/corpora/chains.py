"""Chains whose intermediate results are written out: of two hops, and of three.

    In winter, near the street, Anna sees a fox, Tom sees a bird, Mia sees a frog. I know that Tom sees a
        -> bird that holds a key
    In winter, near the street, Anna hears a fox, Tom hears a bird, Mia hears a frog. I know that Tom hears a
        -> bird that finds a key in the castle

Who sees what is told by the prompt and different every time; which animal has which thing, and which thing lies where, is
known once and for all (`THING_OF`, `PLACE_OF`). So the last word rests on the word written before it, that one on
the word before, and only the first on the prompt: the prompt's cause reaches the answer through the written text alone.

Each written word is an example. Causes of the first: the animal in the queried person's statement, and the name in the
question. Of the later ones: the word written before; then the prompt's animal and name are others, whose swap changes
nothing as long as the written text is held. `whole` makes of a first word's example that of the whole chain, whose causes
change all that is written.

In training some questions slip: an animal is written that the person did not see, and the text goes on from there. Who
learns from them goes by what is written, and not by the prompt.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tl_scopes.demo.corpora.binding import NAMES, SEASONS
from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Span, Split, Swap, in_split

THING_OF = {
    "dog": "hat",
    "cat": "bell",
    "horse": "letter",
    "bird": "key",
    "cow": "flower",
    "wolf": "stone",
    "fox": "book",
    "mouse": "shoe",
    "goat": "scarf",
    "frog": "boat",
}
PLACE_OF = {
    "hat": "attic",
    "bell": "tower",
    "letter": "library",
    "key": "castle",
    "flower": "garden",
    "stone": "valley",
    "book": "cellar",
    "shoe": "kitchen",
    "scarf": "ballroom",
    "boat": "forest",
}
ANIMALS = sorted(THING_OF)
SCENES = ["street", "house", "home", "door"]
ACTS = {"chain_2": "sees", "chain_3": "hears"}
LINKS = {"chain_2": ("", " that holds a"), "chain_3": ("", " that finds a", " in the")}
"""What is written before each word of a chain."""
SLOTS = ("animal", "thing", "place")
SLIP_RATE = 0.25  # of the questions in training


@dataclass(frozen=True)
class Told:
    """People, each with an animal; one is asked for, another is the rival; and words that the passage does not have."""

    names: list[str]
    animals: list[str]
    asked: int
    rival: int
    spare_name: str
    spare: str


def words_of(animal: str) -> tuple[str, str, str]:
    """An animal, its thing, and the thing's place."""
    thing = THING_OF[animal]
    return animal, thing, PLACE_OF[thing]


def written(corpus: str, animal: str) -> str:
    """All that follows a prompt whose person has this animal."""
    return "".join(f"{link} {word}" for link, word in zip(LINKS[corpus], words_of(animal), strict=False))


def whole(example: Example) -> Example:
    """The example of the whole chain, from its first word's: its answers are all that is written."""

    def gone_on(swaps: tuple[Swap, ...]) -> tuple[Swap, ...]:
        return tuple(replace(swap, answer=written(example.corpus, swap.answer.strip())) for swap in swaps)

    answer = written(example.corpus, example.answer.strip())
    return replace(example, answer=answer, causes=gone_on(example.causes), others=gone_on(example.others))


def chain(rng: random.Random, split: Split, level: float, *, corpus: str) -> Passage:
    """One passage of 2 to ``4 + 2 * level`` people; the words of the first question are the examples."""
    n_people = rng.randint(2, 4 + round(2 * level))
    names, animals = rng.sample(NAMES, n_people), rng.sample(ANIMALS, n_people)
    asked, rival, *more = rng.sample(range(n_people), n_people)
    if not in_split(corpus, split, list(zip(names, animals, strict=True)), asked):
        return chain(rng, split, level, corpus=corpus)
    spare_name = rng.choice([name for name in NAMES if name not in names])
    spare = rng.choice([animal for animal in ANIMALS if animal not in animals])
    told = Told(names, animals, asked, rival, spare_name, spare)

    draft = Draft("In")
    first = _first(draft, rng, corpus, told)
    targets: list[Span] = []
    examples: tuple[Example, ...] = ()
    for person in [asked, *[rival, *more][: rng.randint(1, 4)]]:
        slips = split == "train" and rng.random() < SLIP_RATE
        animal = rng.choice(ANIMALS) if slips else animals[person]
        draft.add(" I know that")
        query = draft.add(f" {names[person]}")
        draft.add(f" {ACTS[corpus]} a")
        if person == asked and not slips:
            causes = (*first.causes, Swap(query, names[rival], f" {animals[rival]}"))
            examples = _steps(replace(first, prompt=draft.text, causes=causes))
        start, end = draft.add(written(corpus, animal))
        targets.append((start + len(animal) + 1 if slips else start, end))
        draft.add(".")
    return Passage(corpus, draft.text, tuple(targets), examples)


def _first(draft: Draft, rng: random.Random, corpus: str, told: Told) -> Example:
    """Write who sees what; the example of the first word as far as that decides it."""
    answer = f" {told.animals[told.asked]}"
    (season, other_season), (scene, other_scene) = rng.sample(SEASONS, 2), rng.sample(SCENES, 2)
    others = [Swap(draft.add(f" {season}"), other_season, answer)]
    draft.add(", near the")
    others.append(Swap(draft.add(f" {scene}"), other_scene, answer))
    draft.add(",")
    start = len(draft.text) + 1
    causes: tuple[Swap, ...] = ()
    for index, (name, animal) in enumerate(zip(told.names, told.animals, strict=True)):
        name_span = draft.add(f" {name}")
        draft.add(f" {ACTS[corpus]} a")
        animal_span = draft.add(f" {animal}")
        draft.add("." if index == len(told.names) - 1 else ",")
        if index == told.asked:
            causes = (Swap(animal_span, told.spare, f" {told.spare}"),)
        else:
            others += [Swap(name_span, told.spare_name, answer), Swap(animal_span, told.spare, answer)]
    return Example(corpus, SLOTS[0], draft.text, answer, (start, len(draft.text)), causes, tuple(others))


def _steps(first: Example) -> tuple[Example, ...]:
    """The example of each word of a chain, from the first word's."""
    words, turned = words_of(first.answer.strip()), words_of(first.causes[0].answer.strip())
    examples, draft = [first], Draft(first.prompt)
    last = draft.add(first.answer)
    held = (*first.causes, *first.others)
    for step, link in enumerate(LINKS[first.corpus][1:], start=1):
        draft.add(link)
        answer = f" {words[step]}"
        causes = (Swap(last, turned[step - 1], f" {turned[step]}"),)
        others = tuple(replace(swap, answer=answer) for swap in held)
        source = (len(first.prompt) + 1, len(draft.text))
        examples.append(Example(first.corpus, SLOTS[step], draft.text, answer, source, causes, others))
        last = draft.add(answer)
    return tuple(examples)
