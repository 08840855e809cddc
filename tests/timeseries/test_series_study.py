"""Invariant: what docs/series.md says about forecasts of the bundled model is what the study measured on its weights.

The one source of the outcome is benchmarks/results/series_study.json; new weights need a new run of the study.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RERUN = "python benchmarks/series_study.py --write"


@pytest.fixture(scope="module")
def study() -> Any:
    spec = importlib.util.spec_from_file_location("series_study", ROOT / "benchmarks" / "series_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kept(study: Any) -> dict[str, Any]:
    return json.loads(study.RESULTS.read_text(encoding="utf-8"))


def test_the_cuts_are_where_the_study_says(study: Any) -> None:
    for seed in range(6):
        x, after = study.lorenz_at_peak(seed)
        assert len(x) == 90
        assert x[-1] > x[-2]
        assert x[-1] >= after
        x, _ = study.lorenz_at_transition(seed)
        assert x[-1] * x[-2] < 0
        x, after = study.periodic(seed)
        period = study.period_of(seed)
        assert 4 * period <= len(x) < 5 * period
        assert after == x[-period]
        walk, shuffled = study.walk(seed)[0], study.shuffled_walk(seed)[0]
        assert sorted(walk) == sorted(shuffled)
        assert (walk != shuffled).any()


def test_the_phase_contrast_is_that_of_a_planted_profile(study: Any) -> None:
    class Planted:
        def __init__(self, phase: int) -> None:
            import torch

            distance = torch.arange(43, 0, -1, dtype=torch.float64)
            self.influence = torch.where(distance % 6 == phase, torch.e, 1.0) / distance

    assert study.phase_contrast(Planted(0), 6, 0) == pytest.approx(5 / 6, abs=0.06)
    assert study.phase_contrast(Planted(0), 6, 2) == pytest.approx(-1 / 6, abs=0.06)
    assert study.phase_contrast(Planted(2), 6, 2) == pytest.approx(5 / 6, abs=0.06)


@pytest.mark.slow
@pytest.mark.one_lens
def test_the_table_follows_from_the_kept_seeds(study: Any, kept: dict[str, Any]) -> None:
    again = study.table(kept["per_seed"])
    assert [r["verdict"] for r in again] == [r["verdict"] for r in kept["table"]]
    for now, then in zip(again, kept["table"], strict=True):
        assert now["n"] >= 100
        assert [now[k] for k in ("statistic", "control", "low", "high")] == pytest.approx(
            [then[k] for k in ("statistic", "control", "low", "high")], abs=1e-4
        )
    text = study.RESULTS.with_suffix(".txt").read_text(encoding="utf-8")
    assert text == study.printed(kept["per_seed"], again) + "\n"


@pytest.mark.slow
def test_the_bundled_model_still_gives_the_kept_numbers(study: Any, kept: dict[str, Any], demo_model: Any) -> None:
    assert study.weights() == kept["weights"], f"the weights are new: {RERUN}"
    found = study.study(demo_model, range(8))
    for system, statistics in found.items():
        for name, values in statistics.items():
            # ranks of nearly equal influences may change places in float32 on another machine
            then = kept["per_seed"][system][name][:8]
            assert np.allclose(values, then, atol=0.02, rtol=1e-3), (system, name)
