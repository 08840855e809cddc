"""Invariant: effects are those of real removals, random sets are drawn alike, and a ranking that knows nothing passes rarely.

Oracles: plain Hugging Face runs with edited `inputs_embeds`, and counting.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import every_result
import families
import numpy as np
import oracles
import pytest
import torch
from samples import passages

import tl_scopes as tls
from tl_scopes.demo.corpora import examples, token_positions

PROMPT = families.PROMPT
GERMAN = "German: ich hoffe, dass der Hund die schwarze Katze sieht. English: I hope that the dog"


def removed(pair: families.Pair, tokens: torch.Tensor, positions: Any, target: int) -> float:
    """Change of log p of the target with these embeddings set to 0, by Hugging Face alone."""
    x = oracles.embeddings(pair.hf, tokens)
    y = x.clone()
    y[list(positions)] = 0
    plain, changed = (oracles.run(pair.hf, e).logits[-1].detach().log_softmax(-1)[target] for e in (x, y))
    return float(changed - plain)


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_effects_are_those_of_plain_hugging_face_runs(pair: families.Pair) -> None:
    attr = tls.semantic_scope(pair.model, families.prompt_tokens(14), target=5)
    found = tls.verdict(pair.model, attr, k=2, n_random=6)
    top = [t.pos for t in attr.without("special").top(2)]
    assert found.strongest == tuple((p,) for p in top)
    close = 10 * families.rtol(pair)  # of differences of log p
    assert found.effect == pytest.approx(removed(pair, attr.tokens, top, 5), rel=close)
    for positions, effect in zip(found.singles, found.single_effects.tolist(), strict=True):
        assert effect == pytest.approx(removed(pair, attr.tokens, positions, 5), rel=close, abs=close)
    assert found.single_scores.tolist() == [float(attr.scores[p]) for (p,) in found.singles]
    assert {len(s) for s in found.sets} == {2}
    for positions, effect in zip(found.sets, found.drawn.tolist(), strict=True):
        assert effect == pytest.approx(removed(pair, attr.tokens, positions, 5), rel=close, abs=close)
    assert found.to_frame().tokens[1] == " | ".join(attr.str_tokens[p] for p in found.sets[0])


@pytest.mark.on_families("gpt2")
def test_few_sets_are_all_there_are_and_p_is_the_rank_among_them(pair: families.Pair) -> None:
    attr = tls.semantic_scope(pair.model, families.prompt_tokens(12), target=5)
    candidates = [p for p in range(12) if p not in attr.special]
    found = tls.verdict(pair.model, attr, k=1)
    effects = sorted(removed(pair, attr.tokens, [p], 5) for p in candidates)
    assert found.exhaustive
    assert sorted([found.effect, *found.drawn.tolist()]) == pytest.approx(effects, abs=1e-6)
    assert found.p == sum(e <= found.effect + 1e-12 for e in effects) / len(candidates)
    assert not found.better
    assert found.sentence.startswith("Too few sets to tell"), "p cannot fall to 0.05 among 12"


def test_p_counts_the_random_sets_that_are_at_least_as_harmful() -> None:
    drawn = torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0])
    for effect, p in ((-4.0, 1 / 6), (-3.0, 2 / 6), (-1.5, 3 / 6), (2.0, 1.0)):
        assert replace(every_result.judged(), effect=effect, drawn=drawn, scalar_drawn=drawn).p == pytest.approx(p)
    for scalar, p in ((-4.0, 1 / 6), (3.0, 2 / 6), (-1.5, 3 / 6), (0.0, 1.0)):
        own = replace(every_result.judged(), scalar_effect=scalar, drawn=drawn, scalar_drawn=drawn)
        assert own.scalar_p == pytest.approx(p), "by the size of its change"


@pytest.mark.on_families("gpt2")
def test_scopes_of_something_else_are_measured_on_their_own_scalar(pair: families.Pair) -> None:
    tokens = families.prompt_tokens(12)
    fisher = tls.verdict(pair.model, tls.fisher_scope(pair.model, tokens), k=2)
    x = oracles.embeddings(pair.hf, tokens)
    x[[p for (p,) in fisher.strongest]] = 0
    assert fisher.scalar_unit == "nats"
    assert fisher.scalar_effect == pytest.approx(oracles.kl_divergence(pair.hf, tokens, 11, x), rel=1e-6)
    temperature = tls.verdict(pair.model, tls.temperature_scope(pair.model, tokens), k=2)
    changed = oracles.embeddings(pair.hf, tokens)
    changed[[p for (p,) in temperature.strongest]] = 0
    norms = [oracles.run(pair.hf, e).y[-1].norm() for e in (oracles.embeddings(pair.hf, tokens), changed)]
    assert temperature.scalar_effect == pytest.approx((norms[1] - norms[0]).item(), rel=1e-6)
    assert len(temperature.scalar_drawn) == len(temperature.drawn)
    assert tls.verdict(pair.model, tls.total_information(pair.model, tokens), k=2).scalar_unit == "nats"
    assert tls.verdict(pair.model, tls.semantic_scope(pair.model, tokens), k=2).scalar is None


def test_several_on_one_prompt_share_their_runs_and_say_the_same(demo_model: Any) -> None:
    rows: list[int] = []

    def count(activation: torch.Tensor, hook: Any) -> None:
        rows.append(len(activation))

    attrs = list(tls.scopes(demo_model, GERMAN, target=" sees").values())
    alone = [tls.verdict(demo_model, a).sentence for a in attrs]
    with demo_model.hooks(fwd_hooks=[("hook_embed", count)]):
        together = tls.verdict(demo_model, attrs)
        first, rows[:] = sum(rows), []
        tls.verdict(demo_model, attrs[0])
    assert [v.sentence for v in together] == alone
    n = attrs[0].without("special").scores.numel() - 1
    assert sum(rows) <= 1 + 1 + 20 + n, "the unchanged prompt once, the strongest, the random sets, each token"
    assert first <= sum(rows) + 2, "the other scopes add their strongest tokens alone"


def test_words_are_removed_whole(demo_model: Any) -> None:
    attr = tls.semantic_scope(demo_model, "The old man sees the dog and the cat and the house", target=" the")
    found = tls.verdict(demo_model, attr, k=2, unit="word")
    words = [tuple(w) for w in attr.by_word().details["words"]]
    assert any(len(w) > 1 for w in words)
    assert set(found.strongest) <= set(words)
    assert set(found.singles) <= set(words)


def test_sentences_are_removed_whole(demo_model: Any) -> None:
    text = " ".join(
        f"Tom sees the {animal}." for animal in ("dog", "cat", "cow", "bird", "horse", "fox", "wolf", "bear", "fish")
    )
    attr = tls.semantic_scope(demo_model, text)
    found = tls.verdict(demo_model, attr, k=1, unit="sentence")
    sentences = [tuple(u) for u in attr.by_unit("sentence").details["units"]]
    assert found.n_candidates == 9 and set(found.singles) <= set(sentences)
    assert "strongest sentence" in found.sentence


def test_below_eight_candidates_there_is_none(demo_model: Any) -> None:
    found = tls.verdict(demo_model, tls.semantic_scope(demo_model, "a dog sees the cat"))
    assert found.n_candidates < 8
    assert found.effect is None
    assert math.isnan(found.p)
    assert not found.better
    assert found.sentence.startswith("No verdict: ")
    assert found.html()
    assert found.plot()
    assert tls.verify(demo_model, found.attribution, top=2).verdict.effect is None


def test_the_seed_draws(demo_model: Any) -> None:
    attr = tls.semantic_scope(demo_model, GERMAN)
    one, same, other = (tls.verdict(demo_model, attr, seed=s).drawn for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("harmful", "opening", "said"),
    [
        ([], "These tokens matter", None),
        (
            [(1, 2)],
            "Undecided",
            "The one that does as much holds one of these; of the 9 that do not, the most harmful one",
        ),
        ([(1, 2), (0, 3)], "Undecided", "The 2 pairs that do as much hold one of these"),
        ([(1, 2), (0, 2)], "No better than random", "Of the 2 pairs that do as much 1 holds one of these."),
        ([(0, 2), (0, 4)], "No better than random", None),
    ],
)
def test_sets_that_hold_the_same_tokens_leave_it_undecided(harmful: Any, opening: str, said: str | None) -> None:
    own = [(1, 0), (3, 2), (1, 4), (3, 0), (1, 3), (1, 2), (3, 4), (1, 0), (3, 2), (1, 4)]
    sets = [*harmful, *(own + [(0, 2), (2, 4)] * 5)[: 20 - len(harmful)]]
    drawn = torch.tensor([-3.0] * len(harmful) + [-0.5] * (20 - len(harmful)))
    found = replace(every_result.judged(), sets=tuple(sets), drawn=drawn, scalar_drawn=drawn.abs())
    assert found.strongest == ((1,), (3,)) and found.effect == -2.5
    assert found.sentence.startswith(f"{opening}: ") and found.better == (not harmful)
    assert "as much" not in found.sentence if said is None else said in found.sentence
    assert not replace(found, sets=()).sentence.startswith("Undecided"), "an older file"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, r"verdict\(k=0\)"),
        ({"k": 2.0}, TypeError, r"verdict\(k=2.0\)"),
        ({"k": 40}, ValueError, "k must be below 20"),
        ({"n_random": 0}, ValueError, r"n_random=0"),
        ({"unit": "letter"}, ValueError, r"unit='letter'"),
        ({"ablation": "noise"}, ValueError, r"ablation='noise'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_makes_no_sense_is_refused(demo_model: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tls.verdict(demo_model, tls.semantic_scope(demo_model, GERMAN), **options)


def test_verify_leads_with_the_verdict_of_the_same_base_run(demo_model: Any) -> None:
    attr = tls.semantic_scope(demo_model, GERMAN, target=" sees")
    checked = tls.verify(demo_model, attr, top=3)
    alone = tls.verdict(demo_model, attr)
    assert checked.verdict.sentence == alone.sentence
    assert str(checked).startswith(alone.sentence)
    assert "How far the model is linear here: " in str(checked)


# -- what verdicts are worth -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.one_lens
def test_a_ranking_that_knows_nothing_is_called_no_better_than_random(demo_model: Any) -> None:
    texts = [t for t in passages(100) if len(demo_model.to_tokens(t)[0]) > 12][:200]
    assert len(texts) == 200
    said = [
        tls.verdict(demo_model, tls.random_attribution(demo_model, text, seed=i)).sentence
        for i, text in enumerate(texts)
    ]
    assert sum(s.startswith(("No better than random", "Undecided")) for s in said) >= 0.93 * len(said)


@pytest.mark.slow
@pytest.mark.one_lens
@pytest.mark.parametrize("corpus", ["binding", "mystery"])
def test_planted_causes_are_found_in_the_share_that_their_ranks_and_the_draws_allow(
    demo_model: Any, corpus: str
) -> None:
    """With one cause, among the three strongest, a scope passes where no random triple holds it, (1 − 3/n)^20, and where
    those that do are less harmful; without it, hardly ever.
    """
    better, least, hits = [], [], []
    for example in examples(corpus, 100, 3):
        attr = tls.semantic_scope(demo_model, example.prompt, target=example.answer)
        found = tls.verdict(demo_model, attr)
        causes = token_positions(demo_model.tokenizer, example.prompt, [s.span for s in example.causes], True)
        hits.append(any(p in causes for (p,) in found.strongest))
        better.append(found.better)
        least.append(hits[-1] * (1 - 3 / found.n_candidates) ** 20)
    error = math.sqrt(sum(e * (1 - e) for e in least)) / len(least)
    assert np.mean(least) - 3 * error <= np.mean(better) <= np.mean(hits)
    assert np.mean([b for b, hit in zip(better, hits, strict=True) if not hit] or [0]) < 0.2
