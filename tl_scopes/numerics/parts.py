"""Many things in few parts."""

from __future__ import annotations

from itertools import pairwise


def even_parts(n: int, most: int) -> list[slice]:
    """n things in as few parts of at most ``most`` as will do, about equal."""
    few = -(-n // most)
    ends = [n * i // max(few, 1) for i in range(few + 1)]
    return [slice(first, end) for first, end in pairwise(ends)]
