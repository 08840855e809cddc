"""Does another linearisation rank tokens better? ``frozen_study.py --model FOLDER --data NAME=FILE --out FOLDER --gold 200``.

Every set of frozen parts (:mod:`tl_scopes.model.frozen`) with five readings of its gradient g and embedding x, of the
target's logit and of ``‖y‖``: 80 variants, one of which is the Semantic Scope.

========  ====================================
norm      ``‖g_t‖``
product   ``‖x_t ⊙ g_t‖``
signed    ``⟨x_t, g_t⟩``
positive  ``max(⟨x_t, g_t⟩, 0)``
size      ``|⟨x_t, g_t⟩|``
========  ====================================

*Removals* of a trained model: AOPC of the true last token (5, 10, 20 %; BOS kept), comprehensiveness, sufficiency and
agreement with leave-one-out, with zero and with the mean embedding in the place of what is removed, since zeroing favours
products with x by its definition. *Known causes* of the bundled model: ``gold_alignment``.

Two samples of different passages. The first *selects* the variants that are better than the Semantic Scope on every data set
under every removal, the best worst case first; the second *confirms* those few, with paired intervals at the level
``1 − 0.05 / few``. To be recommended a variant has to win every comparison there, and to lose none on the bundled model's
corpora. A run with ``--out`` that was stopped goes on where it was; several processes share one (``RANK``, ``WORLD_SIZE``).
"""

from __future__ import annotations

import argparse
import functools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tl_scopes as tls
from tl_scopes.model.held_functions import PARTS
from tl_scopes.numerics.statistics import paired_bootstrap, paired_shares
from tl_scopes.results.variants import Variant

SETS = [parts for size in range(len(PARTS) + 1) for parts in combinations(PARTS, size)]
SCALARS = {"logit": "semantic", "temperature": "temperature"}
REMOVALS = ("zero", "mean")
SAMPLES = {"select": 0, "confirm": 1}
FEW = 5
"""Variants that are confirmed."""
FEWEST_WORDS = {"lambada": 50, "iwslt": 20}
"""The filters of the paper's two data sets."""


