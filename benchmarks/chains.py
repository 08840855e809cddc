"""Does following a written chain back find where it began? ``python benchmarks/chains.py``; what it costs: ``--cost``.

The chains of ``demo-llama`` are written out by the model itself: of who sees what the prompt tells, which thing an animal has
and where a thing lies the model knows. So a word that is k hops away rests on the prompt through k written words alone.
Held-out prompts whose chain the model writes as it should; units are words. For every written word of the chain: the share of
prompts whose true source ranks first among the prompt's units, by the direct share and by the total, with the paired
difference (95 %, Agresti and Min) and median ranks; and the share whose own row has the word that it rests on (k = 0: a
source) first among all that stands before it. Units of the prompt are all its words, of which the animal of the person who is
asked for and the name in the question are right; then its statements of who sees what, of which one is.

Rows: ``chain`` with several methods; *row-normalised* the same scores as the published recipe of CAGE (arXiv 2512.15663) has
them, in our own implementation: non-negative, not squared, each row divided by all of it, special tokens and own tokens
included; *random* rows of random numbers.

With ``--cost``: a text of 2,000 tokens, 40 written units of 25, on the GPT-2 small shape with random weights, inside a budget
of 8 GiB: seconds, and the largest resident size beside that of the model.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import torch
from shapes import as_bridge, describe, gpt2_small
from torch import Tensor

import tl_scopes as tls
from tl_scopes.demo.corpora import CHAINS, Example, chains
from tl_scopes.demo.corpora.chains import words_of
from tl_scopes.demo.corpora.passages import Swap
from tl_scopes.evaluation.gold_methods import best_rank
from tl_scopes.model.vocabulary import pieces
from tl_scopes.numerics.statistics import paired_shares
from tl_scopes.numerics.walks import visits
from tl_scopes.results.chain import Chain
from tl_scopes.results.generation import Generation
from tl_scopes.results.units import joined

METHODS: dict[str, dict[str, Any]] = {
    "semantic": {},
    "semantic, log p": {"of": "log_prob"},
    "semantic/attention": {"frozen": "attention"},
    "semantic/norms+attention": {"frozen": ("norms", "attention")},
    "semantic/all": {"frozen": "all"},
    "input_x_gradient": {"method": "input_x_gradient"},
    "input_x_gradient/all": {"method": "input_x_gradient", "frozen": "all"},
    "temperature": {"method": "temperature"},
}
ROW_NORMALISED = ("semantic", "input_x_gradient", "input_x_gradient/all")
Rows = Callable[[Chain], tuple[Tensor, Tensor]]
BUDGET = 8 * 2**30
Found = dict[str, list[list["Word"]]]
"""Words of each prompt's chain, by the label of the rows."""


def own_rows(chain: Chain) -> tuple[Tensor, Tensor]:
    """``(G, P)`` of the package."""
    return chain.graph, chain.from_prompt


def row_normalised(chain: Chain) -> tuple[Tensor, Tensor]:
    """``(G, P)`` of absolute scores, each row divided by all of it."""
    scores = chain.scores.double().abs()
    scores = scores / scores.sum(dim=1, keepdim=True)
    G = joined(scores, [step.positions for step in chain.steps], True)
    # Own tokens are a step's way to itself, which can be walked again and again: Σ_k dᵏ = 1 / (1 − d).
    again = 1 / (1 - G.diagonal())[:, None]
    return again * G.tril(-1), again * joined(scores, [source.positions for source in chain.sources], True)


def random_rows(generator: torch.Generator) -> Rows:
    """``(G, P)`` of random numbers."""

    def rows(chain: Chain) -> tuple[Tensor, Tensor]:
        return own_rows(
            replace(chain, scores=chain.scores * 0 + _below(chain, torch.rand(chain.scores.shape, generator=generator)))
        )

    return rows


def _below(chain: Chain, values: Tensor) -> Tensor:
    """0 from each unit's last token on."""
    for u, step in enumerate(chain.steps):
        values[u, step.positions[-1] :] = 0
    return values


class Word(NamedTuple):
    """What rows say of one word of a chain.

    Attributes:
        hops: written words between it and the prompt.
        direct: rank of the best cause among the prompt's units, by the direct share.
        total: the same by the total.
        row: rank in its own row of what it rests on.
    """

    hops: int
    direct: int
    total: int
    row: int


def by_statement(chain: Chain) -> Chain:
    """The same rows over what the prompt tells of each person, without its beginning and its question."""
    text = chain.text or ""
    told = text[: text.index(". I know that")]
    ends = [*(i for i, c in enumerate(told) if c == ","), len(told)]
    spans = {f"statement {i}": pair for i, pair in enumerate(pairwise(ends))}
    found = chain.by_unit(spans)
    return replace(found, sources=tuple(s for s in found.sources if s.name and s.name != "statement 0"))


