"""A series as text of two-digit numbers joined by commas, and back.

    number = round(offset + scale·value),   15 … 85 for the values the scale was fitted on, 10 … 99 for all

The scale is fitted on the history only: the future must not leak into it, and finds room above and below. A model's
tokenizer decides how the text is cut: one token per number and one per comma, or several tokens per number, which are
then taken together; a token that holds a piece of a number and a comma is refused.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, token_strings
from tl_scopes.numerics.arguments import public_call
from tl_scopes.numerics.values import dense
from tl_scopes.results.checked import Checked

LOW, HIGH = 15, 85
"""Where the history is put."""
FIRST, LAST = 10, 99
"""All two-digit numbers: what can be written."""
NUMBERS = tuple(range(FIRST, LAST + 1))


@dataclass(frozen=True, eq=False, repr=False)
class EncodedSeries(Checked):
    """A series, its numbers, and the linear map between them.

    Attributes:
        series: the values as they were given, float64.
        numbers: what stands for them, each in 10 … 99.
        scale, offset: ``number = round(offset + scale·value)``; ``scale`` is positive.
        n_fit: how many of the first values the scale was fitted on; 0 where limits were given.
        low: the value that became 15: ``number = round(15 + scale·(value − low))`` loses no digits of large values. NaN
            (older files) is filled in from the others.
    """

    _later: ClassVar = ("low",)
    _finite: ClassVar = ("series", "scale", "offset", "low")

    series: Float[ndarray, " n"]
    numbers: Int[ndarray, " n"]
    scale: float
    offset: float
    n_fit: int
    low: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.low) and self.scale:
            first = self.series[: self.n_fit]
            low = float(first.min()) if self.n_fit > 0 and len(first) else (LOW - self.offset) / self.scale
            object.__setattr__(self, "low", low)
        super().__post_init__()
        self.require(self.scale > 0, "scale", f"{self.scale} is not positive")
        self.require(len(self) > 0, "numbers", "there is none")
        outside = bool(((self.numbers < FIRST) | (self.numbers > LAST)).any())
        self.require(not outside, "numbers", f"not all in {FIRST}..{LAST}")

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        text = self.text if len(self) <= 12 else f"{self.text[:18]}…{self.text[-18:]}"
        return f"EncodedSeries({len(self)} numbers, {text!r})"

    @property
    def text(self) -> str:
        """``"29,30,45,"``: the model continues it with the next number."""
        return "".join(f"{number}," for number in self.numbers.tolist())

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Characters of :attr:`text` that each number stands in."""
        return [(3 * i, 3 * i + 2) for i in range(len(self))]

    @public_call
    def number(self, value: float) -> int:
        """The number that stands for a further value; ``ValueError`` where it has none."""
        number = self.would_be(value)
        if not FIRST <= number <= LAST:
            raise ValueError(
                f"(value={value:g}): it would be {number:.0f}, outside {FIRST} … {LAST}: the value is too far "
                "from the history that the scale was fitted on. Give encode(limits=...) that leave room for it"
            )
        return int(number)

    def would_be(self, value: float) -> float:
        """The number that stands for a further value, also where it is outside 10 … 99 and cannot be written."""
        return float(np.rint(_scaled(np.array([float(value)]), self.scale, self.low))[0])

    def decode(self, numbers: Any) -> Float[ndarray, " m"]:
        """Values that numbers stand for, ``low + (number − 15) / scale``.

        Off the given ones by at most ``0.5/scale`` and float64's rounding.
        """
        return self.low + (np.atleast_1d(np.asarray(numbers, dtype=np.float64)) - LOW) / self.scale


