"""The methods that a table is asked for, held against the model before any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tl_scopes.model.completeness import refuse_unfrozen
from tl_scopes.model.frozen import Frozen
from tl_scopes.model.lens import LensModel
from tl_scopes.results.variants import named_methods, variant


def chosen_methods(
    methods: Sequence[str] | Mapping[str, Any], frozen: Frozen, known: Sequence[str], model: LensModel
) -> dict[str, Any]:
    """:func:`named_methods`, and the model can hold what they hold constant.

    Raises:
        ValueError: as there; a part that cannot be held in this model.
    """
    held = named_methods(methods, frozen, known)
    for method in held.values():
        if isinstance(method, str):
            refuse_unfrozen(model, variant(method, known).frozen)
    return held
