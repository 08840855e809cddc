"""Does the answer change when what was found is gone? The result of :func:`tl_scopes.verify_chain`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.chain import Chain
from tl_scopes.results.chain_units import place_among
from tl_scopes.results.words import word_places

if TYPE_CHECKING:
    import pandas as pd

How = Literal["remove", "swap"]
"""What happens to a unit: its tokens are cut out, or another unit's take their place."""
_LONGEST = 60


@dataclass(frozen=True, eq=False, repr=False)
class ChainVerification(Displayable, Serializable):
    """What the model writes without the prompt's strongest units, and without random ones.

    Attributes:
        chain: what was verified.
        k: units that go together.
        how: what happens to them.
        n_candidates: units of the prompt that may go.
        strongest: numbers of the strongest, strongest first.
        drawn: numbers in each random set.
        exhaustive: are these all other sets?
        texts: what was written: after the unchanged prompt, without the strongest, without each random set.
        seed: of the draws.
        max_new_tokens: the most tokens that were written each time.
    """

    chain: Chain
    k: int
    how: How
    n_candidates: int
    strongest: tuple[int, ...]
    drawn: tuple[tuple[int, ...], ...]
    exhaustive: bool
    texts: tuple[str, ...]
    seed: int
    max_new_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        n, k = len(self.chain.sources), self.k
        for name, sets in (("strongest", (self.strongest,)), ("drawn", self.drawn)):
            self.require(all(len(one) == k for one in sets), name, f"a set of another size than k={k}")
            inside = all(0 <= q < n for one in sets for q in one)
            self.require(inside, name, f"a number outside 0..{n - 1}, the sources of chain")
        inside = n >= self.n_candidates >= len({*self.strongest}.union(*self.drawn))
        self.require(
            inside, "n_candidates", f"{self.n_candidates}, which does not fit strongest, drawn and {n} sources"
        )
        fits = len(self.texts) == 2 + len(self.drawn)
        self.require(
            fits, "texts", f"{len(self.texts)}, which are not two more than the {len(self.drawn)} sets in drawn"
        )

    @property
    def answer(self) -> str:
        """The text that is looked for in what is written."""
        return self.chain.answer_text.strip()

    @cached_property
    def place(self) -> int:
        """Which of the places of these words in the chain's text is the answer, counted from 1."""
        return answer_place(self.chain)

    @property
    def reproduced(self) -> bool:
        """Does the model write the answer's words after the unchanged prompt, as often as the text has up to the answer?"""
        return self._says(self.texts[0])

    @property
    def changed(self) -> bool:
        """Is it gone without the strongest units?"""
        return not self._says(self.texts[1])

    @property
    def drawn_changed(self) -> tuple[bool, ...]:
        """Is it gone without each random set?"""
        return tuple(not self._says(text) for text in self.texts[2:])

    @property
    def p(self) -> float:
        """``(1 + #{random sets that change the answer at least as much}) / (n + 1)``; NaN where it was not reproduced."""
        if not self.reproduced:
            return math.nan
        as_harmful = sum(self.drawn_changed) if self.changed else len(self.drawn)
        return (1 + as_harmful) / (len(self.drawn) + 1)

    @property
    def sentence(self) -> str:
        """The outcome in plain words."""
        answer = self._short(self.answer)
        if not self.reproduced:
            often = "is not" if self.place < 2 else f"is not {self.place} times, as in the text up to the answer"
            needed = (
                max(p for u in self.chain.answer for p in self.chain.steps[u].positions) + 1 - self.chain.answer_start
            )
            why = (
                f"Raise max_new_tokens: it is {self.max_new_tokens}, and the answer ends with token {needed} of the text."
                if self.max_new_tokens < needed
                else "A text that was sampled, or written by somebody else, cannot be verified so."
            )
            return (
                f"No verdict: after the unchanged prompt the model writes {self._short(self.texts[0].strip())}, in which "
                f"{answer} {often}. {why}"
            )
        done = "removing" if self.how == "remove" else "swapping"
        names = ", ".join(self._short(self.chain.sources[q].name or self.chain.sources[q].text) for q in self.strongest)
        what = "the strongest unit" if self.k == 1 else f"the {self.k} strongest units"
        outcome = "changes the answer" if self.changed else "leaves the answer as it is"
        return f"Regenerated, {done} {what} of the prompt ({names}) {outcome}, {answer}; {self._compared}, p = {self.p:.2g}."

    @property
    def _compared(self) -> str:
        """How many of the other sets change the answer."""
        n, changing = len(self.drawn), sum(self.drawn_changed)
        kind, one = ("other" if self.exhaustive else "random"), ("unit" if self.k == 1 else "set")
        if n == 1:
            done = ("changes it" if changing else "leaves it") + " too" * (bool(changing) == self.changed)
            return f"the only {kind} {one} {done}"
        counted = "none changes" if not changing else "1 changes" if changing == 1 else f"{changing} change"
        return f"of {'all ' * self.exhaustive}{n} {kind} {one}s {counted} it"

    def to_frame(self) -> pd.DataFrame:
        """One row per regeneration: ``removed`` (nothing, strongest, random or other), ``units``, ``changed``, ``text``."""
        import pandas as pd

        sets = [(), self.strongest, *self.drawn]
        kinds = ["nothing", "strongest", *["other" if self.exhaustive else "random"] * len(self.drawn)]
        units = [" | ".join(self.chain.sources[q].text.strip() for q in one) for one in sets]
        changed = [not self.reproduced, self.changed, *self.drawn_changed]
        return pd.DataFrame({"removed": kinds, "units": units, "changed": changed, "text": self.texts})

    def __repr__(self) -> str:
        return f"ChainVerification({self.sentence})"

    def _says(self, text: str) -> bool:
        """Are the answer's words there, not as parts of longer ones, as often as in the chain's text up to the answer?"""
        return len(word_places(text, self.answer)) >= max(self.place, 1)

    @staticmethod
    def _short(text: str) -> str:
        flat = " ".join(text.split())
        return repr(flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…")


def answer_place(chain: Chain) -> int:
    """Which of the places of its words in the written text a chain's answer is, counted from 1; 0 is none of them."""
    positions = [p for u in chain.answer for p in chain.steps[u].positions]
    return place_among(chain.entries, positions, chain.answer_text.strip())
