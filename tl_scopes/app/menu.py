"""What the app can explain: every scope and baseline with the few options that its page shows.

Scopes come from their records; the page is built from this list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tl_scopes as tls
from tl_scopes.baselines.by_name import BASELINES, WITHOUT_ROWS, WITHOUT_TARGET
from tl_scopes.directions.by_name import SCOPES
from tl_scopes.directions.scope import Scope
from tl_scopes.model.lens import LensModel
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.variants import GRADIENT_BASELINES


@dataclass(frozen=True)
class Entry:
    """One choice of the page.

    Attributes:
        name: of the public function; also what a request names.
        title: on the page.
        explains: one line below the choice.
        options: arguments that the page asks for.
        scope: its name in ``method=``; None for a baseline.
        chain: its name where it makes the rows of a chain; None where it makes none.
    """

    name: str
    title: str
    explains: str
    options: tuple[str, ...] = ()
    scope: str | None = None
    chain: str | None = None
    call: Callable[..., Attribution] = field(repr=False, default=lambda: NotImplemented)

    def to_dict(self) -> dict[str, Any]:
        """What the page must know, JSON-ready."""
        known = {"name": self.name, "title": self.title, "explains": self.explains, "options": list(self.options)}
        return {
            **known,
            "matrix": self.scope,
            "inside": self.scope,
            "chain": self.chain,
            "baseline": self.scope is None,
        }


_BASELINES = (
    ("input_x_gradient", "Input × Gradient", "Embedding times gradient of the logit"),
    ("integrated_gradients", "Integrated Gradients", "Gradients on the way from zero"),
    ("smoothgrad", "SmoothGrad", "Gradient averaged over noisy inputs"),
    ("gradient_norm", "Gradient norm", "Gradient of the log-probability: saliency"),
    ("leave_one_out", "Leave one out", "Measured: each token removed in turn"),
    ("attention_rollout", "Attention rollout", "Where attention flows; blind to the target"),
    ("random_attribution", "Random", "Noise: what a method must beat"),
)


def menu() -> dict[str, Entry]:
    """All entries, by name: every scope for which the page asks all that it needs, and the baselines."""
    entries = [_of_scope(scope) for scope in SCOPES.values() if set(scope.needs) <= set(scope.asked)]
    blind = [BASELINES[name].__name__ for name in WITHOUT_TARGET]
    without = [BASELINES[name].__name__ for name in WITHOUT_ROWS]
    for name, title, explains in _BASELINES:
        options = (*("target",) * (name not in blind), *("frozen",) * (name in GRADIENT_BASELINES))
        rows = None if name in without else name
        entries.append(Entry(name, title, explains, options, chain=rows, call=getattr(tls, name)))
    return {entry.name: entry for entry in entries}


def _of_scope(scope: Scope) -> Entry:
    def call(model: LensModel, prompt: str, **options: Any) -> Attribution:
        found: dict[str, Attribution] = tls.scopes(model, prompt, methods=[scope.name], **options)
        return found[scope.name]

    name = scope.function if hasattr(tls, scope.function) else scope.name  # one of the caller's own has none
    return Entry(name, scope.label, scope.summary, (*scope.asked, "frozen"), scope.name, scope.name, call=call)
