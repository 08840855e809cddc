"""What is asked of every architecture with parts of it frozen: the gradient of plain Hugging Face with the same detached,
or that the parts of a prediction add up.

`CHECKS` goes where `architecture_checks.CHECKS` goes, and is a test of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import frozen_models
from oracles import relative_error

import tl_scopes as tls
from tl_scopes.model.completeness import everything_held

if TYPE_CHECKING:
    from architecture_checks import Subject

TARGET = 7
POOLS = ("DeepseekV4ForCausalLM",)
"""Its compressors pool keys and values by softmaxes of their own, which are held with the patterns; the oracle, which knows
`eager_attention_forward` alone, leaves them (without them the two agree to 1e-16)."""


def _against_hugging_face(s: Subject, part: str) -> float:
    found = tls.semantic_scope(s.model, s.tokens, target=TARGET, frozen=part)
    with frozen_models.detached(s.built.hf, {part}):
        plain = s.plain(s.tokens)
        return relative_error(found.scores * s.scale, plain.score(plain.z[-1, TARGET]))


def frozen_norms(s: Subject) -> float:
    """Not where a norm has a gate beside what it normalizes: the oracle would hold the gate too."""
    if any("Gated" in type(module).__name__ for module in s.built.hf.modules()):
        return 0.0
    return _against_hugging_face(s, "norms")


def frozen_attention(s: Subject) -> float:
    """Where the modelling file has one function for it; elsewhere the sum of all parts tells."""
    file: Any = sys.modules[type(s.built.hf).__module__]
    if s.built.name in POOLS or not hasattr(file, "eager_attention_forward"):
        return 0.0
    return _against_hugging_face(s, "attention")


def everything_frozen(s: Subject) -> float:
    """The products of embeddings and gradient, with those of positions and biases, are the scalar: of the model's own look at
    itself, and of the parts that are named on a prompt.
    """
    found = tls.input_x_gradient(s.model, s.tokens, target=TARGET, frozen="all")
    assert found.signed is not None
    parts = {name: abs(part) for name, part in found.details["completeness"].items() if name not in ("tokens", "whole")}
    rounding = parts.pop("rounding") / (float(found.signed.abs().sum()) + sum(parts.values()))
    return max(everything_held(s.model).gap, rounding)


CHECKS: dict[str, Callable[[Subject], float]] = {
    check.__name__: check for check in (frozen_norms, frozen_attention, everything_frozen)
}
