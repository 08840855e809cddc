"""Invariant: with tasks, the first n accepted prompts are scored and no other, whatever was killed and however many processes
share the run; the figures are their definition, and fewer than 30 prompts have none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from planted import copier

import tl_scopes as tls
from tl_scopes import tasks
from tl_scopes.demo.corpora import examples
from tl_scopes.demo.corpora.passages import Example
from tl_scopes.evaluation import accepted, gold_methods, gold_tasks
from tl_scopes.evaluation.acceptance import Acceptance
from tl_scopes.evaluation.gold import gold_alignment
from tl_scopes.evaluation.gold_methods import best_rank, places, recall
from tl_scopes.results.gold import GoldAlignment, GoldRecord, TaskAcceptance

EXAMPLES = [e for e in examples("binding", 120) if len(e.others) >= 3]
N = 30


def accepting(monkeypatch: pytest.MonkeyPatch, accepts: Callable[[Example], bool]) -> list[Example]:
    """In place of the model's own verdicts; returns what was tried."""
    tried: list[Example] = []

    def fake(model: Any, found: Sequence[Example], *, batch_size: int | None = None) -> Acceptance:
        tried.extend(found)
        says = tuple(map(accepts, found))
        return Acceptance(tuple(found), says, says, tuple(3 * s for s in says))

    monkeypatch.setattr(accepted, "acceptance", fake)
    return tried


def cheap(model: Any, prompts: list[str], targets: list[str]) -> list[tls.Attribution]:
    """Scores without a run of the model: the first token after the BOS wins, then the second, ..."""
    found = []
    for prompt in prompts:
        result = template(model)
        n = len(model.to_tokens(prompt)[0])
        own: dict[str, Any] = {"scores": torch.arange(float(n), 0, -1), "tokens": torch.arange(n), "pos": n - 1}
        none = {"text": None, "offsets": None, "units": ()}
        found.append(replace(result, str_tokens=["x"] * n, **own, **none))
    return found


@cache
def template(model: Any) -> tls.Attribution:
    """Once: a run of the model that :func:`cheap` fills in. In a list it would be part of what tells two runs apart."""
    return tls.random_attribution(model, "Anna lives in Rome")


def other(model: Any, prompts: list[str], targets: list[str]) -> list[tls.Attribution]:
    """The last token wins."""
    return [replace(a, scores=a.scores.flip(0)) for a in cheap(model, prompts, targets)]


METHODS = {"cheap": cheap, "other": other}


def every_third(example: Example) -> bool:
    return EXAMPLES.index(example) % 3 != 0


# -- which prompts ---------------------------------------------------------------------------------


def test_the_first_accepted_prompts_are_scored_and_all_that_were_tried_are_counted(demo_model, monkeypatch) -> None:
    tried = accepting(monkeypatch, every_third)
    found = gold_alignment(demo_model, {"cheap": cheap}, tasks={"own": EXAMPLES}, n=N, batch_size=8)
    wanted = [i for i in range(len(EXAMPLES)) if i % 3][:N]
    assert [r.index for r in found.records] == wanted
    assert tried == EXAMPLES[: 2 * N], "n at a time, until n are accepted"
    assert found.acceptance == {"own": TaskAcceptance(60, 40, 40, 40)}
    assert found.accuracy == {"own": 40 / 60}
    assert str(found.acceptance["own"]) == "40 of 60 drawn (67%; says the answer 67%, follows the causes 67%)"
    for record in found.records:
        where = places(demo_model.tokenizer, EXAMPLES[record.index])
        assert record.rank == 1 + min(where.causes)
        assert record.chance == len(where.causes) / where.n


def test_at_most_five_times_n_are_drawn(demo_model, monkeypatch) -> None:
    tried = accepting(monkeypatch, lambda example: False)
    found = gold_alignment(demo_model, {"cheap": cheap}, tasks=["agreement"], n=N)
    assert tried == tasks.examples("agreement", 5 * N, 0)
    assert found.acceptance["agreement"] == TaskAcceptance(150, 0, 0, 0)


def test_fewer_than_30_accepted_prompts_give_no_figure_and_are_named(demo_model, monkeypatch) -> None:
    accepting(monkeypatch, lambda example: example in EXAMPLES and EXAMPLES.index(example) < 29)
    never = {"never": lambda *_: pytest.fail("scored")}
    found = gold_alignment(demo_model, never, tasks={"own": EXAMPLES}, n=N)
    assert found.records == ()
    assert found.without_figures == ("own",)
    assert "No figure, fewer than 30 accepted prompts: own (29)." in str(found)
    assert "own (29)" in found.html()
    assert found.plot()._repr_png_()
    frame = found.to_frame()
    assert frame[["task", "method", "n"]].to_numpy().tolist() == [["own", "never", 0]]
    assert frame.top1.isna().all()