def measured(chain: Chain, example: Example, rows: Rows, causes: Sequence[Swap]) -> Iterator[Word]:
    """Of each word of the chain, where what it rests on ranks."""
    G, P = rows(chain)
    places = [[chain.offsets[p] for p in source.positions] for source in chain.sources]
    spans = [swap.span for swap in causes]
    right = {q for q, own in enumerate(places) if any(a < e and s < b for s, e in spans for a, b in own)}
    texts = [step.text.strip() for step in chain.steps]
    numbers = [texts.index(word) for word in words_of(example.answer.split()[0]) if word in texts]
    n = len(chain.sources)
    for hops, u in enumerate(numbers):
        w = torch.zeros(len(G), dtype=torch.float64)
        w[u] = 1
        row = torch.cat([P[u], G[u, :u]])
        before = right if hops == 0 else {n + numbers[hops - 1]}
        direct, total = (best_rank(shares, range(n), right) for shares in (P[u], visits(w, G) @ P))
        yield Word(hops, direct, total, best_rank(row, range(len(row)), before))


def ranks(n: int, seed: int) -> None:
    """Print the table of each corpus."""
    model = tls.load_model("demo-llama")
    for corpus in CHAINS:
        kept = []
        for example in chains(corpus, n, seed):
            said = tls.generate(model, example.prompt, len(pieces(model.tokenizer, example.answer)))
            if said.answer == example.answer:
                kept.append((example, said))
        print(
            f"\n{corpus}: {len(kept)} of {n} prompts, seed {seed}, whose chain the model writes as it should",
            flush=True,
        )
        words: Found = {}
        statements: Found = {}
        for name, given in METHODS.items():
            made = [tls.chain(model, said, units="word", **given) for _, said in kept]
            wanted = {name: own_rows} | ({f"{name}, row-normalised": row_normalised} if name in ROW_NORMALISED else {})
            if name == "semantic":
                wanted["random"] = random_rows(torch.Generator().manual_seed(seed))
            for label, rows in wanted.items():
                each = list(zip(made, [example for example, _ in kept], strict=True))
                words[label] = [list(measured(c, e, rows, e.causes)) for c, e in each]
                statements[label] = [list(measured(by_statement(c), e, rows, e.causes[:1])) for c, e in each]
        report("words, all of the prompt's; the animal or the name ranks first", words)
        report("statements of who sees what; the right one ranks first", statements)


def report(what: str, found: Found) -> None:
    """One line per rows and number of hops."""
    print(f"\n{what}")
    head = f"{'rows':38} hops  direct   total  total - direct, points  median rank  own row"
    print(head, flush=True)
    for h in sorted({one.hops for each in found.values() for prompt in each for one in prompt}):
        for label, prompts in found.items():
            ranks = [prompt[h] for prompt in prompts]
            direct, total, row = ([float(one[i] == 1) for one in ranks] for i in (1, 2, 3))
            pair = paired_shares(total, direct)
            a, b, c = (f"{100 * sum(v) / len(v):.1f}" for v in (direct, total, row))
            spread = f"{100 * pair.difference:+.1f} [{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]"
            middle = f"{median(one.direct for one in ranks):g} -> {median(one.total for one in ranks):g}"
            print(f"{label:38} {h:4} {a:>7} {b:>7}  {spread:>22}  {middle:>11}  {c:>7}", flush=True)


def cost(length: int, units: int) -> None:
    """Print what a long text takes."""
    model = as_bridge(gpt2_small(n_ctx=length))
    tokens = torch.randint(1000, 50_000, (length,), generator=torch.Generator().manual_seed(1))
    words = [f"w{t} " for t in tokens.tolist()]
    ends = torch.tensor([0, *map(len, words)]).cumsum(0).tolist()
    half, size = length // 2, length // 2 // units
    said = Generation(
        prompt="".join(words[:half]),
        answer="".join(words[half:]),
        tokens=tokens,
        str_tokens=words,
        answer_start=half,
        offsets=tuple(pairwise(ends)),
    )
    borders = [*(half + u * size for u in range(units)), length]
    cut = {f"step {u + 1}": (ends[a], ends[b]) for u, (a, b) in enumerate(pairwise(borders))}
    documents = {f"document {d + 1}": (ends[d * half // 10], ends[(d + 1) * half // 10]) for d in range(10)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start, busy = time.perf_counter(), time.process_time()
    found = tls.chain(model, said, units=cut, prompt_units=documents, memory_budget=BUDGET)
    wall, cpu = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert len(found.steps) == units
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {describe(model.original_model)}, T={length}, "
        f"{units} units of {size} tokens, memory_budget={BUDGET / 2**30:.0f} GiB: {wall:.0f} s ({cpu:.0f} s of processor "
        f"time), largest resident size {peak / 2**30:.2f} GiB, {(peak - before) / 2**30:.2f} GiB above that of the model"
    )


def main() -> None:
    """The tables, or the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="prompts of each corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cost", action="store_true", help="what a long text takes, instead of the tables")
    parser.add_argument("--length", type=int, default=2000)
    parser.add_argument("--units", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.cost:
        cost(args.length, args.units)
    else:
        ranks(args.n, args.seed)


if __name__ == "__main__":
    main()
