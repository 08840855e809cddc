"""Sentences that decide nothing, to stand between a cause and the end of a prompt."""

from __future__ import annotations

import random

from tl_scopes.tasks.text import Text, as_list, deck, pair

FORMS = (
    "The {adjective} {thing} stood near the {place}.",
    "There was a {adjective} {thing} behind the {place}.",
    "The {thing} beside the {place} looked {adjective}.",
    "Next to the {place} lay a {adjective} {thing}.",
)
ADJECTIVES = as_list("""
    heavy narrow broken simple dusty fresh large small strange wooden quiet clean rough smooth shiny plain
    pretty rusty sturdy modern famous tiny huge battered cheap costly curious faded painted crooked round hollow
    spare loose damp tidy
""")
THINGS = as_list("""
    table ladder basket bucket barrel statue wagon bench mirror cupboard curtain carpet bottle hammer shovel
    lantern saddle blanket kettle pillow suitcase candle drum rope tent cradle wheel crate stool vase
    broom rake sledge trunk shelf clock
""")
PLACES = as_list("""
    bridge church station market harbour castle school library museum factory bakery hospital stable
    theatre tower fountain cottage village square gate palace warehouse lighthouse mill chapel pharmacy
    monument canal railway courtyard tunnel playground hotel vineyard windmill boathouse
""")


class Neutral:
    """Neutral sentences of one prompt, no content word of which occurs twice."""

    most = min(map(len, (ADJECTIVES, THINGS, PLACES))) // 2
    """Sentences of one prompt, each word with another one to stand in its place."""

    def __init__(self, rng: random.Random) -> None:
        """Shuffle the words."""
        self.rng = rng
        self.adjectives, self.things, self.places = (deck(rng, words) for words in (ADJECTIVES, THINGS, PLACES))

    def write(self, text: Text, n: int, before: str = " ") -> None:
        """Append ``n`` sentences, each after ``before``."""
        for _ in range(n):
            text.write(
                before + self.rng.choice(FORMS),
                adjective=pair(self.adjectives),
                thing=pair(self.things),
                place=pair(self.places),
            )
