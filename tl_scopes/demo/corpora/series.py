"""Number series in the paper's format: two-digit numbers and commas, one token each, no spaces.

    29,61,40,73,29,61, -> 40

A periodic series without noise is determined once its period has come round: the answer is the number one
period back. Examples are cut inside the second period, where that number stands in the prompt exactly once:
it is the cause. The numbers of the first period that have not come round yet are the others; the ones that
have are the key by which the period is recognised, and neither. The other systems (noisy periodic, logistic
map, Lorenz x, AR(1), random walk) are not determined and have no causes. Values are rescaled to 15 ... 85 of
the 10 ... 99 that the tokenizer knows.

These generators are part of what the bundled weights were trained on and draw from Python's own generator; for series
of one's own there is `tl_scopes.timeseries`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tl_scopes.demo.corpora.passages import Example, Passage, Span, Split, Swap, is_held_out

LOWEST, HIGHEST = 15, 85
LONGEST = 127  # numbers; with their commas and BOS they fill a context of 256 but for one


def rescale(values: Sequence[float]) -> list[int]:
    """Linear map of the values onto the integers LOWEST ... HIGHEST."""
    low, high = min(values), max(values)
    scale = (HIGHEST - LOWEST) / (high - low) if high > low else 0.0
    return [round(LOWEST + scale * (value - low)) for value in values]


def periodic(rng: random.Random, length: int) -> list[int]:
    """Distinct numbers, repeated without noise."""
    cycle = rng.sample(range(LOWEST, HIGHEST + 1), rng.randint(3, 12))
    return [cycle[i % len(cycle)] for i in range(length)]


def noisy_periodic(rng: random.Random, length: int) -> list[int]:
    """A repeated cycle, each number off by up to 2."""
    cycle = rng.sample(range(LOWEST + 2, HIGHEST - 1), rng.randint(3, 10))
    return [cycle[i % len(cycle)] + rng.randint(-2, 2) for i in range(length)]


def logistic(rng: random.Random, length: int) -> list[int]:
    """x <- r x (1 - x) with r = 3.8."""
    x = rng.uniform(0.1, 0.9)
    values = []
    for step in range(length + 20):
        x = 3.8 * x * (1 - x)
        if step >= 20:
            values.append(x)
    return rescale(values)


def lorenz(rng: random.Random, length: int) -> list[int]:
    """x of the Lorenz system (sigma 10, rho 28, beta 8/3): explicit steps of 0.01, every third kept."""
    x, y, z = (rng.uniform(-10, 10), rng.uniform(-10, 10), rng.uniform(10, 35))
    values = []
    for step in range(3 * length + 300):
        dx, dy, dz = 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z
        x, y, z = x + 0.01 * dx, y + 0.01 * dy, z + 0.01 * dz
        if step >= 300 and step % 3 == 0:
            values.append(x)
    return rescale(values)


def autoregressive(rng: random.Random, length: int) -> list[int]:
    """AR(1): x <- a x + noise."""
    slope, x = rng.uniform(0.3, 0.95), 0.0
    values = []
    for _ in range(length):
        x = slope * x + rng.gauss(0, 1)
        values.append(x)
    return rescale(values)


def random_walk(rng: random.Random, length: int) -> list[int]:
    """Sums of independent normal steps."""
    x = 0.0
    values = []
    for _ in range(length):
        x += rng.gauss(0, 1)
        values.append(x)
    return rescale(values)


SYSTEMS: dict[str, Callable[[random.Random, int], list[int]]] = {
    "noisy_periodic": noisy_periodic,
    "logistic": logistic,
    "lorenz": lorenz,
    "autoregressive": autoregressive,
    "random_walk": random_walk,
}


def number_spans(numbers: Sequence[int]) -> list[Span]:
    """Spans of two-digit numbers joined by commas."""
    return [(3 * index, 3 * index + 2) for index in range(len(numbers))]


def periodic_example(rng: random.Random, numbers: list[int]) -> Example:
    """Cut a noise-free periodic series inside its second period, at least two numbers into it."""
    period = numbers.index(numbers[0], 1)
    at = rng.randint(period + 2, 2 * period - 1)
    spans = number_spans(numbers)
    absent = [number for number in range(LOWEST, HIGHEST + 1) if number not in numbers]
    answer, instead = str(numbers[at]), str(rng.choice(absent))
    others = tuple(Swap(spans[i], str(rng.choice(absent)), answer) for i in range(at - period + 1, period))
    return Example(
        corpus="series",
        slot="periodic",
        prompt="".join(f"{number}," for number in numbers[:at]),
        answer=answer,
        source=(0, 3 * period - 1),
        causes=(Swap(spans[at - period], instead, instead),),
        others=others,
    )


def series(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """Periodic or one of `SYSTEMS`, half and half; at level 0 periodic only, and short."""
    length = round(24 + (16 + level * (LONGEST - 40)) * rng.random() ** 2)
    if rng.random() < 1 - 0.5 * level:
        numbers = periodic(rng, length)
        examples: tuple[Example, ...] = (periodic_example(rng, numbers),)
    else:
        kind = rng.choice(sorted(SYSTEMS))
        numbers = SYSTEMS[kind](rng, length)
        prompt = "".join(f"{number}," for number in numbers[:-1])
        example = Example("series", kind, prompt, str(numbers[-1]), source=(0, len(prompt) - 1), determined=False)
        examples = (example,)
    if is_held_out("series", *map(str, numbers[:3])) != (split == "held_out"):
        return series(rng, split, level)
    text = "".join(f"{number}," for number in numbers)
    return Passage("series", text, tuple(number_spans(numbers)), examples)
