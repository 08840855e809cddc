"""What a run of many prompts has so far: the result of :func:`tl_scopes.explain_file`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tl_scopes.results.base import Displayable, Serializable
from tl_scopes.results.checked import Checked

if TYPE_CHECKING:
    import pandas as pd

BINS = 10
"""Parts of a prompt, from its first unit to its last."""


@dataclass(frozen=True)
class Strongest(Checked):
    """A token, or a unit, that ranks first in prompts.

    Attributes:
        text: of it.
        times: prompts in which it ranks first.
        share: of these prompts' influence on it, the mean.
    """

    _at_least: ClassVar = {"times": 1, "share": 0}

    text: str
    times: int
    share: float


@dataclass(frozen=True)
class MethodSummary(Checked):
    """One method over all prompts; special tokens are left out, and what is explained has no influence on itself.

    Attributes:
        method: its label.
        prompts: that it explained.
        units: of them all.
        top_share: of a prompt's influence on the unit that ranks first, the mean over prompts.
        by_position: of a prompt's influence on its first tenth, its second, ..., the mean over prompts; a unit that is
            longer than a tenth, or lies across a border, is spread evenly over its place.
        strongest: what ranks first most often.
        unsaid: prompts in which all scores are 0, or not finite.
    """

    _at_least: ClassVar = {"prompts": 0, "units": 0, "unsaid": 0}

    method: str
    prompts: int
    units: int
    top_share: float
    by_position: tuple[float, ...]
    strongest: tuple[Strongest, ...]
    unsaid: int = 0


@dataclass(frozen=True)
class RunReport(Displayable, Serializable):
    """What the folder of a run holds.

    Attributes:
        rows: of the source.
        explained: rows with scores.
        failed: rows that could not be explained.
        duplicates: rows that ask what an earlier one asks.
        left: rows that no process has finished.
        seconds: that finished windows took, of all processes together.
        reasons: why rows failed, in short, and how many; the most frequent first.
        first_failed: number, id and reason of the first failed rows.
        methods: one summary each.
        settings: what defines the numbers, as it is stored with the run.
    """

    _at_least: ClassVar = {"rows": 1, "explained": 0, "failed": 0, "duplicates": 0, "left": 0, "seconds": 0}

    rows: int
    explained: int
    failed: int
    duplicates: int
    left: int
    seconds: float
    reasons: Mapping[str, int]
    first_failed: tuple[tuple[int, str | None, str], ...]
    methods: tuple[MethodSummary, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = self.explained + self.failed + self.duplicates + self.left
        self.require(
            parts == self.rows, "rows", f"{self.rows}, and explained, failed, duplicates and left make {parts}"
        )
        named = len(self.first_failed)
        fits = named <= self.failed and bool(named) == bool(self.failed)
        self.require(fits, "first_failed", f"{named} of {self.failed} rows that failed")

    @property
    def complete(self) -> bool:
        """Is every row done?"""
        return not self.left

    def to_frame(self) -> pd.DataFrame:
        """One row per method: ``prompts``, ``units`` per prompt, ``top_share``, ``strongest``, first most often."""
        import pandas as pd

        rows = [
            {
                "method": m.method,
                "prompts": m.prompts,
                "units": m.units / m.prompts if m.prompts else 0.0,
                "top_share": m.top_share,
                "strongest": m.strongest[0].text if m.strongest else None,
            }
            for m in self.methods
        ]
        return pd.DataFrame(rows, columns=["method", "prompts", "units", "top_share", "strongest"])
