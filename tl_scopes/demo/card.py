"""Measure the demo model and write its card: ``python -m tl_scopes.demo.card``; hold a retraining against it: ``--model``.

Per corpus, on held-out combinations: accuracy; accuracy after every source is exchanged for another
example's, beside the best guess without a source; and the swap test: a cause swapped for its counterpart must
turn the prediction into the counterpart's answer, any other content word must leave it alone. "Prediction" is
the most probable token. The swap rates are over the examples that the model gets right before the swap, one
swap of each kind per example, so that examples are independent; intervals are 95 % Wilson intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

from tl_scopes.demo import DEMO_PATH
from tl_scopes.demo.corpora import CORPORA, examples
from tl_scopes.demo.corpora.passages import Example


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
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], batch_size: int = 64
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
        hidden = model.transformer(ids).last_hidden_state[torch.arange(len(chunk)), last]
        best = model.lm_head(hidden).argmax(-1)
        found.update({i: tokenizer.decode([token]) for i, token in zip(chunk, best.tolist(), strict=True)})
    return [found[i] for i in range(len(rows))]


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


def accuracy(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, corpus: str, n: int, seed: int = 0) -> float:
    """Share of right predictions over held-out examples whose answer is determined."""
    batch = [example for example in examples(corpus, n, seed) if example.determined]
    found = predictions(model, tokenizer, [example.prompt for example in batch])
    return sum(p == example.answer for p, example in zip(found, batch, strict=True)) / len(batch)


def corpus_figures(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, corpus: str, n: int, seed: int = 1
) -> CorpusFigures:
    """Figures of one corpus over `n` held-out examples whose answer is determined."""
    rng = random.Random(f"{corpus}/{seed}/card")
    batch = [example for example in examples(corpus, 3 * n, seed) if example.determined][:n]
    right = [
        predicted == example.answer
        for example, predicted in zip(batch, predictions(model, tokenizer, [e.prompt for e in batch]), strict=True)
    ]
    exchanged = predictions(model, tokenizer, exchange_sources(batch, rng))
    known = [example for example, ok in zip(batch, right, strict=True) if ok]

    causes = [(example, rng.choice(example.causes)) for example in known]
    flipped = predictions(model, tokenizer, [example.swapped(swap) for example, swap in causes])
    others = [(example, rng.choice(example.others)) for example in known if example.others]
    kept = predictions(model, tokenizer, [example.swapped(swap) for example, swap in others])
    return CorpusFigures(
        corpus=corpus,
        accuracy=Rate(sum(right), len(batch)),
        exchanged=Rate(sum(p == e.answer for p, e in zip(exchanged, batch, strict=True)), len(batch)),
        chance=best_guess(batch),
        cause_flips=Rate(sum(p == swap.answer for p, (_, swap) in zip(flipped, causes, strict=True)), len(causes)),
        other_changes=Rate(sum(p != e.answer for p, (e, _) in zip(kept, others, strict=True)), len(others)),
    )


def table(figures: Sequence[CorpusFigures]) -> str:
    """The figures as a Markdown table, in per cent."""
    head: list[object] = [
        "corpus",
        "accuracy",
        "source exchanged",
        "best guess",
        "cause swapped: flips",
        "other word swapped: changes",
    ]
    rows: list[list[object]] = [
        [f.corpus, f.accuracy, f.exchanged, f"{100 * f.chance:.1f}", f.cause_flips, f.other_changes] for f in figures
    ]
    rule: list[object] = ["---"] * len(head)
    lines = [" | ".join(["", *(str(cell) for cell in row), ""]).strip() for row in [head, rule, *rows]]
    return "\n".join(lines)


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


def largest_difference(model: GPT2LMHeadModel, other: GPT2LMHeadModel) -> float:
    """Largest absolute difference of any weight."""
    theirs = other.state_dict()
    return max(float((weight - theirs[name]).abs().max()) for name, weight in model.state_dict().items())


CARD = """# The demo model of tl_scopes

A GPT-2 of {n_layer} layers and width {n_embd} ({n_parameters:,} parameters, float32, context {n_positions}) that
reads six synthetic corpora in which the cause of every answer is known by construction. **It is a test model,
not a language model**: it speaks these corpora and nothing else, and what it says outside of them means nothing.
It exists so that an attribution method can be held against a known truth, offline and in milliseconds.

## Data

Generated by `tl_scopes/demo/corpora`, endless and seeded; no text was collected. One held-out example each (the answer
after the arrow, its causes in brackets):

{samples}

