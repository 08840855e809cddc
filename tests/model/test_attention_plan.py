"""Invariant: however attention is computed, scores are those of attention as the model writes it, and no tensor ``[T, T]`` is
made where none is asked for.

Long runs are planned; here every run counts as long, and a block has five queries, so that thirteen tokens are three blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import families
import oracles
import pytest
import torch
import transformers
from bridged import WIDTHS, bridge_around, hugging_face
from families import Pair
from torch import Tensor
from torch.nn import functional as F

import tl_scopes as tls
from tl_scopes.baselines.by_name import BASELINES
from tl_scopes.directions.by_name import SCOPES
from tl_scopes.model import attention_plan, deferred, probe_runs
from tl_scopes.model.attention_plan import AttentionPlan, planned
from tl_scopes.model.deferred import Deferred
from tl_scopes.model.forward import RECORDING, Recording, forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import BytesAlive, Run, profile

T = 13
TOKENS = families.prompt_tokens(T)
EQUAL = {torch.float64: 1e-12, torch.float32: 2e-6}
"""Relative to the largest: other orders of the same sums. Hugging Face computes softmaxes in float32 inside a float64 model,
and there the very same operations are done on the very same rows."""


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every run is a long one, with blocks of five queries."""
    for name, value in (("SHORTEST", 2), ("CELLS", 0), ("FEWEST", 5)):
        monkeypatch.setattr(attention_plan, name, value)
    return monkeypatch


def gradient(lens: Any, **options: Any) -> tuple[Tensor, list[str]]:
    attr = tls.semantic_scope(lens, TOKENS, target=7, pos=11, keep_gradient=True, **options)
    return attr.gradient, attr.details.get("attention", [])


# -- equal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_fused_blocks_and_eager_give_the_same_gradients(
    pair: Pair, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens = families.build(pair.family, pair.kind, dtype).model
    eager, short = gradient(lens)
    assert short == [], "a short prompt is not planned"
    for name, value in (("SHORTEST", 2), ("CELLS", 0), ("FEWEST", 5)):
        monkeypatch.setattr(attention_plan, name, value)
    best, paths = gradient(lens)
    again, checkpointed = gradient(lens, checkpoint=True)
    monkeypatch.setattr(attention_plan, "_has_kernel", lambda *args: False)
    blocks, all_blocks = gradient(lens, checkpoint=True)
    assert len(paths) == lens.cfg.n_layers and "eager" not in paths
    assert checkpointed == paths and set(all_blocks) == {"blocks"}
    if pair.family == "gpt2":
        assert set(paths) == {"fused"}
    if pair.family in ("mistral", "gemma2"):
        assert set(paths) == {"blocks"}, "windows, and caps on scores"
    assert torch.equal(again, best)
    for found in (best, blocks):
        assert oracles.relative_error(found, eager) < EQUAL[dtype]


@pytest.mark.on_families("gemma3", slow=("llama", "gpt2"))
def test_batches_several_rows_and_a_matrix_are_the_same_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    lens = families.build(pair.family, pair.kind, torch.float32).model
    prompts = [TOKENS, TOKENS[:7], families.prompt_tokens(10, seed=1)]

    def results() -> list[Tensor]:
        return [
            *(a.scores for a in tls.fisher_scope(lens, prompts, rank=3)),
            tls.attribution_matrix(lens, TOKENS).scores,
            tls.leave_one_out(lens, TOKENS, target=7).scores,
        ]

    eager = results()
    for name, value in (("SHORTEST", 2), ("CELLS", 0), ("FEWEST", 5)):
        monkeypatch.setattr(attention_plan, name, value)
    for found, expected in zip(results(), eager, strict=True):
        assert oracles.relative_error(found.nan_to_num(), expected.nan_to_num()) < 1e-5, "Fisher's search stops at 1e-4"


# -- what mixes rows and what does not -----------------------------------------------------------------


def causal(scores: Tensor) -> Tensor:
    seen = torch.tril(torch.ones(T, T, dtype=torch.bool))
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min)


def window(scores: Tensor) -> Tensor:
    q, k = torch.arange(T)[:, None], torch.arange(T)[None]
    seen = (k <= q) & (k > q - 4)
    return scores + torch.where(seen, torch.zeros(()), torch.finfo(torch.float32).min)


