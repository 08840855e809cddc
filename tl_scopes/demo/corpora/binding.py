"""Who lives where, among distractors.

    Facts: Anna lives in Paris. Mia likes tea. Tom lives in Rome. Where does Tom live? In -> Rome

Causes: the place in the matching sentence, and the name in the question; either swap flips the answer. The
name in the matching sentence is the key that both are joined by: without it the question has no answer, so it
is neither a cause nor an "other" word. The name appears once in the question on purpose: two mentions could
disagree after a swap.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Span, Split, Swap, is_held_out

FIRST_NAMES = """
    Anna Tom Mia Paul Lena Max Clara Hugo Nina Oscar Ruth Felix Ida Victor Sara Leo Emma Jonas Vera Karl
"""
CITIES = """
    Paris Rome Oslo Cairo Lima Tokyo Berlin Madrid Delhi Boston Vienna Prague Dublin Athens Havana Seoul Quito
    Milan Zurich Lagos
"""
NAMES, PLACES = FIRST_NAMES.split(), CITIES.split()
LIKES = ["tea", "bread", "music", "chess", "snow", "cheese", "rain", "coffee", "gold", "silk"]


def binding(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """One passage of 2 to ``4 + 2 * level`` people; the first question is the example."""
    n_people = rng.randint(2, 4 + round(2 * level))
    names = rng.sample(NAMES, n_people)
    places = rng.sample(PLACES, n_people)
    asked = rng.randrange(n_people)
    held_out = [is_held_out("binding", name, place) for name, place in zip(names, places, strict=True)]
    if (split == "held_out" and not held_out[asked]) or (split == "train" and any(held_out)):
        return binding(rng, split, level)

    draft = Draft("Facts:")
    spare_name = rng.choice([name for name in NAMES if name not in names])
    spare_place = rng.choice([place for place in PLACES if place not in places])
    answer = f" {places[asked]}"
    place_spans: list[Span] = []
    others: list[Swap] = []
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        if rng.random() < 0.25 * level:
            fan, liked, instead = rng.choice(names), *rng.sample(LIKES, 2)
            fan_span = draft.add(f" {fan}")
            draft.add(" likes")
            others += [Swap(fan_span, spare_name, answer), Swap(draft.add(f" {liked}"), instead, answer)]
            draft.add(".")
        name_span = draft.add(f" {name}")
        draft.add(" lives in")
        place_spans.append(draft.add(f" {place}"))
        draft.add(".")
        if index != asked:
            others += [Swap(name_span, spare_name, answer), Swap(place_spans[-1], spare_place, answer)]
    source = (len("Facts: "), len(draft.text))

    targets: list[Span] = []
    example: Example | None = None
    rivals = [person for person in range(n_people) if person != asked]
    for person in [asked, *rng.sample(rivals, rng.randint(len(rivals) // 2, len(rivals)))]:
        draft.add(" Where does")
        query = draft.add(f" {names[person]}")
        draft.add(" live? In")
        if example is None:
            rival = rng.choice(rivals)
            causes = (
                Swap(place_spans[asked], spare_place, f" {spare_place}"),
                Swap(query, names[rival], f" {places[rival]}"),
            )
            example = Example("binding", "place", draft.text, answer, source, causes, tuple(others))
        targets.append(draft.add(f" {places[person]}"))
        draft.add(".")
    assert example is not None
    return Passage("binding", draft.text, tuple(targets), (example,))
