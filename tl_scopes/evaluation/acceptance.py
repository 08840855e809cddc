"""Which prompts with known causes a model takes as they are meant: a test by substitution, before anything is attributed.

A prompt whose causes C decide its answer a is *accepted* for a model if, greedily,

1. ``says``     the model says a after the prompt;
2. ``follows``  with a cause swapped for its counterpart it says the answer a′ that this decides, for every cause in C;
3. ``keeps``    with another content word swapped it still says a, for at least three such words.

To say an answer is to have each of its tokens as the top prediction after the ones before it: one forward on the prompt with
the answer behind it, as :mod:`tl_scopes.model.answers` puts it there. A step is tried on what passed the ones before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.kernel.batching import batches, padded, rows_per_forward
from tl_scopes.kernel.read_out import require_finite
from tl_scopes.model.answers import with_targets
from tl_scopes.model.forward import forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import encode_prompts
from tl_scopes.numerics.progress import progress

LEAST_KEPT = 3
"""Other words whose swap must leave the answer."""


@dataclass(frozen=True)
class Acceptance:
    """What a model makes of examples, one entry for each.

    Attributes:
        examples: as they were given.
        says: does the model say the answer?
        follows: and, with each cause swapped, the counterpart's answer?
        kept: of those that pass both, other swaps under which the answer stays.
    """

    examples: tuple[Example, ...]
    says: tuple[bool, ...]
    follows: tuple[bool, ...]
    kept: tuple[int, ...]

    @property
    def accepted(self) -> tuple[Example, ...]:
        """Those that pass every step."""
        return tuple(e for e, kept in zip(self.examples, self.kept, strict=True) if kept >= LEAST_KEPT)

    @property
    def rates(self) -> Mapping[str, float]:
        """Share of all examples that pass a step and the ones before it; the last is that of the accepted ones."""
        n = len(self.examples)
        return {
            "says": sum(self.says) / n,
            "follows": sum(self.follows) / n,
            "accepted": len(self.accepted) / n,
        }

    def __str__(self) -> str:
        """One line: the share after each step."""
        says, follows, accepted = (f"{100 * rate:.0f} %" for rate in self.rates.values())
        return (
            f"{len(self.accepted)} of {len(self.examples)} accepted ({accepted}): says the answer {says}, "
            f"and the counterpart's {follows}, and keeps it under {LEAST_KEPT} other swaps {accepted}"
        )


@model_call
def acceptance(model: LensModel, examples: Sequence[Example], *, batch_size: int | None = None) -> Acceptance:
    """Which examples the model takes as they are meant: it says a, follows every swapped cause, and keeps a otherwise.

    ``accepted = says(x, a) ∧ ∀ c ∈ C: says(x[c → c′], a′_c) ∧ |{o: says(x[o → o′], a)}| ≥ 3``

    Args:
        model: any model with a tokenizer.
        examples: of :func:`tl_scopes.tasks.examples`, or your own.
        batch_size: prompts per forward; None is as many as fit.

    Returns:
        An :class:`Acceptance`: ``.accepted``, ``.rates`` by step; ``print`` it.

    Raises:
        ValueError: no examples; one without causes, or with fewer than three other swaps; an answer that the tokenizer
            cannot read; a prompt longer than the model's context.

    Cost: a forward for each example, and for each of those that pass one per cause and per other word, in batches.

    >>> from tl_scopes.demo.corpora import examples
    >>> found = [e for e in examples("binding", 20) if len(e.others) >= 3]
    >>> acceptance(model, found).rates["says"] > 0.5
    True
    """
    model = require_lens_model(model)
    _require_swaps(examples)
    total = sum(1 + len(e.causes) + len(e.others) for e in examples)
    with progress(unit="prompt", total=total) as bar:

        def tried(asked: list[list[Asked]], on: Sequence[bool]) -> list[list[bool]]:
            """Of each example: what holds of what is asked of it; nothing where it is not tried."""
            flat = [one for each, tries in zip(asked, on, strict=True) if tries for one in each]
            said = iter(_say(model, flat, batch_size, bar.update))
            return [[next(said) for _ in each] if tries else [] for each, tries in zip(asked, on, strict=True)]

        right = tried([[(e.prompt, e.answer)] for e in examples], [True] * len(examples))
        says = tuple(map(all, right))
        followed = tried([[(e.swapped(s), s.answer) for s in e.causes] for e in examples], says)
        follows = tuple(bool(found) and all(found) for found in followed)
        kept = tried([[(e.swapped(s), e.answer) for s in e.others] for e in examples], follows)
        bar.update(total - bar.n)
    return Acceptance(tuple(examples), says, follows, tuple(map(sum, kept)))


Asked = tuple[str, str]
"""A prompt, and an answer that may be what the model says after it."""


def _say(model: LensModel, asked: Sequence[Asked], batch_size: int | None, seen: Callable[[int], object]) -> list[bool]:
    """Is every token of the answer the top prediction after those before it?"""
    if not asked:
        return []
    prompts, answers = zip(*asked, strict=True)
    encoded, targets, _ = with_targets(
        model, encode_prompts(model, list(prompts), pos=-1, prepend_bos=None), list(answers)
    )
    tokens_of = iter(targets)
    wanted = [[next(tokens_of) for _ in prompt.positions] for prompt in encoded]
    found: dict[int, bool] = {}
    for batch in batches(encoded, rows_per_forward(model, encoded, batch_size)):
        tokens, _ = padded(model, encoded, batch)
        places = [(row, p) for row, i in enumerate(batch) for _, p in encoded[i].positions]
        rows, read = torch.tensor(places).T
        with differentiable(model), torch.no_grad():
            run = forward_pass(model, tokens, read, rows=rows)
        require_finite(run)
        best = iter(run.predictions.top.tolist())
        for i in batch:
            found[i] = [next(best) for _ in wanted[i]] == wanted[i]
        seen(len(batch))
    return [found[i] for i in range(len(encoded))]


def _require_swaps(examples: Sequence[Example]) -> None:
    """Refuse what could not be accepted whatever the model says."""
    if not examples:
        raise ValueError("(examples=[]): there are no examples")
    for i, example in enumerate(examples):
        if not example.causes or len(example.others) < LEAST_KEPT:
            raise ValueError(
                f"(examples[{i}]): {len(example.causes)} causes and {len(example.others)} other words to swap; "
                f"acceptance needs a cause and {LEAST_KEPT} others"
            )
