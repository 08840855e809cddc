"""Several questions about the same tokens are one row of one forward, and each is answered as if it were asked alone.

Invariant: ``[prompt] * n`` with n positions, targets or answers gives what n single calls give, to rounding, from as many
rows of forwards as there are different texts. Oracle: the single calls, which other tests hold to Hugging Face autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import families
import pytest
import torch
from families import Pair
from oracles import relative_error

import tl_scopes as tls
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import Run

TOKENS = families.prompt_tokens()
POS = [3, 11, 6, 6]
TARGETS = [families.VOCAB[piece] for piece in (" house", " city", " dog", " man")]
FOILS = TARGETS[::-1]
ROWS = torch.randn(3, families.D_MODEL, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
VALUES = {5: 1.0, 9: 2.5, 17: 4.0}
QUESTION, ANSWER, OTHER = "the dog saw a cat and the", " old man ran", " city to"
ROUNDING = 1e-12
"""Of GPT-2, which is float64 throughout; other families have float32 steps inside Hugging Face's code."""

Ask = Callable[..., Any]
SCOPES: dict[str, tuple[Ask, dict[str, list[Any]], dict[str, Any]]] = {
    "semantic": (tls.semantic_scope, {"target": TARGETS}, {}),
    "log_prob": (tls.semantic_scope, {"target": TARGETS}, {"of": "log_prob"}),
    "top prediction": (tls.semantic_scope, {}, {}),
    "contrast": (tls.contrast_scope, {"target": TARGETS, "foil": FOILS}, {}),
    "temperature": (tls.temperature_scope, {}, {}),
    "fisher": (tls.fisher_scope, {}, {"rank": 3, "tol": 1e-12}),
    "total_information": (tls.total_information, {}, {"method": "exact"}),
    "moment": (tls.moment_scope, {}, {"moment": "variance", "values": VALUES}),
    "jacobian": (tls.jacobian_scope, {}, {"direction": ROWS}),
    "inner jacobian": (tls.jacobian_scope, {}, {"direction": ROWS, "target_hook": "blocks.0.hook_resid_post"}),
    "input_x_gradient": (tls.input_x_gradient, {"target": TARGETS}, {}),
}


@contextmanager
def texts_run(pair: Pair) -> Iterator[list[int]]:
    """Rows of every forward, in order."""
    seen: list[int] = []
    with pair.model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: seen.append(len(x)))]):
        yield seen


def alone(ask: Ask, pair: Pair, i: int, each: dict[str, list[Any]], **options: Any) -> tls.Attribution:
    found: tls.Attribution = ask(pair.model, TOKENS, pos=POS[i], **{k: v[i] for k, v in each.items()}, **options)
    return found


@pytest.mark.on_families("gpt2", slow=("llama", "gemma2", "neox", "qwen2"))
@pytest.mark.parametrize("name", SCOPES)
def test_questions_about_one_text_are_one_forward_and_single_calls(pair: Pair, name: str) -> None:
    ask, each, options = SCOPES[name]
    with texts_run(pair) as seen:
        together = ask(pair.model, [TOKENS] * len(POS), pos=POS, **each, **options)
    assert seen == [1]
    bound = ROUNDING if pair.family == "gpt2" else 5e-6
    for i, one in enumerate(together):
        single = alone(ask, pair, i, each, **options)
        assert relative_error(one.scores, single.scores) < bound
        assert (one.pos, one.target, one.method) == (single.pos, single.target, single.method)
        assert one.details.keys() == single.details.keys()
        assert one.top_tokens == single.top_tokens


@pytest.mark.on_families("gpt2")
def test_sampled_information_draws_what_it_drew_from_forwards_of_its_own(pair: Pair) -> None:
    other = families.prompt_tokens(seed=8)
    alike, apart = (
        tls.total_information(pair.model, prompts, pos=[3, 11], n_samples=24, rtol=0.2)
        for prompts in ([TOKENS, TOKENS], [other, TOKENS])
    )
    assert relative_error(alike[1].scores, apart[1].scores) < ROUNDING


