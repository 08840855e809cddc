"""How the results of each method are read: what heads a picture of them, the unit of a score, and whether scores add.

Scopes say it in their records (:mod:`tl_scopes.directions.scope`); the baselines, which are no choices of V, here.
"""

from __future__ import annotations

from dataclasses import dataclass

from tl_scopes.directions.by_name import scope_of


@dataclass(frozen=True)
class Legend:
    """Of one method.

    Attributes:
        title: heads a picture of its scores; ``{target}``, ``{foil}``, ``{of}``, ``{method}`` are filled in, and
            ``{tokens}`` or ``{token}``, what its entries are.
        what: a score is, where it is no scope's.
        unit: of a score; ``{at}`` and ``{unit}`` are filled in.
        additive: do scores of several tokens add? Otherwise their squares do.
    """

    title: str = "{method}: influence of each {token}"
    unit: str = "score"
    additive: bool = False
    what: str = ""


_ON_TARGET = "{method}: which {tokens} move the {of} of {target}"
BASELINES = {
    "input_x_gradient": Legend(_ON_TARGET, "{unit}", what="norm of the product of activation and gradient"),
    "gradient_norm": Legend(_ON_TARGET, "{unit} per unit of {at}", what="norm of the gradient"),
    "integrated_gradients": Legend(_ON_TARGET, "{unit}", what="norm of the product of activation and mean gradient"),
    "smoothgrad": Legend(_ON_TARGET, "{unit} per unit of {at}", what="norm of the mean gradient"),
    "leave_one_out": Legend(
        "{method}: which {tokens} change the {of} of {target}", "{unit}", what="size of the change without the token"
    ),
    "attention_rollout": Legend(unit="share of attention", additive=True, what="attention through all layers"),
    "random_attribution": Legend(unit="random numbers", what="noise"),
}


def is_known(method: str) -> bool:
    """Is this a method of the package, whose scores are never negative?"""
    return method in BASELINES or scope_of(method) is not None


def legend(method: str) -> Legend:
    """For the results that are stored under this name."""
    scope = scope_of(method)
    if scope is not None:
        variant = method.removeprefix(f"{scope.name}_")
        return Legend(scope.title.replace("{variant}", variant), scope.units.get(method, scope.unit), scope.additive)
    return BASELINES.get(method, Legend())