@public_call
def encode(series: Any, *, n_fit: int | None = None, limits: tuple[float, float] | None = None) -> EncodedSeries:
    """A series as two-digit numbers: the values that the scale is fitted on fill 15 … 85.

    Args:
        series: one-dimensional numbers, in time order.
        n_fit: fit the scale on so many first values; None is all. In a rolling forecast, those before the first
            forecast, so that no later value leaks into it.
        limits: the two values that become 15 and 85, in place of a fit.

    Returns:
        :class:`EncodedSeries`; ``.text`` is the prompt, ``.decode`` goes back.

    Raises:
        ValueError: empty, not finite or not one-dimensional; constant where a scale must be fitted; a value that would
            be written below 10 or above 99, with its index.

    >>> encoded = encode([0.0, 0.5, 1.0, 0.25])
    >>> encoded.text, encoded.decode([15, 85]).tolist()
    ('15,50,85,32,', [0.0, 1.0])

    Reference: paper section 4.3, after Gruver et al. (2023).
    """
    values = _values(series)
    n = len(values) if n_fit is None else n_fit
    if not 1 <= n <= len(values):
        raise ValueError(f"(n_fit={n_fit!r}): expected 1 … {len(values)}, the length of the series")
    if limits is not None and n_fit is not None:
        raise ValueError(f"(n_fit={n_fit}, limits={limits}): give one of them")
    low, high = (float(values[:n].min()), float(values[:n].max())) if limits is None else map(float, limits)
    if limits is not None and low >= high:
        raise ValueError(f"(limits={limits}): expected two finite values, the smaller first")
    scale = (HIGH - LOW) / (high - low) if high > low else math.nan
    if not 0 < scale < math.inf:
        if high > low:
            raise ValueError(
                f"(series=...): from {low:g} to {high:g} the range is too {'small' if scale else 'large'} for a scale in "
                "float64; give the series in another unit, times a power of ten"
            )
        raise ValueError(
            f"(series=...): the {n} values that the scale is fitted on are all {low:g}, so there is no scale to "
            "fit; give limits=(low, high)"
        )
    offset = LOW - scale * low
    numbers = np.rint(_scaled(values, scale, low))
    outside = np.flatnonzero((numbers < FIRST) | (numbers > LAST))
    if len(outside):
        i = int(outside[0])
        raise ValueError(
            f"(series=...): value {i} ({values[i]:g}) would be {numbers[i]:.0f}, outside {FIRST} … {LAST}. Fit on "
            "more of the series, encode(series, n_fit=...), or leave room, encode(series, limits=(low, high)); "
            "forecast_scope and rolling_forecast take what encode() gave"
        )
    return EncodedSeries(values, numbers.astype(np.int64), scale, offset, 0 if limits is not None else n, low)


def _scaled(values: Float[ndarray, " n"], scale: float, low: float) -> Float[ndarray, " n"]:
    """``15 + scale·(value − low)``: the difference first, or large values lose their digits."""
    with np.errstate(over="ignore"):
        return np.asarray(LOW + scale * (values - low))


def _values(series: Any) -> Float[ndarray, " n"]:
    """A series of whatever container, all of it finite numbers; one that is missing is refused by its place."""
    if isinstance(series, Tensor):
        series = dense("series", series).detach().cpu()
        series = series.double() if series.is_floating_point() else series
    try:
        given = np.ma.asanyarray(series) if np.ma.isMaskedArray(series) else np.asarray(series)
        if given.dtype.kind in "cMm":
            raise ValueError(f"these are {given.dtype}")
        if given.dtype.kind == "O" and given.ndim == 1:
            given = np.array([_number(i, value) for i, value in enumerate(given)], dtype=np.float64)
        values = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"(series=...): expected one-dimensional numbers ({error})") from error
    if values.ndim != 1 or not len(values):
        raise ValueError(f"(series=array of shape {list(values.shape)}): expected one-dimensional, not empty")
    masked = np.ma.getmaskarray(given)
    bad = np.flatnonzero(~np.isfinite(values) | masked)
    if len(bad):
        i = int(bad[0])
        what = "masked" if masked[i] else values[i]
        raise ValueError(f"(series=...): value {i} is {what}; fill or drop it first")
    return values


def _number(place: int, value: Any) -> float:
    """One entry of a container of anything."""
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"value {place} is {value}; fill or drop it first") from error


# -- tokens ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TokenPlaces(Checked):
    """Which tokens of a prompt stand for which number.

    Attributes:
        numbers: token positions of each number, in order.
        delimiters: positions of the commas.
        rest: all others (BOS).
    """

    _at_least: ClassVar = dict.fromkeys(("numbers", "delimiters", "rest"), 0)

    numbers: tuple[tuple[int, ...], ...]
    delimiters: tuple[int, ...]
    rest: tuple[int, ...]


