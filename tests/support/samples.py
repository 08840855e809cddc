"""Results and texts made by hand, for tests of what shows and keeps them."""

from __future__ import annotations

import torch

from tl_scopes import Attribution
from tl_scopes.demo.corpora import CORPORA, examples
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.views.canvas.heatmap import HeatMap

HOSTILE = [
    "</script>",
    "<img src=x onerror=alert(1)>",
    "שלום",
    "👩‍👩‍👧",
    "a\n\tb",
    '"><b>',
    "&lt;",
    "\u202e\x1b[31m",
    "<!--<script>",
]


def attribution(str_tokens: list[str] | None = None, **changes: object) -> Attribution:
    """Six tokens, BOS first, read at the last but one."""
    strings = str_tokens or ["<bos>", "German", ":", " Hund", "\n", " later"]
    n = len(strings)
    values: dict[str, object] = {
        "scores": torch.tensor([4.0, 0.5, 3.0, 10.0, 1.5, 0.0][:n] + [2.0] * (n - 6)),
        "tokens": torch.arange(n),
        "str_tokens": strings,
        "pos": n - 2,
        "method": "semantic",
        "target": 3,
        "target_str": " dog",
        "top_predictions": [(" dog", 0.5), (" cat", 0.25), ("<i>", 0.1)],
        "details": {"target_probability": 0.5, "at": "hook_embed"},
        "notes": ("a note <b>",),
        "special": frozenset({0}),
    }
    return Attribution(**(values | changes))  # type: ignore[arg-type]


def matrix(str_tokens: list[str] | None = None, **changes: object) -> AttributionMatrix:
    """All rows of a lower triangle with known values; the last target is a top prediction."""
    strings = str_tokens or ["<bos>", " a", " b", " c"]
    n = len(strings)
    scores = torch.tril(torch.arange(1.0, n * n + 1).reshape(n, n))
    values: dict[str, object] = {
        "scores": scores,
        "tokens": torch.arange(n),
        "str_tokens": strings,
        "positions": tuple(range(n)),
        "method": "semantic",
        "targets": (*range(1, n), 7),
        "target_strs": (*strings[1:], " end"),
        "top_target_flagged": True,
        "details": {"lambda_1": [float(i) for i in range(n)]},
        "special": frozenset({0}),
    }
    return AttributionMatrix(**(values | changes))  # type: ignore[arg-type]


def some_map(**changes: object) -> HeatMap:
    values: dict[str, object] = {
        "values": torch.tensor([[0.0, 1.0, 2.0], [4.0, 0.5, 0.25]]),
        "rows": ("1", "0"),
        "columns": ("<bos>", " a", " b"),
        "title": "A <title>",
        "unit": "nats",
        "row_name": "layer",
        "column_name": "token",
    }
    return HeatMap(**(values | changes))  # type: ignore[arg-type]


def passages(per_corpus: int, seed: int = 0) -> list[str]:
    return [e.prompt + e.answer for c in CORPORA for e in examples(c, per_corpus, seed)]
