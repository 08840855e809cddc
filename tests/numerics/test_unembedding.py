"""Invariant: the squares of W's rows are those of W as it is, and are computed once for as long as it stays the same."""

from __future__ import annotations

import pytest
import torch
from oracles import relative_error
from torch import Tensor

from tl_scopes.model.probe_runs import BytesAlive
from tl_scopes.numerics.unembedding import CHUNK, RowSquares, times

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
COMPUTED = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


def rows(dtype: torch.dtype) -> Tensor:
    """As many as leave a rest beside the whole chunks; some long, some short, one of zeros."""
    W = torch.randn(9000, 48, generator=torch.Generator().manual_seed(3)) * torch.logspace(-6, 6, 9000)[:, None]
    W[17] = 0
    return W.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_they_are_found_again_by_any_pass_until_a_row_changes(dtype: str) -> None:
    W, kept = rows(DTYPES[dtype]), {}
    first = RowSquares(W, kept).read()
    assert first.dtype == torch.float64 and relative_error(first, W.double().square().sum(1)) < 1e-14
    generator = torch.Generator().manual_seed(1)
    for n in (0, 1, 2, 5, 6, 7, 15, 16, 17, 40):
        a = torch.randn(n, W.shape[1], generator=generator).to(COMPUTED[dtype])
        again = RowSquares(W, kept)
        images = again.taken_along(a)
        assert images.shape == (n, len(W))
        if n:
            assert relative_error(images, times(W, a)) < 1e-5
        assert again.read() is first, "rounding, which differs with the company, is no change"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [0, 17, 8500, 8999])
@pytest.mark.parametrize("how", ["longer", "turned", "one number", "nan"])
def test_a_row_that_changed_is_seen(dtype: str, row: int, how: str) -> None:
    W, kept = rows(DTYPES[dtype]), {}
    before = RowSquares(W, kept).read()
    change = {"longer": 1.02 * W[row], "turned": -W[row], "nan": W[row] * torch.nan}
    if how == "one number" or row == 17:
        W[row, 5] = 1.02 * W[row, 5] + 1e-7
    else:
        W[row] = change[how]
    looked = RowSquares(W, kept)
    looked.taken_along(torch.ones(2, W.shape[1], dtype=COMPUTED[dtype]))
    assert looked.read() is not before
    torch.testing.assert_close(looked.read(), W.double().square().sum(1), rtol=1e-14, atol=0, equal_nan=True)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_moved_from_one_unit_to_another_is_seen(sign: int) -> None:
    W, kept = rows(torch.float32), {}
    for unit in range(W.shape[1] - 1):
        before = RowSquares(W, kept).read()
        W[40, unit] += 1e-3
        W[40, unit + 1] += sign * 1e-3
        assert RowSquares(W, kept).read() is not before


def test_one_look_is_enough_for_a_call() -> None:
    W, kept = rows(torch.float32), {}
    RowSquares(W, kept).read()
    call, a = RowSquares(W, kept), torch.ones(3, W.shape[1])
    assert [len(call.taken_along(a)), len(call.taken_along(a))] == [3, 3]
    W[2] *= 2
    call.read()
    assert float(call.read()[2]) != float(RowSquares(W, kept).read()[2]), "the next call looks again"


@pytest.mark.one_lens
@pytest.mark.parametrize("n", [1, 5, 9, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pass_makes_its_products_beside_room_for_more_and_holds_them_once(n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    W = torch.randn(40 * CHUNK + 3, 6, generator=generator).to(dtype)
    a = torch.randn(n, 6, generator=generator)
    with BytesAlive() as watch:
        rows = times(W, a, room=2)
    assert rows.shape == (n + 2, len(W))
    torch.testing.assert_close(rows[:n], a @ W.float().T)
    least = rows.numel() * 4
    assert max(watch.timeline) < (2 if n == 9 else 1.5) * least, "nine are made as sixteen"