@pytest.mark.on_families("gpt2")
@pytest.mark.parametrize("combine", ["sum", "norm"])
def test_spans_of_one_text_share_it_too(pair: Pair, combine: str) -> None:
    spans = [range(3, 8), [0, 11], range(11)]
    with texts_run(pair) as seen:
        together = tls.semantic_scope(pair.model, [TOKENS] * 3, pos=spans, combine=combine, n_probes=4)
    assert seen == [1]
    for one, span in zip(together, spans, strict=True):
        single = tls.semantic_scope(pair.model, TOKENS, pos=span, combine=combine, n_probes=4)
        assert relative_error(one.scores, single.scores) < ROUNDING
        assert one.targets == single.targets


@pytest.mark.on_families("gpt2")
def test_answers_share_a_row_where_they_are_the_same_tokens(pair: Pair) -> None:
    targets = [" dog", ANSWER, " cat", ANSWER]
    with texts_run(pair) as seen:
        together = tls.semantic_scope(pair.model, [QUESTION] * 4, target=targets, of=None)
    assert seen == [2]
    for one, target in zip(together, targets, strict=True):
        single = tls.semantic_scope(pair.model, [QUESTION], target=target)[0]
        assert relative_error(one.scores, single.scores) < ROUNDING
        assert (one.span, one.target_str) == (single.span, single.target_str)


@pytest.mark.on_families("gpt2")
def test_comparisons_of_two_answers_share_both_their_texts(pair: Pair) -> None:
    cases = [(ANSWER, OTHER), (OTHER, ANSWER), (ANSWER, OTHER)]
    with texts_run(pair) as seen:
        together = tls.contrast_scope(
            pair.model, [QUESTION] * 3, target=[a for a, _ in cases], foil=[b for _, b in cases]
        )
    assert sorted(seen) == [2, 2]
    for one, (target, foil) in zip(together, cases, strict=True):
        single = tls.contrast_scope(pair.model, [QUESTION], target=target, foil=foil)[0]
        assert relative_error(one.scores, single.scores) < ROUNDING
        assert one.details["foil_str"] == foil


@pytest.mark.on_families("gpt2")
def test_other_prompts_between_them_change_nothing(pair: Pair) -> None:
    prompts = [TOKENS, families.prompt_tokens(9, seed=2), TOKENS, families.prompt_tokens(14, seed=3)]
    with texts_run(pair) as seen:
        together = tls.fisher_scope(pair.model, prompts, rank=2, pos=[4, -1, 9, -2])
    assert sorted(seen) == [1, 2]
    for one, prompt, pos in zip(together, prompts, [4, -1, 9, -2], strict=True):
        assert relative_error(one.scores, tls.fisher_scope(pair.model, prompt, rank=2, pos=pos).scores) < 1e-9


@pytest.mark.on_families("gpt2")
@pytest.mark.parametrize("checkpoint", [False, True])
def test_each_keeps_its_own_gradients_at_every_hook(pair: Pair, checkpoint: bool) -> None:
    hook = "blocks.1.hook_resid_pre"
    options: dict[str, Any] = {"keep_gradient": True, "grads_at": hook, "checkpoint": checkpoint}
    with texts_run(pair) as seen:
        together = tls.semantic_scope(pair.model, [TOKENS] * 4, pos=POS, target=TARGETS, **options)
    assert seen[0] == 1 and len(seen) == 1
    for i, one in enumerate(together):
        single = alone(tls.semantic_scope, pair, i, {"target": TARGETS}, **options)
        assert one.gradient is not None and single.gradient is not None
        assert relative_error(one.gradient, single.gradient) < ROUNDING
        assert one.cache is not None and single.cache is not None
        assert one.cache.keys() == single.cache.keys()
        assert relative_error(one.cache[f"{hook}_grad"], single.cache[f"{hook}_grad"]) < ROUNDING


@pytest.mark.on_families("gpt2", "gemma2")
def test_each_keeps_the_logits_of_its_own_positions(pair: Pair) -> None:
    pos = [3, [2, 5], -1]
    together = tls.semantic_scope(pair.model, [TOKENS] * 3, pos=pos, cache=lambda name: "unembed" in name)
    for one, own in zip(together, pos, strict=True):
        single = tls.semantic_scope(pair.model, TOKENS, pos=own, cache=lambda name: "unembed" in name)
        assert one.cache.keys() == single.cache.keys()
        for name in list(single.cache):
            assert relative_error(one.cache[name], single.cache[name]) < ROUNDING, name


