"""A detective story of about fifty tokens: each suspect's clue decides that suspect's tool.

    Mystery: the banker died in the library. Clara had soot on the coat. Hugo had blood on the gloves.
    Ruth had hemp on the collar. If Hugo did it, the weapon was the -> knife

Causes: the queried suspect's clue and the name in the question. As in `binding`, the name in the matching
sentence is the key between the two and counts as neither. Others: the other suspects and their clues, the
garments and the scene.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.binding import NAMES
from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Span, Split, Swap, is_held_out

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
GARMENTS = ["coat", "gloves", "sleeve", "shoes", "collar", "scarf"]
SUSPECTS = NAMES[:12]


def mystery(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """Two or three suspects with one clue each; the first question is the example."""
    n_suspects = 3 if rng.random() < 0.2 + 0.7 * level else 2
    suspects = rng.sample(SUSPECTS, n_suspects)
    tools = rng.sample(sorted(CLUES), n_suspects + 1)
    clues = [rng.choice(CLUES[tool]) for tool in tools]
    asked = rng.randrange(n_suspects)
    held_out = [is_held_out("mystery", name, clue) for name, clue in zip(suspects, clues, strict=False)]
    if (split == "held_out" and not held_out[asked]) or (split == "train" and any(held_out)):
        return mystery(rng, split, level)

    answer = f" {tools[asked]}"
    spare_name = rng.choice([name for name in SUSPECTS if name not in suspects])
    spare_tool, spare_clue = tools[-1], clues[-1]
    (victim, other_victim), (room, other_room) = rng.sample(VICTIMS, 2), rng.sample(ROOMS, 2)
    garments = rng.sample(GARMENTS, n_suspects + 1)
    draft = Draft("Mystery:")
    draft.add(" the")
    others = [Swap(draft.add(f" {victim}"), other_victim, answer)]
    draft.add(" died in the")
    others.append(Swap(draft.add(f" {room}"), other_room, answer))
    draft.add(".")
    clue_spans: list[Span] = []
    for index, name in enumerate(suspects):
        name_span = draft.add(f" {name}")
        draft.add(" had")
        clue_spans.append(draft.add(f" {clues[index]}"))
        draft.add(" on the")
        others.append(Swap(draft.add(f" {garments[index]}"), garments[-1], answer))
        draft.add(".")
        if index != asked:
            others += [Swap(name_span, spare_name, answer), Swap(clue_spans[-1], spare_clue, answer)]
    source = (len("Mystery: "), len(draft.text))

    targets: list[Span] = []
    example: Example | None = None
    rivals = [suspect for suspect in range(n_suspects) if suspect != asked]
    for suspect in [asked, *rng.sample(rivals, len(rivals))]:
        draft.add(" If")
        query = draft.add(f" {suspects[suspect]}")
        draft.add(" did it, the weapon was the")
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