def with_sink(scores: Tensor) -> Tensor:
    combined = torch.cat([causal(scores), scores.new_ones(1).reshape(1, 1, 1, 1).expand(2, 3, T, 1)], dim=-1)
    combined = combined - combined.max(dim=-1, keepdim=True).values
    return F.softmax(combined, dim=-1)[..., :-1]


def in_place(scores: Tensor) -> Tensor:
    first = scores * 2
    scores += torch.arange(T) * 0.1
    scores.masked_fill_(torch.triu(torch.ones(T, T), diagonal=1) == 1, -torch.inf)
    return (scores + first).softmax(-1)


WRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "plain": (lambda s: F.softmax(causal(s * 0.3), dim=-1), "fused"),
    "window": (lambda s: F.softmax(window(s), dim=-1).to(s.dtype), "blocks"),
    "not causal": (lambda s: F.softmax(s, dim=-1), "blocks"),
    "bias of positions": (lambda s: (causal(s) + torch.arange(T) * 0.2).softmax(-1), "blocks"),
    "cap before the mask": (lambda s: causal(torch.tanh(s / 2) * 2).softmax(-1), "blocks"),
    "cap after the mask": (lambda s: (torch.tanh(causal(s) / 2) * 2).softmax(-1), "blocks"),
    "sink": (with_sink, "blocks"),
    "in place": (in_place, "blocks"),
    "padding": (
        lambda s: causal(s).masked_fill((torch.arange(T) < 3)[None, None, None], -torch.inf).softmax(-1).nan_to_num(),
        "blocks",
    ),
    "other shapes": (lambda s: causal(s.view(6, T, T)).softmax(-1).reshape(2, 3, T, T)[:, :], "blocks"),
    "mixes queries": (lambda s: causal(s).softmax(-1).cumsum(-2), "eager"),
    "looks at a number": (lambda s: s.softmax(-1) * (2 if bool((s > 0).any()) else 1), "blocks"),
    "takes half of the keys": (lambda s: F.pad(s[..., :6].softmax(-1), (0, T - 6)), "eager"),
}