SEVERAL_ROWS: dict[str, tuple[Ask, dict[str, Any]]] = {
    "of any of the questions": (tls.semantic_scope, {"prompt": [TOKENS] * 2, "pos": [[3], [3, 5]], "combine": "norm"}),
    "fisher": (tls.fisher_scope, {"rank": 2}),
    "exact": (tls.total_information, {"method": "exact"}),
    "low rank": (tls.total_information, {"method": "low_rank", "rank": 2}),
    "sampled": (tls.total_information, {}),
    "scopes": (tls.scopes, {"methods": ("semantic", "fisher"), "rank": 2}),
}


@pytest.mark.on_families("gpt2")
@pytest.mark.parametrize("name", SEVERAL_ROWS)
def test_several_rows_have_no_gradient_which_is_said_before_a_run(pair: Pair, name: str) -> None:
    ask, given = SEVERAL_ROWS[name]
    hook = "blocks.0.hook_resid_post"
    for wanted in {"keep_gradient": True}, {"grads_at": hook}:
        with texts_run(pair) as seen, pytest.raises(ValueError, match="pulls back several rows"):
            ask(pair.model, **{"prompt": TOKENS} | given | wanted)
        assert not seen
    of_one = {"method": "low_rank", "rank": 1}
    assert f"{hook}_grad" in tls.total_information(pair.model, TOKENS, **of_one, grads_at=hook).cache


@pytest.mark.on_families("gpt2")
def test_several_rows_have_no_sign_which_is_said_before_a_run(pair: Pair) -> None:
    with texts_run(pair) as seen, pytest.raises(ValueError, match="no common sign"):
        tls.head_influence(pair.model, TOKENS, method="fisher", rank=2, kind="signed")
    assert not seen


@pytest.mark.on_families("gpt2")
def test_layers_and_heads_of_questions_about_one_text(pair: Pair) -> None:
    with texts_run(pair) as seen:
        layers = tls.layer_influence(pair.model, [TOKENS] * 4, pos=POS, target=TARGETS)
        heads = tls.head_influence(pair.model, [TOKENS] * 4, pos=POS, target=TARGETS)
    assert seen == [1, 1]
    for i, (by_layer, by_head) in enumerate(zip(layers, heads, strict=True)):
        own = {"pos": POS[i], "target": TARGETS[i]}
        assert relative_error(by_layer.scores, tls.layer_influence(pair.model, TOKENS, **own).scores) < ROUNDING
        assert relative_error(by_head.scores, tls.head_influence(pair.model, TOKENS, **own).scores) < ROUNDING


@pytest.mark.slow
@pytest.mark.on_families("gpt2")
def test_a_budget_that_holds_fewer_predictions_takes_more_forwards(pair: Pair) -> None:
    n = 16
    pos = [p % len(TOKENS) for p in range(n)]
    with differentiable(pair.model):
        memory = Memory(pair.model, budget=1)
        few, all_of_them = (memory.peak(Run(1, len(TOKENS), reads)) for reads in (4, n))
    assert few < all_of_them, "what is read counts"
    everything = tls.temperature_scope(pair.model, [TOKENS] * n, pos=pos)
    with texts_run(pair) as seen:
        found = tls.temperature_scope(pair.model, [TOKENS] * n, pos=pos, memory_budget=few)
    assert seen.count(1) >= n // 4
    for one, other in zip(found, everything, strict=True):
        assert relative_error(one.scores, other.scores) < ROUNDING


@pytest.mark.on_families("gpt2")
def test_batch_size_counts_texts(pair: Pair) -> None:
    prompts = [TOKENS, families.prompt_tokens(9, seed=2)] * 3
    with texts_run(pair) as seen:
        tls.temperature_scope(pair.model, prompts, batch_size=1)
    assert seen == [1, 1]


@pytest.mark.on_families("gpt2")
def test_results_of_a_list_are_one_table(pair: Pair) -> None:
    import pandas as pd

    found = tls.semantic_scope(pair.model, [TOKENS] * 4, pos=POS, target=TARGETS)
    table = pd.concat([one.to_frame() for one in found], keys=[one.target_str for one in found])
    assert len(table) == sum(len(one.to_frame()) for one in found)
    assert table.loc[found[2].target_str].score.tolist() == found[2].to_frame().score.tolist()