def test_prompts_longer_than_the_context_are_counted_and_not_run(demo_model, monkeypatch) -> None:
    long = replace(EXAMPLES[0], prompt=EXAMPLES[0].prompt + " dog" * 300)
    tried = accepting(monkeypatch, lambda example: True)
    found = gold_alignment(demo_model, {"cheap": cheap}, tasks={"own": [long, *EXAMPLES[: N + 5]]}, n=N)
    assert long not in tried
    assert found.acceptance["own"] == TaskAcceptance(36, 35, 35, 35, too_long=1)
    assert "1 longer than the context" in str(found)


@pytest.mark.slow
@pytest.mark.one_lens
def test_only_swaps_that_the_model_follows_make_a_prompt_count(demo_model) -> None:
    """Without a double: causes that decide nothing are not accepted, those of the corpus are."""
    right = EXAMPLES[:N]
    wrong = [replace(e, causes=tuple(replace(s, answer=e.answer + "s") for s in e.causes)) for e in right]
    found = gold_alignment(demo_model, {"cheap": cheap}, tasks={"right": right, "wrong": wrong}, n=N)
    assert found.acceptance == {"right": TaskAcceptance(N, N, N, N), "wrong": TaskAcceptance(N, N, 0, 0)}
    assert {r.corpus for r in found.records} == {"right"}


# -- runs that are stored --------------------------------------------------------------------------


def stored(model: Any, out: Path, **options: Any) -> GoldAlignment:
    return gold_alignment(model, options.pop("methods", METHODS), tasks={"own": EXAMPLES}, n=N, out=out, **options)


def test_the_same_call_runs_nothing_again(demo_model, tmp_path, monkeypatch) -> None:
    accepting(monkeypatch, every_third)
    first = stored(demo_model, tmp_path)
    assert first.records == gold_alignment(demo_model, METHODS, tasks={"own": EXAMPLES}, n=N).records
    monkeypatch.setattr(accepted, "acceptance", None)
    monkeypatch.setattr(gold_tasks, "attributions", None)
    again = stored(demo_model, tmp_path)
    assert again == first
    assert again.complete


