"""Invariant: gold alignment equals its definition on hand-made scores, and its figures do not depend on the batch."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers_by_word import digit_model

import tl_scopes as tls
from tl_scopes.demo.corpora import CORPORA, examples, examples_in_passages
from tl_scopes.demo.corpora.passages import to_the_end, token_positions
from tl_scopes.evaluation import gold
from tl_scopes.evaluation.gold import gold_alignment
from tl_scopes.evaluation.gold_methods import best_rank as _best_rank
from tl_scopes.numerics import progress
from tl_scopes.results.gold import BOOTSTRAPS, GoldAlignment, GoldRecord, _figures


def oracle_method(model, prompts, targets):
    """Scores 1 on one cause of each prompt and less elsewhere: a perfect method."""
    found = {e.prompt: e for e in examples("bias", 200, 0)}
    out = []
    for prompt, attribution in zip(prompts, tls.semantic_scope(model, prompts, target=targets), strict=True):
        cause = token_positions(model.tokenizer, prompt, [found[prompt].causes[0].span])[0]
        scores = torch.linspace(0, 0.5, len(attribution))
        scores[cause] = 1.0
        out.append(replace(attribution, scores=scores))
    return out


def flat_method(model, prompts, targets):
    """All scores equal: ties must count against the method, not for it."""
    return [replace(a, scores=torch.ones(len(a))) for a in tls.semantic_scope(model, prompts, target=targets)]


def test_a_perfect_method_scores_one_and_a_blind_one_zero(demo_model) -> None:
    result = gold_alignment(demo_model, {"oracle": oracle_method, "flat": flat_method}, corpora=["bias"], n=12)
    frame = result.to_frame().set_index(["corpus", "method"])
    assert frame.loc[("bias", "oracle"), "top1"] == 1
    assert frame.loc[("bias", "oracle"), "mrr"] == 1
    assert frame.loc[("bias", "flat"), "top1"] == 0
    assert 0 < frame.loc[("bias", "flat"), "chance"] < 0.5


def test_the_rank_is_that_of_the_best_cause_among_the_candidates() -> None:
    scores = torch.tensor([9.0, 5.0, 4.0, 3.0, 3.0])
    assert _best_rank(scores, [1, 2, 3, 4], {1}) == 1
    assert _best_rank(scores, [1, 2, 3, 4], {2, 4}) == 2
    assert _best_rank(scores, [1, 2, 3, 4], {4}) == 4, "a tie with a token that is no cause counts against"
    assert _best_rank(scores, [0, 1, 2, 3, 4], {1}) == 2


def test_the_figures_are_means_over_prompts_with_a_seeded_bootstrap(demo_model) -> None:
    records = gold_alignment(demo_model, ["semantic"], corpora=["translation"], n=20).records
    figures = _figures(records, seed=3)
    top1 = np.array([r.rank == 1 for r in records])
    assert figures["top1"] == top1.mean()
    assert figures["mrr"] == pytest.approx(np.mean([1 / r.rank for r in records]))
    assert figures["n"] == len(records)
    assert figures["top1_low"] <= figures["top1"] <= figures["top1_high"]
    assert figures == _figures(records, seed=3)
    assert BOOTSTRAPS >= 1000


def test_answers_that_a_tokenizer_splits_are_refused_with_the_example_and_what_to_do_before_any_run(kind: str) -> None:
    model = digit_model(kind)
    model.add_hook("hook_embed", lambda *_, **__: pytest.fail("the model was run"))
    answer = next(e for e in gold._determined("series", 3, 0)).answer
    with pytest.raises(
        ValueError, match=r"gold_alignment\(corpora=\['series'\]\): every answer must be one token"
    ) as refused:
        gold_alignment(model, corpora=["series"], n=3)
    assert f"{answer!r} of example 0 of 'series' is {list(answer)}. answers='whole' explains" in str(refused.value)


def test_corpora_whose_answers_are_one_token_are_named(demo_model, monkeypatch) -> None:
    monkeypatch.setattr(gold, "_determined", lambda corpus, n, seed, answers: [_with_answer(corpus, seed)])
    with pytest.raises(ValueError, match=r"of example 0 of 'bias' is \[.*Ask for those that fit, corpora=\['series'\]"):
        gold_alignment(demo_model, corpora=["bias", "series"], n=1)


def _with_answer(corpus: str, seed: int):
    (example,) = examples(corpus, 1, seed)
    return replace(example, answer=" dogdog") if corpus == "bias" else example


def test_numbers_do_not_depend_on_the_batch_or_the_global_seed(demo_model) -> None:
    before = random.getstate()
    random.seed(5)
    one = gold_alignment(demo_model, ["fisher"], corpora=["instruction"], n=10, batch_size=1)
    random.seed(6)
    many = gold_alignment(demo_model, ["fisher"], corpora=["instruction"], n=10, batch_size=7)
    random.setstate(before)
    assert one.records == many.records


def test_progress_counts_every_method_of_every_corpus(demo_model, monkeypatch) -> None:
    shown, real = io.StringIO(), progress.tqdm
    monkeypatch.setattr(progress, "tqdm", lambda *of, **given: real(*of, **{**given, "disable": False, "file": shown}))
    gold_alignment(demo_model, ["random", "attention_rollout"], corpora=["bias", "translation"], n=2)
    assert "gold_alignment" in shown.getvalue()
    assert "4/4" in shown.getvalue()


def test_too_few_prompts_are_said_to_be_too_few() -> None:
    records = [GoldRecord("bias", i, "semantic", 1, 1, 0.2, 0.2) for i in range(7)]
    records += [GoldRecord("mystery", i, "semantic", 1, 1, 0.2, 0.2) for i in range(20)]
    found = GoldAlignment(tuple(records), {"bias": 1.0, "mystery": 1.0}, 20, 0)
    for shown in (str(found), found.html()):
        assert "too few to compare methods by (below 20): bias 7;" in shown
    assert "too few" not in str(replace(found, records=tuple(records[7:])))


def test_only_prompts_answered_right_count(demo_model) -> None:
    result = gold_alignment(demo_model, ["semantic"], corpora=["translation"], n=20)
    assert len(result.records) == round(result.accuracy["translation"] * 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["nonsense"]}, "unknown method"),
        ({"methods": "semantic"}, "expected a list of strings or a mapping"),
        ({"methods": []}, "expected names among"),
        ({"corpora": ["poems"]}, r"corpora=\['poems'\]\): unknown \['poems'\]; the corpora are"),
        ({"n": 0}, "expected a positive integer"),
    ],
)
def test_mistakes_are_refused(demo_model, options, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        gold_alignment(demo_model, **options)


def test_chains_are_drawn_where_they_are_named_and_not_otherwise(demo_model) -> None:
    llama = tls.load_model("demo-llama")
    named = gold_alignment(llama, ["semantic"], corpora=["chain_2", "chain_3"], n=10)
    assert min(named.accuracy.values()) >= 0.9
    assert set(named.accuracy) == {"chain_2", "chain_3"}
    assert list(gold_alignment(demo_model, ["random"], n=1).accuracy) == list(CORPORA)


def test_the_plot_shows_every_corpus_and_method() -> None:
    from tl_scopes.evaluation.gold import known_methods  # more methods than the palette has colours

    records = [
        GoldRecord(corpus, i, method, 1 + (i + j) % 3, 1 + i % 2, 0.2, 0.5)
        for corpus in ("translation", "bias")
        for i in range(4)
        for j, method in enumerate(known_methods())
    ]
    result = GoldAlignment(tuple(records), {"translation": 1.0, "bias": 0.5}, 4, 0)
    frame, panels = result.to_frame(), result.plot().axes
    assert [panel.get_title().split("\n")[0] for panel in panels] == ["translation", "bias", "all"]
    for panel, corpus in zip(panels, ["translation", "bias", "all"], strict=True):
        dots = next(line for line in panel.lines if line.get_marker() == "o")
        rows = frame[frame.corpus == corpus]
        assert dots.get_xdata() == pytest.approx(rows.top1.to_numpy())
        assert list(dots.get_ydata()) == [list(known_methods()).index(method) for method in rows.method]


def test_the_table_prints_what_the_frame_holds(demo_model) -> None:
    result = gold_alignment(demo_model, ["semantic"], corpora=["translation"], n=8)
    row = result.to_frame().iloc[0]
    assert f"{row.top1:.1%}" in str(result)
    assert "Candidates: all tokens" in str(result)


@pytest.mark.slow
@pytest.mark.one_lens
def test_every_baseline_is_a_row_and_scopes_keep_their_numbers(demo_model) -> None:
    from tl_scopes.evaluation.gold import known_methods

    result = gold_alignment(demo_model, known_methods(), corpora=["instruction"], n=3)
    assert list(dict.fromkeys(r.method for r in result.records)) == list(known_methods())
    alone = gold_alignment(demo_model, ["fisher"], corpora=["instruction"], n=3)
    assert [r for r in result.records if r.method == "fisher"] == list(alone.records)
    by_call = gold_alignment(
        demo_model,
        {"input_x_gradient": lambda m, p, t: tls.input_x_gradient(m, p, target=t)},
        corpora=["instruction"],
        n=3,
    )
    assert [r for r in result.records if r.method == "input_x_gradient"] == list(by_call.records)


# -- answers of several tokens -----------------------------------------------------------------------


@pytest.mark.one_lens
def test_a_whole_answer_is_the_rest_of_the_passage_with_the_causes_of_its_words() -> None:
    for passage, example in examples_in_passages("translation", 30):
        whole = to_the_end(passage, example)
        assert passage.text.startswith(whole.prompt + whole.answer)
        later = [e for e in passage.examples if len(e.prompt) >= len(example.prompt)]
        assert len(whole.answer.split()) >= len(later)
        assert whole.answer.endswith(later[-1].answer)
        assert {s.span for s in whole.causes} == {s.span for e in later for s in e.causes}
    for passage, example in examples_in_passages("bias", 3):
        assert to_the_end(passage, example).answer == example.answer


@pytest.mark.slow
def test_a_whole_answer_is_explained_by_its_log_probability(demo_model, tmp_path) -> None:
    methods = ["semantic", "temperature", "fisher", "input_x_gradient", "random"]
    whole = gold_alignment(demo_model, methods, corpora=["translation"], n=8, answers="whole")
    drawn = [to_the_end(p, e) for p, e in examples_in_passages("translation", 8) if e.causes][:8]
    right = []
    for i, example in enumerate(drawn):
        text = demo_model.to_tokens(example.prompt + example.answer)
        n = demo_model.to_tokens(example.prompt).shape[1]
        said = demo_model(text)[0, n - 1 : -1].argmax(-1)
        if said.tolist() != text[0, n:].tolist():
            continue
        right.append(i)
        (record,) = [r for r in whole.records if (r.index, r.method) == (i, "semantic")]
        scores = tls.semantic_scope(demo_model, example.prompt, target=example.answer).scores[:n]
        causes = set(token_positions(demo_model.tokenizer, example.prompt, [s.span for s in example.causes]))
        assert record.rank == _best_rank(scores, range(1, n), causes)
        assert record.chance == len(causes) / (n - 1)
        span = range(n - 1, text.shape[1] - 1)
        (record,) = [r for r in whole.records if (r.index, r.method) == (i, "temperature")]
        assert record.rank == _best_rank(tls.temperature_scope(demo_model, text, pos=span).scores, range(1, n), causes)
    assert right
    assert sorted({r.index for r in whole.records}) == right
    assert "the answer, which is explained as a whole," in str(whole)
    whole.save(tmp_path / "gold.json")
    assert GoldAlignment.load(tmp_path / "gold.json") == whole


@pytest.mark.slow
@pytest.mark.one_lens
def test_whole_answers_of_one_token_are_reported_as_those_tokens(demo_model) -> None:
    methods = ["semantic", "fisher", "integrated_gradients"]
    token, whole = (gold_alignment(demo_model, methods, corpora=["bias"], n=4, answers=a) for a in ("token", "whole"))
    assert token.records == whole.records
    assert token.accuracy == whole.accuracy


def test_an_own_method_is_given_the_whole_answers_text(demo_model) -> None:
    def own(model, prompts, targets):
        return tls.semantic_scope(model, prompts, target=targets)

    options = {"corpora": ["translation"], "n": 5, "answers": "whole"}
    mine = gold_alignment(demo_model, {"semantic": own}, **options)
    assert mine.records == gold_alignment(demo_model, ["semantic"], **options).records


@pytest.mark.one_lens
def test_files_of_before_say_one_token(tmp_path) -> None:
    path = tmp_path / "gold.json"
    found = GoldAlignment((GoldRecord("bias", 0, "semantic", 1, 1, 0.2, 0.2),), {"bias": 1.0}, 2, 0)
    found.save(path)
    assert '"answers": "token"' in path.read_text()
    saved = json.loads(path.read_text())
    for name in GoldAlignment._later:
        del saved[name]
    del saved["records"][0]["recall"]
    path.write_text(json.dumps(saved))
    assert GoldAlignment.load(path) == found
    assert GoldAlignment.load(path).to_frame().recall.isna().all()


def test_records_in_another_order_for_one_method_are_refused(demo_model) -> None:
    """Methods are compared prompt by prompt, in the order of their records."""
    result = gold_alignment(demo_model, ["semantic", "random"], corpora=["binding"], n=4)
    half = len(result.records) // 2
    turned = (*result.records[:half], *reversed(result.records[half:]))
    with pytest.raises(ValueError, match="not of the same prompts in order"):
        replace(result, records=turned)
    with pytest.raises(ValueError, match="not of the same prompts in order"):
        replace(result, records=result.records[:-1])
