"""Who lives where, among distractors, and a question about one of them.

    In winter, Anna lives in Paris, Tom lives in Rome, Mia lives in Oslo. The home of Tom is -> Rome

Causes: the place where the queried person lives, and the name in the question; either swap flips the answer. The name
in the statement is the key that both are joined by: without it the question has no answer, so it is neither a cause nor
an "other" word.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Span, Split, Swap, in_split

FIRST_NAMES = """
    Anna Tom Mia Paul Lena Max Clara Hugo Nina Oscar Ruth Felix Ida Victor Sara Leo Emma Jonas Vera Karl
"""
CITIES = """
    Paris Rome Oslo Cairo Lima Tokyo Berlin Madrid Delhi Boston Vienna Prague Dublin Athens Havana Seoul Quito
    Milan Zurich Lagos
"""
NAMES, PLACES = FIRST_NAMES.split(), CITIES.split()
SEASONS = ["winter", "spring", "summer", "autumn"]


def binding(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """One passage of 2 to ``4 + 2 * level`` people; the first question is the example."""
    n_people = rng.randint(2, 4 + round(2 * level))
    names = rng.sample(NAMES, n_people)
    places = rng.sample(PLACES, n_people)
    asked = rng.randrange(n_people)
    if not in_split("binding", split, list(zip(names, places, strict=True)), asked):
        return binding(rng, split, level)

    draft = Draft("In")
    spare_name = rng.choice([name for name in NAMES if name not in names])
    spare_place = rng.choice([place for place in PLACES if place not in places])
    season, other_season = rng.sample(SEASONS, 2)
    answer = f" {places[asked]}"
    others = [Swap(draft.add(f" {season}"), other_season, answer)]
    draft.add(",")
    source_start = len(draft.text) + 1
    place_spans: list[Span] = []
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        name_span = draft.add(f" {name}")
        draft.add(" lives in")
        place_spans.append(draft.add(f" {place}"))
        draft.add("." if index == n_people - 1 else ",")
        if index != asked:
            others += [Swap(name_span, spare_name, answer), Swap(place_spans[-1], spare_place, answer)]
    source = (source_start, len(draft.text))

    targets: list[Span] = []
    example: Example | None = None
    rivals = [person for person in range(n_people) if person != asked]
    for person in [asked, *rng.choices(range(n_people), k=rng.randint(3, 8))]:
        draft.add(" The home of")
        query = draft.add(f" {names[person]}")
        draft.add(" is")
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