@pytest.mark.one_lens
@pytest.mark.parametrize("name", WRITTEN)
def test_attention_however_it_is_written_keeps_its_values_and_gradients(name: str, long: Any) -> None:
    written, expected = WRITTEN[name]
    q, k, v = torch.randn(3, 2, 3, T, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    plan = AttentionPlan(T)

    def attention() -> list[Tensor]:
        inputs = [t.clone().requires_grad_(True) for t in (q, k, v)]
        z = torch.matmul(written(torch.matmul(inputs[0], inputs[1].transpose(-1, -2))), inputs[2])
        assert type(z) is Tensor
        return [z, *torch.autograd.grad(z.sin().sum(), inputs)]

    eager = attention()
    with planned(plan, ()):
        found = attention()
    assert plan.chosen == [expected]
    assert all(oracles.relative_error(a, b) < 1e-13 for a, b in zip(found, eager, strict=True))


# -- who keeps the eager path ---------------------------------------------------------------------------


def test_a_users_hook_at_a_pattern_gets_all_of_it_and_acts(kind: str, long: Any) -> None:
    lens, shapes = families.build("gpt2", kind, fresh=True).model, []
    without, _ = gradient(lens)

    def halve(pattern: Tensor, hook: Any) -> Tensor:
        shapes.append((type(pattern), tuple(pattern.shape)))
        return pattern * 0.5

    lens.hook_dict["blocks.1.attn.hook_pattern"].add_hook(halve)
    found, paths = gradient(lens)
    assert set(shapes) == {(Tensor, (1, lens.cfg.n_heads, T, T))}
    assert paths == ["fused", "eager"]
    long.setattr(attention_plan, "SHORTEST", T + 1)
    assert oracles.relative_error(found, gradient(lens)[0]) < EQUAL[found.dtype]
    assert oracles.relative_error(found, without) > 1e-3


def test_every_result_says_how_attention_was_computed(kind: str, long: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lens, v = families.build("gpt2", kind).model, torch.ones(families.D_MODEL, dtype=torch.float64)
    needs = {"contrast": dict(foil=3), "jacobian": dict(direction=v), "moment": dict(values={3: 1.0, 4: 2.0})}
    said = {}
    for name, call in {**{f"{n}_scope": getattr(tls, f"{n}_scope", None) for n in SCOPES}, **BASELINES}.items():
        if call is not None:
            said[name] = call(lens, TOKENS, **needs.get(name.removesuffix("_scope"), {})).details.get("attention")
    said["total_information"] = tls.total_information(lens, TOKENS).details.get("attention")
    layers = tls.layer_influence(lens, TOKENS, target=7)
    said["layer_influence"] = layers.attribution.details.get("attention")
    said["verdict"] = tls.verdict(lens, layers.attribution, n_random=1).attribution.details.get("attention")
    said["ig_path"] = tls.ig_path(lens, TOKENS, 7, alphas=(0.5, 1.0)).provenance.get("attention")
    assert {"semantic_scope", "fisher_scope", "temperature_scope", "contrast_scope", "jacobian_scope"} <= said.keys()
    assert said.pop("attention_rollout") == ["eager", "eager"], "it sees every pattern"
    assert said == {name: ["fused", "fused"] for name in said}
    rows = tls.attribution_matrix(lens, TOKENS)
    assert rows.details["attention"] == [["fused", "fused"]] * T
    assert rows.row(T - 1).details["attention"] == ["fused", "fused"]
    monkeypatch.setattr(attention_plan, "SHORTEST", T + 1)
    assert "attention" not in tls.attribution_matrix(lens, TOKENS).details
    assert "attention" not in tls.leave_one_out(lens, TOKENS, target=7).details


def test_patterns_and_scores_that_are_asked_for_are_there(kind: str, long: Any) -> None:
    lens = families.build("gemma2", kind).model
    names = ["blocks.0.attn.hook_pattern", "blocks.2.attn.hook_attn_scores"]
    options: Any = dict(target=7, cache=names, grads_at=names[:1])
    found = tls.semantic_scope(lens, TOKENS, **options)
    assert found.details["attention"] == ["eager", "blocks", "eager"]
    long.setattr(attention_plan, "SHORTEST", T + 1)
    expected = tls.semantic_scope(lens, TOKENS, **options)
    for name in expected.cache:
        pair = (c[name].nan_to_num(neginf=0.0) for c in (found.cache, expected.cache))
        assert oracles.relative_error(*pair) < 1e-12, name


@pytest.mark.on_families("llama")
@pytest.mark.parametrize("frozen", ["norms", "attention", "activations", "all"])
def test_a_run_that_holds_something_is_as_the_model_writes_it(pair: Pair, frozen: Any, long: Any) -> None:
    found, paths = gradient(pair.model, frozen=frozen)
    assert paths == []
    long.setattr(attention_plan, "SHORTEST", T + 1)
    assert torch.equal(found, gradient(pair.model, frozen=frozen)[0])


def test_a_split_is_the_same_in_a_long_run(long: Any) -> None:
    lens = families.build("gpt2", "bridge").model
    found = tls.split(lens, TOKENS, target=7)
    long.setattr(attention_plan, "SHORTEST", T + 1)
    assert torch.equal(found.frozen.scores, tls.split(lens, TOKENS, target=7).frozen.scores)


# -- what stays ---------------------------------------------------------------------------------------


def test_other_threads_and_the_model_afterwards_know_nothing_of_it(kind: str, long: Any) -> None:
    lens, seen = families.build("gpt2", kind, fresh=True).model, []
    before = {id(point): dict(point.__dict__) for point in lens.hook_dict.values()}
    q = torch.ones(1, 1, T, 4)

    def look(activation: Tensor, hook: Any) -> None:
        here = torch.matmul(q, q.transpose(-1, -2))
        there: list[Tensor] = []
        thread = threading.Thread(target=lambda: there.append(torch.matmul(q, q.transpose(-1, -2))))
        thread.start()
        thread.join()
        seen.append((type(here), type(there[0])))

    def fail(activation: Tensor, hook: Any) -> None:
        raise RuntimeError("in the forward")

    with lens.hooks(fwd_hooks=[("blocks.0.hook_resid_post", look)]):
        gradient(lens)
    assert seen == [(Deferred, Tensor)]
    with (
        lens.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", fail)]),
        pytest.raises(RuntimeError, match="in the forward"),
    ):
        gradient(lens, checkpoint=True)
    assert type(torch.matmul(q, q.transpose(-1, -2))) is Tensor
    for point in lens.hook_dict.values():
        assert ("forward" in point.__dict__) == ("forward" in before[id(point)])
    assert not any(isinstance(value, Deferred) for module in lens.modules() for value in module.__dict__.values())


# -- memory -------------------------------------------------------------------------------------------


def alive(lens: Any, length: int, checkpoint: bool, rows: int = 1, recording: Recording = RECORDING) -> BytesAlive:
    tokens = families.prompt_tokens(length)[None]
    with differentiable(lens), BytesAlive(length) as watch:
        run = forward_pass(lens, tokens, torch.tensor([length - 1]), recording, checkpoint=checkpoint)
        seed = torch.ones(rows, *run.hidden.shape) if rows > 1 else torch.ones_like(run.hidden)
        sources = [run.source, *(run.activations[name] for name in recording.grads)]
        torch.autograd.grad(run.hidden, sources, seed, retain_graph=True, is_grads_batched=rows > 1)
    return watch


@pytest.mark.on_families("gpt2", "gemma2")
@pytest.mark.parametrize("checkpoint", [False, True])
def test_memory_grows_with_the_length_and_not_with_its_square(pair: Pair, checkpoint: bool, long: Any) -> None:
    lens = families.build(pair.family, pair.kind, torch.float32).model
    long.setattr(attention_plan, "CELLS", 2**11)
    short, twice = (alive(lens, n, checkpoint) for n in (63, 126))
    assert max(twice.timeline) < 2.1 * max(short.timeline)
    if pair.kind == "bridge":  # a HookedTransformer has a mask of its own, [n_ctx, n_ctx]
        assert not any(twice.squares)
    long.setattr(attention_plan, "SHORTEST", 1000)
    assert max(alive(lens, 126, checkpoint).timeline) > 1.3 * max(twice.timeline)


@pytest.mark.one_lens
@pytest.mark.parametrize("of", ["Gemma3Text", pytest.param("Mistral", marks=pytest.mark.slow)])
def test_estimates_know_windows_that_probes_do_not_reach(of: str, long: Any) -> None:
    length = 800
    sizes = WIDTHS | dict(intermediate_size=64, head_dim=8, num_key_value_heads=2, max_position_embeddings=1024)
    config = getattr(transformers, f"{of}Config")(**sizes, sliding_window=48)
    lens = bridge_around(hugging_face(config, dtype=torch.float32))
    long.setattr(attention_plan, "CELLS", 4 * 400 * length)
    run = Run(1, length, 1, 1, checkpoint=True)
    with differentiable(lens):
        estimate = Memory(lens, budget=1).peak(run)
    measured = max(alive(lens, length, checkpoint=True).timeline)
    assert measured / 1.02 < estimate < measured * 1.02


@pytest.mark.on_families("gpt2", "gemma3", slow=("llama", "gemma2", "neox", "cohere"))
@pytest.mark.parametrize("batch", [1, 2])
def test_a_first_estimate_follows_every_operation(pair: Pair, batch: int) -> None:
    lens = families.build(pair.family, pair.kind, torch.float32, fresh=True).model
    deferred._RESULTS.clear()  # what a process learns once
    run = Run(batch, 300, batch, 1, checkpoint=True)
    with differentiable(lens):
        first = profile(lens, RECORDING, run)
        probe_runs._PROFILES.clear()
        again = profile(lens, RECORDING, run)
    assert torch.equal(first.coefficients, again.coefficients)
    assert len(first.coefficients) > 100, "peaks alone do not tell how each operation grows"


@pytest.mark.on_families("gpt2", slow=("gemma2", "gemma3"))
@pytest.mark.parametrize("rows", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_estimates_are_right_on_every_path(pair: Pair, rows: int, long: Any) -> None:
    lens = families.build(pair.family, pair.kind, torch.float32).model
    long.setattr(attention_plan, "SHORTEST", 64)
    long.setattr(attention_plan, "CELLS", 2**12)
    for checkpoint in (False, True):
        run = Run(1, 126, 1, rows, checkpoint)
        pattern = ("blocks.1.attn.hook_pattern",)
        for recording in (
            Recording(),
            Recording(frozen=("attention",)),
            Recording(cache=pattern),
            Recording(grads=pattern, cache=pattern),
        ):
            with differentiable(lens):
                estimate = Memory(lens, recording, budget=1).peak(run)
            measured = max(alive(lens, 126, checkpoint, rows, recording).timeline)
            assert measured / 1.2 < estimate < measured * 1.2, (checkpoint, recording, estimate / measured)
