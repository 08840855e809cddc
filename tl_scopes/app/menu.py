"""What the app can explain: every scope and baseline with the few options that its page shows.

One entry is one public function; the page is built from this list, so a new scope needs an entry here and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import tl_scopes as tls
from tl_scopes.results.attribution import Attribution

Option = Literal["target", "foil", "rank", "moment"]


@dataclass(frozen=True)
class Entry:
    """One choice of the page.

    Attributes:
        name: of the public function; also what a request names.
        title: on the page.
        explains: one line below the choice.
        options: arguments that the page asks for.
        matrix: method of ``attribution_matrix``, or None where there is none.
        inside: method of ``layer_influence`` and ``head_influence``, or None.
        baseline: listed among the baselines.
    """

    name: str
    title: str
    explains: str
    options: tuple[Option, ...] = ()
    matrix: str | None = None
    inside: str | None = None
    baseline: bool = False
    call: Callable[..., Attribution] = field(repr=False, default=lambda: NotImplemented)

    def to_dict(self) -> dict[str, Any]:
        """All but the function, JSON-ready."""
        return {key: value for key, value in asdict(self).items() if key != "call"}


def _entry(name: str, title: str, explains: str, *options: Option, matrix: bool = True) -> Entry:
    method = name.removesuffix("_scope")
    return Entry(name, title, explains, options, method if matrix else None, method, call=getattr(tls, name))


def _baseline(name: str, title: str, explains: str, *options: Option) -> Entry:
    return Entry(name, title, explains, options, baseline=True, call=getattr(tls, name))


MENU: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        _entry("semantic_scope", "Semantic", "What moves the logit of one token", "target"),
        _entry("contrast_scope", "Contrast", "Why this token and not that", "target", "foil"),
        _entry("fisher_scope", "Fisher", "What moves the whole distribution", "rank"),
        _entry("temperature_scope", "Temperature", "What moves the model's confidence"),
        _entry(
            "total_information",
            "Total information",
            "The whole distribution, in all directions",
        ),
        _entry(
            "moment_scope",
            "Numeric moment",
            "What moves the mean or spread of a predicted number",
            "moment",
            matrix=False,
        ),
        _baseline("input_x_gradient", "Input × Gradient", "Embedding times gradient of the logit", "target"),
        _baseline("integrated_gradients", "Integrated Gradients", "Gradients on the way from zero", "target"),
        _baseline("smoothgrad", "SmoothGrad", "Gradient averaged over noisy inputs", "target"),
        _baseline("gradient_norm", "Gradient norm", "Gradient of the log-probability: saliency", "target"),
        _baseline("leave_one_out", "Leave one out", "Measured: each token removed in turn", "target"),
        _baseline("attention_rollout", "Attention rollout", "Where attention flows; blind to the target"),
        _baseline("random_attribution", "Random", "Noise: what a method must beat"),
    )
}
