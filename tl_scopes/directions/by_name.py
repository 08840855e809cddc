"""From the name of a scope and its keywords to what it explains.

=====================  =========================================  ========================================
method                 its keywords                               V
=====================  =========================================  ========================================
``semantic``           ``target``                                 the target's row of the read-out
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
from dataclasses import dataclass, fields
from typing import Literal

from torch import Tensor

from tl_scopes.directions.base import Explanandum
from tl_scopes.directions.fisher import Fisher
from tl_scopes.directions.given import Direction
from tl_scopes.directions.logits import Contrast, Semantic
from tl_scopes.directions.moments import Moment, number_tokens
from tl_scopes.directions.temperature import Temperature
from tl_scopes.directions.total_information import TotalInformation
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Target, encode_targets

Method = Literal["semantic", "contrast", "fisher", "temperature", "total_information", "moment", "jacobian"]
KEYWORDS: dict[str, tuple[str, ...]] = {
    "semantic": ("target",),
    "contrast": ("target", "foil"),
    "fisher": ("rank", "tol"),
    "temperature": (),
    "total_information": ("rank", "n_samples", "seed"),
    "moment": ("moment", "values"),
    "jacobian": ("direction",),
}
"""What each method reads; any other keyword is refused where no chosen method reads it."""


def reads(keyword: str, methods: Sequence[str]) -> bool:
    """Does one of the methods read this keyword?"""
    return any(keyword in KEYWORDS[method] for method in methods)


@dataclass(frozen=True, eq=False)
class Keywords:
    """The scopes' own keywords; None where the caller gave none."""

    target: Target = None
    foil: Target = None
    rank: int | None = None
    tol: float | None = None
    n_samples: int | None = None
    seed: int | None = None
    moment: Literal["mean", "variance"] | None = None
    values: Mapping[int, float] | None = None
    direction: Tensor | None = None


def named_explananda(
    model: LensModel,
    methods: Sequence[str],
    n_prompts: int,
    keywords: Keywords,
    call: str,
    argument: Literal["method", "methods"] = "method",
) -> list[Explanandum]:
    """What each method explains, with the scopes' own defaults.

    Raises:
        ValueError: an unknown or repeated method, a keyword that none of them reads, or one that is missing.
    """
    if isinstance(methods, str) or not methods or len(set(methods)) != len(methods) or set(methods) - set(KEYWORDS):
        one = argument == "method" and not isinstance(methods, str) and len(methods) == 1
        found, rule = (methods[0], "one of") if one else (methods, "different names among")
        raise ValueError(f"{call}({argument}={found!r}): expected {rule} {tuple(KEYWORDS)}")
    for given in fields(keywords):
        if getattr(keywords, given.name) is not None and not reads(given.name, methods):
            users = [m for m, names in KEYWORDS.items() if given.name in names]
            raise ValueError(
                f"{call}({given.name}=...): method {', '.join(map(repr, methods))} does not read it; it belongs to "
                f"{', '.join(map(repr, users))}"
            )
    return [_named(model, method, n_prompts, keywords, call) for method in methods]


def _named(model: LensModel, method: str, n_prompts: int, keywords: Keywords, call: str) -> Explanandum:
    """One of them."""
    if method in ("semantic", "contrast"):
        targets = tuple(encode_targets(model, keywords.target, n_prompts, call=call))
        if method == "semantic":
            return Semantic(targets)
        foils = encode_targets(model, keywords.foil, n_prompts, argument="foil", call=call)
        if any(f is None for f in foils):
            raise ValueError(f"{call}(foil=None): the contrast scope needs a foil")
        return Contrast(targets, tuple(f for f in foils if f is not None))
    if method == "fisher":
        rank = 1 if keywords.rank is None else keywords.rank
        return Fisher(rank, 1e-4 if keywords.tol is None else keywords.tol)
    if method == "total_information":
        rank = 8 if keywords.rank is None else keywords.rank
        n_samples = 64 if keywords.n_samples is None else keywords.n_samples
        return TotalInformation("sampled", rank, n_samples, 0.05, 0 if keywords.seed is None else keywords.seed)
    if method == "moment":
        values = number_tokens(model) if keywords.values is None else dict(keywords.values)
        return Moment("mean" if keywords.moment is None else keywords.moment, values, keywords.values is not None)
    if method == "jacobian":
        if keywords.direction is None:
            raise ValueError(f"{call}(direction=None): the Jacobian scope needs a direction, [d_model] or [k, d_model]")
        return Direction(keywords.direction)
    return Temperature()