def reading(x: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The five readings ``[pos]`` of embeddings and gradients ``[pos, d]``, in float64."""
    x, g = x.double().cpu(), g.double().cpu()
    inner = (x * g).sum(-1)
    return {
        "norm": g.norm(dim=-1),
        "product": (x * g).norm(dim=-1),
        "signed": inner,
        "positive": inner.clamp_min(0),
        "size": inner.abs(),
    }


READINGS = tuple(reading(torch.zeros(1, 1), torch.zeros(1, 1)))


def name_of(scalar: str, parts: Sequence[Any], read: str) -> str:
    """As the tables call a variant."""
    return f"{Variant(scalar, None, tuple(parts))} {read}"


VARIANTS = {name_of(s, parts, read): (s, parts, read) for s, parts, read in product(SCALARS, SETS, READINGS)}
SEMANTIC = name_of("logit", (), "norm")


@functools.lru_cache(maxsize=40_000)
def of_passage(model: Any, tokens: tuple[int, ...], pos: int, target: int, parts: tuple[Any, ...]) -> dict[str, Any]:
    """The scores of one passage by every variant with these parts frozen, from one forward."""
    found: dict[str, Any] = {}
    both = tls.scopes(
        model,
        torch.tensor(tokens),
        methods=tuple(SCALARS.values()),
        target=target,
        pos=pos,
        frozen=parts,
        keep_gradient=True,
        cache="hook_embed",
    )
    for scalar, method in SCALARS.items():
        attribution = both[method]
        x, g = attribution.cache["hook_embed"][0], attribution.gradient
        plain = replace(attribution, cache=None, gradient=None, signed=None, notes=(), details={})
        for read, scores in reading(x[: len(g)], g).items():
            padded = torch.zeros(len(tokens), dtype=scores.dtype)
            padded[: len(scores)] = scores
            name = name_of(scalar, parts, read)
            found[name] = replace(plain, method=name, scores=padded)
    return found


def one(name: str) -> Any:
    """A variant as :func:`tl_scopes.aopc` calls it."""

    def method(model: Any, tokens: Tensor, target: int, pos: int) -> Any:
        return of_passage(model, tuple(tokens.tolist()), pos, target, VARIANTS[name][1])[name]

    return method


def many(name: str) -> Any:
    """A variant as :func:`tl_scopes.gold_alignment` calls it."""

    def method(model: Any, prompts: list[str], targets: list[str]) -> list[Any]:
        tokens = [tuple(model.to_tokens(p)[0].tolist()) for p in prompts]
        ids = [int(model.to_single_token(t)) for t in targets]
        parts = VARIANTS[name][1]
        return [of_passage(model, t, len(t) - 1, i, parts)[name] for t, i in zip(tokens, ids, strict=True)]

    return method


# -- removals ----------------------------------------------------------------------------------------------


def drawn(file: str, name: str, n: int, sample: int) -> list[Any]:
    """``n`` passages of a file, others for every sample."""
    passages = tls.load_passages(file, 100_000, min_words=FEWEST_WORDS.get(name, 0))
    random.Random(0).shuffle(passages)
    found = passages[sample * n : (sample + 1) * n]
    if len(found) < n:
        raise SystemExit(f"{file}: {len(passages)} passages, {(sample + 1) * n} are needed")
    return found


Tables = dict[str, dict[tuple[str, str], Any]]
"""A table of all variants for each sample, and each data set and removal."""


def removals(model: Any, data: Mapping[str, str], n: int, out: Path, batch_size: int | None) -> Tables:
    """Measured, or read where the folder has them; not complete where another process is still at work."""
    methods = {name: one(name) for name in VARIANTS} | {"random": "random"}
    out.mkdir(exist_ok=True)
    found: Tables = {sample: {} for sample in SAMPLES}
    for sample, (name, file) in product(SAMPLES, data.items()):
        passages = drawn(file, name, n, SAMPLES[sample])
        for removal in REMOVALS:
            found[sample][name, removal] = tls.aopc(
                model,
                passages,
                methods,
                ablation=removal,
                beside=("sufficiency", "leave_one_out"),
                batch_size=batch_size,
                out=out / f"{sample}-{name}-{removal}",
            )
    return found


def kept(out: Path) -> Tables:
    """The tables of a run that is in a folder."""
    found: Tables = {sample: {} for sample in SAMPLES}
    for folder in sorted(out.iterdir()):
        sample, name, removal = folder.name.split("-")
        found[sample][name, removal] = tls.load_aopc(folder)
    return found


def compared(table: Any, name: str, level: float) -> Any:
    """A variant's AOPC less the Semantic Scope's, by prompt."""
    return paired_bootstrap(table[name].per_prompt, table[SEMANTIC].per_prompt, level=level)


def selected(tables: Tables) -> list[str]:
    """Variants better than the Semantic Scope in every cell of the first sample, the best worst case first."""
    cells = tables["select"].values()
    worst = {}
    for name in VARIANTS:
        if name != SEMANTIC:
            d = [table[name].per_prompt - table[SEMANTIC].per_prompt for table in cells]
            worst[name] = max(float(v.mean() / max(v.std(ddof=1) / math.sqrt(len(v)), 1e-12)) for v in d)
    return sorted((name for name, z in worst.items() if z < 0), key=lambda name: worst[name])[:FEW]


def print_removals(tables: Tables) -> list[str]:
    """Print what was measured; the variants that win everywhere on the second sample."""
    cells = list(tables["select"])
    for sample in SAMPLES:
        print(f"\n{sample}: AOPC less the Semantic Scope's ± SEM, nats (negative is more faithful)")
        print(f"{'variant':45}" + "".join(f"{f'{name}, {removal}':>20}" for name, removal in cells))
        own = "".join(_cell(tables[sample][cell][SEMANTIC].per_prompt) for cell in cells)
        print(f"{'the Semantic Scope itself':45}{own}")
        for name in [*VARIANTS, "random"]:
            if name != SEMANTIC:
                of = (tables[sample][cell] for cell in cells)
                print(f"{name:45}" + "".join(_cell(t[name].per_prompt - t[SEMANTIC].per_prompt) for t in of))
    few = selected(tables)
    level = 1 - 0.05 / max(len(few), 1)
    print(
        f"\nOf {len(VARIANTS) - 1} variants {len(few)} selected; confirmed on other passages at the level "
        f"{100 * level:.0f} %: AOPC less the Semantic Scope's [interval]"
    )
    winners = []
    for name in few:
        found = [compared(tables["confirm"][cell], name, level) for cell in cells]
        row = "".join(f"  {c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for c in found)
        print(f"{name:45}{row}")
        if all(c.high < 0 for c in found):
            winners.append(name)
    print(
        "beside it, on the confirming sample: comprehensiveness, sufficiency, leave-one-out's rank correlation and top 5 %"
    )
    for name in [SEMANTIC, *few, "random"]:
        row = ""
        for cell in cells:
            of = tables["confirm"][cell].to_frame().set_index("method").loc[name]
            agree = f"{of.loo_spearman:5.2f} {100 * of.loo_top5_hit:3.0f} %"
            row += f"  {of.comprehensiveness:6.2f} {of.sufficiency:6.2f} {agree}"
        print(f"{name:45}{row}")
    print(f"Better in every cell: {', '.join(winners) or 'none'}")
    return winners


def _cell(values: Any) -> str:
    """Mean and standard error."""
    return f"{f'{values.mean():+.3f} ± {values.std(ddof=1) / math.sqrt(len(values)):.3f}':>20}"


# -- known causes ------------------------------------------------------------------------------------------


def print_gold(n: int, asked: Sequence[str]) -> None:
    """Known causes of the bundled model: every variant on the first sample, the few and the best there on the second."""
    model = tls.load_model()
    methods = {name: many(name) for name in VARIANTS}
    first = tls.gold_alignment(model, methods, n=n, seed=0)
    top = _by_prompt(first)
    corpora = list(first.accuracy)
    print(f"\nKnown causes of the bundled model, {n} prompts per corpus, select: top-1 in per cent")
    print(f"{'variant':45}" + "".join(f"{c[:11]:>12}" for c in corpora) + f"{'all':>12}")
    for name in VARIANTS:
        cells = [100 * top[name][c].mean() for c in corpora]
        print(f"{name:45}" + "".join(f"{c:12.1f}" for c in cells) + f"{np.mean(cells):12.1f}")
    mean = {name: float(np.mean([top[name][c].mean() for c in corpora])) for name in VARIANTS}
    best = sorted(VARIANTS, key=lambda name: -mean[name])[:FEW]
    few = list(dict.fromkeys(name for name in [*asked, *best] if name != SEMANTIC))
    second = _by_prompt(tls.gold_alignment(model, {name: many(name) for name in [SEMANTIC, *few]}, n=n, seed=1))
    level = 1 - 0.05 / (len(few) * len(corpora))
    print(
        f"\nconfirm: top-1 less the Semantic Scope's, per cent [interval at {100 * level:.2f} %, for {len(few)} variants "
        f"on {len(corpora)} corpora]"
    )
    for name in few:
        row, lost = "", []
        for c in corpora:
            found = paired_shares(second[name][c], second[SEMANTIC][c], level=level)
            row += f"  {c[:11]} {100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
            lost += [c] if found.high < 0 else []
        print(f"{name:45}{row}; significantly worse on {', '.join(lost) or 'none'}")


def _by_prompt(result: Any) -> dict[str, dict[str, Any]]:
    """Hits of every variant, ``[corpus][prompt]``."""
    hits: dict[str, dict[str, list[float]]] = {}
    for record in result.records:
        hits.setdefault(record.method, {}).setdefault(record.corpus, []).append(float(record.rank == 1))
    return {name: {c: np.array(v) for c, v in of.items()} for name, of in hits.items()}


def main() -> None:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a trained model, for the removals; None: print those that --out has")
    parser.add_argument("--data", action="append", default=[], help="NAME=FILE, a file of passages; several times")
    parser.add_argument("-n", type=int, default=100, help="passages of each sample and data set")
    parser.add_argument("--out", type=Path, help="folder of the run")
    parser.add_argument("--device")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument(
        "--gold", type=int, default=0, help="prompts per corpus of the bundled model; 0: no known causes"
    )
    args = parser.parse_args()
    winners: list[str] = []
    if args.out:
        data = dict(given.split("=", 1) for given in args.data)
        model = tls.load_model(args.model, device=args.device) if args.model else None
        tables = kept(args.out) if model is None else removals(model, data, args.n, args.out, args.batch_size)
        every = {(sample, *cell): table for sample, of in tables.items() for cell, table in of.items()}
        if not all(table.complete for table in every.values()):
            return  # another process prints
        if failed := {cell: len(table.failures) for cell, table in every.items() if table.failures}:
            print(f"passages that could not be run: {failed}")
        one_of = next(iter(every.values()))
        print(
            f"{one_of.settings['model']['model_name']}, {one_of.settings['model']['dtype']}, {one_of.total} passages each"
        )
        winners = print_removals(tables)
    if args.gold:
        print_gold(args.gold, winners)


if __name__ == "__main__":
    main()