def test_a_run_that_was_stopped_goes_on_where_it_was(demo_model, tmp_path, monkeypatch) -> None:
    accepting(monkeypatch, every_third)
    whole = gold_alignment(demo_model, METHODS, tasks={"own": EXAMPLES}, n=N)
    real, calls = gold_tasks.attributions, []

    def stops(*given: Any) -> Any:
        calls.append(len(given[2]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(gold_tasks, "attributions", stops)
    with pytest.raises(KeyboardInterrupt):
        stored(demo_model, tmp_path, batch_size=8)
    (shard,) = tmp_path.glob("shard-*.jsonl")
    assert shard.read_bytes().count(b"\n") == 16
    shard.write_bytes(shard.read_bytes()[:-5])
    tried = accepting(monkeypatch, every_third)
    assert stored(demo_model, tmp_path, batch_size=8).records == whole.records
    assert tried == []
    assert sum(calls[3:]) == N - 15, "the torn line's prompt is scored again"


def test_two_processes_make_the_table_of_one(demo_model, tmp_path, monkeypatch) -> None:
    accepting(monkeypatch, every_third)
    whole = gold_alignment(demo_model, METHODS, tasks={"own": EXAMPLES}, n=N)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        found = stored(demo_model, tmp_path)
        assert (found.complete, found.left) == ((True, 0) if rank == "0" else (False, 15))
        assert ("15 accepted prompts still to be scored" in str(found)) == (rank == "1")
    assert len(list(tmp_path.glob("shard-*.jsonl"))) == 2
    assert found.records == whole.records


def test_processes_test_acceptance_together_and_none_tries_what_another_has(demo_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    tried: dict[str, list[Example]] = {}
    for rank in ("2", "0", "1"):
        monkeypatch.setenv("RANK", rank)
        tried[rank] = accepting(monkeypatch, every_third)
        if rank == "2":  # killed after its first piece
            real = accepted._verdicts
            monkeypatch.setattr(accepted, "_verdicts", lambda *a, real=real: real(*a) if not tried["2"] else stop())
            with pytest.raises(KeyboardInterrupt):
                stored(demo_model, tmp_path)
            monkeypatch.setattr(accepted, "_verdicts", real)
        else:
            stored(demo_model, tmp_path)
    assert tried["2"] == EXAMPLES[2 * N // 3 : N], "it begins at the third piece of three"
    assert tried["0"] == [*EXAMPLES[: 2 * N // 3], *EXAMPLES[N : 2 * N]]
    assert tried["1"] == []
    monkeypatch.setenv("RANK", "2")
    assert stored(demo_model, tmp_path).acceptance == {"own": TaskAcceptance(60, 40, 40, 40)}


def stop() -> Any:
    raise KeyboardInterrupt


def test_verdicts_of_runs_of_before_are_gone_on_with(demo_model, tmp_path, monkeypatch) -> None:
    accepting(monkeypatch, every_third)
    first = stored(demo_model, tmp_path)
    for shard in (tmp_path / "acceptance").glob("shard-*"):
        shard.unlink()
    says = [*map(every_third, EXAMPLES[:N])]
    before = {"fits": [True] * N, "says": says, "follows": says, "kept": [3 * one for one in says]}
    (tmp_path / "acceptance-0.json").write_text(json.dumps(before))
    tried = accepting(monkeypatch, every_third)
    assert stored(demo_model, tmp_path) == first
    assert tried == EXAMPLES[N : 2 * N]
    assert stored(demo_model, tmp_path) == first
    assert len(tried) == N, "what was tried is kept"


def test_a_prompt_that_cannot_be_scored_is_recorded_with_its_reason(demo_model, tmp_path, monkeypatch) -> None:
    accepting(monkeypatch, lambda example: True)

    def picky(model: Any, prompts: list[str], targets: list[str]) -> list[tls.Attribution]:
        if EXAMPLES[4].prompt in prompts:
            raise ValueError("(prompt=...): not this one")
        return cheap(model, prompts, targets)

    found = stored(demo_model, tmp_path, methods={"picky": picky})
    assert [r.index for r in found.records] == [i for i in range(N) if i != 4]
    assert found.failures == {"own": {4: "ValueError: gold_alignment(prompt=...): not this one"}}
    assert (found.complete, found.left) == (True, 0)
    assert "Left out of own: 1 prompt, e.g. 4: ValueError: gold_alignment(prompt=...): not this one" in str(found)
    assert GoldAlignment.load(found.save(tmp_path / "gold.json")) == found
    (shard,) = tmp_path.glob("shard-*.jsonl")
    lines = shard.read_text().splitlines()
    shard.write_text("\n".join([json.dumps({"index": 0, "error": "by hand"}), *lines[1:]]) + "\n")
    edited = stored(demo_model, tmp_path, methods={"picky": picky})
    assert edited.failures["own"][0] == "by hand"
    assert edited.records == found.records[1:]


def test_another_run_in_the_same_folder_is_refused(demo_model, tmp_path, monkeypatch) -> None:
    accepting(monkeypatch, every_third)
    stored(demo_model, tmp_path)
    with pytest.raises(ValueError, match=r"other settings: methods\.other was \".*\", now null"):
        stored(demo_model, tmp_path, methods={"cheap": cheap})
    with pytest.raises(ValueError, match=r"other settings: seed was 0, now 1"):
        stored(demo_model, tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"other settings: by_substitution was \[\], now \[\"other\"\]"):
        stored(demo_model, tmp_path, by_substitution=["other"])
    with pytest.raises(ValueError, match="is not a run's settings"):
        tls.aopc(demo_model, ["Anna lives in Rome"], ["random"], out=tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "none"},
        {"methods": {"cheap": [1, 1, 0.5]}},
        {"methods": {"cheap": [1, 1, 0.5], "other": [0, 1, 0.5]}},
        {"methods": {"cheap": [1, 1, 0.5], "other": [1, 1, 2.0]}},
        {"methods": {"cheap": [1, 1, 0.5], "other": [1, True, 0.5]}},
        {"methods": 3},
        {"chance": "much"},
    ],
    ids=str,
)
def test_a_broken_record_is_named(demo_model, tmp_path, monkeypatch, change) -> None:
    accepting(monkeypatch, every_third)
    stored(demo_model, tmp_path)
    (shard,) = tmp_path.glob("shard-*.jsonl")
    lines = shard.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    shard.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"shard-00000\.jsonl, line 2: not a record of this run .*Delete this line"):
        stored(demo_model, tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"says": []}', '{"fits": [1], "says": [true], "follows": [true], "kept": [3]}']
)
def test_broken_verdicts_are_named_and_without_them_the_run_goes_on(demo_model, tmp_path, monkeypatch, text) -> None:
    accepting(monkeypatch, every_third)
    first = stored(demo_model, tmp_path)
    file = tmp_path / "acceptance-0.json"
    file.write_text(text)
    with pytest.raises(
        ValueError, match=r"(?s)acceptance-0\.json is not what a run keeps .*Delete it: it is made anew"
    ):
        stored(demo_model, tmp_path)
    file.unlink()
    (shard,) = (tmp_path / "acceptance").glob("shard-*.jsonl")
    whole = shard.read_text()
    shard.write_text(f'{{"index": 0, {text[1:-1]}}}\n' if text.startswith("{") else f"{text}x\n")
    with pytest.raises(ValueError, match=r"shard-00000\.jsonl, line 1: not a record of this run .*Delete this line"):
        stored(demo_model, tmp_path)
    record = json.loads(whole.splitlines()[0])
    short = {name: each[:-1] for name, each in record.items() if name != "index"}
    for other in ({"error": "no room"}, short):
        shard.write_text(json.dumps({"index": record["index"], **other}) + "\n")
        with pytest.raises(
            ValueError, match=r"line 1: not a record of this run \('fits'|kept: 9 verdicts, .* 10 prompts"
        ):
            stored(demo_model, tmp_path)
    shard.write_text(whole)
    assert stored(demo_model, tmp_path) == first


# -- methods ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.one_lens
def test_names_callables_and_labels_go_together_and_scopes_share_a_forward(demo_model, monkeypatch) -> None:
    accepting(monkeypatch, lambda example: True)
    calls, real = [], gold_methods.scopes
    monkeypatch.setattr(gold_methods, "scopes", lambda *a, **k: calls.append(k["methods"]) or real(*a, **k))
    methods = {"a": "semantic", "b": "temperature", "c": cheap, "d": "semantic"}
    found = gold_alignment(demo_model, methods, tasks={"own": EXAMPLES}, n=N)
    assert calls == [["semantic", "temperature"]]
    assert found.methods == ("a", "b", "c", "d")
    of = {m: [(r.index, r.rank) for r in found.records if r.method == m] for m in found.methods}
    assert of["a"] == of["d"]
    one = EXAMPLES[0]
    scores = tls.temperature_scope(demo_model, one.prompt).scores
    where = places(demo_model.tokenizer, one)
    assert of["b"][0] == (0, best_rank(scores, range(1, where.n + 1), {p + 1 for p in where.causes}))


def test_integrated_gradients_take_20_steps_here(demo_model, monkeypatch) -> None:
    accepting(monkeypatch, lambda example: True)
    given: list[dict[str, Any]] = []

    def fake(model: Any, prompts: list[str], **options: Any) -> list[tls.Attribution]:
        given.append(options)
        return cheap(model, prompts, [])

    monkeypatch.setitem(gold_methods.BASELINES, "integrated_gradients", fake)
    found = gold_alignment(demo_model, ["integrated_gradients"], tasks={"own": EXAMPLES}, n=N)
    assert {o["n_steps"] for o in given} == {20}
    assert found.settings["keywords"] == {"integrated_gradients": {"n_steps": 20}}
    said = gold_tasks.bounds(["a", "b"], 100, ["semantic", "integrated_gradients"])
    assert said == (
        "At most 500 prompts of each of 2 tasks are tried, until 100 are accepted; these are scored by 2 methods; "
        "integrated_gradients with n_steps=20."
    )


@pytest.mark.slow
@pytest.mark.one_lens
def test_every_method_explains_answers_of_several_tokens(demo_model, monkeypatch) -> None:
    accepting(monkeypatch, lambda example: True)
    whole = [replace(e, answer=e.answer + ", Tom") for e in EXAMPLES[:N]]
    found = gold_alignment(demo_model, gold_methods.known_methods(), tasks={"own": whole}, n=N)
    for method, call in (("leave_one_out", tls.leave_one_out), ("attention_rollout", tls.attention_rollout)):
        for record in [r for r in found.records if r.method == method][:3]:
            example = whole[record.index]
            where = places(demo_model.tokenizer, example)
            scores = call(demo_model, example.prompt, target=example.answer).scores
            assert record.rank == best_rank(scores, range(1, where.n + 1), {p + 1 for p in where.causes})


def test_recall_is_the_share_of_causes_among_as_many_of_the_best() -> None:
    scores = [9.0, 5.0, 4.0, 3.0, 3.0, 1.0]
    every = range(1, 6)
    assert recall(scores, every, {1, 2}) == 1
    assert recall(scores, every, {1, 5}) == 0.5
    assert recall(scores, every, {4, 5}) == 0
    assert recall(scores, every, {1, 2, 4}) == 2 / 3, "a tie with a token that is no cause counts against"
    assert recall(scores, every, {1, 3, 4}) == 2 / 3


# -- figures ---------------------------------------------------------------------------------------


def table(ranks: dict[str, dict[str, list[int]]], apart: tuple[str, ...] = ()) -> GoldAlignment:
    """A result from the ranks of each method and task."""
    records = [
        GoldRecord(task, i, method, rank, rank, 0.1, 0.2, 1.0 if rank == 1 else 0.0)
        for task, of in ranks.items()
        for method, own in of.items()
        for i, rank in enumerate(own)
    ]
    accepted = {task: TaskAcceptance(200, 150, 120, len(next(iter(of.values())))) for task, of in ranks.items()}
    return GoldAlignment(tuple(records), dict.fromkeys(ranks, 0.75), 100, 0, "whole", accepted, apart)


RNG = np.random.default_rng(0)
COPYING = {
    "good": [1] * 90 + [2] * 10,
    "twin": [1] * 88 + [2] * 2 + [1] * 2 + [3] * 8,
    "poor": RNG.integers(1, 9, 100).tolist(),
    "leave_one_out": [1] * 97 + [4] * 3,
}


def test_methods_by_substitution_have_their_own_block_and_best() -> None:
    found = table({"copying": COPYING}, apart=("leave_one_out",))
    frame = found.to_frame()
    own = frame[frame.task == "copying"].set_index("method")
    assert own.block.to_dict() == {
        **dict.fromkeys(["good", "twin", "poor"], "attribution"),
        "leave_one_out": "substitution",
    }
    assert own.difference.to_dict() == pytest.approx(
        {"good": 0, "twin": 0, "poor": own.top1["poor"] - 0.9, "leave_one_out": 0}
    )
    assert own.indistinguishable_from_best.to_dict() == {
        "good": True,
        "twin": True,
        "poor": False,
        "leave_one_out": True,
    }
    assert own.low["poor"] < own.difference["poor"] < own.high["poor"] < 0
    pairs = found.comparisons()
    assert not (pairs[["first", "second"]] == "leave_one_out").any().any()
    assert set(pairs.task) == {"copying", "all"}
    across = found.compare("leave_one_out", "good", name="copying")
    assert across.difference == pytest.approx(0.07)
    assert across.low < 0.07 < across.high
    lines = str(found).splitlines()
    head = lines.index("by substitution, as the acceptance of prompts is:")
    assert "leave_one_out" in lines[head + 1]
    assert not any("leave_one_out" in line for line in lines[:head])
    (twin,) = [line for line in lines if line.startswith("copying") and "twin" in line]
    assert twin.split("]")[2].split()[0] == "="


def test_the_plot_has_the_blocks_apart() -> None:
    found = table({"copying": COPYING, "hint": COPYING}, apart=("leave_one_out",))
    figure = found.plot()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [p.get_title().split("\n")[0] for p in panels] == ["copying", "hint", "all"]
    dots = next(line for line in panels[0].lines if line.get_marker() == "o")
    ys = list(dots.get_ydata())
    assert ys[:3] == [0, 1, 2]
    assert ys[3] > 3
    assert list(dots.get_xdata())[3] == 0.97


def test_figures_by_prompt_and_comparisons_of_other_figures() -> None:
    found = table({"copying": COPYING})
    assert found.per_prompt("mrr", "copying")["good"].mean() == pytest.approx(0.95)
    assert found.per_prompt("recall")["twin"].mean() == pytest.approx(0.9)
    pairs = found.comparisons(of="mrr").set_index([found.kind, "first", "second"])
    assert pairs.difference["copying", "good", "twin"] == pytest.approx(0.95 - (0.9 + 0.01 + 0.08 / 3))
    assert not pairs.indistinguishable["copying", "good", "poor"]
    with pytest.raises(ValueError, match=r"per_prompt\(name='none'\): expected 'all' or one of \('copying',\)"):
        found.per_prompt("mrr", "none")
    with pytest.raises(ValueError, match="nothing of 'none'"):
        found.compare("good", "none")


def test_it_is_saved_with_its_acceptance(tmp_path) -> None:
    found = table({"copying": COPYING}, apart=("leave_one_out",))
    back = GoldAlignment.load(found.save(tmp_path / "gold.json"))
    assert back == found
    pd.testing.assert_frame_equal(back.to_frame(), found.to_frame())
    with pytest.raises(ValueError, match="accepted <= follows <= says <= drawn"):
        TaskAcceptance(10, 5, 6, 1)


# -- models that do a task -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.one_lens
@pytest.mark.parametrize("task", ["copying", "retrieval"])
def test_on_a_model_whose_weights_copy_the_planted_cause_is_found(task: str) -> None:
    """By the Semantic Scope; leaving out finds the key first, which joins question and fact and is no cause."""
    form, length = {"copying": ("plain", 6), "retrieval": ("table", 3)}[task]
    found = [e for e in tasks.examples(task, 400, length=length) if e.slot == form]
    found = [e for e in found if not e.prompt.startswith(f"{e.causes[1].replacement} =")][:60]
    model = copier(t for e in found for s in (*e.causes, *e.others) for t in (e.prompt, e.swapped(s), s.answer))
    methods = ["semantic", "random", "leave_one_out"]
    result = gold_alignment(model, methods, tasks={task: found}, n=N)
    assert result.acceptance[task].rate > 0.9
    frame = result.to_frame().query("task == @task").set_index("method")
    assert frame.top1_low["semantic"] > frame.chance["semantic"]
    assert frame.block["leave_one_out"] == "substitution"
    assert frame.top1_low["random"] < frame.chance["random"] < frame.top1_high["random"] + 0.05
    assert result.compare("semantic", "random").low > 0


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["poems"]}, r"\(tasks=\['poems'\]\): unknown \['poems'\]; the tasks are \['copying', "),
        ({"tasks": []}, r"\(tasks=\[\]\): expected different names, at least one"),
        ({"tasks": ["hint", "hint"]}, r"expected different names"),
        ({"tasks": {"own": []}}, r"\(tasks=...\): 'own' has no examples"),
        ({"tasks": {"own": EXAMPLES[:1] * 2}}, r"\(tasks=...\): 'own' has a prompt twice"),
        ({"tasks": {"own": [replace(EXAMPLES[0], others=())]}}, r"\(tasks=...\): 'own': .*0 other words to swap"),
        ({"tasks": ["hint"], "n": 29}, r"\(n=29\): fewer than 30 accepted prompts give no figure"),
        ({"tasks": ["hint"], "corpora": ["bias"]}, r"\(corpora=...\): this is for the demo's corpora, and tasks= is for any"),
        ({"tasks": ["hint"], "answers": "whole"}, r"\(answers='whole'\): this is for the demo's corpora"),
        ({"tasks": ["hint"], "methods": ["magic"]}, r"unknown method 'magic'"),
        ({"tasks": ["hint"], "by_substitution": ["magic"]}, r"'magic' is not among the methods \['semantic'"),
        ({"out": "folder"}, r"\(out=...\): runs of tasks= are stored"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_any_run(demo_model, options, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gold_methods, "scopes", None)
    with pytest.raises(ValueError, match=message):
        gold_alignment(demo_model, **options)


def test_a_tokenizer_without_places_is_refused(demo_model, monkeypatch) -> None:
    monkeypatch.setattr(type(demo_model.tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="no tokenizer that knows its tokens' own"):
        gold_alignment(demo_model, tasks=["hint"])


def test_an_own_method_must_answer_for_each_prompt(demo_model, monkeypatch) -> None:
    accepting(monkeypatch, lambda example: True)
    with pytest.raises(TypeError, match=r"'one' must return one Attribution for each of 30 prompts"):
        gold_alignment(demo_model, {"one": lambda m, p, t: cheap(m, p[:1], t)}, tasks={"own": EXAMPLES}, n=N)


def test_a_model_that_does_not_speak_the_corpora_is_told_of_the_tasks(demo_model, monkeypatch) -> None:
    from tl_scopes.evaluation import gold

    wrong = [replace(e, answer=" dog") for e in EXAMPLES[:2]]
    monkeypatch.setattr(gold, "_determined", lambda *_: wrong)
    with pytest.raises(
        ValueError, match=r"answers none of the prompts right.* tasks=\[\.\.\.\], which are for any model"
    ):
        gold_alignment(demo_model, ["random"], corpora=["binding"])
