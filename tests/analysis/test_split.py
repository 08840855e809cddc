"""Invariant: exact = carried + looked at, as vectors, where looked at is what moves while only the patterns of attention may.

The oracle is plain Hugging Face, slow and without a derivative: for ``s = f(x, A)`` with embeddings x and all patterns A,
the central difference of ``ε ↦ f(x, A(x + εδ))`` along δ. A first run on ``x + εδ`` gives queries and keys; a second one
begins at x and has patterns of these, while its values, streams and all else are what they come to. That is the total
derivative through A alone, at any depth: every way from x to s that passes through a pattern, for ``A(x)`` has them all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import architectures
import families
import frozen_models
import oracles
import pytest
import torch
from families import Pair
from oracles import relative_error
from torch import Tensor

import tl_scopes as tls
from tl_scopes.model.forward import forward_pass
from tl_scopes.results.split import Split

TOKENS = torch.tensor(families.tokenizer()(families.PROMPT).input_ids)
TARGET, LAST = 7, len(TOKENS) - 1
METHODS: dict[str, dict[str, Any]] = {
    "semantic": {"target": TARGET},
    "contrast": {"target": TARGET, "foil": 8},
    "fisher": {"rank": 3},
    "temperature": {},
    "total_information": {"rank": 2, "n_samples": 16},
    "moment": {"moment": "variance"},
    "jacobian": {"direction": torch.randn(2, families.D_MODEL, generator=torch.Generator().manual_seed(1))},
}
RARE = ("contrast", "temperature", "moment")
SEVERAL_ROWS = ("fisher", "total_information", "jacobian")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(kind: str, family: str = "llama") -> Any:
    return families.build(family, kind).model


# -- the difference is what goes through patterns --------------------------------------------------------------


@contextmanager
def queries_and_keys(hf: Any, of: list[tuple[Tensor, Tensor]], *, taken: bool) -> Iterator[None]:
    """Note the queries and keys of every attention in ``of``; or, with ``taken``, put these in the place of the run's own."""
    file: Any = sys.modules[type(hf).__module__]
    eager, calls = file.eager_attention_forward, iter(list(of))

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        if taken:
            query, key = next(calls)
        else:
            of.append((query, key))
        return eager(module, query, key, value, *args, **kwargs)

    with mock.patch.object(file, "eager_attention_forward", attend):
        yield


@contextmanager
def shifted(hf: Any, block: int, shift: Tensor) -> Iterator[None]:
    """A run whose stream is shifted where it enters a block."""
    base = hf.base_model
    layer = (getattr(base, "layers", None) or base.h)[block]

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (args[0] + shift, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + shift}

    handle = layer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def looked(pair: Pair, direction: Tensor, block: int | None = None) -> float:
    """``d/dε f(x, A(x + εδ))`` at 0; with a block, of the stream that enters it in the place of x."""
    hf, step = pair.hf, 1e-5 if pair.family == "gpt2" else 2e-3
    x, values = oracles.embeddings(hf, TOKENS), []
    for sign in (1, -1):
        moved: list[tuple[Tensor, Tensor]] = []
        shift = sign * step * direction
        with ExitStack() as stack:
            if block is not None:
                stack.enter_context(shifted(hf, block, shift))
            stack.enter_context(queries_and_keys(hf, moved, taken=False))
            oracles.run(hf, x if block is not None else x + shift)
        with queries_and_keys(hf, moved, taken=True):
            values.append(float(oracles.run(hf, x).logits[LAST, TARGET]))
    return (values[0] - values[1]) / (2 * step)


def tolerance(pair: Pair) -> float:
    """Of what GPT-2, float64 throughout, and families that compute norms in float32 leave of a central difference."""
    return 1e-7 if pair.family == "gpt2" else 5e-3


@pytest.mark.on_families("gpt2", "gemma2", slow=("llama", "neox", "neox_sequential", "mistral", "gemma3"))
def test_the_difference_is_what_moves_while_only_patterns_may(pair: Pair) -> None:
    parts = tls.split(pair.model, TOKENS, target=TARGET, keep_gradient=True)
    gradients = [part.gradient for part in parts.parts.values()]
    for seed in range(2):
        direction = drawn(len(TOKENS), pair.model.cfg.d_model, seed=seed)
        exact, carried, found = (float((g * direction).sum()) for g in gradients)
        moved = looked(pair, direction)
        scale = max(map(abs, (exact, carried, found)))
        assert abs(found - moved) < tolerance(pair) * scale
        assert abs(exact - moved) > 3 * tolerance(pair) * scale, "it is not all that there is"
        assert abs(found) > 3 * tolerance(pair) * scale, "and not nothing"


