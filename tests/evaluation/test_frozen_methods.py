"""A gradient's name may say what it holds constant; what is measured is then the removal that its scores ask for.

Invariant: the removed positions of ``"name/parts"`` are the strongest by the public call with ``frozen=parts``; ``frozen=``
of a run is the same as the suffix on every gradient that says nothing itself, and touches nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from samples import passages

import tl_scopes as tls
from tl_scopes.demo.corpora import examples
from tl_scopes.demo.corpora.passages import token_positions
from tl_scopes.evaluation.gold_methods import best_rank, ranking
from tl_scopes.numerics.ranking import most_influential, number_removed
from tl_scopes.results.variants import Variant, variant

PUBLIC: dict[str, Any] = {
    "semantic": tls.semantic_scope,
    "temperature": tls.temperature_scope,
    "fisher@3": tls.fisher_scope,
    "input_x_gradient": tls.input_x_gradient,
    "gradient_norm": tls.gradient_norm,
    "integrated_gradients": tls.integrated_gradients,
    "smoothgrad": tls.smoothgrad,
}


@pytest.mark.parametrize("method", PUBLIC)
@pytest.mark.parametrize("parts", ["all", pytest.param("norms+attention", marks=pytest.mark.slow)])
def test_a_frozen_method_removes_what_its_own_scores_say(demo_model: Any, method: str, parts: str) -> None:
    label = f"{method}/{parts}"
    passage = passages(1)[0]
    table = tls.aopc(demo_model, [passage], [label, "random"])
    ids = demo_model.to_tokens(passage)[0]
    keywords = {"rank": 3} if "@" in method else {} if method == "temperature" else {"target": int(ids[-1])}
    frozen = "all" if parts == "all" else parts.split("+")
    scores = PUBLIC[method](demo_model, ids, pos=len(ids) - 2, frozen=frozen, **keywords).scores
    candidates = [p for p in range(len(ids) - 1) if p != 0]
    for k, removed in zip(table.fractions, table.records[0]["removed"][label], strict=True):
        assert removed == most_influential(scores.tolist(), candidates, number_removed(k, len(candidates)))


@pytest.mark.parametrize(
    "method", ["input_x_gradient", "input_x_gradient/all", "integrated_gradients", "integrated_gradients/all"]
)
def test_signed_sums_rank_where_the_name_says_so(demo_model: Any, method: str) -> None:
    passage, frozen = passages(1)[0], {"frozen": "all"} if "/" in method else {}
    label, call = f"{method}:signed", getattr(tls, method.partition("/")[0])
    table = tls.aopc(demo_model, [passage], [label, method, "fisher@3"])
    ids = demo_model.to_tokens(passage)[0]
    signed = call(demo_model, ids, pos=len(ids) - 2, target=int(ids[-1]), **frozen).signed
    for k, removed in zip(table.fractions, table.records[0]["removed"][label], strict=True):
        assert removed == most_influential(signed.tolist(), range(1, len(ids) - 1), number_removed(k, len(ids) - 2))
    assert table.records[0]["removed"][method] != table.records[0]["removed"][label]


def test_known_causes_are_ranked_by_signed_sums_too(demo_model: Any) -> None:
    found = tls.gold_alignment(demo_model, ["input_x_gradient", "input_x_gradient:signed"], corpora=["binding"], n=6)
    for i, example in enumerate(examples("binding", 6)):
        attr = tls.input_x_gradient(demo_model, example.prompt, target=example.answer)
        for label, scores in (("input_x_gradient", attr.scores), ("input_x_gradient:signed", attr.signed)):
            causes = set(token_positions(demo_model.tokenizer, example.prompt, [s.span for s in example.causes], True))
            (record,) = [r for r in found.records if (r.index, r.method) == (i, label)]
            assert record.rank == best_rank(scores, range(1, attr.pos + 1), causes)
    with pytest.raises(ValueError, match="this result of input_x_gradient has no signed sums"):
        ranking("input_x_gradient:signed", replace(attr, signed=None))


@pytest.mark.slow
def test_the_keyword_is_the_suffix_on_every_gradient_that_says_nothing(demo_model: Any) -> None:
    given = ["semantic", "input_x_gradient/norms", "leave_one_out", "random"]
    texts = passages(1)[:2]
    by_keyword = tls.aopc(demo_model, texts, given, frozen="attention")
    written = ["semantic/attention", *given[1:]]
    assert list(by_keyword.methods) == written
    by_name = tls.aopc(demo_model, texts, written)
    assert [r["removed"] for r in by_keyword.records] == [r["removed"] for r in by_name.records]
    assert tls.aopc(demo_model, texts, {"mine": "semantic"}, frozen="attention").methods == ("mine",)


@pytest.mark.slow
def test_holding_changes_what_is_removed(demo_model: Any) -> None:
    table = tls.aopc(demo_model, passages(1), ["semantic", "semantic/all"])
    assert any(r["removed"]["semantic"] != r["removed"]["semantic/all"] for r in table.records)


def test_ranks_of_frozen_fisher_scopes_are_no_ranks_of_the_exact_one(demo_model: Any) -> None:
    table = tls.aopc(demo_model, passages(1)[:2], ["fisher", "fisher@4", "fisher@4/all"])
    assert table.by_rank()["rank"].tolist() == [1, 4]
    rows = tls.aopc(demo_model, passages(1)[:2], ["fisher", "fisher@4/all", "fisher@2"]).by_rank()
    assert rows["rank"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("fisher@16/attention+norms", Variant("fisher", 16, ("norms", "attention"))),
        ("integrated_gradients:signed", Variant("integrated_gradients", signed=True)),
        ("input_x_gradient/norms:signed", Variant("input_x_gradient", None, ("norms",), signed=True)),
        ("semantic/norms+attention+activations", Variant("semantic", None, ("norms", "attention", "activations"))),
        ("random", Variant("random")),
    ],
)
def test_a_name_is_read_and_written(written: str, meant: Variant) -> None:
    known = ("fisher", "semantic", "random", "input_x_gradient", "integrated_gradients")
    assert variant(written, known) == meant
    assert variant(str(meant), known) == meant


@pytest.mark.parametrize(
    ("methods", "frozen", "reason"),
    [
        (["semantic/sinks"], (), "'sinks' is no part"),
        (["random/all"], (), "made of no gradient"),
        (["leave_one_out/norms"], (), "made of no gradient"),
        (["semantic:signed"], (), "only input_x_gradient and integrated_gradients can end in ':signed'"),
        (["input_x_gradient:absolute"], (), "leave out :absolute"),
        (["input_x_gradient:signed/all"], (), "the reading comes last; write input_x_gradient/all:signed"),
        (["semantic@3/all"], (), "unknown method 'semantic@3/all'"),
        (["semantic", "semantic/all"], "all", "not all different"),
        (["semantic"], "everything", "frozen='everything'"),
        (["random", "leave_one_out"], "all", "none of the methods"),
    ],
)
def test_what_cannot_be_held_is_refused(demo_model: Any, methods: list[str], frozen: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        tls.aopc(demo_model, passages(1)[:1], methods, frozen=frozen)


def test_gold_reads_the_same_names(demo_model: Any) -> None:
    asked = {"corpora": ["binding"], "n": 6}
    written = tls.gold_alignment(demo_model, ["semantic/all", "fisher@3/attention", "random"], **asked)
    by_keyword = tls.gold_alignment(demo_model, ["semantic", "random"], frozen="all", **asked)
    ranks = {m: [r.rank for r in written.records if r.method == m] for m in ("semantic/all", "random")}
    assert ranks == {m: [r.rank for r in by_keyword.records if r.method == m] for m in ranks}
    own = tls.gold_alignment(
        demo_model,
        {"mine": lambda model, prompts, targets: tls.fisher_scope(model, prompts, rank=3, frozen="attention")},
        **asked,
    )
    assert [r.rank for r in own.records] == [r.rank for r in written.records if r.method == "fisher@3/attention"]
    with pytest.raises(ValueError, match="made of no gradient"):
        tls.gold_alignment(demo_model, ["leave_one_out/all"], **asked)
