"""AOPC is what the published protocols say, a stopped run goes on as if nothing had happened, and errors are by prompt.

Invariants: the paper preset equals a line-by-line implementation with torch and transformers alone, below, in the
removed positions (exactly) and in Δ (to 1e-5; float64 leaves no near-ties to flip); the default protocol equals
interventions through `inputs_embeds`; records on disk give the table bit for bit after any number of kills, and two
processes give the table of one.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import families
import oracles
import pytest
import torch
import transformers
from torch import Tensor

from tl_scopes import faithfulness, loading
from tl_scopes.demo import CORPORA, DEMO_PATH, examples
from tl_scopes.faithfulness import AOPC_METHODS, aopc, load_aopc
from tl_scopes.perturbation import aopc_from_deltas, number_removed

FRACTIONS = (0.05, 0.1, 0.2)


def passages(per_corpus: int, seed: int = 0) -> list[str]:
    return [e.prompt + e.answer for c in CORPORA for e in examples(c, per_corpus, seed)]


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


def test_paper_preset_is_the_released_protocol_line_by_line(float64_demo: tuple[Any, Any, Any]) -> None:
    model, hf, tokenizer = float64_demo
    texts = passages(2)
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


def test_paper_preset_in_float32_gives_the_same_deltas(float64_demo: tuple[Any, Any, Any], demo_model: Any) -> None:
    texts = passages(1)
    exact = aopc(float64_demo[0], texts, preset="paper")
    table = aopc(demo_model, texts, preset="paper")
    for a, b in zip(table.records, exact.records, strict=True):
        for method in AOPC_METHODS:
            for i in range(len(FRACTIONS)):
                if a["removed"][method][i] == b["removed"][method][i]:
                    assert a["deltas"][method][i] == pytest.approx(b["deltas"][method][i], abs=1e-4)


# -- the default protocol --------------------------------------------------------------------------


@pytest.mark.families("gpt2", "llama", "gemma2")
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


def test_measurements_beside_are_real_interventions(demo_model: Any) -> None:
    from tl_scopes.controls import leave_one_out

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


def test_scopes_and_input_x_gradient_share_one_forward(demo_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tl_scopes import interventions, kernel

    calls: list[int] = []
    real = kernel.forward_pass

    def counted(model: Any, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(tokens))
        return real(model, tokens, *args, **kwargs)

    monkeypatch.setattr(kernel, "forward_pass", counted)
    monkeypatch.setattr(interventions, "forward_pass", counted)
    aopc(demo_model, passages(1)[:1], ["semantic", "fisher", "temperature", "input_x_gradient", "random"])
    assert len(calls) == 2, "one for all scores, one for all ablated inputs"
    assert calls[0] == 1


def test_a_callable_is_a_method(demo_model: Any) -> None:
    from functools import partial

    from tl_scopes.baselines import integrated_gradients

    texts = passages(1)[:2]
    own = {"IG pad": partial(integrated_gradients, baseline="pad", n_steps=4), "semantic again": "semantic"}
    table = aopc(demo_model, texts, own)
    assert table.methods == ("IG pad", "semantic again")
    assert len(table["IG pad"]) == 2


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


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"methods": ["magic"]}, "unknown method 'magic'"),
        ({"methods": []}, "expected different names"),
        ({"methods": ["random", "random"]}, "expected different names"),
        ({"fractions": (0.2, 0.1)}, "increasing numbers"),
        ({"fractions": (0.1,)}, "at least two"),
        ({"target": "foil"}, "expected 'truth' or 'argmax'"),
        ({"ablation": "noise"}, "expected one of"),
        ({"preset": "v2"}, "expected None, 'paper' or 'text'"),
        ({"preset": "paper", "ablation": "mean"}, "contradicts ablation='mean'"),
        ({"preset": "paper", "prepend_bos": True}, "contradicts prepend_bos=True"),
        ({"beside": "sufficiency"}, "expected any of"),
        ({"random_positions": [[[1]]]}, r"expected \[prompt\]\[fraction\]"),
        ({"prompts": []}, "list of passages is empty"),
        ({"batch_size": 0}, "positive integer"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_work(
    unchecked: None, demo_model: Any, kwargs: dict[str, Any], match: str
) -> None:
    kwargs = {"prompts": ["German: der Hund"], "methods": ["semantic", "random"], **kwargs}
    with pytest.raises(ValueError, match=match):
        aopc(demo_model, **kwargs)


def test_one_string_is_not_a_list_of_passages(unchecked: None, demo_model: Any) -> None:
    with pytest.raises(TypeError, match="expected a list of passages"):
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
    with pytest.raises(ValueError, match=r"holds a run with other settings \(methods"):
        aopc(demo_model, texts, ["random"], out=tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(prompts"):
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
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import tl_scopes
from test_faithfulness import passages
from tl_scopes.faithfulness import aopc
aopc(tl_scopes.load_model(), passages({per_corpus}), {methods!r}, out={out!r})
"""


def start(out: Path, per_corpus: int, **env: str) -> subprocess.Popen[bytes]:
    code = RUN.format(
        tests=str(Path(__file__).parent), per_corpus=per_corpus, methods=["semantic", "random"], out=str(out)
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env},
    )


def lines(out: Path) -> int:
    return sum(shard.read_bytes().count(b"\n") for shard in out.glob("shard-*.jsonl"))


def kill_and_resume(out: Path, per_corpus: int, kills: int, seed: int) -> list[int]:
    """Kill the process group at seeded moments after it made progress, then let it finish; lines seen at each kill."""
    rng, seen = random.Random(seed), []
    for _ in range(kills):
        process = start(out, per_corpus)
        before, deadline = lines(out), time.time() + 120
        while lines(out) == before and process.poll() is None and time.time() < deadline:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.15)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(lines(out))
    assert start(out, per_corpus).wait(timeout=600) == 0
    return seen


def resumption(tmp_path: Path, per_corpus: int, kills: int) -> None:
    assert start(tmp_path / "whole", per_corpus).wait(timeout=600) == 0
    seen = kill_and_resume(tmp_path / "killed", per_corpus, kills, seed=7)
    whole, killed = load_aopc(tmp_path / "whole"), load_aopc(tmp_path / "killed")
    n = len(CORPORA) * per_corpus
    assert whole.complete
    assert len(whole.records) == n
    assert killed.records == whole.records, "bit for bit"
    assert str(killed) == str(whole)
    assert lines(tmp_path / "killed") == n, f"each prompt once; lines at the kills: {seen}"
    for line in (tmp_path / "killed" / "shard-00000.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line)


@pytest.mark.timeout(600)
def test_a_run_killed_twice_ends_with_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    resumption(tmp_path, per_corpus=6, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_of_200_killed_20_times_ends_with_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    resumption(tmp_path, per_corpus=34, kills=20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_at_once_make_the_table_of_one(tmp_path: Path) -> None:
    assert start(tmp_path / "one", 4).wait(timeout=600) == 0
    both = [start(tmp_path / "two", 4, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    assert [process.wait(timeout=600) for process in both] == [0, 0]
    one, two = load_aopc(tmp_path / "one"), load_aopc(tmp_path / "two")
    assert two.complete
    for method in one.methods:
        assert two[method].per_prompt.tolist() == pytest.approx(one[method].per_prompt.tolist(), abs=1e-6)
