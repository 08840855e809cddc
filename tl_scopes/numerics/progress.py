"""The progress bar of long work: on standard error where somebody looks, with the call's name, gone afterwards
(but for that of a run whose records are kept)."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

from tqdm.auto import tqdm

from tl_scopes.numerics.arguments import call_name

SECONDS = 1.0
"""Work shorter than this shows nothing."""


def progress(
    items: Iterable[Any] | None = None, *, unit: str, total: int | None = None, initial: int = 0, leave: bool = False
) -> Any:
    """A bar around ``items``, or of ``total`` steps for a ``with`` that calls ``update``; none for a single step.

    Args:
        items: what is gone through.
        unit: what one step is called.
        total: steps, where ``items`` do not say it.
        initial: steps of these that were done before.
        leave: is it a run's: there from the beginning, and not gone afterwards?
    """
    n = len(items) if total is None and isinstance(items, Sized) else total
    hidden = True if n is not None and n < 2 else None  # None: on a terminal alone
    delay = 0.0 if leave else SECONDS
    return tqdm(items, total=n, initial=initial, desc=call_name(), unit=unit, disable=hidden, leave=leave, delay=delay)