def test_signed_numbers_are_derivatives_along_the_embeddings(kind: str) -> None:
    pair = families.build("gpt2", kind)
    parts, x = tls.split(pair.model, TOKENS, target=TARGET), oracles.embeddings(pair.hf, TOKENS)
    for t in (3, LAST):
        along = torch.zeros_like(x)
        along[t] = x[t]
        assert float(parts.signed[2, t]) == pytest.approx(looked(pair, along), rel=1e-6)


def test_at_a_layer_it_is_what_goes_from_there_through_this_block_and_later_ones(kind: str) -> None:
    pair = families.build("gpt2", kind)
    parts = tls.split(pair.model, TOKENS, target=TARGET)
    for block in range(pair.model.cfg.n_layers):
        hook = f"blocks.{block}.hook_resid_pre"
        there = tls.split(pair.model, TOKENS, target=TARGET, at=hook, keep_gradient=True)
        direction = drawn(len(TOKENS), pair.model.cfg.d_model, seed=block)
        found = float((there.difference.gradient * direction).sum())
        assert found == pytest.approx(looked(pair, direction, block), rel=1e-6)
        assert parts.hooks[block] == hook
        for i, part in enumerate(there.parts.values()):
            assert relative_error(parts.layers[i, block], part.scores) < 1e-12
    assert not parts.layers[2, -1].any(), "nothing looks at the stream after the last block"


@pytest.mark.on_families("gpt2", "llama", "gemma2", slow=("neox", "mistral", "gemma3", "cohere"))
def test_both_gradients_are_hugging_faces_with_live_and_with_detached_patterns(pair: Pair) -> None:
    parts = tls.split(pair.model, TOKENS, target=TARGET, keep_gradient=True)

    def expected(held: set[str]) -> Tensor:
        with frozen_models.detached(pair.hf, held):
            return oracles.hf_gradient(pair.hf, TOKENS, LAST, lambda z, y: z[TARGET])

    exact, frozen = expected(set()), expected({"attention"})
    within = families.FLOAT64_RTOL[pair.family]
    assert relative_error(parts.exact.gradient, exact) < within
    assert relative_error(parts.frozen.gradient, frozen) < within
    assert relative_error(parts.difference.gradient, exact - frozen) < 20 * within


# -- the same numbers as the calls that it joins -----------------------------------------------------------------


@pytest.mark.parametrize("method", [pytest.param(m, marks=[pytest.mark.slow] * (m in RARE)) for m in METHODS])
def test_each_half_is_the_scope_to_the_bit(method: str, kind: str) -> None:
    model, given = some(kind), {"method": method, **METHODS[method]}
    parts = tls.split(model, TOKENS, **given)
    heads = "sensitivity" if method in SEVERAL_ROWS else "signed"
    assert parts.head_kind == heads
    assert (parts.signed is None) == (method in SEVERAL_ROWS)
    for i, frozen in enumerate(((), "attention")):
        layers = tls.layer_influence(model, TOKENS, frozen=frozen, **given)
        name = ("exact", "frozen")[i]
        assert torch.equal(parts.parts[name].scores, layers.attribution.scores)
        assert parts.parts[name].details == layers.attribution.details
        assert parts.parts[name].provenance == layers.attribution.provenance
        assert torch.equal(parts.layers[i], layers.scores)
        by_head = tls.head_influence(model, TOKENS, kind=heads, frozen=frozen, **given)
        assert torch.equal(parts.heads[i], by_head.scores)
        assert parts.blocks == by_head.layers


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MixtralForCausalLM", "Qwen3ForCausalLM", "DeepseekV3ForCausalLM", "FalconForCausalLM"]
)
def test_a_valve_stands_wherever_attention_is_held(name: str) -> None:
    model = architectures.build(name).model
    parts = tls.split(model, TOKENS, target=TARGET)
    assert torch.equal(parts.exact.scores, tls.semantic_scope(model, TOKENS, target=TARGET).scores)
    held = tls.semantic_scope(model, TOKENS, target=TARGET, frozen="attention").scores
    assert relative_error(parts.frozen.scores, held) < 1e-12
    assert parts.difference.scores.max() > 1e-3 * held.max()


