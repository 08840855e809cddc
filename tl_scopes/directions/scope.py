"""A scope as one record: its name, its keywords, what it makes of them, and how its results are read.

Everything that must know the scopes reads these records: ``scopes``, ``attribution_matrix``, ``layer_influence`` and their
like, the command line, the app, the words of pictures, and what rebuilds the direction of a saved result. To add a scope,
write a :class:`Scope` and :func:`~tl_scopes.directions.by_name.register` it; no other file knows its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tl_scopes.directions.base import Direction
from tl_scopes.model.lens import LensModel
from tl_scopes.model.state import ModelState

Keywords = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Explained:
    """What a result kept of the direction that made it.

    Attributes:
        method: name under which the result is stored.
        target: explained token.
        details: of the result.
        direction: the caller's own rows, where the result has some.
    """

    method: str
    target: int
    details: Mapping[str, Any]
    direction: Tensor | None = None


def _on_every_model(state: ModelState) -> None:
    """Valid on every model, processed or not."""


@dataclass(frozen=True)
class Scope:
    """One choice of V.

    Attributes:
        name: in ``methods=`` and ``method=``.
        label: on a menu, e.g. ``"Total information"``.
        summary: one line below it: what is explained.
        title: heads a picture of its scores; ``{target}`` is filled in, ``{of}``, what of it is explained, and
            ``{tokens}``, what its entries are; ``{variant}`` is what a result's name has behind the scope's.
        unit: of a score; ``{at}`` is filled in, and ``{unit}``, of what is explained.
        units: those of the results that have another one.
        direction: makes the direction from ``(model, number of prompts, own keywords)``.
        rebuild: makes the direction of one saved result again.
        keywords: its own keywords with their defaults; None where the direction chooses, or needs one.
        needs: those of the keywords that a caller must give.
        require: refuses a model on which the scope is not defined.
        targeted: does it explain a token of the caller's choice?
        additive: are scores sums over rows, so that those of several tokens add? Otherwise their squares do.
        called: name of its function, where that is not ``name`` with ``"_scope"`` behind it.
        results: names under which its results are stored, where that is not ``name``.
        asked: those of the keywords that a menu asks for.
        of_rows: keywords that differ where every position of a text is explained.
        rebuilt_from: the row's details that ``rebuild`` reads, which a matrix keeps as they are.
        kept_of_rows: what else a matrix keeps of each row: name, and how it follows from the row's details.
    """

    name: str
    label: str
    summary: str
    title: str
    unit: str
    direction: Callable[[LensModel, int, Keywords], Direction]
    rebuild: Callable[[LensModel, Explained], Direction]
    keywords: Keywords = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    require: Callable[[ModelState], None] = _on_every_model
    targeted: bool = False
    additive: bool = False
    called: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    of_rows: Keywords = field(default_factory=dict)
    rebuilt_from: tuple[str, ...] = ()
    kept_of_rows: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)

    @property
    def function(self) -> str:
        """Name of its function."""
        return self.called or f"{self.name}_scope"

    @property
    def methods(self) -> tuple[str, ...]:
        """Names under which its results are stored."""
        return self.results or (self.name,)
