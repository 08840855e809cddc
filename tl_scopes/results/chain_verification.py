"""Does the answer change when what was found is gone? The result of :func:`tl_scopes.verify_chain`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.chain import Chain

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
        fits = len(self.texts) == 2 + len(self.drawn)
        self.require(
            fits, "texts", f"{len(self.texts)}, which are not two more than the {len(self.drawn)} sets in drawn"
        )

    @property
    def answer(self) -> str:
        """The text that is looked for in what is written."""
        return self.chain.answer_text.strip()

    @property
    def reproduced(self) -> bool:
        """Is the answer in what the model writes after the unchanged prompt?"""
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
            return (
                f"No verdict: after the unchanged prompt the model writes {self._short(self.texts[0].strip())}, in which "
                f"{answer} is not. A text that was sampled, or written by somebody else, cannot be verified so."
            )
        done = "removing" if self.how == "remove" else "swapping"
        names = ", ".join(self._short(self.chain.sources[q].name or self.chain.sources[q].text) for q in self.strongest)
        what = "the strongest unit" if self.k == 1 else f"the {self.k} strongest units"
        outcome = "changes the answer" if self.changed else "leaves the answer as it is"
        sets = f"{len(self.drawn)} {'other' if self.exhaustive else 'random'} {'units' if self.k == 1 else 'sets'}"
        return (
            f"Regenerated, {done} {what} of the prompt ({names}) {outcome}, {answer}; of {'all ' * self.exhaustive}{sets} "
            f"{sum(self.drawn_changed)} change it, p = {self.p:.2g}."
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per regeneration: ``removed`` (nothing, strongest, random), ``units``, ``changed``, ``text``."""
        import pandas as pd

        sets = [(), self.strongest, *self.drawn]
        kinds = ["nothing", "strongest", *["random"] * len(self.drawn)]
        units = [" | ".join(self.chain.sources[q].text.strip() for q in one) for one in sets]
        changed = [not self.reproduced, self.changed, *self.drawn_changed]
        return pd.DataFrame({"removed": kinds, "units": units, "changed": changed, "text": self.texts})

    def __repr__(self) -> str:
        return f"ChainVerification({self.sentence})"

    def _says(self, text: str) -> bool:
        """Are these the answer's words, not parts of longer ones?"""
        said = self.answer
        begins, ends = (r"(?<!\w)" if said[:1].isalnum() else "", r"(?!\w)" if said[-1:].isalnum() else "")
        return re.search(begins + re.escape(said) + ends, text) is not None

    @staticmethod
    def _short(text: str) -> str:
        flat = " ".join(text.split())
        return repr(flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…")
