"""The baselines by the names that tables of many methods know them by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tl_scopes.baselines.gradient_free import attention_rollout, leave_one_out, random_attribution
from tl_scopes.baselines.gradients import gradient_norm, input_x_gradient, smoothgrad
from tl_scopes.baselines.integrated_gradients import integrated_gradients

BASELINES: dict[str, Callable[..., Any]] = {
    "input_x_gradient": input_x_gradient,
    "gradient_norm": gradient_norm,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "leave_one_out": leave_one_out,
    "attention_rollout": attention_rollout,
    "random": random_attribution,
}
WITHOUT_TARGET = ("attention_rollout", "random")
"""Those that look at no target, so that nothing is said of its scalar."""
WITHOUT_ROWS: tuple[str, ...] = ("random",)
"""Those that make no rows of a chain: all of a text would have the same noise."""
