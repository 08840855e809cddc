"""Methods as tables of many name them: a name with its rank, what its gradient holds constant, and which scores rank.

fisher@16/norms+attention    semantic/all    input_x_gradient/all:signed    random
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tl_scopes.directions.by_name import ready_scopes
from tl_scopes.model.frozen import Frozen, frozen_parts
from tl_scopes.model.held_functions import PARTS, Part

GRADIENT_BASELINES = ("input_x_gradient", "gradient_norm", "integrated_gradients", "smoothgrad")
"""Baselines made of gradients, in which parts of the model can be held."""
SIGNED = ("input_x_gradient", "integrated_gradients")
"""Baselines whose scores are norms, and that have signed sums too."""


@dataclass(frozen=True)
class Variant:
    """A method as tables of many name it: ``"fisher@16/norms+attention"`` is of rank 16, with norms and attention frozen.

    Attributes:
        name: of the scope or baseline.
        rank: of the Fisher Scope; None is its own.
        frozen: what its gradient holds constant.
        signed: do its signed sums rank the tokens, highest first, in place of its norms?
    """

    name: str
    rank: int | None = None
    frozen: tuple[Part, ...] = ()
    signed: bool = False

    def __str__(self) -> str:
        parts = "all" if self.frozen == PARTS else "+".join(self.frozen)
        rank, held = f"@{self.rank}" if self.rank else "", f"/{parts}" if parts else ""
        return self.name + rank + held + (":signed" if self.signed else "")

    @property
    def can_be_frozen(self) -> bool:
        """Is it made of gradients?"""
        return self.name in (*ready_scopes(), *GRADIENT_BASELINES)


def variant(written: str, known: Sequence[str]) -> Variant:
    """What a name with its rank, frozen parts and reading stands for.

    Raises:
        ValueError: no method of that name, a rank of another method than Fisher's, parts of a method that holds none, signs
            of one that has none.
    """
    whole, colon, reading = written.partition(":")
    named, slash, parts = whole.partition("/")
    name, at, rank = named.partition("@")
    if name not in known or (at and (name != "fisher" or not re.fullmatch(r"[1-9]\d*", rank))):
        raise ValueError(
            f"unknown method {written!r}; expected {', '.join(known)}, 'fisher@<rank>', or a gradient with what it holds "
            "constant, as in 'semantic/all' and 'semantic/norms+attention'"
        )
    if colon and not slash and reading.partition("/")[0] == "signed" and "/" in reading and name in SIGNED:
        raise ValueError(
            f"method {written!r}: the reading comes last; write {whole}/{reading.partition('/')[2]}:signed"
        )
    if colon and (reading != "signed" or name not in SIGNED):
        raise ValueError(f"method {written!r}: only {' and '.join(SIGNED)} can end in ':signed'; leave out :{reading}")
    found = Variant(name, int(rank) if rank else None, signed=bool(colon))
    if not slash:
        return found
    if not found.can_be_frozen:
        raise ValueError(
            f"method {written!r}: {name!r} is made of no gradient, so nothing can be held; leave out /{parts}"
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
    if not any(isinstance(m, str) and variant(m, known).frozen for m in found.values()):
        raise ValueError(
            f"(frozen={frozen!r}): none of the methods {list(chosen)} is a gradient that can hold it; leave it out"
        )
    if len(found) != len(chosen):
        raise ValueError(f"(frozen={frozen!r}): methods {list(chosen)} are then not all different; leave out one")
    return found


def named_methods(methods: Sequence[str] | Mapping[str, Any], frozen: Frozen, known: Sequence[str]) -> dict[str, Any]:
    """``{label: name or callable}``, every name known, with what all gradients hold constant.

    Raises:
        ValueError: no methods, one given twice, an unknown name, parts that none of them can hold.
    """
    if not methods:
        raise ValueError(f"(methods={methods!r}): expected names among {tuple(known)}, or {{label: callable}}")
    if twice := [m for i, m in enumerate(methods) if m in list(methods)[:i]]:
        raise ValueError(f"(methods=...): method {twice[0]!r} is given twice")
    for method in methods.values() if isinstance(methods, Mapping) else methods:
        if not callable(method):
            try:
                variant(str(method), known)
            except ValueError as error:
                raise ValueError(f"(methods=...): {error}") from None
    return with_frozen(methods, frozen, known)
