"""How far a long run is: a bar on a terminal; elsewhere, as in the file of a cluster's job, a line a minute by ``logging``.

rate = rows of this process that were done here / seconds since it began,    time left = rows left / rate
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

from tl_scopes.evaluation.shares import Share
from tl_scopes.numerics.arguments import call_name

LOGGER = logging.getLogger("tl_scopes.runs")
EVERY = 60.0
"""Seconds between two lines."""


class Pace:
    """Rows done of this process's share.

    Args:
        total: rows of the share.
        before: those that were done before.
        share: whose they are, said where there are several.
    """

    def __init__(self, total: int, before: int, share: Share) -> None:
        of = f" {share.index}/{share.of}" if share.of > 1 else ""
        self.name = f"{call_name() or 'run'}{of}"
        self.total, self.before, self.done = total, before, before
        self.began = self.said = time.monotonic()
        place = {"position": share.index} if share.of > 1 else {}
        self.bar = tqdm(total=total, initial=before, desc=self.name, unit="row", disable=None, **place)

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()

    def step(self, rows: int) -> None:
        """So many more are done."""
        self.done += rows
        self.bar.update(rows)
        now = time.monotonic()
        if self.bar.disable and (now - self.said >= EVERY or self.done == self.total > self.before):
            self.said = now
            LOGGER.info("%s", self.line(now - self.began))

    def line(self, seconds: float) -> str:
        """What is said after so many seconds."""
        rate = (self.done - self.before) / max(seconds, 1e-9)
        left = f", {_spoken((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        share = self.done / max(self.total, 1)
        return f"{self.name}: {self.done:,} of {self.total:,} rows ({share:.0%}), {rate:.3g} rows/s{left}"


def _spoken(seconds: float) -> str:
    """A length of time."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def to_standard_error() -> None:
    """Let the lines be seen, where no bar is."""
    if not sys.stderr.isatty() and not LOGGER.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
