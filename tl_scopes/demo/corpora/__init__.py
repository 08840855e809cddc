"""The demo corpora: each a function ``(rng, split, level) -> Passage``, registered here by name.

To add one: write such a function in a file of its own (see `passages` for what it returns), add it to
`CORPORA` and to the training mix in `shapes`, and train anew; the tokenizer takes its words from the passages.
`level` in 0 ... 1 is the curriculum's knob: shorter texts with fewer distractors first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

from tl_scopes.demo.corpora.bias import bias
from tl_scopes.demo.corpora.binding import binding
from tl_scopes.demo.corpora.chains import ACTS, chain, whole
from tl_scopes.demo.corpora.instruction import instruction
from tl_scopes.demo.corpora.mystery import mystery
from tl_scopes.demo.corpora.passages import Example, Passage, Span, Split, Swap, token_positions
from tl_scopes.demo.corpora.series import series
from tl_scopes.demo.corpora.translation import translation

Generator = Callable[[random.Random, Split, float], Passage]

CORPORA: dict[str, Generator] = {
    "translation": translation,
    "binding": binding,
    "mystery": mystery,
    "instruction": instruction,
    "bias": bias,
    "series": series,
}
"""What both bundled models speak."""
CHAINS: dict[str, Generator] = {corpus: partial(chain, corpus=corpus) for corpus in ACTS}
"""What ``demo-llama`` speaks beside them."""
ALL_CORPORA = {**CORPORA, **CHAINS}


def passages(corpus: str, seed: int, split: Split = "held_out", level: float = 1.0) -> Iterator[Passage]:
    """Endless passages of one corpus, the same for the same seed."""
    rng = random.Random(f"{corpus}/{split}/{seed}")
    while True:
        yield ALL_CORPORA[corpus](rng, split, level)


def examples(corpus: str, n: int, seed: int = 0, split: Split = "held_out") -> list[Example]:
    """`n` examples of one corpus, one from each passage that has any, so that they are independent."""
    return [example for _, example in examples_in_passages(corpus, n, seed, split)]


def chains(corpus: str, n: int, seed: int = 0, split: Split = "held_out") -> list[Example]:
    """`n` examples of `CHAINS` whose answers, those after a swap too, are all that the model is to write."""
    found: list[Example] = []
    for passage in passages(corpus, seed, split):
        if len(found) == n:
            break
        if passage.examples:
            found.append(whole(passage.examples[0]))
    return found


def examples_in_passages(
    corpus: str, n: int, seed: int = 0, split: Split = "held_out"
) -> list[tuple[Passage, Example]]:
    """The `examples`, each with the passage that it was cut from."""
    rng = random.Random(f"{corpus}/{split}/{seed}/examples")
    found: list[tuple[Passage, Example]] = []
    for passage in passages(corpus, seed, split):
        if len(found) == n:
            break
        if passage.examples:
            found.append((passage, rng.choice(passage.examples)))
    return found


__all__ = [
    "ALL_CORPORA",
    "CHAINS",
    "CORPORA",
    "Example",
    "Generator",
    "Passage",
    "Span",
    "Split",
    "Swap",
    "chains",
    "examples",
    "examples_in_passages",
    "passages",
    "token_positions",
]
