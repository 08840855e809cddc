"""A detective story of about fifty tokens: each suspect's clue decides that suspect's tool.

    Mystery: the banker died in the library. The police found a torn scarf near the door.
    Clara smelled of soot, Hugo smelled of blood, Ruth smelled of hemp. The weapon of Hugo is -> knife

Causes: the queried suspect's clue and the name in the question. As in `binding`, the name beside the clue is the key
between the two and counts as neither. Others: the other suspects and their clues, the scene and what was found there.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.binding import NAMES
from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Span, Split, Swap, in_split

CLUES = {
    "knife": ["blood", "steel"],
    "pistol": ["smoke", "powder"],
    "poison": ["almonds", "arsenic"],
    "rope": ["hemp", "fibers"],
    "torch": ["soot", "wax"],
    "hammer": ["splinters", "nails"],
}
VICTIMS = ["banker", "baron", "singer", "judge", "painter"]
ROOMS = ["library", "cellar", "attic", "tower", "ballroom"]
GARMENTS = ["coat", "glove", "sleeve", "shoe", "collar", "scarf"]
SUSPECTS = NAMES[:12]


def mystery(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """Two or three suspects with one clue each; the first question is the example."""
    n_suspects = 3 if rng.random() < 0.2 + 0.7 * level else 2
    suspects = rng.sample(SUSPECTS, n_suspects)
    tools = rng.sample(sorted(CLUES), n_suspects + 1)
    clues = [rng.choice(CLUES[tool]) for tool in tools]
    asked = rng.randrange(n_suspects)
    if not in_split("mystery", split, list(zip(suspects, clues, strict=False)), asked):
        return mystery(rng, split, level)

    answer = f" {tools[asked]}"
    spare_name = rng.choice([name for name in SUSPECTS if name not in suspects])
    spare_tool, spare_clue = tools[-1], clues[-1]
    (victim, other_victim), (room, other_room) = rng.sample(VICTIMS, 2), rng.sample(ROOMS, 2)
    garment, other_garment = rng.sample(GARMENTS, 2)
    draft = Draft("Mystery:")
    draft.add(" the")
    others = [Swap(draft.add(f" {victim}"), other_victim, answer)]
    draft.add(" died in the")
    others.append(Swap(draft.add(f" {room}"), other_room, answer))
    draft.add(". The police found a torn")
    others.append(Swap(draft.add(f" {garment}"), other_garment, answer))
    draft.add(" near the door.")
    source_start = len(draft.text) + 1
    clue_spans: list[Span] = []
    for index, name in enumerate(suspects):
        name_span = draft.add(f" {name}")
        draft.add(" smelled of")
        clue_spans.append(draft.add(f" {clues[index]}"))
        draft.add("." if index == n_suspects - 1 else ",")
        if index != asked:
            others += [Swap(name_span, spare_name, answer), Swap(clue_spans[-1], spare_clue, answer)]
    source = (source_start, len(draft.text))

    targets: list[Span] = []
    example: Example | None = None
    rivals = [suspect for suspect in range(n_suspects) if suspect != asked]
    for suspect in [asked, *rng.choices(range(n_suspects), k=rng.randint(2, 5))]:
        draft.add(" The weapon of")
        query = draft.add(f" {suspects[suspect]}")
        draft.add(" is")
        if example is None:
            rival = rng.choice(rivals)
            causes = (
                Swap(clue_spans[asked], spare_clue, f" {spare_tool}"),
                Swap(query, suspects[rival], f" {tools[rival]}"),
            )
            example = Example("mystery", "weapon", draft.text, answer, source, causes, tuple(others))
        targets.append(draft.add(f" {tools[suspect]}"))
        draft.add(".")
    assert example is not None
    return Passage("mystery", draft.text, tuple(targets), (example,))
