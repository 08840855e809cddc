"""Does the bundled model forecast as the paper says LLaMA does? ``python benchmarks/series_study.py [--write]``

Fixed before the first run, and not changed since:

* **Model and scope.** The bundled model; the Temperature Scope at the last comma; influence per number. BOS and the first two
  tokens (the first number and its comma) are left out everywhere.
* **Unit.** A seed (one series) gives one number per statistic; 100 seeds per row; the interval is the 95 % studentised
  bootstrap of the mean paired difference *statistic − control* (``tl_scopes.numerics.statistics.paired_bootstrap``).
* **Verdict.** *yes* where the interval lies above 0, *opposite* where it lies below, *cannot be told* where it holds 0.

================  ==============================================================  ======================================
question          statistic per series                                            control
================  ==============================================================  ======================================
period            period P = 5 … 12, no noise, 4 to 5 periods, cut at a random    the same with the phase kP + c, c drawn
                  phase: mean over k of log influence at distance kP, less its    from 1 … P − 1 once per seed
                  mean over the P distances around kP
fades             80 numbers of a random walk: minus Spearman's correlation of    0
                  influence with distance
fades by itself   the same                                                        the same on the same values, shuffled
motif             90 numbers of a chaotic series: partial correlation of          mean over circular shifts of the
                  influence with the match of earlier motifs                      influence of the same series
                  (``timeseries.parroting_test``, dimension 4)
best match        the same: share of other motifs with less influence than the    0.5
                  best match and its successor
================  ==============================================================  ======================================

*motif* and *best match* are asked of Lorenz series cut at a peak and at a lobe transition, each from two starting points
(x0 near −8 and near 5, y0 = 1, z0 = 25; 50 seeds each), of the logistic map, and of random walks, which have no motifs:
there a *yes* is the superstition that the paper describes in section A.3.

Whatever comes out is printed and kept in ``benchmarks/results/series_study.json``, with each seed's numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tl_scopes as tls
from tl_scopes import timeseries as ts
from tl_scopes.demo import DEMO_PATH
from tl_scopes.numerics.statistics import paired_bootstrap

RESULTS = Path(__file__).parent / "results" / "series_study.json"
SEEDS = 100
SKIP = 1
Seen = tuple[Any, float]
"""What the model sees, and the value that came next."""


# -- series ------------------------------------------------------------------------------------------------


def period_of(seed: int) -> int:
    return 5 + seed % 8


def periodic(seed: int) -> Seen:
    rng = np.random.default_rng([seed, 0])
    period = period_of(seed)
    length = 4 * period + int(rng.integers(period))
    values = ts.periodic(length + 1, period=period, seed=rng)
    return values[:-1], values[-1]


def walk(seed: int) -> Seen:
    return cut(ts.brownian_motion(81, seed=np.random.default_rng([seed, 1])))


def shuffled_walk(seed: int) -> Seen:
    values, truth = walk(seed)
    return np.random.default_rng([seed, 2]).permutation(values), truth


def logistic(seed: int) -> Seen:
    return cut(ts.logistic_map(91, burn_in=20, seed=np.random.default_rng([seed, 3])))


def lorenz_at_peak(seed: int) -> Seen:
    return lorenz(seed, lambda x: (x[1:-1] > x[:-2]) & (x[1:-1] >= x[2:]))


def lorenz_at_transition(seed: int) -> Seen:
    return lorenz(seed, lambda x: x[1:-1] * x[:-2] < 0)


def lorenz(seed: int, event: Callable[[Any], Any]) -> Seen:
    """90 values whose last one is the first event after them."""
    rng = np.random.default_rng([seed, 4])
    x = ts.lorenz(600, x0=(-8.0, 5.0)[seed % 2] + rng.uniform(-0.5, 0.5))
    last = 1 + next(int(i) for i in np.flatnonzero(event(x)) if i >= 89)
    return x[last - 89 : last + 1], x[last + 1]


def cut(values: Any) -> Seen:
    return values[:-1], float(values[-1])


SYSTEMS: dict[str, Callable[[int], Seen]] = {
    "periodic": periodic,
    "random walk": walk,
    "random walk, shuffled": shuffled_walk,
    "logistic map": logistic,
    "Lorenz, cut at a peak": lorenz_at_peak,
    "Lorenz, cut at a transition": lorenz_at_transition,
}


# -- statistics --------------------------------------------------------------------------------------------


def phase_contrast(forecast: ts.Forecast, period: int, phase: int) -> float:
    """Mean over k of log influence at distance ``k·period + phase``, less its mean over the period around it."""
    logs = np.log(forecast.influence.double().numpy()[SKIP:][::-1] + 1e-30)  # index d − 1 is distance d
    found = []
    for k in range(1, len(logs) // period + 1):
        first = k * period + phase - period // 2
        if first >= 1 and first + period - 1 <= len(logs):
            block = logs[first - 1 : first - 1 + period]
            found.append(logs[k * period + phase - 1] - block.mean())
    return float(np.mean(found))


def measured(name: str, seed: int, forecast: ts.Forecast) -> dict[str, float]:
    """Everything that is asked of one series."""
    p, encoded = forecast.prediction, forecast.encoded
    assert forecast.truth_number is not None
    out = {
        "log_score": p.log_score(forecast.truth_number),
        "error": abs(p.mean - forecast.truth_number),
        "persistence": float(abs(encoded.numbers[-1] - forecast.truth_number)),
        "warranted": float(forecast.gaussian is not None and forecast.gaussian.warranted),
    }
    if name == "periodic":
        other = int(np.random.default_rng([seed, 5]).integers(1, period_of(seed)))
        out["phase"] = phase_contrast(forecast, period_of(seed), 0)
        out["other_phase"] = phase_contrast(forecast, period_of(seed), other)
        return out
    out["fades"] = -forecast.recency(skip=SKIP).correlation
    test = forecast.parroting(skip=SKIP, dimension=4)
    out |= {"motif": test.correlation, "shifted": float(test.control.mean()), "best_match": test.percentile}
    return out


def study(model: Any, seeds: range) -> dict[str, dict[str, list[float]]]:
    """``{system: {statistic: [per seed]}}``."""
    found = {}
    for name, make in SYSTEMS.items():
        seen = [make(seed) for seed in seeds]
        # the truth may leave the room above and below the history: then the nearest number stands for it
        encoded = [ts.encode(values) for values, _ in seen]
        truths = [float(np.clip(t, *e.decode([10, 99]))) for e, (_, t) in zip(encoded, seen, strict=True)]
        forecasts = ts.forecast_scope(model, encoded, truth=truths, batch_size=4)
        rows = [measured(name, seed, f) for seed, f in zip(seeds, forecasts, strict=True)]
        found[name] = {key: [row[key] for row in rows] for key in rows[0]}
    return found


def table(found: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """One row per question: means, paired interval, verdict."""
    n = len(found["periodic"]["phase"])
    zero, half = [0.0] * n, [0.5] * n
    asked = [
        ("period", "periodic", found["periodic"]["phase"], found["periodic"]["other_phase"]),
        ("fades", "random walk", found["random walk"]["fades"], zero),
        ("fades by itself", "random walk", found["random walk"]["fades"], found["random walk, shuffled"]["fades"]),
    ]
    for name in (*list(SYSTEMS)[4:], "logistic map", "random walk"):
        asked.append(("motif", name, found[name]["motif"], found[name]["shifted"]))
        asked.append(("best match", name, found[name]["best_match"], half))
    rows = []
    for question, name, values, control in asked:
        c = paired_bootstrap(values, control)
        verdict = "yes" if c.low > 0 else "opposite" if c.high < 0 else "cannot be told"
        means = {"statistic": float(np.mean(values)), "control": float(np.mean(control))}
        rows.append(
            {"question": question, "system": name, "n": n} | means | {"low": c.low, "high": c.high, "verdict": verdict}
        )
    return rows


def printed(found: dict[str, dict[str, list[float]]], rows: list[dict[str, Any]]) -> str:
    """Both tables as text."""
    out = [f"{'question':<16}{'system':<29}{'n':>4}{'statistic':>11}{'control':>9}   difference, 95 %      verdict"]
    for r in rows:
        interval = f"{r['low']:+.3f} … {r['high']:+.3f}"
        out.append(
            f"{r['question']:<16}{r['system']:<29}{r['n']:>4}{r['statistic']:>+11.3f}{r['control']:>+9.3f}   "
            f"{interval:<21}{r['verdict']}"
        )
    out += [
        "",
        f"{'forecasts':<29}{'log score':>10}{'error':>8}{'persistence':>13}{'Temperature reading warranted':>31}",
    ]
    for name, values in found.items():
        score, error, last, good = (np.mean(values[k]) for k in ("log_score", "error", "persistence", "warranted"))
        out.append(f"{name:<29}{score:>10.2f}{error:>8.1f}{last:>13.1f}{good:>30.0%}")
    out.append(f"A uniform guess has a log score of {-np.log(90):.2f} nats; errors are in numbers of 15 … 85.")
    return "\n".join(out)


def weights() -> str:
    """Which weights were studied."""
    return hashlib.sha256((DEMO_PATH / "model.safetensors").read_bytes()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"keep the outcome in {RESULTS.name} and .txt beside it")
    arguments = parser.parse_args()
    found = study(tls.load_model(), range(SEEDS))
    rows = table(found)
    text = printed(found, rows)
    print(text)
    if arguments.write:
        kept = {s: {k: [float(f"{v:.6g}") for v in vs] for k, vs in d.items()} for s, d in found.items()}
        payload = {"weights": weights(), "table": rows, "per_seed": kept}
        RESULTS.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")
        RESULTS.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