@pytest.mark.parametrize("method", [pytest.param(m, marks=[pytest.mark.slow] * (m in RARE)) for m in METHODS])
def test_what_adds_adds_and_shares_are_those_of_the_vectors(method: str, kind: str) -> None:
    model = some(kind)
    parts = tls.split(model, TOKENS, method=method, **METHODS[method])
    assert parts.share_carried + parts.share_looked == 1
    if method not in SEVERAL_ROWS:
        assert relative_error(parts.signed[1] + parts.signed[2], parts.signed[0]) < 1e-9
        assert relative_error(parts.heads[1] + parts.heads[2], parts.heads[0]) < 1e-9
        kept = tls.split(model, TOKENS, method=method, keep_gradient=True, **METHODS[method])
        exact, frozen, difference = (part.gradient[parts.shown] for part in kept.parts.values())
        assert relative_error(frozen + difference, exact) < 1e-12
        assert parts.share_carried == pytest.approx(float((exact * frozen).sum() / exact.square().sum()), rel=1e-9)
        assert parts.share_looked == pytest.approx(float((exact * difference).sum() / exact.square().sum()), rel=1e-9)
    whole, *halves = (
        part.scores if method != "total_information" else part.scores.sqrt() for part in parts.parts.values()
    )
    assert bool((whole <= sum(halves) * (1 + 1e-9)).all())
    assert float(parts.share_by_layer[0]) == pytest.approx(parts.share_carried, rel=1e-9)
    assert float(parts.share_by_layer[-1]) == 1
    assert not parts.heads[2][-1].any(), "heads of the last layer are looked at by none"


def test_rows_of_several_directions_join_by_their_squares(kind: str) -> None:
    model, directions = some(kind), METHODS["jacobian"]["direction"]
    parts = tls.split(model, TOKENS, method="jacobian", direction=directions)
    alone = [tls.split(model, TOKENS, method="jacobian", direction=row, keep_gradient=True) for row in directions]
    squares = sum(one.difference.scores.square() for one in alone)
    assert relative_error(parts.difference.scores.square(), squares) < 1e-9
    pairs = [[part.gradient[parts.shown] for part in (one.exact, one.frozen)] for one in alone]
    carried = sum(float((exact * frozen).sum()) for exact, frozen in pairs)
    whole = sum(float(exact.square().sum()) for exact, _ in pairs)
    assert parts.share_carried == pytest.approx(carried / whole, rel=1e-9)


def test_one_forward_and_two_backwards(kind: str) -> None:
    model = some(kind)
    tls.split(model, TOKENS, target=TARGET)
    with (
        mock.patch("tl_scopes.kernel.explain.forward_pass", wraps=forward_pass) as forward,
        mock.patch("torch.autograd.grad", wraps=torch.autograd.grad) as grad,
    ):
        tls.split(model, TOKENS, target=TARGET)
    assert (forward.call_count, grad.call_count) == (1, 2)


# -- ways of running ---------------------------------------------------------------------------------------------


def same(a: Split, b: Split, within: float) -> None:
    for name, part in a.parts.items():
        assert relative_error(part.scores, b.parts[name].scores) < within
    assert relative_error(a.layers, b.layers) < within
    assert relative_error(a.heads, b.heads) < within
    assert (a.signed is None) == (b.signed is None)
    if a.signed is not None:
        assert relative_error(a.signed, b.signed) < within


@pytest.mark.parametrize("method", ["semantic", "fisher"])
def test_checkpointed_it_is_the_same_to_the_bit(method: str, kind: str) -> None:
    plain, again = (
        tls.split(some(kind, "gpt2"), TOKENS, method=method, checkpoint=c, **METHODS[method]) for c in (False, True)
    )
    same(plain, again, 1e-300)


def test_a_batch_has_the_numbers_of_each_prompt_alone(kind: str) -> None:
    model = some(kind)
    prompts = [families.prompt_tokens(n, seed=n) for n in (12, 5, 9)]
    together = tls.split(model, prompts, target=TARGET)
    for one, prompt in zip(together, prompts, strict=True):
        same(one, tls.split(model, prompt, target=TARGET), 5e-6)
    lanes = tls.split(model, [TOKENS] * 2, target=[TARGET, 8], pos=[LAST, 6])
    same(lanes[1], tls.split(model, TOKENS, target=8, pos=6), 5e-6)


