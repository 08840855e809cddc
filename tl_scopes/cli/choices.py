"""Names that options take."""

from __future__ import annotations

from enum import Enum


class System(str, Enum):
    """Series that can be generated."""

    lorenz = "lorenz"
    lorenz_with_drift = "lorenz-with-drift"
    logistic_map = "logistic"
    brownian_motion = "brownian"
    geometric_brownian_motion = "geometric-brownian"
    periodic = "periodic"


class Start(str, Enum):
    """Where a path to the prompt begins."""

    zero = "zero"
    mean = "mean"
    pad = "pad"


class Preset(str, Enum):
    """Published protocols."""

    paper = "paper"
    text = "text"


class Token(str, Enum):
    """Which token of a passage."""

    truth = "truth"
    argmax = "argmax"


class Ablated(str, Enum):
    """What a removed embedding becomes."""

    zero = "zero"
    mean = "mean"
    resample = "resample"


class Component(str, Enum):
    """What is patched in a layer."""

    resid_pre = "resid_pre"
    resid_mid = "resid_mid"
    attn_out = "attn_out"
    mlp_out = "mlp_out"


class Measure(str, Enum):
    """What is measured with AOPC."""

    sufficiency = "sufficiency"
    leave_one_out = "leave_one_out"


class Part(str, Enum):
    """What tokens are joined into."""

    word = "word"
    sentence = "sentence"
    line = "line"
    paragraph = "paragraph"
    turn = "turn"


class Layout(str, Enum):
    """What a source is written in."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
