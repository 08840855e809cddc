"""Ratios of two pieces of work, measured side by side in one process."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch

Work = Callable[[], object]


def paired(subject: Work, floor: Work, pairs: int, warm_up: int = 2) -> tuple[list[float], list[float]]:
    """Interleaved times of both, CPU time where there is one thread, else wall time; the order flips from pair to pair."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(pairs + warm_up):
        gc.collect()
        order = ((0, subject), (1, floor)) if i % 2 else ((1, floor), (0, subject))
        for which, run in order:
            start = clock()
            run()
            if i >= warm_up:
                times[which].append(clock() - start)
    return times


def report(name: str, subject: Work, floor: Work, pairs: int, floor_name: str = "lean", warm_up: int = 2) -> float:
    """Print and return the median of the pairs' ratios, with the spread of the middle half."""
    mine, bare = paired(subject, floor, pairs, warm_up)
    ratios = sorted(a / b for a, b in zip(mine, bare, strict=True))
    quarter, median = len(ratios) // 4, statistics.median(ratios)
    print(
        f"{name}: {median:.3f} x {floor_name} (middle half {ratios[quarter]:.3f} to {ratios[-quarter - 1]:.3f}; "
        f"{1000 * statistics.median(mine):.0f} ms over {1000 * statistics.median(bare):.0f} ms, {pairs} pairs)",
        flush=True,
    )
    return median
