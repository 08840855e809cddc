"""Colours of lines, and from a score to a colour: the scale, its ends, and the blue that CircuitsVis gives to a share.

Of numbers with a sign those below 0 have a share below 0, whose colour is orange.

CircuitsVis colours a token by its share of the largest value: ``mix(white, colour, share)`` in CIE Lab (the colord
library). The same mix is computed here, so that the static picture and the drawn one have one colour for one score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

RGB = tuple[int, int, int]
ScaleKind = Literal["auto", "linear", "minmax", "log"]
FULL = "#08519c"
"""The colour of the highest score: one dark blue (ColorBrewer Blues), so only lightness carries the score."""
BELOW_ZERO = "#a63603"
"""The colour of the lowest of signed scores (ColorBrewer Oranges): told from the blue with any colour vision."""
RED = "#b2182b"
"""Of what is explained, and of what came true."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Of lines: Okabe and Ito's palette, told apart with any colour vision."""
_STEPS = 1000
LOG_FROM = 50.0
"""Above this ratio of the highest to the median score a linear scale would leave most tokens white."""
_LOG_RANGE, SIGNED_RANGE = 1e4, 1e2
"""How far down log scales go: of signed scores two colours of noise would hide what is there."""
_FOOT = 0.06
"""Share of the lowest score where colours start there: it is small, but it is not zero."""
_MIDDLE = 0.179
"""Luminance on which black and white text have the same contrast."""
_TURN = ((-0.574, 1.43, 0.144), (0.426, 0.43, 0.144), (0.426, 1.43, -0.856))
"""``hue-rotate(180deg)``, from the Filter Effects specification."""
# colord's own constants (sRGB to XYZ, adapted to D50), to the digits that it uses.
_WHITE_POINT = (96.422, 100.0, 82.521)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27


@dataclass(frozen=True)
class Scale:
    """Maps a score to a share of the full colour.

    The share is the place between ``low`` and ``high``, in log score where ``log``.

    Attributes:
        log: is it in log score?
        low: the score at which colours start: 0 on a ``"linear"`` scale, the lowest score on a ``"minmax"`` one, and on a
            ``"log"`` one that below which nothing is told apart any more.
        high: the score that gets the full colour.
        signed: is it of sizes, on both sides of 0?
    """

    log: bool
    low: float
    high: float
    signed: bool = False

    @classmethod
    def of(cls, scores: Iterable[float], kind: ScaleKind = "auto", reach: float = _LOG_RANGE) -> Scale:
        """The scale for some scores: linear from 0, or log where the highest is far above the median; down to the
        highest over ``reach`` in log."""
        if kind not in get_args(ScaleKind):
            raise ValueError(f"scale={kind!r}: expected {', '.join(map(repr, get_args(ScaleKind)))}")
        every = sorted(scores)
        positive = [s for s in every if s > 0]
        if not positive:
            return cls(False, 0.0, 0.0)
        high = positive[-1]
        wide = len(positive) > 3 and high > LOG_FROM * positive[len(positive) // 2]
        if kind == "log" or (kind == "auto" and wide):
            low = max(positive[0], high / reach)
            if low < high:
                return cls(True, low, high)
        if kind == "minmax" and 0 < every[0] < high:
            return cls(False, every[0], high)
        return cls(False, 0.0, high)

    @classmethod
    def around_zero(cls, scores: Iterable[float], kind: ScaleKind = "auto") -> Scale:
        """The scale for scores of both signs: of their sizes, linear or log."""
        return replace(cls.of(map(abs, scores), kind, SIGNED_RANGE), signed=True)

    @property
    def kind(self) -> ScaleKind:
        """Its name."""
        return "log" if self.log else "minmax" if self.low > 0 else "linear"

    def share(self, score: float) -> float:
        """Between 0 (white) and 1 (full colour), of signed scores −1; never decreasing in the score."""
        if self.signed and score < 0:
            return -self.share(-score)
        if score <= 0 or self.high <= 0:
            return 0.0
        if self.low == 0:
            return min(score / self.high, 1.0)
        low, here, high = (
            map(math.log, (self.low, max(score, self.low), self.high))
            if self.log
            else (self.low, max(score, self.low), self.high)
        )
        return _FOOT + (1 - _FOOT) * min((here - low) / (high - low), 1.0)

    def score(self, share: float) -> float:
        """The score that has this share, for the legend."""
        if self.low == 0:
            return share * self.high
        place = max(share - _FOOT, 0.0) / (1 - _FOOT)
        if self.log:
            return float(math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low))))
        return self.low + place * (self.high - self.low)


