"""What the page asks, as it comes: checked for types before anything else sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tl_scopes.app.menu import menu
from tl_scopes.model.frozen import frozen_parts
from tl_scopes.model.held_functions import Part
from tl_scopes.results.units import UnitKind

MOST_CHARACTERS = 200_000
"""Longest text that is handed to a tokenizer at all; what fits is for the model's context to say."""
MOST_WRITTEN = 500
"""Tokens that the model writes at most."""


@dataclass(frozen=True)
class Question:
    """What the page asks, checked for types; whether it makes sense is for the package to say.

    Attributes:
        model: name of one of the loaded models.
        method: a key of :func:`~tl_scopes.app.menu.menu`.
        prompt: the text.
        pos: explained position.
        target, foil: a token as text or id; None is the method's default.
        rank: of the Fisher Scope.
        moment: of the numeric moment.
        frozen: what the gradient holds constant.
        write: of a chain, the most tokens that the model writes after the text.
        units, prompt_units: what it and the text are cut into; None for the text is the same.
        answer: words of what is written; None is its last unit.
        step: the number of a unit that is asked for instead, from 0.
    """

    model: str
    method: str
    prompt: str
    pos: int = -1
    target: str | int | None = None
    foil: str | int | None = None
    rank: int = 1
    moment: Literal["mean", "variance"] = "mean"
    frozen: tuple[Part, ...] = ()
    write: int = 40
    units: UnitKind = "sentence"
    prompt_units: UnitKind | None = None
    answer: str | None = None
    step: int | None = None

    @classmethod
    def of(cls, raw: Any) -> Question:
        """From the JSON of a request; anything unexpected is a ``ValueError`` that names it."""
        if not isinstance(raw, Mapping):
            raise ValueError("explain: expected a JSON object with model, method and prompt")
        kinds: dict[str, tuple[type, ...]] = {
            "model": (str,),
            "method": (str,),
            "prompt": (str,),
            "pos": (int,),
            "target": (str, int, type(None)),
            "foil": (str, int, type(None)),
            "rank": (int,),
            "moment": (str,),
            "frozen": (list,),
            "write": (int,),
            "units": (str,),
            "prompt_units": (str, type(None)),
            "answer": (str, type(None)),
            "step": (int, type(None)),
        }
        unknown = sorted(set(raw) - set(kinds))
        if unknown:
            raise ValueError(f"explain({unknown[0]}=...): unknown; expected {', '.join(kinds)}")
        for name, value in raw.items():
            if isinstance(value, bool) or not isinstance(value, kinds[name]):
                expected = " or ".join("null" if k is type(None) else k.__name__ for k in kinds[name])
                raise ValueError(f"explain({name}=...): expected {expected}, got {type(value).__name__}")
        missing = [name for name in ("model", "method", "prompt") if name not in raw]
        if missing:
            raise ValueError(f"explain: {missing[0]} is missing")
        if raw["method"] not in (known := menu()):
            raise ValueError(f"explain(method={raw['method']!r}): expected one of {', '.join(known)}")
        if len(raw["prompt"]) > MOST_CHARACTERS:
            raise ValueError(
                f"explain(prompt=...): {len(raw['prompt'])} characters are more than {MOST_CHARACTERS}; shorten the text"
            )
        if not 1 <= raw.get("write", 1) <= MOST_WRITTEN:
            raise ValueError(f"explain(write={raw['write']}): expected 1 to {MOST_WRITTEN} tokens")
        try:
            frozen = frozen_parts(raw.get("frozen", ()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"explain{error}") from error
        return cls(**{**raw, "frozen": frozen})
