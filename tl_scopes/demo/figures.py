"""How well a bundled model knows its corpora, and whether its causes are what decides.

Per corpus, on held-out combinations: accuracy; accuracy after every source is exchanged for another
example's, beside the best guess without a source; and the swap test: a cause swapped for its counterpart must
turn the prediction into the counterpart's answer, any other content word must leave it alone. "Prediction" is
the most probable token. The swap rates are over the examples that the model gets right before the swap, one
swap of each kind per example, so that examples are independent; intervals are 95 % Wilson intervals.

Chains are measured twice: word by word with the words before it given, like all corpora, and written out, where the
model goes on by itself from the prompt, one most probable token after the other, and all that it writes must be right.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from tl_scopes.demo.corpora import CHAINS, chains, examples
from tl_scopes.demo.corpora.passages import Example
from tl_scopes.demo.shapes import Causal, shape_of


@dataclass(frozen=True)
class Rate:
    """`hits` of `n` with a 95 % Wilson interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """Hits per trial."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval."""
        from scipy.stats import binomtest

        if not self.n:
            return 0.0, 1.0
        low, high = binomtest(self.hits, self.n).proportion_ci(method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        """Per cent with interval and n."""
        low, high = self.interval
        return f"{100 * self.value:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({self.n})"


@dataclass(frozen=True)
class CorpusFigures:
    """The card's row for one corpus."""

    corpus: str
    accuracy: Rate
    exchanged: Rate  # accuracy with another example's source
    chance: float  # share of the commonest answer of each slot: the best guess without a source
    cause_flips: Rate  # swapped cause -> the counterpart's answer
    other_changes: Rate  # swapped other word -> any change of the prediction


@torch.no_grad()
def predictions(
    model: Causal, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], batch_size: int = 64
) -> list[str]:
    """The most probable next token of each prompt, as a string; BOS in front, as TransformerLens does."""
    rows = [[tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]] for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        longest = max(len(rows[i]) for i in chunk)
        ids = torch.tensor([rows[i] + [0] * (longest - len(rows[i])) for i in chunk])
        last = torch.tensor([len(rows[i]) - 1 for i in chunk])
        hidden = model.base_model(ids).last_hidden_state[torch.arange(len(chunk)), last]
        best = model.lm_head(hidden).argmax(-1)
        found.update({i: tokenizer.decode([token]) for i, token in zip(chunk, best.tolist(), strict=True)})
    return [found[i] for i in range(len(rows))]


