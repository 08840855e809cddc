"""Do chains of a real model end at the needle, at an injected instruction, at the fact that its reasoning began with?

    python benchmarks/chain_tasks.py --model FOLDER

Prompts of several facts or documents (the tasks ``retrieval`` and ``injection``, at their shortest), which the model accepts:
with the deciding word swapped it says the counterpart's answer, with others it does not. Then the model continues, and what
is explained is the **last** place where its own text says the answer. That text must be accepted too: up to there, the model
writes it again with the counterpart's answer in place of the answer where the cause is swapped, and unchanged under three
other swaps.

In ``reasoned`` three worked examples show the model to say in a sentence what the notes say of the thing that is asked for,
and then the answer: the last word may rest on the model's own sentence, which rests on one of the notes. The whole text is
what the model must write, with the counterpart's key or answer under a swap, and unchanged under others.

Steps are words. The true source is the sentence with the deciding word, among all sentences of the prompt but the last, which
asks. Printed for texts that say the answer once, and for those that say it before, which the last mention may rest on: the
share whose true source ranks first by ``direct`` and by ``total``, their paired difference (95 %, Agresti and Min), median
ranks, and *own row*, where the true source or an earlier mention of the answer ranks first in the explained word's own row.
*random* gives every unit a random share.

Fewer than 30 texts are no figure, and the table says so.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from chains import ROW_NORMALISED, Found, Rows, Word, own_rows, report, row_normalised

import tl_scopes as tls
from tl_scopes import tasks
from tl_scopes.demo.corpora import Example
from tl_scopes.demo.corpora.passages import Swap
from tl_scopes.evaluation.acceptance import acceptance
from tl_scopes.evaluation.gold_methods import best_rank
from tl_scopes.model.lens import LensModel
from tl_scopes.numerics.walks import visits
from tl_scopes.results.chain import Chain
from tl_scopes.tasks.retrieval import OBJECTS, ROOMS

METHODS: dict[str, dict[str, Any]] = {
    "semantic": {},
    "input_x_gradient/all": {"method": "input_x_gradient", "frozen": "all"},
}
TASKS = ("retrieval", "injection", "reasoned")
LEAST = 30
_SENTENCE = re.compile(r"(?<=[.;])\s+|\n+")


def sentences(prompt: str) -> dict[str, tuple[int, int]]:
    """Characters of all of them but the last."""
    ends = [(m.start(), m.end()) for m in _SENTENCE.finditer(prompt)]
    starts = [0, *(end for _, end in ends)]
    return {f"sentence {i + 1}": (a, b) for i, (a, (b, _)) in enumerate(zip(starts, ends, strict=False)) if b > a}


def mentions(text: str, answer: str) -> list[int]:
    """Where each mention of the answer ends."""
    return [m.end() for m in re.finditer(rf"\b{re.escape(answer.strip())}\b", text)]


def written(model: LensModel, example: Example, n: int) -> Example | None:
    """The example whose answer is all that the model writes up to its last mention of the answer; None without one."""
    said = tls.generate(model, example.prompt, n)
    found = mentions(said.answer, example.answer)
    if not found or not said.answer.startswith(example.answer):
        return None
    text, word = said.answer[: found[-1]], example.answer.strip()

    def of(answer: str) -> str:
        return re.sub(rf"\b{re.escape(word)}\b", answer.strip(), text)

    causes = tuple(replace(swap, answer=of(swap.answer)) for swap in example.causes)
    return replace(
        example, answer=text, causes=causes, others=tuple(replace(swap, answer=text) for swap in example.others)
    )


def notes(facts: dict[str, str], asked: str) -> str:
    """One exercise, up to where the model begins."""
    told = " ".join(f"The {key} is in the {value}." for key, value in facts.items())
    return f"Notes: {told}\nQuestion: Where is the {asked}?\nThought:"


def thought(key: str, value: str) -> str:
    """What is to be written."""
    return f" The notes say that the {key} is in the {value}.\nAnswer: {value}"


def reasoned(n: int, seed: int) -> Iterator[Example]:
    """Exercises behind three worked ones, of other words."""
    rng = random.Random(seed)
    for _ in range(n):
        keys, values = rng.sample(OBJECTS, 13), rng.sample(ROOMS, 14)
        *worked, facts = (dict(zip(keys[i : i + 3], values[i : i + 3], strict=True)) for i in range(0, 12, 3))
        named = [rng.choice(list(shown)) for shown in worked]
        before = "".join(
            notes(shown, key) + thought(key, shown[key]) + "\n\n" for shown, key in zip(worked, named, strict=True)
        )
        asked, other = rng.sample(list(facts), 2)
        prompt, said = before + notes(facts, asked), thought(asked, facts[asked])
        rest = [key for key in facts if key != asked]

        def swap(word: str, new: str, answer: str, prompt: str = prompt, after: str = before) -> Swap:
            """Of the last place of a word."""
            start = prompt.rindex(word, len(after))
            return Swap((start, start + len(word)), new, answer)

        causes = (
            swap(facts[asked], values[12], thought(asked, values[12])),
            swap(asked, other, thought(other, facts[other])),
        )
        others = (*(swap(facts[key], values[13], said) for key in rest), *(swap(key, keys[12], said) for key in rest))
        source = prompt.index(f"The {asked} ", len(before)), causes[0].span[1] + 1
        yield Example("reasoned", "places", prompt, said, source, causes, others)


def of_task(model: LensModel, name: str, n: int, seed: int, n_tokens: int) -> Iterator[tuple[bool, Example | None]]:
    """Of each prompt of a task: is it accepted, and what the model writes of its own after it."""
    for example in tasks.examples(name, n, seed, length=tasks.TASKS[name].least):
        accepted = bool(acceptance(model, [example]).accepted)
        yield accepted, written(model, example, n_tokens) if accepted else None


def kept(model: LensModel, task: str, n: int, seed: int, n_tokens: int, seconds: float) -> Iterator[Example]:
    """Accepted texts of the model's own, until there is no example or no time left."""
    start, drawn, accepted, own = time.process_time(), 0, 0, 0
    tried = (
        ((True, example) for example in reasoned(n, seed))
        if task == "reasoned"
        else of_task(model, task, n, seed, n_tokens)
    )
    for good, text in tried:
        drawn, accepted = drawn + 1, accepted + good
        if text is not None and acceptance(model, [text]).accepted:
            own += 1
            yield text
        if time.process_time() - start > seconds:
            break
    asked = "" if task == "reasoned" else f" {accepted} accepted,"
    print(f"\n{task}: {drawn} prompts drawn,{asked} of {own} the model's own text is accepted", flush=True)