def blend(share: float, full: str = FULL) -> RGB:
    """Background of a token with this share: white at 0, ``full`` at 1, orange at −1."""
    if share < 0:
        share, full = -share, BELOW_ZERO
    return _blend(round(min(max(share, 0.0), 1.0) * _STEPS), full)


def quantised(share: float) -> float:
    """The share that is drawn: in steps of 1/1000, so that both pictures round alike."""
    return round(min(max(share, -1.0), 1.0) * _STEPS) / _STEPS


@lru_cache(maxsize=4 * (_STEPS + 1))
def _blend(step: int, full: str) -> RGB:
    colour, white = _lab(_parse(full)), _lab((255, 255, 255))
    weight = 1 - step / _STEPS
    return _rgb([a * (1 - weight) + b * weight for a, b in zip(colour, white, strict=True)])


def ink(background: RGB) -> str:
    """Black or white, whichever has the higher contrast (WCAG) on the background."""
    return "#000" if luminance(background) > _MIDDLE else "#fff"


def ink_before_inversion(background: RGB) -> str:
    """The same for dark mode, where :func:`inverted` changes both background and ink."""
    return "#fff" if luminance(inverted(background)) > _MIDDLE else "#000"


def inverted(colour: RGB) -> RGB:
    """What CSS ``invert(1) hue-rotate(180deg)`` makes of a colour: dark becomes light, blue stays blue."""
    r, g, b = (math.floor(min(max(c, 0.0), 255.0) + 0.5) for c in _times(_TURN, [255.0 - c for c in colour]))
    return r, g, b


def luminance(colour: RGB) -> float:
    """Relative luminance (WCAG)."""
    r, g, b = (_linear(c) for c in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def ink_attributes(background: RGB) -> str:
    """The ink as attributes of an element; ``data-flip`` is the ink that the style sheet takes in dark mode."""
    light, dark = ink(background), ink_before_inversion(background)
    return f'style="color:{light}"' + (f' data-flip="{dark[1:]}"' if dark != light else "")


def inks(background: RGB) -> tuple[str, str, str]:
    """A background as CSS, its ink, and its ink in dark mode, where both are inverted."""
    return css(background), ink(background), ink_before_inversion(background)[1:]


def css(colour: RGB) -> str:
    """The colour as CSS."""
    return "rgb({}, {}, {})".format(*colour)


def _parse(colour: str) -> RGB:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return r, g, b


def _linear(channel: int) -> float:
    c = channel / 255
    return c / 12.92 if c < 0.04045 else ((c + 0.055) / 1.055) ** 2.4


def _times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    return [sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix]


def _lab(colour: RGB) -> list[float]:
    to_xyz = (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.072175),
        (0.0193339, 0.119192, 0.9503041),
    )
    to_d50 = (
        (1.0478112, 0.0228866, -0.050127),
        (0.0295424, 0.9904844, -0.0170491),
        (-0.0092345, 0.0150436, 0.7521316),
    )
    xyz = _times(to_d50, [100 * v for v in _times(to_xyz, [_linear(c) for c in colour])])
    relative = [min(max(v, 0.0), w) / w for v, w in zip(xyz, _WHITE_POINT, strict=True)]
    x, y, z = (v ** (1 / 3) if v > _EPSILON else (_KAPPA * v + 16) / 116 for v in relative)
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


def _rgb(lab: Sequence[float]) -> RGB:
    from_d50 = (
        (0.9555766, -0.0230393, 0.0631636),
        (-0.0282895, 1.0099416, 0.0210077),
        (0.0122982, -0.020483, 1.3299098),
    )
    from_xyz = (
        (0.032404542, -0.015371385, -0.004985314),
        (-0.00969266, 0.018760108, 0.00041556),
        (0.000556434, -0.002040259, 0.010572252),
    )
    light, a, b = lab
    y = (light + 16) / 116
    x, z = a / 500 + y, y - b / 200
    relative = (
        x**3 if x**3 > _EPSILON else (116 * x - 16) / _KAPPA,
        y**3 if light > 8 else light / _KAPPA,
        z**3 if z**3 > _EPSILON else (116 * z - 16) / _KAPPA,
    )
    xyz = [v * w for v, w in zip(relative, _WHITE_POINT, strict=True)]
    channels = _times(from_xyz, _times(from_d50, xyz))
    encoded = [255 * (1.055 * c ** (1 / 2.4) - 0.055 if c > 0.0031308 else 12.92 * c) for c in channels]
    r, g, b = (math.floor(min(max(c, 0.0), 255.0) + 0.5) for c in encoded)
    return r, g, b
