"""Passes over the unembedding ``W`` ``[d_vocab, d_model]``, each for many vectors, and the squares of its rows."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.precision import compute_dtype, full_float32, to_float64

CHUNK = 8192
_WHOLE = 16
"""Vectors that a product with W takes at once: of a dozen it may make a dozen products, twice as slow as of these."""
_FEW = 6
"""Vectors up to which that is no slower."""
_AT_ONCE = 8
"""Chunks of W in one product: enough to share between threads, and few enough that what they make is not there twice."""
_IN_CACHE = 2**17
"""Numbers of W that are squared in float64 at once: a megabyte, which is ten times as fast as many."""
_CONVERTED = 2**19
"""Numbers of a half-precision W that are float32 at once: two megabytes, which stay in the cache."""
_ROUNDINGS = 32
"""Of a row's length, within which two products of the row with the probe are the same."""


class RowSquares:
    """``‖w_i‖²`` of every row of W, ``[d_vocab]`` float64, kept from call to call while W stays the same.

    Whether it did is seen by ``W g`` with a normal vector g, to which a change δ of a row adds a normal number times ``‖δ‖``.
    That is a pass over W, and none where a product that is made anyway takes g along.

    Args:
        W: The rows, as they are for the whole of the call.
        kept: What the last call left, and where this one leaves the same.
    """

    def __init__(self, W: Float[Tensor, "d_vocab d_model"], kept: dict[str, Tensor] | None = None) -> None:
        self.W, self._kept, self._seen = W, {} if kept is None else kept, False

    def taken_along(self, a: Float[Tensor, "n d_model"], room: int = 0) -> Float[Tensor, "rows d_vocab"]:
        """``W a`` of each, with room for further rows, and a look at W by the same pass unless it was looked at."""
        if self._seen:
            return times(self.W, a, room)
        probe = torch.randn(1, self.W.shape[1], generator=torch.Generator().manual_seed(0))
        rows = times(self.W, torch.cat([a, probe.to(a)]), max(0, room - 1))
        self._look(rows[len(a)].clone())
        return rows[: len(a) + room]

    def read(self) -> Float[Tensor, " d_vocab"]:
        """The squares, of the rows as they are."""
        if not self._seen:
            self.taken_along(self.W.new_zeros(0, self.W.shape[1], dtype=compute_dtype(self.W.dtype)))
        return self._kept["squares"]

    def _look(self, image: Float[Tensor, " d_vocab"]) -> None:
        self._seen = True
        last = self._kept.get("image")
        if last is not None and (last.dtype, last.shape, last.device) == (image.dtype, image.shape, image.device):
            within = self._kept["squares"].sqrt().mul_(_ROUNDINGS * torch.finfo(image.dtype).eps)
            change = (image - last).abs_()  # of numbers so near to each other that the difference is exact
            if bool((change <= within).all()):
                return
        rows = max(1, _IN_CACHE // self.W.shape[1])
        squares = [to_float64(w).square().sum(dim=1) for w in torch.split(self.W, rows)]
        self._kept.update(image=image, squares=torch.cat(squares))


@full_float32()
def times(
    W: Float[Tensor, "d_vocab d_model"], a: Float[Tensor, "n d_model"], room: int = 0
) -> Float[Tensor, "rows d_vocab"]:
    """``W a`` of each, then so many rows for the caller to fill: one pass over W."""
    n = len(a)
    out = a.new_empty(n + room, len(W))
    if W.dtype != a.dtype:
        count = _converted(W)
        for image, rows in zip(torch.split(out[:n], count, dim=1), torch.split(W, count), strict=True):
            image.copy_((rows.to(a) @ a.T).T)
        return out
    if _padded(n) > n:
        a = torch.cat([a, a.new_zeros(_padded(n) - n, a.shape[1])])
    parts, rest = _chunks(W)
    for image, some in zip(torch.split(out[:n], _AT_ONCE * CHUNK, dim=1), torch.split(parts, _AT_ONCE), strict=False):
        by_chunk = image[:, : len(some) * CHUNK].view(n, len(some), CHUNK)
        by_chunk.copy_(torch.bmm(a.expand(len(some), *a.shape), some.mT)[:, :n].transpose(0, 1))
    out[:n, len(W) - len(rest) :] = a[:n] @ rest.T
    return out


def pass_bytes(W: Float[Tensor, "d_vocab d_model"], n: int) -> int:
    """What :func:`times` of n vectors takes beside its result."""
    size = compute_dtype(W.dtype).itemsize
    if cast := cast_bytes(W):
        return cast + _converted(W) * n * size
    return _padded(n) * min(len(W), _AT_ONCE * CHUNK) * size


def cast_bytes(W: Float[Tensor, "d_vocab d_model"]) -> int:
    """What :func:`transpose_times` takes of W in full precision; nothing where W is."""
    size = compute_dtype(W.dtype).itemsize
    return _converted(W) * W.shape[1] * size if W.dtype.itemsize < size else 0


def _converted(W: Float[Tensor, "d_vocab d_model"]) -> int:
    """Rows of W that are cast at once: a GPU has no such cache, and waits for many small products."""
    return min(len(W), CHUNK, max(1, _CONVERTED // W.shape[1]) if W.device.type == "cpu" else CHUNK)


def _padded(n: int) -> int:
    return _WHOLE if _FEW < n < _WHOLE else n


@full_float32()
def transpose_times(W: Float[Tensor, "d_vocab d_model"], r: Float[Tensor, "n d_vocab"]) -> Float[Tensor, "n d_model"]:
    """``Wᵀ r`` of each in float64: one pass over W. Chunks are summed in float64, or rounding would grow with d_vocab."""
    if W.dtype == r.dtype:
        parts, rest = _chunks(W)
        weights = rearrange(r[:, : len(parts) * CHUNK], "n (part chunk) -> part n chunk", chunk=CHUNK)
        sums = to_float64(torch.bmm(weights, parts)).sum(dim=0)
        return sums + to_float64(r[:, len(W) - len(rest) :] @ rest)
    out = to_float64(r.new_zeros(len(r), W.shape[1]))
    count = _converted(W)
    for part, rows in zip(torch.split(r, count, dim=1), torch.split(W, count), strict=True):
        out += to_float64(part @ rows.to(r))
    return out


def _chunks(
    W: Float[Tensor, "d_vocab d_model"],
) -> tuple[Float[Tensor, "n chunk d_model"], Float[Tensor, "rest d_model"]]:
    """The whole chunks of W as one tensor, and the rows left over: torch shares chunks, not vectors, between threads."""
    whole = len(W) // CHUNK
    return W[: whole * CHUNK].view(whole, CHUNK, W.shape[1]), W[whole * CHUNK :]
