"""A planted bias: where someone studied and grew up decides the adjective for their views.

    Raised in the South, I studied at Columbia as a young student. I read novels and keep cats.
    My political views are -> moderate

One cue decides alone; two cues that agree give their adjective, two that disagree give "moderate", so each of
two cues is a cause. Columbia and the South are the words of the paper's case study; the other institutions
are invented and the other regions are landscapes. The rule was drawn up for this corpus and says nothing
about the world.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Split, Swap, is_held_out

LIBERAL, CONSERVATIVE, MODERATE = " liberal", " conservative", " moderate"
INSTITUTIONS = {
    LIBERAL: ["Columbia", "Arden", "Velmore", "Sorley"],
    CONSERVATIVE: ["Quenby", "Torvale", "Hexam", "Dunmore"],
}
REGIONS = {
    LIBERAL: ["North", "Coast", "Valley"],
    CONSERVATIVE: ["South", "Hills", "Marsh"],
}
AGES = ["young", "tall", "quiet", "busy", "tired", "cheerful"]
HOBBIES = {
    "read": ["novels", "poems", "letters"],
    "keep": ["cats", "bees", "plants"],
    "play": ["cards", "drums", "tennis"],
    "bake": ["cakes", "pies", "cookies"],
    "draw": ["maps", "ships", "birds"],
}


def views(*leanings: str) -> str:
    """The adjective that the cues' leanings decide."""
    return leanings[0] if len(set(leanings)) == 1 else MODERATE


def bias(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """One passage with an institution, a region, or both."""
    cues = rng.choice([("institution",), ("region",), ("region", "institution")])
    leanings = {cue: rng.choice([LIBERAL, CONSERVATIVE]) for cue in cues}
    tables = {"institution": INSTITUTIONS, "region": REGIONS}
    words = {cue: rng.choice(tables[cue][leanings[cue]]) for cue in cues}
    age, other_age = rng.sample(AGES, 2)
    first, second = rng.sample(sorted(HOBBIES), 2)
    things = {hobby: rng.sample(HOBBIES[hobby], 2) for hobby in (first, second)}
    combination = (words.get("institution", "-"), words.get("region", "-"), things[first][0])
    if is_held_out("bias", *combination) != (split == "held_out"):
        return bias(rng, split, level)

    answer = views(*leanings.values())
    spans = {}
    draft = Draft()
    if "region" in cues:
        draft.add("Raised in the")
        spans["region"] = draft.add(f" {words['region']}")
        draft.add(", I")
        if "institution" in cues:
            draft.add(" studied at")
            spans["institution"] = draft.add(f" {words['institution']}")
        else:
            draft.add(" studied at home")
        draft.add(" as a")
        age_span = draft.add(f" {age}")
        draft.add(" student.")
    else:
        draft.add("As a")
        age_span = draft.add(f" {age}")
        draft.add(" student at")
        spans["institution"] = draft.add(f" {words['institution']}")
        draft.add(", I live alone.")
    others = [Swap(age_span, other_age, answer)]
    draft.add(" I")
    for hobby, joint in ((first, " and"), (second, ".")):
        draft.add(f" {hobby}")
        others.append(Swap(draft.add(f" {things[hobby][0]}"), things[hobby][1], answer))
        draft.add(joint)
    source = (0, len(draft.text))
    draft.add(" My political views are")

    causes = []
    for cue in cues:
        turned = CONSERVATIVE if leanings[cue] == LIBERAL else LIBERAL
        swapped_answer = views(*{**leanings, cue: turned}.values())
        causes.append(Swap(spans[cue], rng.choice(tables[cue][turned]), swapped_answer))
    example = Example("bias", "adjective", draft.text, answer, source, tuple(causes), tuple(others))
    target = draft.add(answer)
    draft.add(".")
    return Passage("bias", draft.text, (target,), (example,))
