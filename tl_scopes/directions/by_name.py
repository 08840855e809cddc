"""The scopes by name, and from a name and keywords to the direction.

=====================  =========================================  ========================================
method                 its keywords                               V
=====================  =========================================  ========================================
``semantic``           ``target``, ``of``                         the target's row of the read-out
``contrast``           ``target``, ``foil``                       the difference of two rows
``fisher``             ``rank``, ``tol``                          leading eigenvectors of F
``temperature``                                                   ``y/‖y‖``
``total_information``  ``rank``, ``n_samples``, ``seed``          eigenvectors and probes of F
``moment``             ``moment``, ``values``                     gradient of a forecast's mean or variance
``jacobian``           ``direction``                              the caller's rows
=====================  =========================================  ========================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor
from typing_extensions import TypedDict

from tl_scopes.directions.base import Direction
from tl_scopes.directions.fisher import FISHER
from tl_scopes.directions.given import JACOBIAN
from tl_scopes.directions.logits import CONTRAST, SEMANTIC, Of
from tl_scopes.directions.moments import MOMENT
from tl_scopes.directions.scope import Scope
from tl_scopes.directions.temperature import TEMPERATURE
from tl_scopes.directions.total_information import TOTAL_INFORMATION
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Target
from tl_scopes.numerics.arguments import Seed

SCOPES: dict[str, Scope] = {}
"""Every scope, by name."""
DEFAULT_METHODS: tuple[str, ...] = ("semantic", "fisher", "temperature")
"""What is computed where several scopes are wanted and none is named: those of the paper."""


class RowKeywords(TypedDict, total=False):
    """Keywords of scopes that explain whatever token is at hand."""

    of: Of | None
    foil: Target
    rank: int | None
    tol: float | None
    n_samples: int | None
    seed: Seed | None
    moment: Literal["mean", "variance"] | None
    values: Mapping[int, float] | None
    direction: Tensor | None


class ScopeKeywords(RowKeywords, total=False):
    """Keywords that belong to some of the scopes; None, as if it were not given, lets the scope choose.

    Attributes:
        target: explained token, as id or as the text that results show it as (" dog", with its space), or one for each
            prompt. A text that two tokens may be is refused with their ids. A text of several tokens is put behind the prompt
            and explained as a whole.
        of: of ``"semantic"`` and ``"contrast"``: the ``"logit"`` of a target or its ``"log_prob"``; None is the logit of one
            token, and of each position that ``pos`` names; the log-probability of an answer of several.
        foil: of ``"contrast"``: the token that it is compared with.
        rank: eigenpairs, of ``"fisher"`` (None is 1) and ``"total_information"`` (None is 8).
        tol: relative residual of the eigenpairs, of ``"fisher"`` (None is 1e-4).
        n_samples: most probes, of ``"total_information"`` (None is 64).
        seed: of the probes (None is 0).
        moment: of ``"moment"`` (None is ``"mean"``).
        values: of ``"moment"``, ``{token id: number}``; None is the model's number tokens.
        direction: of ``"jacobian"``, ``[d_model]`` or ``[k, d_model]``.
    """

    target: Target


def register(scope: Scope) -> None:
    """Make a scope known by its name."""
    SCOPES[scope.name] = scope


for _scope in (SEMANTIC, CONTRAST, FISHER, TEMPERATURE, TOTAL_INFORMATION, MOMENT, JACOBIAN):
    register(_scope)


def scope_of(method: str) -> Scope | None:
    """The scope whose results are stored under this name, e.g. ``"moment_mean"``; None for a baseline's."""
    return next((scope for scope in SCOPES.values() if method in scope.methods), None)


def ready_scopes() -> tuple[str, ...]:
    """Names of the scopes that need nothing from the caller but a prompt."""
    return tuple(name for name, scope in SCOPES.items() if not scope.needs)


def reads(keyword: str, methods: Sequence[str]) -> bool:
    """Does one of the methods read this keyword?"""
    return any(keyword in SCOPES[method].keywords for method in methods)


def check_methods(methods: Sequence[str], argument: Literal["method", "methods"] = "methods") -> None:
    """Refuse names that are unknown or come twice.

    Raises:
        ValueError: such a name, or none at all.
    """
    if isinstance(methods, str) or not methods or len(set(methods)) != len(methods) or set(methods) - set(SCOPES):
        one = argument == "method" and not isinstance(methods, str) and len(methods) == 1
        found, rule = (methods[0], "one of") if one else (methods, "different names among")
        raise ValueError(f"({argument}={found!r}): expected {rule} {tuple(SCOPES)}")


def check_keywords(
    methods: Sequence[str], keywords: Mapping[str, Any], argument: Literal["method", "methods"] = "methods"
) -> dict[str, Any]:
    """The keywords that are given, each read by one of the methods; needs no model.

    Raises:
        ValueError: an unknown or repeated method, or a keyword that none of them reads.
    """
    check_methods(methods, argument)
    given = {name: value for name, value in keywords.items() if value is not None}
    for name in given:
        if not reads(name, methods):
            users = ", ".join(repr(scope.name) for scope in SCOPES.values() if name in scope.keywords)
            chosen = ", ".join(map(repr, methods))
            whose = f"it belongs to {users}" if users else "no scope does"
            raise ValueError(f"({name}=...): method {chosen} does not read it; {whose}")
    return given


def named_directions(
    model: LensModel,
    methods: Sequence[str],
    n_prompts: int,
    keywords: Mapping[str, Any],
    argument: Literal["method", "methods"] = "methods",
    of_rows: bool = False,
) -> list[Direction]:
    """What each method explains; a keyword that is missing or None is the scope's own default.

    With ``of_rows`` every position of a text is explained, for which some scopes have other defaults.

    Raises:
        ValueError: an unknown or repeated method, a keyword that none of them reads, or one that is missing.
    """
    given = check_keywords(methods, keywords, argument)
    directions = []
    for scope in (SCOPES[method] for method in methods):
        defaults = {**scope.keywords, **(scope.of_rows if of_rows else {})}
        directions.append(scope.direction(model, n_prompts, {k: given.get(k, v) for k, v in defaults.items()}))
    return directions
