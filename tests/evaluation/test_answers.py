"""AOPC of answers is what a plain Hugging Face loop gives: the prompt's tokens go, and log p of the whole answer is read.

Invariant: a pair ``(prompt, answer)`` is scored by the gradient of ``Σ_m log p(a_m | prompt, a_<m)``, its removals touch the
prompt alone, and ``Δ`` is the change of that sum; an answer of one token is the passage that it ends.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import oracles
import pytest
import torch
from torch import Tensor

import tl_scopes as tls
from tl_scopes.evaluation.aopc import aopc, load_aopc
from tl_scopes.evaluation.questions import as_typed
from tl_scopes.results.aopc import AOPCTable

PROMPT, ANSWER = "the dog saw a cat and the big ship", " old man ran"
FRACTIONS = (0.1, 0.3, 0.5)


def ids(text: str) -> list[int]:
    return list(families.tokenizer()(text, add_special_tokens=False).input_ids)


@pytest.mark.on_families("gpt2", slow=("llama", "gemma2"))
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_answers_are_measured_by_a_plain_loop(pair: families.Pair, ablation: Any) -> None:
    table = aopc(
        pair.model,
        [(PROMPT, ANSWER)],
        ["semantic", "temperature", "input_x_gradient", "gradient_norm", "random"],
        fractions=FRACTIONS,
        ablation=ablation,
        prepend_bos=True,
        beside=["sufficiency"],
    )
    (record,) = table.records
    tokens = torch.tensor([families.BOS_ID, *ids(PROMPT), *ids(ANSWER)])
    n = len(ids(PROMPT))
    read = torch.arange(n, len(tokens) - 1)
    x = oracles.embeddings(pair.hf, tokens)

    def log_p(x: Tensor) -> Tensor:
        return oracles.run(pair.hf, x).logits[read].log_softmax(-1)[range(len(read)), tokens[read + 1]].sum()

    def gradient(scalar: Any) -> Tensor:
        with torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            return torch.autograd.grad(scalar(leaf), leaf)[0]

    g = gradient(log_p)
    confident = gradient(lambda x: oracles.run(pair.hf, x).y[read].norm(dim=-1).sum())
    scores = {"semantic": g.norm(dim=-1), "gradient_norm": g.norm(dim=-1), "input_x_gradient": (g * x).norm(dim=-1)}
    scores["temperature"] = confident.norm(dim=-1)
    clean = float(log_p(x))
    assert record["n"] == n, "neither the BOS nor the answer is counted"
    assert record["log_prob"] == pytest.approx(clean, rel=1e-5)
    assert record["answer"] == ids(ANSWER)
    assert record["answer_top"] == oracles.run(pair.hf, x).logits[read].argmax(-1).tolist()
    prompt = range(1, n + 1)
    for method in table.methods:
        for i, k in enumerate(FRACTIONS):
            removed = record["removed"][method][i]
            assert set(removed) <= set(prompt), "removals touch only the prompt"
            if method in scores:
                own = scores[method].tolist()
                assert removed == sorted(prompt, key=lambda t: (-own[t], t))[: max(1, int(k * n))], method
            for kept, found in ((removed, "deltas"), ([t for t in prompt if t not in removed], "sufficiency")):
                changed = x.clone()
                changed[kept] = 0 if ablation == "zero" else x[list(prompt)].mean(dim=0)
                delta = float(log_p(changed)) - clean
                sign = 1 if found == "deltas" else -1
                assert record[found][method][i] == pytest.approx(sign * delta, rel=1e-4, abs=2e-5), (method, found)


@pytest.mark.on_families("gpt2")
def test_an_answer_of_one_token_is_the_passage_that_it_ends(pair: families.Pair) -> None:
    methods = ["semantic", "fisher", "input_x_gradient", "random"]
    (one,) = aopc(pair.model, [(PROMPT, " king")], methods).records
    (passage,) = aopc(pair.model, [PROMPT + " king"], methods).records
    for key in ("n", "truth", "top", "target", "scored"):
        assert one[key] == passage[key]
    for method in methods[:-1]:  # Random draws by the tokens that it is shown
        assert one["removed"][method] == passage["removed"][method]
        assert one["deltas"][method] == pytest.approx(passage["deltas"][method], rel=1e-9)


@pytest.mark.on_families("gpt2")
def test_only_the_answers_positions_are_read(pair: families.Pair) -> None:
    seen: list[tuple[int, int]] = []
    tokens: list[int] = []
    hooks = [
        ("hook_embed", lambda x, hook: tokens.append(len(x))),
        ("unembed.hook_out", lambda y, hook: seen.append(tuple(y.shape[:2]))),
    ]
    with pair.model.hooks(fwd_hooks=hooks):
        aopc(pair.model, [(PROMPT, ANSWER)], ["semantic", "random"])
    assert [n * reads for n, reads in seen] == [3 * rows for rows in tokens]


@pytest.mark.on_families("gpt2")
def test_every_method_that_knows_several_predictions_takes_part(pair: families.Pair) -> None:
    def own(model: Any, tokens: Tensor, target: list[int], pos: list[int]) -> tls.Attribution:
        return tls.semantic_scope(model, tokens, target=target, pos=pos, of="log_prob")

    def left_out(model: Any, tokens: Tensor, target: list[int], pos: list[int]) -> tls.Attribution:
        return tls.leave_one_out(model, tokens, target=target, pos=pos, of="log_prob")

    names = ("semantic", "fisher@2", "total_information", "integrated_gradients", "smoothgrad", "leave_one_out")
    methods = {m: m for m in (*names, "attention_rollout", "semantic/all")}
    asked = {**methods, "own": own, "left out": left_out}
    table = aopc(pair.model, [(PROMPT, ANSWER), (PROMPT, " old king")], asked, unit="word")
    assert not table.failures
    assert [r["deltas"]["own"] for r in table.records] == [r["deltas"]["semantic"] for r in table.records]
    assert [r["removed"]["left out"] for r in table.records] == [r["removed"]["leave_one_out"] for r in table.records]


@pytest.mark.on_families("gpt2")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "paper"}, "pairs of prompt and answer are measured by the answer itself"),
        ({"target": "argmax"}, r"\('argmax'\): pairs of prompt and answer"),
        ({"scored": "argmax"}, r"\('argmax'\): pairs of prompt and answer"),
    ],
)
def test_what_is_not_defined_of_answers_is_refused_before_any_run(
    pair: families.Pair, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        aopc(pair.model, [PROMPT, (PROMPT, ANSWER)], **options)


@pytest.mark.on_families("gpt2")
def test_random_positions_in_the_answer_are_a_failure(pair: families.Pair) -> None:
    inside = [[[len(ids(PROMPT)) + 1]] * 3]
    table = aopc(pair.model, [(PROMPT, ANSWER)], ["random"], random_positions=inside, prepend_bos=True)
    assert "is outside the passage's" in table.failures[0]


@pytest.mark.on_families("gpt2")
def test_runs_on_answers_are_stored_resumed_and_told_apart(pair: families.Pair, tmp_path: Path) -> None:
    passages = [(PROMPT, ANSWER), (PROMPT, " king sat"), PROMPT]
    whole = aopc(pair.model, passages, ["semantic", "random"], out=tmp_path / "whole")
    shard = next((tmp_path / "whole").glob("shard-*"))
    shard.write_bytes(shard.read_bytes().split(b"\n")[0] + b"\n")
    assert not load_aopc(tmp_path / "whole").complete
    again = aopc(pair.model, passages, ["semantic", "random"], out=tmp_path / "whole")
    assert json.dumps(again.records) == json.dumps(whole.records)
    assert json.dumps(load_aopc(tmp_path / "whole").records) == json.dumps(whole.records)
    with pytest.raises(ValueError, match="holds a run with other settings: prompts.sha256"):
        aopc(pair.model, [(PROMPT + " old", " man ran"), *passages[1:]], ["semantic", "random"], out=tmp_path / "whole")
    whole.save(tmp_path / "table.json")
    assert AOPCTable.load(tmp_path / "table.json").records == whole.records


@pytest.mark.on_families("gpt2")
def test_an_answer_is_right_where_every_token_of_it_is(pair: families.Pair) -> None:
    said = tls.generate(pair.model, PROMPT, max_new_tokens=3)
    tokens = said.tokens[said.answer_start :]
    own = "".join(families.tokenizer().convert_ids_to_tokens(tokens.tolist()))
    table = aopc(pair.model, [(PROMPT, own), (PROMPT, ANSWER)], ["random"])
    assert table.records[0]["answer"] == tokens.tolist()
    assert [len(table.where(right).records) for right in (True, False)] == [1, 1]
    assert "The top prediction is the true answer, token by token, on 50% of them." in str(table)


@pytest.mark.on_families("gpt2")
def test_a_bos_that_is_left_out_is_counted_in_log_p_of_the_answer(pair: families.Pair) -> None:
    (record,) = aopc(pair.model, [(PROMPT, ANSWER)], ["random"], prepend_bos=False).records
    without = record["without_bos"]
    assert without["log_prob"] == pytest.approx(record["log_prob"], rel=1e-9)
    (kept,) = aopc(pair.model, [(PROMPT, ANSWER)], ["random"], prepend_bos=True).records
    assert without["log_prob_with"] == pytest.approx(kept["log_prob"], rel=1e-9)


def test_passages_without_answers_have_the_digest_that_they_had() -> None:
    assert [as_typed(p) for p in ("a\n", torch.tensor([3, 1]))] == [repr("a\n"), repr([3, 1])]
    assert len({as_typed(p) for p in (("ab", "c"), ("a", "bc"), "abc", (torch.tensor([3]), "c"))}) == 4
