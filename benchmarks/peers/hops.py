"""FlashTrace's hops beside ours, on chains that ``demo-llama`` writes itself.

    PYTHONPATH=benchmarks:PEERS/flashtrace python benchmarks/peers/hops.py

The prompts, the words and the statements of ``benchmarks/chains.py``: for each word of a written chain, the share of prompts
whose true statement of who sees what ranks first among the statements. Ours is the Semantic Scope's chain over words.
FlashTrace is given the word as output, all written tokens before it as reasoning, and as many hops as there are words of the
chain between; a statement has the sum of its tokens' scores. *direct* is its first hop alone, *total* all hops together.

    flashtrace          as it is called: it reads the output at the word's own tokens, behind those that predict them
    flashtrace/before   output and reasoning end one token earlier, where the word is predicted
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from importlib.metadata import version
from statistics import median
from typing import Any

import torch
from chains import by_statement, measured, own_rows
from plain import folder_of, plain_model, require_same_ids

import tl_scopes as tls
from tl_scopes.demo.corpora import CHAINS, chains
from tl_scopes.demo.corpora.chains import words_of
from tl_scopes.evaluation.gold_methods import best_rank
from tl_scopes.model.vocabulary import pieces
from tl_scopes.numerics.statistics import paired_shares
from tl_scopes.results.chain import Chain

MODEL = "demo-llama"
Ranks = dict[str, dict[int, list[tuple[int, int]]]]
"""Of each method and number of hops, the ranks by direct and by total."""


def traced(hf: Any, tokenizer: Any, ids: torch.Tensor, start: int, word: Sequence[int], hops: int) -> Any:
    """FlashTrace of the tokens at ``word`` of a text whose written part begins at ``start``."""
    from flashtrace import FlashTrace

    prompt, text = tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:])
    for part, own in ((prompt, ids[:start]), (text, ids[start:])):
        require_same_ids("flashtrace", tokenizer(part, add_special_tokens=False)["input_ids"], own)
    first, last = word[0] - start, word[-1] - start
    with contextlib.redirect_stderr(io.StringIO()):  # a bar per layer
        return FlashTrace(hf, tokenizer).trace(
            prompt=prompt,
            target=text,
            output_span=(first, last),
            reasoning_span=(0, first - 1) if first else None,
            hops=hops,
            method="flashtrace",
        )


def ranked(chain: Chain, found: Any, cause: tuple[int, int]) -> tuple[int, int]:
    """Rank of the statement with the cause, by the first hop and by all."""
    places = [source.positions for source in chain.sources]
    start, end = cause
    right = {
        i for i, own in enumerate(places) if any(chain.offsets[p][0] < end and start < chain.offsets[p][1] for p in own)
    }
    direct, total = (
        torch.tensor([sum(scores[p] for p in own) for own in places])
        for scores in (found.per_hop_scores[0], found.scores)
    )
    return best_rank(direct, range(len(places)), right), best_rank(total, range(len(places)), right)


def main() -> None:
    """The table of each corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="prompts of each corpus")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, hf = tls.load_model(MODEL), plain_model(folder_of(MODEL))
    print(f"flashtrace {version('flashtrace')}, {MODEL}, {args.n} prompts of each corpus, seed {args.seed}")
    for corpus in CHAINS:
        found: Ranks = {"semantic": {}, "flashtrace": {}, "flashtrace/before": {}}
        for example in chains(corpus, args.n, args.seed):
            said = tls.generate(model, example.prompt, len(pieces(model.tokenizer, example.answer)))
            if said.answer != example.answer:
                continue
            chain = by_statement(tls.chain(model, said, units="word"))
            texts, cause = [step.text.strip() for step in chain.steps], example.causes[0].span
            numbers = [texts.index(word) for word in words_of(example.answer.split()[0]) if word in texts]
            ours = list(measured(chain, example, own_rows, example.causes[:1]))
            for hops, u in enumerate(numbers):
                if hops == 0:
                    continue  # nothing of the chain stands before it
                found["semantic"].setdefault(hops, []).append((ours[hops].direct, ours[hops].total))
                for label, shift in (("flashtrace", 0), ("flashtrace/before", 1)):
                    word = [p - shift for p in chain.steps[u].positions]
                    trace = traced(hf, model.tokenizer, chain.tokens[: word[-1] + 1], chain.answer_start, word, hops)
                    found[label].setdefault(hops, []).append(ranked(chain, trace, cause))
        report(corpus, found)


def report(corpus: str, found: Ranks) -> None:
    """A line for each method and number of hops."""
    print(
        f"\n{corpus}\n{'rows':20} hops    n  direct   total  total - direct, points  median rank  total - ours, points"
    )
    for hops, ours in found["semantic"].items():
        for label, by_hops in found.items():
            direct, total = ([float(pair[i] == 1) for pair in by_hops[hops]] for i in (0, 1))
            own = [float(rank == 1) for _, rank in ours]
            a, b = (f"{100 * sum(v) / len(v):.1f}" for v in (direct, total))
            hop, beside = (spread(total, against) for against in (direct, own))
            middle = f"{median(d for d, _ in by_hops[hops]):g} -> {median(t for _, t in by_hops[hops]):g}"
            print(f"{label:20} {hops:4} {len(ours):4} {a:>7} {b:>7}  {hop:>22}  {middle:>11}  {beside:>22}", flush=True)


def spread(first: Sequence[float], second: Sequence[float]) -> str:
    """The paired difference in points, with its interval."""
    pair = paired_shares(first, second)
    return f"{100 * pair.difference:+.1f} [{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]"


if __name__ == "__main__":
    main()