def random_shares(generator: torch.Generator) -> Rows:
    """``(G, P)`` in which a unit's share does not depend on its length."""

    def rows(chain: Chain) -> tuple[torch.Tensor, torch.Tensor]:
        G, P = (torch.rand(part.shape, dtype=torch.float64, generator=generator) for part in own_rows(chain))
        whole = (G.tril(-1).sum(1) + P.sum(1))[:, None]
        return G.tril(-1) / whole, P / whole

    return rows


def measured(chain: Chain, example: Example, rows: Rows) -> Word:
    """Where the true source of the last written word ranks."""
    G, P = rows(chain)
    named = [q for q, source in enumerate(chain.sources) if source.name]
    a, b = example.causes[0].span
    spans = [[chain.offsets[p] for p in chain.sources[q].positions] for q in named]
    right = {i for i, own in enumerate(spans) if any(s < b and a < e for s, e in own)}
    last, *earlier = (step.text.strip(" .") for step in reversed(chain.steps))
    before = [len(earlier) - 1 - i for i, text in enumerate(earlier) if text == last]
    u, m = len(chain.steps) - 1, len(named)
    w = torch.zeros(len(G), dtype=torch.float64)
    w[u] = 1
    direct, total = (best_rank(shares[named], range(m), right) for shares in (P[u], visits(w, G) @ P))
    row = torch.cat([P[u, named], G[u, :u]])
    return Word(0, direct, total, best_rank(row, range(len(row)), right | {m + v for v in before}))


def main() -> None:
    """The table of each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo-llama", help="folder of a pretrained model")
    parser.add_argument(
        "--task", nargs="+", choices=TASKS, default=TASKS, metavar="TASK", help="of %(choices)s; default: all"
    )
    parser.add_argument("-n", type=int, default=200, help="prompts drawn of each task, at most")
    parser.add_argument("--tokens", type=int, default=16, help="that the model writes")
    parser.add_argument("--seconds", type=float, default=600, help="of processor time for each task, at most")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = tls.load_model(args.model)
    for task in args.task:
        found: Found = {}
        again: list[bool] = []
        generator = torch.Generator().manual_seed(args.seed)
        for example in kept(model, task, args.n, args.seed, args.tokens, args.seconds):
            again.append(len(mentions(example.answer, example.answer.split()[-1])) > 1)
            for name, given in METHODS.items():
                text = (example.prompt, example.answer)
                chain = tls.chain(model, text, units="word", prompt_units=sentences(example.prompt), **given)
                wanted = {name: own_rows} | (
                    {f"{name}, row-normalised": row_normalised} if name in ROW_NORMALISED else {}
                )
                if name == "semantic":
                    wanted["random"] = random_shares(generator)
                for label, rows in wanted.items():
                    found.setdefault(label, []).append([measured(chain, example, rows)])
        for what, wanted_again in (("texts that say the answer once", False), ("texts that say it before", True)):
            chosen = [i for i, also in enumerate(again) if also == wanted_again]
            some = {label: [each[i] for i in chosen] for label, each in found.items()}
            if n := len(chosen):
                report(f"{task}, {what}: {n}{'' if n >= LEAST else f', fewer than {LEAST}: no figure'}", some)


if __name__ == "__main__":
    main()
