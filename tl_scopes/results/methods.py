"""How the results of each method are read: what heads a picture of them, the unit of a score, and whether scores add.

Scopes say it in their records (:mod:`tl_scopes.directions.scope`); the baselines, which are no choices of V, here. Tables of
many methods name variants of one, :class:`Variant`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tl_scopes.directions.by_name import ready_scopes, scope_of
from tl_scopes.model.frozen import Frozen, frozen_parts
from tl_scopes.model.held_functions import PARTS, Part


@dataclass(frozen=True)
class Legend:
    """Of one method.

    Attributes:
        title: heads a picture of its scores; ``{target}``, ``{foil}``, ``{of}`` and ``{method}`` are filled in.
        unit: of a score; ``{at}`` and ``{unit}`` are filled in.
        additive: do scores of several tokens add? Otherwise their squares do.
    """

    title: str = "{method}: influence of each token"
    unit: str = "score"
    additive: bool = False


BASELINES = {
    "input_x_gradient": Legend(unit="{unit}"),
    "gradient_norm": Legend(unit="{unit} per unit of {at}"),
    "integrated_gradients": Legend(unit="{unit}"),
    "smoothgrad": Legend(unit="{unit} per unit of {at}"),
    "leave_one_out": Legend(unit="{unit}"),
    "attention_rollout": Legend(unit="share of attention", additive=True),
    "random_attribution": Legend(unit="random numbers"),
}


def is_known(method: str) -> bool:
    """Is this a method of the package, whose scores are never negative?"""
    return method in BASELINES or scope_of(method) is not None


def legend(method: str) -> Legend:
    """For the results that are stored under this name."""
    scope = scope_of(method)
    if scope is not None:
        return Legend(scope.title, scope.unit, scope.additive)
    return BASELINES.get(method, Legend())


GRADIENT_BASELINES = ("input_x_gradient", "gradient_norm", "smoothgrad")
"""Baselines that are a gradient of the model as it is, so that parts of it can be held."""


@dataclass(frozen=True)
class Variant:
    """A method as tables of many name it: ``"fisher@16/norms+attention"`` is of rank 16, with norms and attention frozen.

    Attributes:
        name: of the scope or baseline.
        rank: of the Fisher Scope; None is its own.
        frozen: what its gradient holds constant.
    """

    name: str
    rank: int | None = None
    frozen: tuple[Part, ...] = ()

    def __str__(self) -> str:
        parts = "all" if self.frozen == PARTS else "+".join(self.frozen)
        return self.name + (f"@{self.rank}" if self.rank else "") + (f"/{parts}" if parts else "")

    @property
    def can_be_frozen(self) -> bool:
        """Is it a gradient at the prompt itself?"""
        return self.name in (*ready_scopes(), *GRADIENT_BASELINES)


def variant(written: str, known: Sequence[str]) -> Variant:
    """What a name with its rank and frozen parts stands for.

    Raises:
        ValueError: no method of that name, a rank of another method than Fisher's, parts of a method that holds none.
    """
    named, slash, parts = written.partition("/")
    name, at, rank = named.partition("@")
    if name not in known or (at and (name != "fisher" or not re.fullmatch(r"[1-9]\d*", rank))):
        raise ValueError(
            f"unknown method {written!r}; expected {', '.join(known)}, 'fisher@<rank>', or a gradient with what it holds "
            "constant, as in 'semantic/all' and 'semantic/norms+attention'"
        )
    found = Variant(name, int(rank) if rank else None)
    if not slash:
        return found
    if not found.can_be_frozen:
        raise ValueError(
            f"method {written!r}: {name!r} is no gradient at the prompt, so nothing can be held; leave out /{parts}"
        )
    held: Any = parts.split("+")
    if unknown := [part for part in held if part not in (*PARTS, "all")]:
        raise ValueError(
            f"method {written!r}: {unknown[0]!r} is no part; expected {', '.join(PARTS)}, joined by +, or all"
        )
    return replace(found, frozen=frozen_parts(held))


def with_frozen(methods: Mapping[str, Any] | Sequence[str], frozen: Frozen, known: Sequence[str]) -> dict[str, Any]:
    """``{label: name or callable}``; gradients that say nothing of it themselves hold these parts, and are called so."""
    chosen: dict[str, Any] = dict(methods) if isinstance(methods, Mapping) else {m: m for m in methods}
    held = frozen_parts(frozen)
    if not held:
        return chosen
    found: dict[str, Any] = {}
    for label, method in chosen.items():
        asked = variant(method, known) if isinstance(method, str) else None
        if asked is not None and asked.can_be_frozen and not asked.frozen:
            asked = replace(asked, frozen=held)
        found[str(asked) if label == method else label] = method if asked is None else str(asked)
    if len(found) != len(chosen):
        raise ValueError(f"(frozen={frozen!r}): methods {list(chosen)} are then not all different; leave out one")
    return found
