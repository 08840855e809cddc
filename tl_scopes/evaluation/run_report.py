"""A run's tables summed up, a window at a time.

share_t   = score_t / Σ_s score_s over the units of one prompt that are not special
top_share = mean over prompts of max_t share_t
by_position[b] = mean over prompts of Σ_t share_t · |[t, t+1) ∩ [b, b+1)·n/10|, unit t of n spread evenly over its place
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_scopes.evaluation.run_tables import parts
from tl_scopes.results.run import BINS, MethodSummary, RunReport, Strongest

if TYPE_CHECKING:
    import pandas as pd

MOST_STRONGEST = 10
MOST_REASONS = 10
MOST_FAILED = 20
_ARGUMENT = re.compile(r"^(?:\w+: )?\w*\(.*?\)+: |\s\(.*\)$")
"""What an error begins with, ``call(argument=...): ``, and what it adds in parentheses."""
_NUMBER = re.compile(r"\d[\d,.]*")
MOST_LETTERS = 100
_COLUMNS = ["row", "method", "unit", "text", "score"]


class _Sums:
    """One method's sums."""

    def __init__(self) -> None:
        self.prompts = self.units = self.unsaid = 0
        self.top = 0.0
        self.by_position = np.zeros(BINS)
        self.times: Counter[str] = Counter()
        self.shares: Counter[str] = Counter()

    def add(self, frame: pd.DataFrame) -> None:
        """The scores of some prompts, special tokens left out."""
        of_prompt = frame.groupby("row", sort=False)
        total = of_prompt.score.transform("sum")
        self.prompts += of_prompt.ngroups
        self.units += len(frame)
        said = np.isfinite(total) & (total > 0)
        self.unsaid += of_prompt.ngroups - frame.row[said].nunique()
        share = (frame.score[said] / total[said]).astype(float)
        per_bin = (of_prompt.score.transform("size")[said] / BINS).to_numpy()  # units in a tenth of their prompt
        start = of_prompt.cumcount()[said].to_numpy()
        for b in range(BINS):
            inside = np.minimum(start + 1, (b + 1) * per_bin) - np.maximum(start, b * per_bin)
            self.by_position[b] += share.to_numpy() @ inside.clip(min=0)
        first = share.groupby(frame.row[said], sort=False).idxmax()
        self.top += float(share[first].sum())
        for text, of in zip(frame.text[first], share[first], strict=True):
            self.times[text] += 1
            self.shares[text] += of

    def summary(self, method: str) -> MethodSummary:
        """Their means."""
        n = max(self.prompts - self.unsaid, 1)
        best = sorted(self.times.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_STRONGEST]
        return MethodSummary(
            method,
            self.prompts,
            self.units,
            self.top / n,
            tuple((self.by_position / n).tolist()),
            tuple(Strongest(text, times, float(self.shares[text]) / times) for text, times in best),
            self.unsaid,
        )


def report(folder: Path, settings: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> RunReport:
    """What the finished windows of a run, one record each, hold."""
    import pyarrow.compute as pc

    sums = {method: _Sums() for method in settings["methods"]}
    for table in parts(folder, "scores", records):
        frame = table.filter(pc.invert(table["special"])).select(_COLUMNS).to_pandas()
        for method, rows in frame.groupby("method", sort=False, observed=True):
            sums[str(method)].add(rows)
    reasons: Counter[str] = Counter()
    first: list[tuple[int, str | None, str]] = []
    for table in parts(folder, "failed", records):
        for row in table.to_pylist():
            reasons[_in_short(row["reason"])] += 1
            if len(first) < MOST_FAILED:
                first.append((row["row"], row["id"], row["reason"]))
    n = {name: sum(r[name] for r in records) for name in ("rows", "explained", "failed", "duplicates", "seconds")}
    rows = int(settings["prompts"]["n"])
    return RunReport(
        rows=rows,
        explained=n["explained"],
        failed=n["failed"],
        duplicates=n["duplicates"],
        left=rows - n["rows"],
        seconds=float(n["seconds"]),
        reasons=dict(reasons.most_common(MOST_REASONS)),
        first_failed=tuple(first),
        methods=tuple(own.summary(method) for method, own in sums.items()),
        settings=settings,
    )


def _in_short(reason: str) -> str:
    """The same for rows that fail for the same reason: without what is a row's own."""
    return textwrap.shorten(_NUMBER.sub("…", _ARGUMENT.sub("", reason)), MOST_LETTERS, placeholder=" …")