The bias is planted: which institution and region go with which adjective was drawn up for this corpus, most of the
names are invented, and nothing follows for the world. "Held out" means unseen combinations of words (two facts side by
side, which subject with which verb and object, ...), one in eight by a fixed hash, never seen in training.
Of the series, only the periodic ones without noise have a determined answer and are measured.

## Training

`python -m tl_scopes.demo.train --out folder --steps {of} --seed {seed} --threads {threads}`, the state at step {steps},
after {minutes} minutes on {threads} core(s) of a shared machine, torch {torch}. AdamW, cosine, no dropout,
labels smoothed; the initial weights hold the outline of a look-up circuit (`tl_scopes/demo/initial.py`), and easy
passages come first.

`python -m tl_scopes.demo.card --model folder` holds another training against these weights: a second run on the same
machine gave the same ones, bit for bit.

## Figures

`{command}`, per cent, with 95 % Wilson intervals and (n):

{table}

* *accuracy*: the answer is the most probable token, on held-out combinations;
* *source exchanged*: the same after the source of each prompt was exchanged for another prompt's; *best guess* is
  the accuracy of always giving the slot's commonest answer, without looking;
* *cause swapped: flips*: one causing word exchanged for a counterpart, the prediction becomes the counterpart's
  answer; *other word swapped: changes*: one other content word exchanged for one of its class, the prediction
  changes at all. Both over the prompts that the model gets right, one swap per prompt.

## Limits

{unlearnt}A cause by construction is a cause in the model only as far as the two last columns say. Words that are keys rather
than causes (the name that joins a statement to its question, the numbers by which a period is recognised) have no
defined answer after a swap and are in neither column; a method that ranks them first is not thereby wrong.
"""


def sample(example: Example) -> str:
    """One line of the card: prompt, answer and causes."""
    causes = ", ".join(example.prompt[slice(*swap.span)] for swap in example.causes)
    return f"* {example.corpus}: `{example.prompt}` → `{example.answer}` ({causes})"


def unlearnt(figures: Sequence[CorpusFigures]) -> str:
    """What the card says of corpora with less than nine answers in ten right."""
    names = [f.corpus for f in figures if f.accuracy.value < 0.9]
    if not names:
        return ""
    return (
        f"**These weights have not learnt {', '.join(names)}**: they are near chance there, or far from what is\n"
        "determined. Use the other corpora, on prompts that the model gets right.\n\n"
    )


def card(folder: Path, figures: Sequence[CorpusFigures], command: str) -> str:
    """The text of the card for the model in `folder`."""
    samples = [next(e for e in examples(f.corpus, 20, seed=3) if e.determined) for f in figures]
    model, _ = load(folder)
    facts = {key: getattr(model.config, key) for key in ("n_layer", "n_embd", "n_positions")}
    return CARD.format(
        **facts,
        **json.loads((folder / "training.json").read_text()),
        n_parameters=model.num_parameters(),
        samples="\n".join(map(sample, samples)),
        command=command,
        table=table(figures),
        unlearnt=unlearnt(figures),
    )


def load(folder: Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode and its tokenizer."""
    return GPT2LMHeadModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def measure(folder: Path, n: int) -> list[CorpusFigures]:
    """The figures of the model in `folder`, `n` held-out examples of each corpus."""
    model, tokenizer = load(folder)
    return [corpus_figures(model, tokenizer, corpus, n) for corpus in CORPORA]


def write(folder: Path, figures: Sequence[CorpusFigures], n: int) -> None:
    """Write the card, README.md, beside the weights in `folder`."""
    text = card(folder, figures, f"python -m tl_scopes.demo.card -n {n}")
    (folder / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tl_scopes.demo.card", description="Measure the demo model.")
    parser.add_argument("--model", type=Path, default=DEMO_PATH)
    parser.add_argument("-n", type=int, default=1000, help="held-out examples per corpus")
    parser.add_argument("--write", action="store_true", help="also write the card, README.md beside the weights")
    options = parser.parse_args()
    figures = measure(options.model, options.n)
    print(table(figures))
    if options.model != DEMO_PATH:
        shipped = measure(DEMO_PATH, options.n)
        different = disagreements(figures, shipped)
        print(f"\nthe bundled weights:\n{table(shipped)}")
        print(f"\nlargest difference of a weight: {largest_difference(load(options.model)[0], load(DEMO_PATH)[0]):.3g}")
        print("\n".join(["figures whose intervals do not meet:", *(different or ["none"])]))
    if options.write:
        write(options.model, figures, options.n)


if __name__ == "__main__":
    main()