@torch.no_grad()
def writes(
    model: Causal, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: Sequence[str], n_tokens: int
) -> list[bool]:
    """Whether the model, going on from each prompt by its most probable token, writes the answer of `n_tokens` tokens.

    It does where each token of the answer is the most probable one after the prompt and the answer so far: one run tells.
    """
    found: list[bool] = []
    for start in range(0, len(prompts), 64):
        texts = [p + a for p, a in zip(prompts[start : start + 64], answers[start : start + 64], strict=True)]
        rows = [[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
        ids = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
        at = torch.tensor([[len(row) - n_tokens + i for i in range(n_tokens)] for row in rows])
        hidden = model.base_model(ids).last_hidden_state
        best = model.lm_head(hidden[torch.arange(len(rows))[:, None], at - 1]).argmax(-1)
        found += (best == ids.gather(1, at)).all(-1).tolist()
    return found


def exchange_sources(batch: Sequence[Example], rng: random.Random) -> list[str]:
    """Each prompt with the source of another example of its kind that starts with the same word ("German:")."""
    groups: dict[tuple[str, str], list[Example]] = {}
    for example in batch:
        first_word = example.prompt[: example.source[0]].partition(" ")[0]
        groups.setdefault((example.slot, first_word), []).append(example)
    donors: dict[Example, Example] = {}
    for group in groups.values():
        shuffled = rng.sample(group, len(group))
        donors.update(zip(shuffled, shuffled[1:] + shuffled[:1], strict=True))
    return [example.with_source(donors[example].prompt[slice(*donors[example].source)]) for example in batch]


def best_guess(batch: Sequence[Example]) -> float:
    """Accuracy of always giving the commonest answer of the example's slot."""
    answers: dict[str, Counter[str]] = {}
    for example in batch:
        answers.setdefault(example.slot, Counter())[example.answer] += 1
    return sum(counter.most_common(1)[0][1] for counter in answers.values()) / len(batch)


def accuracy(model: Causal, tokenizer: PreTrainedTokenizerBase, corpus: str, n: int, seed: int = 0) -> float:
    """Share of right predictions over held-out examples whose answer is determined."""
    batch = [example for example in examples(corpus, n, seed) if example.determined]
    found = predictions(model, tokenizer, [example.prompt for example in batch])
    return sum(p == example.answer for p, example in zip(found, batch, strict=True)) / len(batch)


def corpus_figures(
    model: Causal, tokenizer: PreTrainedTokenizerBase, corpus: str, n: int, seed: int = 1
) -> CorpusFigures:
    """Figures of one corpus over `n` held-out examples whose answer is determined."""
    batch = [example for example in examples(corpus, 3 * n, seed) if example.determined][:n]

    def says(prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        return [p == a for p, a in zip(predictions(model, tokenizer, prompts), answers, strict=True)]

    return figures_of(corpus, batch, says, seed)


def written_out_figures(
    model: Causal, tokenizer: PreTrainedTokenizerBase, corpus: str, n: int, seed: int = 1
) -> CorpusFigures:
    """Figures over `n` held-out chains, of which the model writes every word itself."""
    batch = chains(corpus, n, seed)
    (n_tokens,) = {len(example.answer.split()) for example in batch}
    says = partial(writes, model, tokenizer, n_tokens=n_tokens)
    return figures_of(f"{corpus}, written out", batch, says, seed)


def figures_of(
    title: str, batch: Sequence[Example], says: Callable[[Sequence[str], Sequence[str]], list[bool]], seed: int
) -> CorpusFigures:
    """Figures over the examples of a batch, of a model that to each prompt `says` its answer or not."""
    rng = random.Random(f"{title}/{seed}/card")
    answers = [example.answer for example in batch]
    right = says([example.prompt for example in batch], answers)
    exchanged = says(exchange_sources(batch, rng), answers)
    known = [example for example, ok in zip(batch, right, strict=True) if ok]

    causes = [(example, rng.choice(example.causes)) for example in known]
    flipped = says([example.swapped(swap) for example, swap in causes], [swap.answer for _, swap in causes])
    others = [(example, rng.choice(example.others)) for example in known if example.others]
    kept = says([example.swapped(swap) for example, swap in others], [example.answer for example, _ in others])
    return CorpusFigures(
        corpus=title,
        accuracy=Rate(sum(right), len(batch)),
        exchanged=Rate(sum(exchanged), len(batch)),
        chance=best_guess(batch),
        cause_flips=Rate(sum(flipped), len(causes)),
        other_changes=Rate(len(others) - sum(kept), len(others)),
    )


RATES = ("accuracy", "exchanged", "cause_flips", "other_changes")


def disagreements(ours: Sequence[CorpusFigures], theirs: Sequence[CorpusFigures]) -> list[str]:
    """Figures of two models, measured on the same examples, whose 95 % intervals do not meet."""
    found = []
    for a, b in zip(ours, theirs, strict=True):
        for name in RATES:
            first, second = getattr(a, name), getattr(b, name)
            (low, high), (other_low, other_high) = first.interval, second.interval
            if low > other_high or other_low > high:
                found.append(f"{a.corpus}, {name}: {first} against {second}")
    return found


def load(folder: Path) -> tuple[Causal, PreTrainedTokenizerBase]:
    """The model in evaluation mode and its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def measure(folder: Path, n: int) -> list[CorpusFigures]:
    """The figures of the model in `folder`, `n` held-out examples of each corpus of its shape."""
    model, tokenizer = load(folder)
    corpora = shape_of(model.config).corpora
    figures = [corpus_figures(model, tokenizer, corpus, n) for corpus in corpora]
    return figures + [written_out_figures(model, tokenizer, corpus, n) for corpus in corpora if corpus in CHAINS]
