"""Do chains of a real model end at the needle, or at an injected instruction?

    python benchmarks/chain_tasks.py --model FOLDER

Prompts of several facts or documents (the tasks ``retrieval`` and ``injection``, at their shortest), which the model accepts:
with the deciding word swapped it says the counterpart's answer, with others it does not. Then the model continues, and what
is explained is the **last** place where its own text says the answer. That text must be accepted too: up to there, the model
writes it again with the counterpart's answer in place of the answer where the cause is swapped, and unchanged under three
other swaps.

Steps are words. The true source is the sentence with the deciding word, among all sentences of the prompt but the last, which
asks. Printed for all texts, and for those that say the answer before, which the last mention may rest on: the share whose
true source ranks first by ``direct`` and by ``total``, their paired difference (95 %, Agresti and Min), median ranks, and
*own row*, where the true source or an earlier mention of the answer ranks first in the explained word's own row.

Fewer than 30 texts are no figure, and the table says so.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from chains import ROW_NORMALISED, Found, Rows, Word, own_rows, random_rows, report, row_normalised

import tl_scopes as tls
from tl_scopes import tasks
from tl_scopes.demo.corpora import Example
from tl_scopes.evaluation.acceptance import acceptance
from tl_scopes.evaluation.gold_methods import best_rank
from tl_scopes.model.lens import LensModel
from tl_scopes.numerics.walks import visits
from tl_scopes.results.chain import Chain

METHODS: dict[str, dict[str, Any]] = {
    "semantic": {},
    "input_x_gradient/all": {"method": "input_x_gradient", "frozen": "all"},
}
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


def kept(model: LensModel, task: str, n: int, seed: int, n_tokens: int, seconds: float) -> Iterator[Example]:
    """Accepted texts of the model's own, until there is no example or no time left."""
    start, drawn, accepted, own = time.process_time(), 0, 0, 0
    for example in tasks.examples(task, n, seed, length=tasks.TASKS[task].least):
        if time.process_time() - start > seconds:
            break
        drawn += 1
        if not acceptance(model, [example]).accepted:
            continue
        accepted += 1
        text = written(model, example, n_tokens)
        if text is not None and acceptance(model, [text]).accepted:
            own += 1
            yield text
    print(
        f"\n{task}: {drawn} prompts drawn, {accepted} accepted, of {own} of these the model's own text too", flush=True
    )


def measured(chain: Chain, example: Example, rows: Rows) -> Word:
    """Where the true source of the last written word ranks."""
    G, P = rows(chain)
    named = [q for q, source in enumerate(chain.sources) if source.name]
    a, b = example.causes[0].span
    spans = [[chain.offsets[p] for p in chain.sources[q].positions] for q in named]
    right = {i for i, own in enumerate(spans) if any(s < b and a < e for s, e in own)}
    before = [u for u, step in enumerate(chain.steps[:-1]) if step.text.strip() == chain.steps[-1].text.strip()]
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
    parser.add_argument("-n", type=int, default=200, help="prompts drawn of each task, at most")
    parser.add_argument("--tokens", type=int, default=16, help="that the model writes")
    parser.add_argument("--seconds", type=float, default=600, help="of processor time for each task, at most")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = tls.load_model(args.model)
    for task in ("retrieval", "injection"):
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
                    wanted["random"] = random_rows(generator)
                for label, rows in wanted.items():
                    found.setdefault(label, []).append([measured(chain, example, rows)])
        several = {label: [one for one, also in zip(each, again, strict=True) if also] for label, each in found.items()}
        for what, some in (("all texts", found), ("texts that say the answer before", several)):
            n = len(next(iter(some.values()), []))
            if n:
                report(f"{task}, {what}: {n}{'' if n >= LEAST else f', fewer than {LEAST}: no figure'}", some)


if __name__ == "__main__":
    main()
