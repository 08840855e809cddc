"""Invariant: the parts hold everything once and in order, are as few as may be, and differ by one at most."""

from __future__ import annotations

import pytest

from tl_scopes.numerics.parts import even_parts


@pytest.mark.parametrize("most", [1, 3, 28, 100])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 28, 29, 40, 64])
def test_parts_are_few_and_even(n: int, most: int) -> None:
    parts = [range(n)[part] for part in even_parts(n, most)]
    sizes = [len(part) for part in parts]
    assert [i for part in parts for i in part] == list(range(n))
    assert len(parts) == -(-n // most)
    assert max(sizes, default=0) <= most and max(sizes, default=0) - min(sizes, default=0) <= 1
