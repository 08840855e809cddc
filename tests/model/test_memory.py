"""Invariant: checkpointing and budgets change how a run is done and no number; what will not fit is refused beforehand.

Checkpointed gradients are compared bit for bit: the same operations run on the same values.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import families
import oracles
import pytest
import torch
import transformers
from bridged import WIDTHS, bridge_around, bridged, hugging_face
from families import Pair
from living import live_tensors
from torch import Tensor

import tl_scopes as tls
from tl_scopes.kernel import explain as kernel
from tl_scopes.kernel import interventions, pulled_rows
from tl_scopes.model import memory
from tl_scopes.model.forward import Recording, forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory, coarse_bound
from tl_scopes.model.probe_runs import BytesAlive, Run, alive

TOKENS = families.prompt_tokens()
TARGET = families.VOCAB[" house"]
WITHIN = 1.25
"""Estimate over measurement: exact up to tensors whose lifetime depends on Python's garbage."""


def saved_bytes(call: Any) -> int:
    """Bytes of distinct storages that autograd keeps for the backward during a call."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(seen.values())


# -- checkpointing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"])
def test_checkpointing_changes_no_bit(pair: Pair, at: str) -> None:
    inner = [f"blocks.1.{name}" for name in ("hook_resid_pre", "attn.hook_q", "attn.hook_z", "hook_resid_post")]
    options = dict(
        at=at, target=TARGET, pos=9, cache=["blocks.1.attn.hook_pattern"], grads_at=inner, keep_gradient=True
    )
    plain = tls.semantic_scope(pair.model, TOKENS, checkpoint=False, **options)
    again = tls.semantic_scope(pair.model, TOKENS, checkpoint=True, **options)
    assert torch.equal(again.gradient, plain.gradient)
    assert bool(plain.gradient.any())
    assert list(again.cache.keys()) == list(plain.cache.keys())
    for name in plain.cache:
        assert torch.equal(again.cache[name], plain.cache[name]), name


def test_checkpointing_changes_no_bit_of_any_scope(kind: str) -> None:
    lens = families.build("gpt2", kind).model
    v = torch.randn(10, families.D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    calls = [
        lambda c: tls.fisher_scope(lens, TOKENS, rank=10, checkpoint=c).scores,
        lambda c: tls.temperature_scope(lens, [TOKENS, TOKENS[:5]], checkpoint=c)[1].scores,
        lambda c: tls.contrast_scope(lens, TOKENS, foil=3, checkpoint=c).scores,
        lambda c: tls.jacobian_scope(lens, TOKENS, direction=v, checkpoint=c).scores,
        lambda c: tls.jacobian_scope(
            lens, TOKENS, direction=v[0], target_hook="blocks.1.hook_resid_mid", checkpoint=c
        ).scores,
        lambda c: tls.total_information(lens, TOKENS, rtol=0.1, checkpoint=c).scores,
        lambda c: tls.scopes(lens, TOKENS, checkpoint=c)["fisher"].scores,
        lambda c: tls.attribution_matrix(lens, TOKENS, method="fisher", rank=2, checkpoint=c).scores,
        lambda c: tls.layer_influence(lens, TOKENS, method="fisher", rank=2, checkpoint=c).scores,
        lambda c: tls.head_influence(lens, TOKENS, checkpoint=c).scores,
    ]  # fmt: skip
    for i, call in enumerate(calls):
        assert torch.equal(call(True), call(False)), i


def test_checkpointing_keeps_the_blocks_inputs_only(kind: str) -> None:
    lens = families.build("gpt2", kind).model
    tokens = families.prompt_tokens(100)
    plain = saved_bytes(lambda: tls.semantic_scope(lens, tokens, checkpoint=False))
    again = saved_bytes(lambda: tls.semantic_scope(lens, tokens, checkpoint=True))
    assert again < plain / 5


def test_no_attention_map_outlives_its_checkpointed_block(kind: str) -> None:
    lens, n = families.build("gpt2", kind).model, 100
    with differentiable(lens), BytesAlive() as watch:
        run = forward_pass(lens, families.prompt_tokens(n)[None], torch.tensor([n - 1]), checkpoint=True)
    assert run.hidden.requires_grad
    assert watch.alive < lens.cfg.n_heads * n * n * 8, "less than one map [head, query, key]"


def test_a_users_hook_acts_in_the_block_computed_again(kind: str) -> None:
    lens = families.build("gpt2", kind).model

    def steer(activation: Tensor, hook: Any) -> Tensor:
        return activation * 1.5 + 0.1

    with lens.hooks(fwd_hooks=[("blocks.0.attn.hook_z", steer)]):
        plain = tls.semantic_scope(lens, TOKENS, target=TARGET, checkpoint=False)
        again = tls.semantic_scope(lens, TOKENS, target=TARGET, checkpoint=True)
    assert torch.equal(again.scores, plain.scores)
    assert oracles.relative_error(tls.semantic_scope(lens, TOKENS, target=TARGET).scores, plain.scores) > 1e-3


def test_checkpointed_blocks_are_as_before_also_after_an_error(kind: str) -> None:
    lens = families.build("gpt2", kind).model
    before = [dict(block.__dict__) for block in lens.blocks]

    def fail(activation: Tensor, hook: Any) -> Tensor:
        raise RuntimeError("in the forward")

    tls.semantic_scope(lens, TOKENS, checkpoint=True)
    with (
        lens.hooks(fwd_hooks=[("blocks.1.hook_resid_post", fail)]),
        pytest.raises(RuntimeError, match="in the forward"),
    ):
        tls.semantic_scope(lens, TOKENS, checkpoint=True)
    for block, held in zip(lens.blocks, before, strict=True):
        assert ("forward" in block.__dict__) == ("forward" in held)


@pytest.mark.slow
def test_a_checkpointed_graph_that_is_never_used_is_freed(kind: str) -> None:
    lens = families.build("gpt2", kind).model

    def call() -> None:
        tls.total_information(lens, TOKENS, rtol=0.1, checkpoint=True)  # keeps its graph to ask for more rows
        with pytest.raises(ValueError, match="does not fit the activation"):
            tls.jacobian_scope(lens, TOKENS, direction=torch.ones(7, dtype=torch.float64), checkpoint=True)

    call()
    gc.collect()
    before = live_tensors()
    gc.disable()  # by reference counts alone: collected cycles would pile up in a loop
    try:
        for _ in range(5):
            call()
        assert live_tensors() <= before
    finally:
        gc.enable()


# -- the estimate ------------------------------------------------------------------------------------


def planner(lens: Any, checkpoint: bool | None = None, budget: int | None = 1, **options: Any) -> Memory:
    return Memory(lens, Recording(**options), checkpoint=checkpoint, budget=budget)


@pytest.mark.on_families("gpt2", slow=("llama",))
@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_peak_of_short_runs_predicts_that_of_a_long_one(pair: Pair, checkpoint: bool) -> None:
    lens = families.build(pair.family, pair.kind, torch.float32).model
    plan = planner(lens)
    for rows in (1, 8):
        run = Run(1, 120, 1, rows, checkpoint)
        with differentiable(lens):
            measured = max(alive(lens, 120, plan.recording, run).timeline)
            assert measured / WITHIN <= plan.peak(run) <= measured * WITHIN
        assert coarse_bound(lens, run) >= measured


WIDE = 2**16
SEVERAL = range(8, 20)
MANY = range(8, 80)
"""Of so many logits no table is made."""
READ_OUTS: dict[str, Any] = {
    "fisher": lambda m, t: tls.fisher_scope(m, t),
    "fisher of rank 4 at several": lambda m, t: tls.fisher_scope(m, t, pos=SEVERAL, rank=4),
    "fisher at more than share a pass": lambda m, t: tls.fisher_scope(m, t, pos=range(8, 38), rank=8),
    "total information": lambda m, t: tls.total_information(m, t, seed=3),
    "total information at several": lambda m, t: tls.total_information(
        m, t, pos=SEVERAL, rank=4, n_samples=40, rtol=None
    ),
    "total information by samples alone": lambda m, t: tls.total_information(m, t, pos=SEVERAL, rank=0),
    "a low rank": lambda m, t: tls.total_information(m, t, method="low_rank", rank=4),
    "a moment": lambda m, t: tls.moment_scope(m, t, pos=SEVERAL, values={5: 1.0, 6: 2.0}),
    "several scopes": lambda m, t: tls.scopes(m, t, methods=("semantic", "fisher", "total_information")),
    "a matrix": lambda m, t: tls.attribution_matrix(m, t[:24], method="fisher"),
    "log-probabilities": lambda m, t: tls.semantic_scope(m, t, pos=SEVERAL, of="log_prob"),
    "logits at many": lambda m, t: tls.semantic_scope(m, t, pos=MANY),
    "log-probabilities at many": lambda m, t: tls.semantic_scope(m, t, pos=MANY, of="log_prob"),
    "temperatures at many": lambda m, t: tls.temperature_scope(m, t, pos=MANY),
    "a matrix of logits": lambda m, t: tls.attribution_matrix(m, t),
    "several prompts": lambda m, t: tls.semantic_scope(m, [t.roll(i) for i in range(6)]),
}


@pytest.mark.one_lens
@pytest.mark.usefixtures("unchecked")  # checks hold arguments
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, *(pytest.param(other, marks=pytest.mark.slow) for other in (torch.float64, torch.bfloat16))],
    ids=str,
)
@pytest.mark.parametrize("capped", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "capped"])
@pytest.mark.parametrize("call", READ_OUTS)
def test_what_is_made_of_a_large_vocabulary_is_estimated(
    call: str, capped: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: Any = transformers.LlamaConfig(
        **WIDTHS | dict(vocab_size=WIDE, intermediate_size=64, num_key_value_heads=2)
    )
    if capped:
        config = transformers.Gemma2Config(
            **WIDTHS | dict(vocab_size=WIDE, intermediate_size=64, head_dim=8, num_key_value_heads=2)
        )
    hf: Any = hugging_face(config, dtype=dtype)
    hf.model.norm.weight.data.add_(1.0 * capped).mul_(4.0).sub_(1.0 * capped)  # p as peaked as a trained model's
    lens = bridge_around(hf)
    monkeypatch.setattr("tl_scopes.numerics.fisher_information.DENSE_COST", 0)
    tokens = torch.randint(WIDE, (80,), generator=torch.Generator().manual_seed(0))
    ratio = estimated_over_measured(lens, lambda: READ_OUTS[call](lens, tokens), monkeypatch)
    within = 1.02 if "at many" in call else 1.2
    assert 1 / within < ratio < within


def planned_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Memory, Run]]:
    """The runs that calls plan, noted as they do; `largest` has their peak."""
    planned: list[tuple[Memory, Run]] = []
    choose = Memory.rows_at_once

    def chosen(self: Memory, run: Run, most: int) -> int:
        n = choose(self, run, most)
        planned.append((self, replace(run, rows=n)))
        return n

    monkeypatch.setattr(Memory, "rows_at_once", chosen)
    return planned


def largest(planned: list[tuple[Memory, Run]], lens: Any) -> int:
    with differentiable(lens):
        return max(memory.peak(run) for memory, run in planned)


def estimated_over_measured(lens: Any, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> float:
    """The largest estimate of the runs that a call plans, over what it takes."""
    planned = planned_runs(monkeypatch)
    call()  # what is made once
    planned.clear()
    with BytesAlive() as watch:
        call()
    return largest(planned, lens) / max(watch.timeline)


@pytest.mark.one_lens
@pytest.mark.usefixtures("unchecked")
def test_rows_of_a_matrix_have_entries_in_their_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config: Any = transformers.LlamaConfig(
        **WIDTHS | dict(hidden_size=256, intermediate_size=512, num_key_value_heads=2, num_hidden_layers=6)
    )
    lens = bridge_around(hugging_face(config, dtype=torch.float32))
    tokens = families.prompt_tokens(40)
    ratio = estimated_over_measured(lens, lambda: tls.attribution_matrix(lens, tokens), monkeypatch)
    assert 1 / 1.2 < ratio < 1.2


@pytest.mark.one_lens
def test_what_torch_copies_in_a_batch_alone_is_estimated() -> None:
    config: Any = transformers.LlamaConfig(
        **WIDTHS | dict(intermediate_size=32, head_dim=64, num_key_value_heads=1, num_hidden_layers=4)
    )
    lens = bridge_around(hugging_face(config, dtype=torch.float32))
    several, run = [families.prompt_tokens(60, seed=i) for i in range(6)], Run(6, 60, 6)
    with differentiable(lens), BytesAlive() as watch:
        found = forward_pass(lens, torch.stack(several), torch.full((6,), 59))
        torch.autograd.grad(found.hidden.sum(), found.source, retain_graph=True)
    with differentiable(lens):
        estimate = planner(lens).peak(run)
    measured = max(watch.timeline)
    assert measured / 1.03 < estimate < measured * 1.03, "keys and values that heads share"


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("of", ["Mamba", "Mamba2"])
def test_layers_with_states_are_measured_and_chunks_counted(of: str, checkpoint: bool) -> None:
    sizes = WIDTHS | dict(state_size=16, expand=2, conv_kernel=4)
    del sizes["num_attention_heads"]
    if of == "Mamba2":
        sizes |= dict(num_heads=4, head_dim=16, n_groups=1, chunk_size=64)
    lens, _ = bridged(getattr(transformers, f"{of}Config")(**sizes))
    plan = planner(lens)
    for length in (40, 100, 300):
        run = Run(1, length, 1, 1, checkpoint)
        with differentiable(lens):
            measured = max(alive(lens, length, plan.recording, run).timeline)
            assert measured <= plan.peak(run) * 1.05
            assert plan.peak(run) <= 2 * measured
        assert coarse_bound(lens, run) >= measured


def test_the_coarse_bound_knows_the_widest_attention_of_any_block() -> None:
    lens = families.build("llama", "bridge", fresh=True).model
    run = Run(1, 48, 1)
    before = coarse_bound(lens, run)
    output = lens.blocks[1].attn.o.original_component
    output.weight = torch.nn.Parameter(output.weight.detach().repeat(1, 16))
    assert coarse_bound(lens, run) > 2 * before


def test_the_estimate_covers_what_autograd_saves_in_a_batch(kind: str) -> None:
    lens = families.build("llama", kind, torch.float32).model
    prompts = [families.prompt_tokens(100, seed=i) for i in range(4)]
    with differentiable(lens):
        estimate = planner(lens).peak(Run(4, 100, 4))
    saved = saved_bytes(lambda: tls.semantic_scope(lens, prompts, checkpoint=False))
    assert saved < estimate < 2.5 * saved


def test_measuring_leaves_the_users_hooks_alone_and_does_not_call_them(kind: str) -> None:
    lens = families.build("gpt2", kind, fresh=True).model
    calls: list[int] = []
    lens.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda t, hook: calls.append(t.shape[1]))
    tls.semantic_scope(lens, TOKENS, memory_budget=2**40)
    assert calls == [12]
    with differentiable(lens):
        planner(lens).peak(Run(1, 50, 1))
    assert calls == [12]
    tls.semantic_scope(lens, TOKENS)
    assert calls == [12, 12]


def test_measuring_sees_the_hooks_where_a_user_has_one_too(kind: str) -> None:
    lens = families.build("gpt2", kind, fresh=True).model
    plain = tls.semantic_scope(lens, TOKENS, target=TARGET)
    for name in ("hook_embed", "unembed.hook_in"):
        lens.hook_dict[name].add_hook(lambda t, hook: t)
    with differentiable(lens):
        budget = planner(lens).peak(Run(1, len(TOKENS), 1))
    found = tls.semantic_scope(lens, TOKENS, target=TARGET, memory_budget=2 * budget)
    assert torch.equal(found.scores, plain.scores)


# -- budgets -----------------------------------------------------------------------------------------


def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool, int]]:
    """``(batch, checkpoint, rows at once)`` of every run, noted as they happen."""
    noted: list[tuple[int, bool, int]] = []
    forward, pull = kernel.forward_pass, pulled_rows.pull_back

    def noting_forward(lens: Any, tokens: Tensor, *args: Any, **options: Any) -> Any:
        noted.append((len(tokens), options["checkpoint"], 0))
        return forward(lens, tokens, *args, **options)

    def noting_pull(*args: Any, **options: Any) -> Any:
        noted[-1] = (*noted[-1][:2], options["at_once"])
        return pull(*args, **options)

    monkeypatch.setattr(kernel, "forward_pass", noting_forward)
    monkeypatch.setattr(pulled_rows, "pull_back", noting_pull)
    return noted


@pytest.mark.slow
def test_a_tighter_budget_takes_smaller_batches_then_fewer_rows_then_checkpoints_and_then_refuses(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens = families.build("gpt2", kind).model
    prompts = [families.prompt_tokens(60, seed=i) for i in range(4)]
    with differentiable(lens):
        plan = planner(lens)
        two, rows, one, least = (
            plan.peak(run) for run in (Run(2, 60, 2), Run(1, 60, 1, 8), Run(1, 60, 1), Run(1, 60, 1, 1, True))
        )
    assert least < one < two < rows
    expected = [attr.scores for attr in tls.fisher_scope(lens, prompts, rank=8)]
    noted = runs(monkeypatch)
    for n, budget, batch, at_once, checkpoint in (
        (4, 100 * two, 4, 8, False),
        (4, two, 2, 1, False),
        (1, rows, 1, 8, False),
        (1, one, 1, 1, False),
        (1, least, 1, 1, True),
    ):
        noted.clear()
        found = tls.fisher_scope(lens, prompts[:n], rank=8, memory_budget=budget)
        assert noted[0] == (batch, checkpoint, at_once), budget
        assert max(oracles.relative_error(f.scores, e) for f, e in zip(found, expected[:n], strict=True)) < 1e-6
    noted.clear()
    with pytest.raises(
        ValueError, match=r"fisher_scope: a run on 60 tokens needs about .* GiB .*memory_budget=\d+ allows"
    ):
        tls.fisher_scope(lens, prompts, rank=8, memory_budget=least // 2)
    assert noted == []


def test_what_the_caller_fixed_is_not_changed_and_the_refusal_names_the_way_out(kind: str) -> None:
    lens = families.build("gpt2", kind).model
    prompts = [families.prompt_tokens(60, seed=i) for i in range(4)]
    with differentiable(lens):
        plan = planner(lens)
        budget = plan.peak(Run(1, 60, 1))
    tls.semantic_scope(lens, prompts, memory_budget=budget)
    with pytest.raises(ValueError, match="in batches of 4 .*checkpoint=True.*smaller batch_size"):
        tls.semantic_scope(lens, prompts, batch_size=4, checkpoint=False, memory_budget=budget)
    with pytest.raises(ValueError, match="with checkpointing, .*shorten the prompt"):
        tls.semantic_scope(lens, prompts[0], checkpoint=True, memory_budget=1000)


def test_without_a_budget_the_free_memory_counts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lens = families.build("gpt2", kind).model
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match="GiB are available"):
        tls.semantic_scope(lens, TOKENS)
    assert tls.semantic_scope(lens, TOKENS, memory_budget=2**40).scores.any(), "a stated budget overrides it"
    monkeypatch.setattr(memory, "_free_bytes", lambda device: None)
    assert tls.semantic_scope(lens, TOKENS).scores.any(), "a device that does not tell refuses nothing"


@pytest.mark.parametrize("at", ["hook_embed", pytest.param("blocks.0.hook_resid_pre", marks=pytest.mark.slow)])
def test_gradients_on_changed_inputs_take_smaller_batches_then_checkpoint_then_refuse(
    kind: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens, tokens = families.build("gpt2", kind).model, families.prompt_tokens(60)

    def integrated() -> Tensor:
        return tls.integrated_gradients(lens, tokens, target=TARGET, n_steps=8, at=at).scores

    with differentiable(lens):
        plan = Memory(lens, Recording(at), budget=1)
        two, one, least = (plan.peak(run) for run in (Run(2, 60, 2), Run(1, 60, 1), Run(1, 60, 1, 1, True)))
    expected = integrated()
    noted: list[tuple[int, bool]] = []
    forward = interventions.forward_pass

    def noting(model: Any, tokens: Tensor, *args: Any, **options: Any) -> Any:
        if torch.is_grad_enabled():
            noted.append((len(tokens), options["checkpoint"]))
        return forward(model, tokens, *args, **options)

    monkeypatch.setattr(interventions, "forward_pass", noting)
    for free, rows in (
        (10**12, {(8, False)}),
        (two, {(2, False)}),
        (one, {(1, False)}),
        (least, {(1, True)}),
    ):
        monkeypatch.setattr(memory, "_free_bytes", lambda device, free=free: free)
        noted.clear()
        assert oracles.relative_error(integrated(), expected) < 1e-9
        assert set(noted) == rows, free
    monkeypatch.setattr(memory, "_free_bytes", lambda device: least // 2)
    noted.clear()
    with pytest.raises(
        ValueError, match=r"integrated_gradients: a run on 60 tokens needs .* half precision$"
    ) as refused:
        integrated()
    assert not noted
    assert "memory_budget" not in str(refused.value), "it has no such keyword"
    assert "checkpoint=" not in str(refused.value)


def test_free_memory_of_this_machine_is_known() -> None:
    free = memory.available_memory(families.build("gpt2", "bridge").model)
    assert free is not None
    assert 2**20 < free < 2**50


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"method": "fisher", "rank": 4}], ids=["semantic", "fisher"])
def test_a_matrix_stays_within_its_budget_and_keeps_its_numbers(kind: str, options: dict[str, Any]) -> None:
    lens = families.build("gpt2", kind).model
    tokens = families.prompt_tokens(48)
    expected = tls.attribution_matrix(lens, tokens, **options).scores
    with differentiable(lens):
        plan = planner(lens)
        tight, least = plan.peak(Run(1, 48, 3)), plan.peak(Run(1, 48, 1, 1, True))
    for budget in (tight, least):
        tls.attribution_matrix(
            lens, tokens, memory_budget=budget, **options
        )  # measures, on runs as long as the text here
        with BytesAlive() as watch:
            found = tls.attribution_matrix(lens, tokens, memory_budget=budget, **options).scores
        assert oracles.relative_error(found, expected) < 1e-9
        assert max(watch.timeline) < 1.25 * budget
    with BytesAlive() as watch:
        tls.attribution_matrix(lens, tokens, **options)
    assert max(watch.timeline) > WITHIN * tight
    with pytest.raises(ValueError, match="attribution_matrix: a run on 48 tokens"):
        tls.attribution_matrix(lens, tokens, memory_budget=least // 2, **options)


@pytest.mark.parametrize("budget", [0, -1])
@pytest.mark.usefixtures("unchecked")
def test_an_impossible_budget_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="memory_budget=.*positive integer"):
        tls.semantic_scope(families.build("gpt2", "bridge").model, TOKENS, memory_budget=budget)


@pytest.mark.slow
def test_measurements_do_not_keep_a_model_alive() -> None:
    lens = families.build("gpt2", "bridge", fresh=True).model
    with differentiable(lens):
        planner(lens).peak(Run(1, 50, 1))
    gone = weakref.ref(lens)
    del lens
    gc.collect()
    assert gone() is None


def test_the_gradients_of_a_split_are_counted_before_it_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact, held and difference are alive together: where only one fits, the split is refused."""
    lens, tokens = families.build("gpt2", kind).model, families.prompt_tokens(60)
    planned = planned_runs(monkeypatch)
    tls.layer_influence(lens, tokens, target=TARGET, checkpoint=True)
    one = largest(planned, lens)
    tls.layer_influence(lens, tokens, target=TARGET, checkpoint=True, memory_budget=one)
    with pytest.raises(ValueError, match="split: a run on 60 tokens"):
        tls.split(lens, tokens, target=TARGET, checkpoint=True, memory_budget=int(1.2 * one))
