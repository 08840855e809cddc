"""Tokens that a model writes by its own ``generate``, a few at a time, and what their characters are.

A stop string is looked for after each few.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from tl_scopes.model.lens import LensModel, all_modules, keeps_keys_and_values, source_device, whole
from tl_scopes.model.prompts import token_strings
from tl_scopes.model.vocabulary import vocabulary
from tl_scopes.numerics.stopping import require_wanted

AT_ONCE = 16
"""Tokens between two looks for a stop string."""
Stopped = Literal["length", "eos", "stop"]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        ids: the tokens, without the one that ended it.
        text: as text.
        stopped: by the number of tokens, the end-of-sequence token or a stop string.
    """

    ids: tuple[int, ...]
    text: str
    stopped: Stopped


def stop_strings(stop: str | Sequence[str]) -> list[str]:
    """Strings before which a text ends.

    Raises:
        ValueError: an empty one.
    """
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in stops:
        raise ValueError("(stop=...): an empty string stops before anything is said")
    return stops


@contextmanager
def sampling(model: LensModel, seed: int) -> Iterator[None]:
    """Random numbers from a seed; afterwards the random state and the modules' modes are as before."""
    training = [module for module in all_modules(whole(model)) if module.training]
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad():
            torch.manual_seed(seed)
            yield
    finally:
        for module in training:
            module.training = True


def written(
    model: LensModel,
    tokens: Int[Tensor, " pos"],
    n: int,
    *,
    temperature: float,
    stop: Sequence[str],
    seen: Callable[[int], object],
) -> Written:
    """Up to ``n`` tokens after a prompt; ``seen`` is told how many there are more."""
    eos = getattr(model.tokenizer, "eos_token_id", None)
    ids: list[int] = []
    while len(ids) < n:
        require_wanted()
        known = torch.cat([tokens, torch.tensor(ids, dtype=tokens.dtype)])
        found = model.generate(
            known[None].to(source_device(model)),
            max_new_tokens=min(AT_ONCE, n - len(ids)),
            stop_at_eos=eos is not None,
            do_sample=temperature > 0,
            temperature=temperature if temperature > 0 else 1.0,
            use_past_kv_cache=keeps_keys_and_values(model),
            return_type="tokens",
            verbose=False,
        )
        new = found[0, len(known) :].tolist()
        ended = eos in new
        ids += new[: new.index(eos)] if ended else new
        seen(len(new))
        text = answer_text(model, ids)
        at = min((i for s in stop if (i := text.find(s)) >= 0), default=-1)
        if at >= 0:
            starts = [start for start, _ in answer_offsets(model, ids, text)]
            ids = [i for i, start in zip(ids, starts, strict=True) if start < at]
            return Written(tuple(ids), answer_text(model, ids), "stop")
        if ended:
            return Written(tuple(ids), text, "eos")
    return Written(tuple(ids), answer_text(model, ids), "length")


def answer_text(model: LensModel, ids: Sequence[int]) -> str:
    """Tokens as the text that they add to one before them."""
    if model.tokenizer is None:
        return "".join(token_strings(model, torch.tensor(ids, dtype=torch.int64)))
    return vocabulary(model.tokenizer).continuation(model.tokenizer, ids)


def answer_offsets(model: LensModel, ids: Sequence[int], text: str) -> tuple[tuple[int, int], ...]:
    """Characters of the answer that each token stands for; tokens of one character share it."""
    ends = [_agreement(answer_text(model, ids[: i + 1]), text) for i in range(len(ids))]
    found: list[tuple[int, int]] = []
    for i, start in enumerate([0, *ends][:-1]):
        end = next((e for e in ends[i:] if e > start), len(text))
        found.append((start, end if ends[i] > start else min(end, start + 1)))
    return tuple(found)


def _agreement(beginning: str, text: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(beginning, text, strict=False)))


def joined_offsets(strings: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Characters of texts that stand one after another."""
    return tuple(itertools.pairwise(itertools.accumulate(map(len, strings), initial=0)))
