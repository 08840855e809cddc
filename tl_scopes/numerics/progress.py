"""The progress bar of long work: on standard error where somebody looks, with the call's name, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

from tqdm.auto import tqdm

from tl_scopes.numerics.arguments import call_name

SECONDS = 1.0
"""Work shorter than this shows nothing."""


def progress(items: Iterable[Any] | None = None, *, unit: str, total: int | None = None) -> Any:
    """A bar around ``items``, or of ``total`` steps for a ``with`` that calls ``update``; none for a single step."""
    n = len(items) if total is None and isinstance(items, Sized) else total
    shown = True if n is not None and n < 2 else None  # None: on a terminal alone
    return tqdm(items, total=n, desc=call_name(), unit=unit, disable=shown, leave=False, delay=SECONDS)
