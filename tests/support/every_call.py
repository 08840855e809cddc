"""One small call of every public function that takes a model, for the bundled demo model; results compared bit for bit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import tl_scopes as tls
from tl_scopes import timeseries

PROMPT = "The red dog sees the cat"
OTHER = "The red cat sees the dog"
SERIES = [0.1, 0.4, 0.2, 0.5, 0.3, 0.6, 0.4, 0.7, 0.5, 0.8]
Call = Callable[[Any], Any]


@lru_cache
def explained() -> tls.Attribution:
    """What calls that begin with an attribution are given; made on a model of its own, for other threads have the others."""
    return tls.semantic_scope(tls.load_model(), PROMPT)


@lru_cache
def followed() -> tls.Chain:
    """What is verified; as :func:`explained`."""
    return tls.chain(tls.load_model(), (PROMPT, " and the red dog"), units="word")


def _of_prompt(name: str, **options: Any) -> Call:
    return lambda model: getattr(tls, name)(model, PROMPT, **options)


def _of_file(model: Any) -> tls.RunReport:
    """A run takes a folder and some time, of which its report tells."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "prompts.jsonl").write_text(json.dumps({"prompt": PROMPT}), encoding="utf-8")
        found = tls.explain_file(model, Path(folder) / "prompts.jsonl", Path(folder) / "run", ["semantic", "random"])
    return replace(found, seconds=0.0, settings={})


CALLS: dict[str, Call] = {
    "semantic_scope": _of_prompt("semantic_scope"),
    "contrast_scope": _of_prompt("contrast_scope", foil=5),
    "fisher_scope": _of_prompt("fisher_scope", rank=2),
    "temperature_scope": _of_prompt("temperature_scope"),
    "moment_scope": _of_prompt("moment_scope", values={5: 0.5, 7: 2.0}),
    "jacobian_scope": lambda model: tls.jacobian_scope(
        model, PROMPT, direction=torch.linspace(-1, 1, model.cfg.d_model)
    ),
    "total_information": _of_prompt("total_information", n_samples=8, rtol=None),
    "scopes": _of_prompt("scopes", methods=("semantic", "temperature")),
    "attribution_matrix": _of_prompt("attribution_matrix"),
    "input_x_gradient": _of_prompt("input_x_gradient"),
    "gradient_norm": _of_prompt("gradient_norm"),
    "smoothgrad": _of_prompt("smoothgrad", n_samples=3),
    "integrated_gradients": _of_prompt("integrated_gradients", n_steps=4),
    "leave_one_out": _of_prompt("leave_one_out", ablation="resample"),
    "random_attribution": _of_prompt("random_attribution"),
    "attention_rollout": _of_prompt("attention_rollout"),
    "layer_influence": _of_prompt("layer_influence"),
    "head_influence": _of_prompt("head_influence"),
    "split": _of_prompt("split"),
    "attention_sinks": _of_prompt("attention_sinks", methods=("semantic",), unrelated=2),
    "positional_baseline": _of_prompt("positional_baseline", unrelated=2),
    "ig_path": _of_prompt("ig_path", alphas=(0.0, 0.5, 1.0)),
    "fisher_spectrum": _of_prompt("fisher_spectrum", n_directions=2),
    "generate": _of_prompt("generate", max_new_tokens=3),
    "chain": lambda model: tls.chain(model, (PROMPT, " and the red dog"), units="word"),
    "verify_chain": lambda model: tls.verify_chain(model, followed(), n_random=2),
    "verdict": lambda model: tls.verdict(model, explained(), k=2),
    "verify": lambda model: tls.verify(model, explained(), top=3),
    "substitutions": lambda model: tls.substitutions(model, explained(), k=2),
    "patch_top": lambda model: tls.patch_top(model, PROMPT, OTHER, explained(), k=1, n_random=2),
    "check_model": tls.check_model,
    "aopc": lambda model: tls.aopc(model, [PROMPT], ["semantic", "random"], fractions=(0.1, 0.2)),
    "gold_alignment": lambda model: tls.gold_alignment(model, ["semantic"], corpora=["binding"], n=2),
    "explain_file": lambda model: _of_file(model),
    "forecast_scope": lambda model: timeseries.forecast_scope(model, SERIES),
    "rolling_forecast": lambda model: timeseries.rolling_forecast(model, SERIES),
}


def written(result: Any) -> str:
    """Everything that a result holds, as text: the same for the same numbers bit for bit."""
    if isinstance(result, list | tuple):
        return json.dumps([written(part) for part in result])
    if isinstance(result, dict) and not hasattr(result, "to_dict"):
        return json.dumps({str(key): written(part) for key, part in result.items()})
    return json.dumps(result.to_dict(), sort_keys=True)


def run_plainly(model: Any) -> torch.Tensor:
    """A user's own run."""
    with torch.no_grad():
        logits: torch.Tensor = model(model.to_tokens(PROMPT), return_type="logits")
    return logits


@lru_cache
def expected(name: str) -> str:
    """What the call gives where nobody else is about."""
    return written(CALLS[name](tls.load_model()))


def cached(model: Any) -> dict[str, Any]:
    """A user's own run with a cache."""
    _, cache = model.run_with_cache(model.to_tokens(PROMPT), names_filter="blocks.0.hook_resid_post")
    return dict(cache)
