"""AOPC is what the published protocols say, a stopped run goes on as if nothing had happened, and errors are by prompt.

Invariants: the paper preset equals a line-by-line implementation with torch and transformers alone, below, in the
removed positions (exactly) and in Δ (to 1e-5; float64 leaves no near-ties to flip); the default protocol equals
interventions through `inputs_embeds`; records on disk give the table bit for bit after any number of kills, and two
processes give the table of one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import numpy as np
import oracles
import pytest
import samples
import scipy.stats
import torch
import transformers
from samples import passages
from torch import Tensor

import tl_scopes as tls
from tl_scopes.demo import DEMO_PATH
from tl_scopes.demo.corpora import CORPORA
from tl_scopes.evaluation import aopc as faithfulness
from tl_scopes.evaluation.aopc import aopc, load_aopc
from tl_scopes.evaluation.protocol import AOPC_METHODS, Protocol, unit_scores
from tl_scopes.model import loading
from tl_scopes.numerics.ranking import most_influential, number_removed
from tl_scopes.results.aopc import aopc_from_deltas

FRACTIONS = (0.05, 0.1, 0.2)


# -- the released protocol, by itself: torch and transformers only ---------------------------------


def released_protocol(
    hf: Any, ids: list[int], random_positions: list[list[int]]
) -> dict[str, tuple[list[list[int]], list[float]]]:
    """Removed positions and Δ of every method, one full pass at a time, no sharing, no batches."""
    n = len(ids)
    read, truth = n - 2, ids[-1]
    E = hf.get_input_embeddings()(torch.tensor(ids)).detach()  # no BOS, the last token included
    W = hf.get_output_embeddings().weight.detach()

    def logits_of(x: Tensor) -> Tensor:
        return hf(inputs_embeds=x[None], use_cache=False).logits[0, read]

    def hidden_of(x: Tensor) -> Tensor:
        return hf(inputs_embeds=x[None], use_cache=False, output_hidden_states=True).hidden_states[-1][0, read]

    def grad(f: Any, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(f(x), x)[0]

    def cross_entropy(x: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits_of(x)[None], torch.tensor([truth]))

    scores: dict[str, Tensor] = {}
    scores["semantic"] = grad(lambda x: logits_of(x)[truth], E).norm(dim=-1)
    scores["input_x_gradient"] = (E * grad(cross_entropy, E)).norm(dim=-1)
    total = torch.zeros_like(E)
    for alpha in (0.2, 0.4, 0.6, 0.8, 1.0):
        total += grad(lambda delta, alpha=alpha: cross_entropy(alpha * (E + delta)), torch.zeros_like(E))
    scores["integrated_gradients"] = (E * total / 5).norm(dim=-1)
    with torch.no_grad():
        y, p = hidden_of(E), logits_of(E).softmax(-1)
    F = W.T @ (torch.diag(p) - torch.outer(p, p)) @ W
    u = torch.linalg.eigh(F).eigenvectors[:, -1]
    scores["fisher"] = grad(lambda x: hidden_of(x) @ u, E).norm(dim=-1)
    scores["temperature"] = grad(lambda x: hidden_of(x) @ (y / y.norm()), E).norm(dim=-1)

    with torch.no_grad():
        clean = logits_of(E).log_softmax(-1)
    top = int(clean.argmax())
    out = {}
    for method in (*scores, "random"):
        sets, deltas = [], []
        for i, k in enumerate((0.05, 0.1, 0.2)):
            m = max(1, int(k * n))
            if method == "random":
                chosen = random_positions[i]
            else:
                values = scores[method].tolist()
                chosen = sorted(range(n), key=lambda t: (-values[t], t))[:m]
            changed = E.clone()
            changed[chosen] = 0
            with torch.no_grad():
                deltas.append(float(logits_of(changed).log_softmax(-1)[top] - clean[top]))
            sets.append(list(chosen))
        out[method] = (sets, deltas)
    return out


@pytest.fixture(scope="module")
def float64_demo() -> tuple[Any, Any, Any]:
    with torch.random.fork_rng(devices=[]):
        model = loading.load_model(dtype=torch.float64)
        hf = transformers.AutoModelForCausalLM.from_pretrained(
            DEMO_PATH, dtype=torch.float64, attn_implementation="eager"
        )
    return model, hf.eval(), transformers.AutoTokenizer.from_pretrained(DEMO_PATH)


@pytest.mark.slow
def test_paper_preset_is_the_released_protocol_line_by_line(float64_demo: tuple[Any, Any, Any]) -> None:
    model, hf, tokenizer = float64_demo
    texts = passages(1)
    rng = random.Random(5)
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    drawn = [[rng.sample(range(len(x)), max(1, int(k * len(x)))) for k in FRACTIONS] for x in ids]
    table = aopc(model, texts, AOPC_METHODS, preset="paper", random_positions=drawn)
    assert not table.failures
    for record, x, r in zip(table.records, ids, drawn, strict=True):
        expected = released_protocol(hf, x, r)
        assert record["n"] == len(x)
        for method in AOPC_METHODS:
            sets, deltas = expected[method]
            assert record["removed"][method] == sets, method
            assert record["deltas"][method] == pytest.approx(deltas, abs=1e-5), method


@pytest.mark.slow
def test_paper_preset_in_float32_gives_the_same_deltas(float64_demo: tuple[Any, Any, Any], demo_model: Any) -> None:
    texts = passages(1)
    exact = aopc(float64_demo[0], texts, preset="paper")
    table = aopc(demo_model, texts, preset="paper")
    for a, b in zip(table.records, exact.records, strict=True):
        for method in AOPC_METHODS:
            for i in range(len(FRACTIONS)):
                if a["removed"][method][i] == b["removed"][method][i]:
                    assert a["deltas"][method][i] == pytest.approx(b["deltas"][method][i], abs=1e-4)


@pytest.mark.parametrize("kwargs", [{"preset": "paper"}, {"prepend_bos": False}], ids=["paper", "prepend_bos"])
def test_a_bos_that_is_left_out_is_said_with_what_it_costs(demo_model: Any, kwargs: dict[str, Any]) -> None:
    text = passages(1)[0]
    table = aopc(demo_model, [text], ["random"], **kwargs)
    tokens = demo_model.to_tokens(text)[0]
    expected = []
    for ids in (tokens[1:], tokens):
        log_p = demo_model(ids[None])[0, -2].log_softmax(-1).detach()
        expected += [float(log_p[tokens[-1]]), bool(log_p.argmax() == tokens[-1])]
    without, right, within, right_with = expected
    (note,) = [n for n in table.notes if "BOS" in n]
    assert f"{without:.2f} on average, with it {within:.2f}".replace("-", "−") in note
    assert f"right on {right:d} of 1 prompts, with it on {right_with:d}" in note
    assert f"{next(iter(kwargs))}=" in note
    assert note in str(table)
    assert "leaves out the BOS" in table.html()
    frame = table.to_frame().iloc[0]
    assert (frame.true_log_prob, frame.true_log_prob_with_bos) == pytest.approx((without, within), abs=1e-5)


def test_a_model_is_said_to_need_its_bos_from_half_a_nat_on(demo_model: Any) -> None:
    table = aopc(demo_model, [passages(1)[0]], ["random"], preset="paper")
    for loss, needed in ((0.4, False), (0.6, True)):
        bos = {"log_prob": -1.0 - loss, "log_prob_with": -1.0, "right": False, "right_with": True}
        changed = replace(table, records=({**table.records[0], "without_bos": bos},))
        assert ("The model needs it" in str(changed)) == needed


def test_a_bos_that_is_kept_or_a_callers_own_ids_are_not_remarked_on(demo_model: Any) -> None:
    text = passages(1)[0]
    for passage, kwargs in ((text, {}), (demo_model.to_tokens(text)[0, 1:], {"preset": "paper"})):
        table = aopc(demo_model, [passage], ["random"], **kwargs)  # type: ignore[arg-type]
        assert "BOS" not in str(table)
        assert "true_log_prob" not in table.to_frame()


def test_no_table_of_all_removals_by_the_whole_vocabulary_is_kept(
    demo_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tl_scopes.directions.base import Reading
    from tl_scopes.kernel import ablation

    alive: list[weakref.ref[Tensor]] = []
    most = 0
    real = ablation.run_ablated

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal most
        for (run,) in real(*args, **kwargs):
            alive.append(weakref.ref(run.predictions.logits))
            most = max(most, sum(r() is not None for r in alive))
            yield (Reading(run.predictions, run.hidden),)

    monkeypatch.setattr(ablation, "run_ablated", watched)
    aopc(demo_model, passages(1)[:1], ["semantic", "random"], beside=("leave_one_out",), batch_size=2)
    assert len(alive) > 5
    assert most <= 2, "the batch at hand, and the one before it at most"


# -- the default protocol --------------------------------------------------------------------------


@pytest.mark.on_families("gpt2", "llama", "gemma2")
@pytest.mark.parametrize("ablation", ["zero", "mean", "resample"])
def test_deltas_are_interventions_on_the_embeddings(pair: families.Pair, ablation: Any) -> None:
    tokens = families.prompt_tokens(24)
    read, truth = 22, int(tokens[-1])
    (record,) = aopc(pair.model, [tokens], ["semantic", "random"], ablation=ablation).records
    assert record["n"] == 22, "the BOS is not counted, nor is the token to be predicted"
    x = oracles.embeddings(pair.hf, tokens[:-1])
    clean = oracles.run(pair.hf, x).logits[read].detach().log_softmax(-1)
    scores = oracles.semantic(pair.hf, tokens[:-1], read, truth).tolist()
    for i, k in enumerate(FRACTIONS):
        removed = sorted(range(1, 23), key=lambda t: (-scores[t], t))[: max(1, int(k * 22))]
        assert record["removed"]["semantic"][i] == removed
        for method in ("semantic", "random"):
            positions = record["removed"][method][i]
            assert 0 not in positions
            assert read + 1 not in positions
            if ablation == "resample":
                continue
            changed = x.clone()
            changed[positions] = 0 if ablation == "zero" else x[1:].mean(dim=0)
            delta = oracles.run(pair.hf, changed).logits[read].detach().log_softmax(-1)[truth] - clean[truth]
            assert record["deltas"][method][i] == pytest.approx(float(delta), rel=1e-4, abs=2e-5)


def test_argmax_target_is_explained_and_scored(demo_model: Any) -> None:
    text = passages(1)[0]
    wrong = text.rsplit(" ", 1)[0] + " horses"
    (record,) = aopc(demo_model, [wrong], ["semantic"], target="argmax").records
    assert record["target"] == record["scored"] == record["top"] != record["truth"]
    (record,) = aopc(demo_model, [wrong], ["semantic"]).records
    assert record["target"] == record["scored"] == record["truth"] != record["top"]
    (record,) = aopc(demo_model, [wrong], ["semantic"], scored="argmax").records
    assert (record["target"], record["scored"]) == (record["truth"], record["top"])


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_leaving_one_out_removes_as_the_run_removes(demo_model: Any, ablation: Any) -> None:
    given = {"beside": ("leave_one_out",), "ablation": ablation, "seed": 3}
    (record,) = aopc(demo_model, passages(1)[:1], ["leave_one_out", "semantic"], **given).records
    assert record["loo_spearman"]["leave_one_out"] == pytest.approx(1)


def test_measurements_beside_are_real_interventions(demo_model: Any) -> None:
    from tl_scopes.baselines.gradient_free import leave_one_out

    text = passages(1)[0]
    table = aopc(demo_model, [text], ["leave_one_out", "semantic"], beside=("sufficiency", "leave_one_out"))
    (record,) = table.records
    assert record["loo_spearman"]["leave_one_out"] == pytest.approx(1)
    assert record["loo_top5_hit"]["leave_one_out"] == 1
    tokens = demo_model.to_tokens(text)[0]
    own = leave_one_out(demo_model, tokens[:-1], target=record["truth"])
    first = record["removed"]["leave_one_out"][0][0]
    assert own.details["delta_log_prob"][first] == pytest.approx(record["deltas"]["leave_one_out"][0], abs=1e-5)
    everything = aopc(demo_model, [text], ["semantic"], fractions=(0.5, 1.0), beside=("sufficiency",)).records[0]
    assert everything["sufficiency"]["semantic"][1] == pytest.approx(0, abs=1e-6), "all kept: nothing is lost"
    frame = table.to_frame().set_index("method")
    assert frame.loc["semantic", "comprehensiveness"] == pytest.approx(-sum(record["deltas"]["semantic"]) / 3)


@pytest.mark.slow
def test_columns_beside_are_the_hand_computation(float64_demo: tuple[Any, Any, Any]) -> None:
    """Comprehensiveness, sufficiency and leave-one-out agreement from single passes of plain Hugging Face."""
    model, hf, tokenizer = float64_demo
    texts, methods = passages(1)[:3], ["semantic", "random"]
    table = aopc(model, texts, methods, prepend_bos=False, beside=("sufficiency", "leave_one_out"))
    rows: dict[str, dict[str, list[float]]] = {m: {"compr": [], "suff": [], "rho": [], "hit": []} for m in methods}
    for text, record in zip(texts, table.records, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        x, read = hf.get_input_embeddings()(torch.tensor(ids)).detach(), len(ids) - 2

        def lost(positions: Any, x: Tensor = x, read: int = read, truth: int = ids[-1]) -> float:
            changed = x.clone()
            changed[list(positions)] = 0
            with torch.no_grad():
                z = hf(inputs_embeds=torch.stack([x, changed]), use_cache=False).logits[:, read].log_softmax(-1)
            return float(z[0, truth] - z[1, truth])

        n = read + 1
        alone = np.array([abs(lost([t])) for t in range(n)])
        top = set(np.argsort(-alone, kind="stable")[: max(1, int(0.05 * n))].tolist())
        for method in methods:
            sets = record["removed"][method]
            rows[method]["compr"].append(sum(map(lost, sets)) / 3)
            rows[method]["suff"].append(sum(lost(set(range(n)) - set(s)) for s in sets) / 3)
            rows[method]["hit"].append(len(top & set(sets[0])) / len(top))
        semantic = oracles.semantic(hf, torch.tensor(ids), read, ids[-1])[:n].numpy()
        rows["semantic"]["rho"].append(float(scipy.stats.spearmanr(semantic, alone).statistic))
    frame = table.to_frame().set_index("method")
    for method in methods:
        mean = {name: float(np.mean(values)) for name, values in rows[method].items() if values}
        assert frame.loc[method, "comprehensiveness"] == pytest.approx(mean["compr"], abs=1e-8)
        assert frame.loc[method, "sufficiency"] == pytest.approx(mean["suff"], abs=1e-8)
        assert frame.loc[method, "loo_top5_hit"] == pytest.approx(mean["hit"])
        sem = np.std(rows[method]["suff"], ddof=1) / math.sqrt(3)
        assert frame.loc[method, "sufficiency_sem"] == pytest.approx(float(sem), abs=1e-8)
    assert frame.loc["semantic", "loo_spearman"] == pytest.approx(float(np.mean(rows["semantic"]["rho"])), abs=1e-8)


def test_scopes_and_input_x_gradient_share_one_forward(demo_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tl_scopes.kernel import explain as kernel
    from tl_scopes.kernel import interventions

    calls: list[int] = []
    real = kernel.forward_pass

    def counted(model: Any, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(tokens))
        return real(model, tokens, *args, **kwargs)

    monkeypatch.setattr(kernel, "forward_pass", counted)
    monkeypatch.setattr(interventions, "forward_pass", counted)
    methods = ["fisher@12", "semantic", "fisher", "temperature", "input_x_gradient", "fisher@4", "random"]
    together = aopc(demo_model, passages(1)[:1], methods)
    assert len(calls) == 2, "one for all scores, whatever the Fisher rank, and one for all ablated inputs"
    assert calls[0] == 1
    for method in methods:
        assert (
            aopc(demo_model, passages(1)[:1], [method]).records[0]["removed"][method]
            == (together.records[0]["removed"][method])
        )


def test_a_callable_is_a_method(demo_model: Any) -> None:
    from functools import partial

    from tl_scopes.baselines.integrated_gradients import integrated_gradients

    texts = passages(1)[:2]
    own = {"IG pad": partial(integrated_gradients, baseline="pad", n_steps=4), "semantic again": "semantic"}
    table = aopc(demo_model, texts, own)
    assert table.methods == ("IG pad", "semantic again")
    assert len(table["IG pad"]) == 2


@pytest.mark.parametrize(
    ("own", "says"),
    [(lambda model: 3, "unexpected keyword"), (lambda *given, **asked: 3, "must return an Attribution")],
)
def test_a_callable_that_is_no_method_ends_the_run(demo_model: Any, own: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        aopc(demo_model, passages(1)[:2], {"own": own, "semantic": "semantic"})


# -- arithmetic ------------------------------------------------------------------------------------


def test_aopc_is_the_trapezoid_sum_without_normalising() -> None:
    deltas = [[-1.0, -2.0, -4.0], [-0.5, 0.0, -1.0], [0.25, -0.25, -0.25]]
    result = aopc_from_deltas(deltas, FRACTIONS)
    hand = [0.05 / 2 * (a + b) + 0.1 / 2 * (b + c) for a, b, c in deltas]
    assert result.per_prompt.tolist() == pytest.approx(hand, rel=1e-12)
    mean = sum(hand) / 3
    assert result.mean == pytest.approx(mean, rel=1e-12)
    sem = math.sqrt(sum((h - mean) ** 2 for h in hand) / 2) / math.sqrt(3)
    assert result.sem == pytest.approx(sem, rel=1e-12), "over prompts, not over fractions"
    for same in (torch.tensor(deltas), [dict(zip(FRACTIONS, d, strict=True)) for d in deltas], dict(enumerate(deltas))):
        assert aopc_from_deltas(same, FRACTIONS).per_prompt.tolist() == pytest.approx(hand, rel=1e-6)


def test_the_error_counts_prompts_not_fractions() -> None:
    row = [-1.0, -2.0, -3.0]
    assert aopc_from_deltas([row] * 5, FRACTIONS).sem == pytest.approx(0, abs=1e-12)
    assert math.isnan(aopc_from_deltas([row], FRACTIONS).sem)


@pytest.mark.parametrize(
    ("fraction", "n", "m"),
    [
        (0.1, 30, 3),
        (0.29, 100, 29),
        (0.05, 19, 1),
        (0.05, 20, 1),
        (0.05, 40, 2),
        (0.2, 4, 1),
        (0.7, 10, 7),
        (1.0, 7, 7),
    ],
)
def test_number_removed_is_the_floor_of_the_decimal_fraction(fraction: float, n: int, m: int) -> None:
    assert number_removed(fraction, n) == m


def test_ties_go_to_the_first_position() -> None:
    assert most_influential([0.5, 2.0, 2.0, 0.5, 2.0], range(5), 4) == [1, 2, 4, 0]
    assert most_influential([0.0] * 4, [3, 1, 2], 2) == [1, 2], "among the candidates alone"


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"methods": ["magic"]}, "unknown method 'magic'"),
        ({"methods": []}, "expected names among"),
        ({"methods": ["random", "random"]}, "is given twice"),
        ({"fractions": (0.2, 0.1)}, "increasing numbers"),
        ({"fractions": (0.1,)}, "at least two"),
        ({"target": "foil"}, "expected 'truth' or 'argmax'"),
        ({"ablation": "noise"}, "expected 'zero', 'mean' or 'resample'"),
        ({"preset": "v2"}, "expected 'paper', 'text' or None"),
        ({"preset": "paper", "ablation": "mean"}, "contradicts ablation='mean'"),
        ({"preset": "paper", "prepend_bos": True}, "contradicts prepend_bos=True"),
        ({"beside": "sufficiency"}, r"beside='sufficiency'\): expected a list of 'sufficiency' or 'leave_one_out'"),
        ({"random_positions": [[[1]]]}, r"expected \[prompt\]\[fraction\]"),
        ({"prompts": []}, "list of passages is empty"),
        ({"batch_size": 0}, "positive integer"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_work(
    unchecked: None, demo_model: Any, kwargs: dict[str, Any], match: str
) -> None:
    kwargs = {"prompts": ["German: der Hund"], "methods": ["semantic", "random"], **kwargs}
    with pytest.raises((ValueError, TypeError), match=match):
        aopc(demo_model, **kwargs)


def test_one_string_is_not_a_list_of_passages(unchecked: None, demo_model: Any) -> None:
    with pytest.raises(TypeError, match="expected a list of strings or tensors"):
        aopc(demo_model, "German: der Hund")


def test_a_model_without_a_scope_is_refused_at_once() -> None:
    pair = families.native_unit_gain("bridge")
    with pytest.raises(ValueError, match="aopc: the final norm of this model has the same gain"):
        aopc(pair.model, [families.prompt_tokens()], ["temperature"])


def test_a_bad_prompt_is_recorded_and_the_run_goes_on(demo_model: Any, tmp_path: Path) -> None:
    good = passages(1)[:2]
    table = aopc(demo_model, [good[0], "", "dog " * 400, good[1]], ["semantic"], out=tmp_path)
    assert sorted(table.failures) == [1, 2]
    assert "the prompt is empty" in table.failures[1]
    assert "more than the model's context" in table.failures[2]
    assert len(table["semantic"]) == 2
    assert table.complete
    assert table["semantic"].per_prompt.tolist() == aopc(demo_model, good, ["semantic"])["semantic"].per_prompt.tolist()


# -- scale and faults ------------------------------------------------------------------------------


def test_a_finished_run_is_read_and_not_computed_again(
    demo_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = passages(1)[:3]
    first = aopc(demo_model, texts, ["semantic", "random"], out=tmp_path)
    monkeypatch.setattr(faithfulness, "measure_passage", None)
    again = aopc(demo_model, texts, ["semantic", "random"], out=tmp_path)
    assert str(first) == str(again) == str(load_aopc(tmp_path))
    assert first.records == again.records


def test_a_torn_last_line_is_cut_and_computed_again(demo_model: Any, tmp_path: Path) -> None:
    texts = passages(1)[:3]
    first = aopc(demo_model, texts, ["semantic"], out=tmp_path)
    (shard,) = tmp_path.glob("shard-*.jsonl")
    data = shard.read_bytes()
    shard.write_bytes(data[:-20])
    assert len(load_aopc(tmp_path).records) == 2
    assert not load_aopc(tmp_path).complete
    assert aopc(demo_model, texts, ["semantic"], out=tmp_path).records == first.records
    assert shard.read_bytes() == data


def test_another_run_in_the_same_folder_is_refused(demo_model: Any, tmp_path: Path) -> None:
    texts = passages(1)[:2]
    aopc(demo_model, texts, ["semantic"], out=tmp_path)
    with pytest.raises(ValueError, match=r"other settings: methods.semantic was \"semantic\", now null"):
        aopc(demo_model, texts, ["random"], out=tmp_path)
    with pytest.raises(ValueError, match=r"other settings: prompts.n was 2, now 1"):
        aopc(demo_model, texts[:1], ["semantic"], out=tmp_path)
    with pytest.raises(ValueError, match="holds no run that can be read"):
        load_aopc(tmp_path / "nothing")


def test_two_ranks_make_the_table_of_one(demo_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = passages(1)
    whole = aopc(demo_model, texts, ["semantic", "random"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        table = aopc(demo_model, texts, ["semantic", "random"], out=tmp_path)
        assert table.complete == (rank == "0")
    assert len(list(tmp_path.glob("shard-*.jsonl"))) == 2
    for method in ("semantic", "random"):
        assert table[method].per_prompt.tolist() == pytest.approx(whole[method].per_prompt.tolist(), abs=1e-6)


RUN = """
import os, sys, threading, torch
from tqdm import tqdm
tqdm.set_lock(threading.RLock())  # its own is a semaphore that forks share: a run killed while it holds it stops the next
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import tl_scopes
from samples import passages
from tl_scopes.evaluation.aopc import aopc
model, texts = tl_scopes.load_model(), passages({per_corpus})
for out in sys.stdin:
    child = os.fork()
    os.setpgid(child, child or os.getpid())
    if child == 0:
        aopc(model, texts, ["semantic", "random"], out=out.strip())
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Runs of one measurement, each a process group of its own, forked from a process that has loaded the model."""

    def __init__(self, per_corpus: int) -> None:
        code = RUN.format(tests=str(Path(samples.__file__).parent), per_corpus=per_corpus)
        self.parent = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    def start(self, out: Path) -> int:
        assert self.parent.stdin is not None
        self.parent.stdin.write(f"{out}\n")
        self.parent.stdin.flush()
        return self.answer()

    def answer(self) -> int:
        """Process group of the run that was started, then its exit code."""
        assert self.parent.stdout is not None
        return int(self.parent.stdout.readline())

    def finish(self, out: Path) -> int:
        self.start(out)
        return self.answer()


def lines(out: Path) -> int:
    return sum(shard.read_bytes().count(b"\n") for shard in out.glob("shard-*.jsonl"))


def alive(group: int) -> bool:
    try:
        os.kill(group, 0)
    except ProcessLookupError:
        return False
    return True


def kill_and_resume(runs: Runs, out: Path, kills: int, seed: int) -> list[int]:
    """Kill the process group at seeded moments, every other time only once it made progress; lines at each kill."""
    rng, seen = random.Random(seed), []
    for i in range(kills):
        before, group = lines(out), runs.start(out)
        while i % 2 and lines(out) == before and alive(group):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        if runs.answer() == -signal.SIGKILL:
            seen.append(lines(out))
    return seen


def resumption(tmp_path: Path, per_corpus: int, kills: int) -> None:
    runs, n = Runs(per_corpus), len(CORPORA) * per_corpus
    try:
        assert runs.finish(tmp_path / "whole") == 0
        seen = kill_and_resume(runs, tmp_path / "killed", kills, seed=7)
        assert len(seen) == kills, "every kill struck a running process"
        assert seen[-1] < n
        assert len(set(seen)) > kills // 4, f"the kills are spread over the run: {seen}"
        assert runs.finish(tmp_path / "killed") == 0
    finally:
        runs.parent.kill()
        runs.parent.wait()
    whole, killed = load_aopc(tmp_path / "whole"), load_aopc(tmp_path / "killed")
    assert whole.complete
    assert len(whole.records) == n
    assert killed.records == whole.records, "bit for bit"
    assert str(killed) == str(whole)
    assert lines(tmp_path / "killed") == n, f"each prompt once; lines at the kills: {seen}"
    for line in (tmp_path / "killed" / "shard-00000.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line)


@pytest.mark.slow
@pytest.mark.one_lens
@pytest.mark.timeout(3600)
def test_a_run_of_200_killed_20_times_ends_with_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    resumption(tmp_path, per_corpus=34, kills=20)


@pytest.mark.slow
@pytest.mark.one_lens
@pytest.mark.timeout(1200)
def test_accelerate_launch_of_two_processes_makes_the_table_of_one(demo_model: Any, tmp_path: Path) -> None:
    """The command as a user types it; on a machine without GPUs its processes run on the CPU."""
    methods = ["semantic", "fisher", "random"]
    one = aopc(demo_model, tls.load_passages("demo", 12), methods)
    command = ["aopc", "demo", "-n", "12", *(f"--method={method}" for method in methods), "--out", str(tmp_path)]
    accelerate = Path(sys.executable).with_name("accelerate")
    launch = [str(accelerate), "launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "tl_scopes"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, *command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    shards = sorted(tmp_path.glob("shard-*.jsonl"))
    assert [shard.read_bytes().count(b"\n") for shard in shards] == [6, 6], "each process its half"
    two = load_aopc(tmp_path)
    assert two.complete
    for method in one.methods:
        assert two[method].per_prompt.tolist() == pytest.approx(one[method].per_prompt.tolist(), abs=1e-6)
    assert str(one) in done.stdout, "the last process to end prints the whole table"


def test_units_are_removed_whole_by_their_joint_scores(demo_model: Any) -> None:
    passage = "Tom sees the dog. Anna lives in Rome. German: der Hund sieht die Katze. English: the dog"
    table = aopc(
        demo_model, [passage], ["semantic", "random", "total_information"], unit="sentence", beside=["leave_one_out"]
    )
    (record,) = table.records
    whole = demo_model.to_tokens(passage)[0]
    attr = tls.semantic_scope(demo_model, whole[:-1], target=int(whole[-1])).without("special")
    own = replace(attr, text=None, offsets=None).by_unit("sentence")
    assert record["n"] == len(own.shown) == 4
    (removed,) = {tuple(r) for r in record["removed"]["semantic"]}
    strongest = own.top(1)[0].pos
    assert list(removed) == own.details["units"][strongest], "⌊k·4⌋ is 0, and at least one sentence goes"
    for sets in record["removed"].values():
        assert all(list(s) in own.details["units"] for s in sets)
    assert table.settings["protocol"]["unit"] == "sentence"
    assert "unit" not in aopc(demo_model, [passage], ["random"]).settings["protocol"], "runs before units are continued"
    with pytest.raises(ValueError, match=r"\(preset='paper'\): contradicts unit='sentence'"):
        aopc(demo_model, [passage], ["random"], unit="sentence", preset="paper")


def test_random_draws_units_whatever_their_size() -> None:
    protocol = replace(Protocol(), unit="sentence")
    scores = torch.tensor([0.5, 0.9, 0.9, 0.9, 0.6])
    assert unit_scores(scores, [[0, 1, 2, 3], [4]], "random", protocol) == pytest.approx([0.5, 0.6])
    assert unit_scores(scores, [[1, 2], [4]], "attention_rollout", protocol) == pytest.approx([1.8, 0.6])
    assert unit_scores(scores - 1, [[0], [4]], "semantic", Protocol()) == pytest.approx([-0.5, -0.4])