def token_places(prompt: EncodedPrompt, text: str) -> TokenPlaces:
    """Where the numbers of ``text`` stand among the tokens of its prompt.

    Raises:
        ValueError: the tokens do not spell the text, or one of them holds a piece of a number and a comma.
    """
    spans = prompt.offsets or _spans_by_text(prompt, text)
    numbers: list[list[int]] = [[] for _ in range(len(text) // 3)]
    delimiters, rest = [], []
    for place, (start, end) in enumerate(spans):
        characters = [c for c in range(start, end) if not text[c].isspace()]
        owners = {c // 3 if text[c] != "," else -1 for c in characters}
        if len(owners) > 1:
            raise ValueError(
                f"the tokenizer of this model joins {text[start:end]!r} into one token, so numbers and commas "
                "cannot be told apart. Use a model whose tokenizer separates digits from punctuation"
            )
        owner = owners.pop() if owners else None
        if owner is None:
            rest.append(place)
        elif owner < 0:
            delimiters.append(place)
        else:
            numbers[owner].append(place)
    if not all(numbers) or len(delimiters) != len(numbers):
        raise ValueError(f"the tokens {prompt.str_tokens[:8]} … do not spell {text[:12]!r} …")
    return TokenPlaces(tuple(tuple(p) for p in numbers), tuple(delimiters), tuple(rest))


def _spans_by_text(prompt: EncodedPrompt, text: str) -> list[tuple[int, int]]:
    """Characters of each token by its own text, where the tokenizer keeps no offsets."""
    spans, at = [], 0
    for place, token in enumerate(prompt.str_tokens):
        piece = "" if place in prompt.special else token.strip()
        if not text.startswith(piece, at):
            raise ValueError(f"the tokens {prompt.str_tokens[:8]} … do not spell {text[:12]!r} …")
        spans.append((at, at + len(piece)))
        at += len(piece)
    return spans


_PIECES: weakref.WeakKeyDictionary[Any, tuple[tuple[int, ...], ...]] = weakref.WeakKeyDictionary()


def number_ids(model: LensModel) -> tuple[int, ...] | None:
    """Token id of each of 10 … 99 as it stands after a comma; None where one of them takes several tokens.

    Raises:
        ValueError: as :func:`number_pieces`.
    """
    pieces = number_pieces(model)
    return tuple(p[0] for p in pieces) if all(len(p) == 1 for p in pieces) else None


def number_pieces(model: LensModel) -> tuple[tuple[int, ...], ...]:
    """Token ids of each of 10 … 99 as it stands between commas, looked up once per tokenizer.

    Raises:
        ValueError: no tokenizer, or one that does not separate numbers from commas or does not know digits.
    """
    if model.tokenizer is None:
        raise ValueError("this model has no tokenizer to write numbers with")
    if model.tokenizer not in _PIECES:
        _PIECES[model.tokenizer] = _written_numbers(model)
    return _PIECES[model.tokenizer]


def _written_numbers(model: LensModel) -> tuple[tuple[int, ...], ...]:
    """What the tokenizer makes of all numbers, each between commas."""
    text = f"{FIRST}," + "".join(f"{number}," for number in NUMBERS)
    tokens: Tensor = model.to_tokens(text, prepend_bos=False, truncate=False)[0].cpu()
    strings = token_strings(model, tokens)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    marked = frozenset(i for i, token in enumerate(tokens.tolist()) if token in special)
    prompt = EncodedPrompt(tokens, strings, len(tokens) - 1, marked)
    places = token_places(prompt, text)
    pieces = tuple(tuple(int(tokens[p]) for p in number) for number in places.numbers[1:])
    if len(set(pieces)) != len(pieces):
        raise ValueError("the tokenizer of this model writes different numbers with the same tokens")
    return pieces


def by_number(
    scores: Float[Tensor, "*rows pos"], places: Sequence[Sequence[int]], *, additive: bool = False
) -> Float[Tensor, "*rows number"]:
    """One score per number: ``sqrt(Σ_{t of the number} score_t²)``, the joint ball of appendix A.7; a sum if scores add."""
    parts = [scores[..., list(p)] for p in places]
    return torch.stack([part.sum(-1) if additive else part.norm(dim=-1) for part in parts], dim=-1)