def test_several_positions_are_explained_together_and_answers_of_several_tokens(kind: str) -> None:
    model = some(kind, "gpt2")
    joint = tls.split(model, TOKENS, pos=[4, 6], keep_gradient=True)
    alone = [tls.split(model, TOKENS, pos=p, target=int(TOKENS[p + 1]), keep_gradient=True) for p in (4, 6)]
    added = sum(one.difference.gradient for one in alone)
    assert relative_error(joint.difference.gradient, added) < 1e-9
    assert relative_error(joint.signed, alone[0].signed + alone[1].signed) < 1e-9
    apart = tls.split(model, TOKENS, pos=[4, 6], combine="norm")
    squares = sum(one.difference.scores.square() for one in alone)
    assert relative_error(apart.difference.scores.square(), squares) < 1e-9
    assert apart.signed is None
    answer = tls.split(model, families.PROMPT, target=" the old man")
    assert len(answer.exact.answer) == 3
    assert "answer" in answer.html()
    compared = tls.split(
        model, families.PROMPT, method="contrast", target=" old man", foil=" new city", keep_gradient=True
    )
    subtracted = compared.exact.gradient - compared.frozen.gradient
    assert relative_error(compared.difference.gradient, subtracted) < 1e-12


# -- what is said ------------------------------------------------------------------------------------------------


def test_it_holds_attention_itself(kind: str, unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"split\(\).*unexpected keyword argument 'frozen'"):
        tls.split(some(kind), TOKENS, frozen="norms")
    with pytest.raises(ValueError, match=r"^split\(method='layers'\): expected one of"):
        tls.split(some(kind), TOKENS, method="layers")


def test_a_difference_predicts_no_change(kind: str) -> None:
    parts = tls.split(some(kind), TOKENS, target=TARGET)
    assert tls.verify(some(kind), parts.frozen, top=1).attribution is parts.frozen
    with pytest.raises(ValueError, match=r"^verify\(attribution=\.\.\.\): the difference of two gradients predicts no"):
        tls.verify(some(kind), parts.difference, top=1)


@pytest.mark.slow
def test_a_state_space_mixer_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^split: one half .* carries a state from token to token in \w*Mixer"):
        tls.split(architectures.build("MambaForCausalLM").model, TOKENS, target=TARGET)


def test_where_heads_are_not_shown_there_are_tokens_and_layers(kind: str) -> None:
    model, why = some(kind), "TransformerLens shows no attn.hook_z"
    with mock.patch("tl_scopes.analysis.split.attention_layers", side_effect=ValueError(why)):
        parts = tls.split(model, TOKENS, target=TARGET)
    assert parts.heads is None
    assert parts.by_head == {}
    assert parts.notes == (f"By token and layer only: {why}.",)
    assert why in parts.html() and why in str(parts)
    assert "By head" not in parts.html()
    assert parts.by_layer.keys() == {"exact", "frozen", "difference"}


def test_the_three_say_which_gradient_they_are_of(kind: str) -> None:
    parts = tls.split(some(kind), TOKENS, target=TARGET)
    assert "frozen)" not in str(parts.exact)
    assert "(attention frozen)" in str(parts.frozen)
    assert "(through where the model looks)" in str(parts.difference)
    assert parts.frozen.provenance["frozen"] == ["attention"]
    assert parts.difference.provenance["through"] == ["attention"]


def test_units_keep_the_shares_and_sums_of_their_tokens(kind: str) -> None:
    parts = tls.split(some(kind), families.PROMPT, target=TARGET)
    units = parts.by_unit([("first", "the dog saw a cat")])
    assert units.difference.str_tokens == units.exact.str_tokens == units.by_layer["difference"].str_tokens
    assert units.share_carried == pytest.approx(parts.share_carried, rel=1e-9)
    assert units.signed.sum(1).tolist() == pytest.approx(parts.signed.sum(1).tolist())
    assert units.heads.shape[-1] == len(units.tokens) == len(units.to_frame())
    assert "signed_difference" in units.to_frame()


def test_left_out_tokens_leave_the_shares(kind: str) -> None:
    parts = tls.split(some(kind), TOKENS, target=TARGET)
    best = parts.difference.top(1)[0].pos
    without = parts.without([best])
    assert {frozenset(part.hidden) for part in without.parts.values()} == {frozenset({0, best})}
    assert without.share_looked != parts.share_looked
    assert torch.equal(without.difference.scores, parts.difference.scores)
    assert not without.to_frame().shown[best]


def test_a_baseline_of_whole_gradients_refuses_a_difference_of_two(kind: str) -> None:
    model, tokens = families.build("gpt2", kind).model, families.prompt_tokens(12)
    parts = tls.split(model, tokens, target=7)
    typical = tls.positional_baseline(model, tokens, unrelated=2)
    assert typical.corrected(parts.exact).scores.any()
    with pytest.raises(ValueError, match="difference of two gradients"):
        typical.ratio(parts.difference)
