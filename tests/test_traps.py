"""The ten traps that a quick implementation falls into, one test or a few for each, and the swap that known causes rest on.

Invariant: where the care is needed the numbers equal the oracle's, and where there is no answer the call is refused
with the way out. `test_mutations.py` removes each care from the package and sees the trap's own test here fail; for
that every test takes `kind` alone, owns what it changes, and reads the package through `tl_scopes`.

Tolerances: `families.rtol` and its constants, argued there; `ROUNDING` for two orders of float64 summation.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import replace
from typing import Any

import families
import oracles
import pytest
import torch
from families import VOCAB, Pair
from invariants import model_flags
from oracles import relative_error
from torch import Tensor

import tl_scopes as tls
from tl_scopes.demo.corpora import examples
from tl_scopes.demo.corpora.passages import Swap
from tl_scopes.evaluation import acceptance as judged

TARGET, FOIL = VOCAB[" house"], VOCAB[" city"]
ROUNDING = 1e-12
FLOAT32_ROUNDING = 1e-6
"""A float32 result of float32 inputs against the same in float64: a few units of 6e-8."""
HOW_TO_LOAD = {"hooked": "HookedTransformer.from_pretrained_no_processing", "bridge": "boot_transformers"}


def families_on(kind: str, *names: str) -> list[Pair]:
    return [families.build(name, kind) for name in names if families.supported(name, kind)]


def reference_log_probs(pair: Pair, tokens: Tensor) -> Tensor:
    return oracles.run_tokens(pair.hf, tokens).logits.detach().log_softmax(-1)


# -- 1. folded final norm --------------------------------------------------------------------------


def test_trap_01_folded_norm_is_refused(kind: str) -> None:
    tokens = families.prompt_tokens()
    for family in ("gpt2", "llama"):
        model = families.processed(family, kind).model
        for scope, name in ((tls.temperature_scope, "temperature"), (tls.fisher_scope, "fisher")):
            refusal = rf"{name}_scope: .*final norm is folded into the unembedding.*{re.escape(HOW_TO_LOAD[kind])}"
            with pytest.raises(ValueError, match=refusal):
                scope(model, tokens)
        with pytest.raises(ValueError, match=r"scopes: .*folded into the unembedding"):
            tls.scopes(model, tokens)


def test_trap_01_native_unit_gain_has_a_fisher_scope_but_no_temperature_scope(kind: str) -> None:
    pair = families.native_unit_gain(kind)
    tokens = families.prompt_tokens()
    with pytest.raises(ValueError, match=r"same gain for every unit.*no Temperature Scope"):
        tls.temperature_scope(pair.model, tokens)
    attr = tls.fisher_scope(pair.model, tokens)
    assert relative_error(attr.scores, oracles.fisher(pair.hf, tokens, 11)) < families.rtol(pair)


def test_trap_01_centred_unembedding_is_said_in_the_result(kind: str) -> None:
    tokens = families.prompt_tokens()
    centred = tls.semantic_scope(families.processed("llama", kind).model, tokens, target=TARGET)
    raw = tls.semantic_scope(families.build("llama", kind).model, tokens, target=TARGET)
    assert relative_error(centred.scores, raw.scores) > 0.01, "nothing to warn of"
    assert any("center_unembed" in note for note in centred.notes)
    assert centred.details["centred_unembedding"] is True
    assert raw.notes == ()
    assert raw.details["centred_unembedding"] is False


def test_trap_01_folding_after_the_first_call_is_noticed(kind: str) -> None:
    own = families.build("llama", kind, fresh=True).model
    tls.temperature_scope(own, families.prompt_tokens())
    if kind == "hooked":
        own.process_weights_()
    else:
        own.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(ValueError, match="folded into the unembedding"):
        tls.temperature_scope(own, families.prompt_tokens())


# -- 2. full-vocabulary logits ---------------------------------------------------------------------


def test_trap_02_logits_exist_at_the_explained_positions_only(kind: str) -> None:
    pair = families.build("gpt2", kind)
    shapes: list[list[int]] = []

    def see(logits: Tensor, hook: Any) -> None:
        shapes.append(list(logits.shape))

    prompts = [families.prompt_tokens(n) for n in (12, 5, 9)]
    with pair.model.hooks(fwd_hooks=[("unembed.hook_out", see)]):
        tls.scopes(pair.model, prompts[0], methods=("semantic", "temperature"))
        tls.semantic_scope(pair.model, prompts)
    # never [1, 12, d_vocab]
    assert shapes == [[1, 1, families.D_VOCAB], [1, 3, families.D_VOCAB]]


# -- 3. parameter gradients, and what the caller owns ----------------------------------------------


class Interruption(Exception):
    """Raised by a hook in the middle of the forward."""


def interrupt(activation: Tensor, hook: Any) -> None:
    raise Interruption("in the middle of the forward")


def test_trap_03_parameters_are_frozen_during_the_pass_and_only_then(kind: str) -> None:
    model = families.build("llama", kind, fresh=True).model
    next(iter(model.parameters())).requires_grad_(False)
    before = model_flags(model)
    seen: list[int] = []

    def count(activation: Tensor, hook: Any) -> None:
        seen.append(sum(p.requires_grad for p in model.parameters()))

    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", count)]):
        tls.semantic_scope(model, families.prompt_tokens())
    assert seen == [0]
    assert model_flags(model) == before
    assert sum(before["requires_grad"]) == len(before["requires_grad"]) - 1


def test_trap_03_an_error_leaves_the_model_as_it_was(kind: str) -> None:
    model = families.build("llama", kind, fresh=True).model
    before = model_flags(model)
    with (
        model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", interrupt)]),
        pytest.raises(Interruption, match="in the middle"),
    ):
        tls.scopes(model, families.prompt_tokens(), grads_at="blocks.0.hook_resid_post", cache=True)
    assert model_flags(model) == before
    assert torch.is_grad_enabled()


def test_trap_03_scopes_work_where_gradients_are_switched_off(kind: str) -> None:
    pair = families.build("llama", kind, fresh=True)
    tokens = families.prompt_tokens()
    expected = oracles.semantic(pair.hf, tokens, 11, TARGET)
    before = model_flags(pair.model)
    for off in (torch.no_grad, torch.inference_mode, functools.partial(torch.set_grad_enabled, False)):
        with off():
            attr = tls.semantic_scope(pair.model, tokens, target=TARGET)
            assert not torch.is_grad_enabled()
        assert relative_error(attr.scores, expected) < families.rtol(pair)
    assert torch.is_grad_enabled()
    assert model_flags(pair.model) == before


# -- 4. dropout ------------------------------------------------------------------------------------


def test_trap_04_active_dropout_is_refused_and_training_mode_without_it_is_not(kind: str) -> None:
    tokens = families.prompt_tokens()
    with_dropout = families.build("gpt2", kind, fresh=True)  # GPT-2's default rates are 0.1
    with_dropout.model.train()
    if kind == "bridge":
        with pytest.raises(ValueError, match=r"training mode and .*[dD]ropout.* is active.*Call model.eval\(\)"):
            tls.semantic_scope(with_dropout.model, tokens)
        assert with_dropout.model.training, "the caller's mode is the caller's"
    without = families.build("llama" if kind == "bridge" else "gpt2", kind, fresh=True)
    without.model.train()  # a rate of 0, or a class that has no dropout
    attr = tls.semantic_scope(without.model, tokens, target=TARGET)
    assert without.model.training
    assert relative_error(attr.scores, oracles.semantic(without.hf, tokens, 11, TARGET)) < families.rtol(without)


# -- 5. targets ------------------------------------------------------------------------------------


def test_trap_05_a_target_that_is_not_one_token_is_refused_with_its_pieces(kind: str) -> None:
    model = families.build("gpt2", kind).model
    tokens = families.prompt_tokens()
    for target, message in (
        (" kingdom", r"target=' kingdom'\): .*not in the vocabulary.*Pass a token id"),
        ("", r"target=''\): a target is one token; this text has no tokens"),
        (160, r"target=160\): token id outside the vocabulary 0..159"),
        (-1, r"target=-1\): token id outside the vocabulary"),
    ):
        with pytest.raises(ValueError, match=message):
            tls.semantic_scope(model, tokens, target=target)
    pieces = r"target=' Paris!'\): a target is one token here; this is 2: \[' Paris', '!'\]"
    with pytest.raises(ValueError, match=pieces):
        tls.ig_path(model, tokens, target=" Paris!")


def test_trap_05_the_leading_space_is_part_of_a_target(kind: str) -> None:
    model = families.build("gpt2", kind).model
    tokens = families.prompt_tokens()
    spaced, bare = (tls.semantic_scope(model, tokens, target=text) for text in (" dog", "dog"))
    assert (spaced.target, bare.target) == (VOCAB[" dog"], VOCAB["dog"])
    assert (spaced.target_str, bare.target_str) == (" dog", "dog")


def test_trap_05_no_target_is_the_top_prediction_and_the_result_says_so(kind: str) -> None:
    pair = families.build("gpt2", kind)
    tokens = families.prompt_tokens()
    chosen = tls.semantic_scope(pair.model, tokens)
    assert chosen.target == int(reference_log_probs(pair, tokens)[-1].argmax())
    assert any("no target was given" in note for note in chosen.notes)
    assert tls.semantic_scope(pair.model, tokens, target=chosen.target).notes == ()


def test_trap_05_token_id_0_is_a_target_like_any_other(kind: str) -> None:
    pair = families.build("gpt2", kind)
    tokens = families.prompt_tokens()
    assert int(reference_log_probs(pair, tokens)[-1].argmax()) != 0
    attr = tls.semantic_scope(pair.model, tokens, target=0)
    assert (attr.target, attr.target_str) == (0, " the")
    assert relative_error(attr.scores, oracles.semantic(pair.hf, tokens, 11, 0)) < families.rtol(pair)


# -- 6. BOS and attention sinks --------------------------------------------------------------------


def test_trap_06_bos_keeps_its_score_and_views_may_leave_it_out(kind: str) -> None:
    pair = families.build("llama", kind)
    attr = tls.semantic_scope(pair.model, families.PROMPT, target=TARGET, prepend_bos=True)
    assert attr.str_tokens[0] == "<bos>"
    assert attr.special == {0}
    expected = oracles.semantic(pair.hf, attr.tokens, attr.pos, TARGET)
    assert float(expected[0]) > 0.05 * float(expected.max())
    assert relative_error(attr.scores, expected) < families.rtol(pair)
    without = attr.without("special")
    assert torch.equal(without.scores, attr.scores), "a mask, not an edit"
    assert 0 not in without.shown
    assert all(entry.pos != 0 for entry in without.top(len(attr)))
    share = without.normalized().scores
    assert float(share[1:].sum()) == pytest.approx(1, rel=ROUNDING)
    assert float(share[0]) > 0


# -- 7. padding ------------------------------------------------------------------------------------


def test_trap_07_prompts_of_unequal_length_score_as_they_do_alone(kind: str) -> None:
    for family, side in itertools.product(("gpt2", "llama"), ("left", "right")):
        own = families.build(family, kind, fresh=True)
        own.model.tokenizer.padding_side = side
        prompts = [families.prompt_tokens(n, seed=n) for n in (12, 3, 7, 1)]
        positions = [-1, 1, 2, 0]
        together = tls.scopes(own.model, prompts, pos=positions, methods=("semantic", "fisher"), target=TARGET)
        for tokens, pos, attrs in zip(prompts, positions, together, strict=True):
            pos %= len(tokens)
            assert attrs["semantic"].tokens.tolist() == tokens.tolist(), "in the order they were given"
            for attr, expected in (
                (attrs["semantic"], oracles.semantic(own.hf, tokens, pos, TARGET)),
                (attrs["fisher"], oracles.fisher(own.hf, tokens, pos)),
            ):
                assert attr.scores.shape == tokens.shape, "no score on padding"
                # padding changes the order of float32 sums: FLOAT64_RTOL also where one prompt is exact
                assert relative_error(attr.scores, expected) < families.FLOAT64_RTOL[family]
                assert not attr.scores[pos + 1 :].any()


def test_trap_07_lists_of_strings_are_padded_as_lists_of_tokens(kind: str) -> None:
    own = families.build("llama", kind, fresh=True)
    texts = ["the dog saw a cat", "the old man", families.PROMPT]
    for side in ("left", "right"):
        own.model.tokenizer.padding_side = side
        for text, attr in zip(texts, tls.semantic_scope(own.model, texts, target=TARGET), strict=True):
            expected = oracles.semantic(own.hf, own.model.to_tokens(text)[0], len(attr) - 1, TARGET)
            assert relative_error(attr.scores, expected) < families.FLOAT64_RTOL["llama"]


# -- 8. precision ----------------------------------------------------------------------------------


def test_trap_08_norm_softmax_fisher_and_scores_are_float32_in_half_precision(kind: str) -> None:
    tokens = families.prompt_tokens()
    for dtype in (torch.bfloat16, torch.float16):
        model = families.build("llama", kind, dtype).model
        hooks = ["unembed.hook_in", "unembed.hook_out"]
        attrs = tls.scopes(model, tokens, cache=hooks, keep_gradient=True)
        y, z = (attrs["semantic"].cache[name][0, -1] for name in hooks)
        assert y.dtype == dtype
        for attr in attrs.values():
            assert attr.scores.dtype == torch.float32
            assert relative_error(attr.scores, attr.gradient.double().norm(dim=-1)) < FLOAT32_ROUNDING
        beta = float(y.double().norm())
        assert attrs["temperature"].details["beta"] == pytest.approx(beta, rel=FLOAT32_ROUNDING)
        p = z.double().softmax(-1)
        assert attrs["semantic"].top_predictions[0][1] == pytest.approx(float(p.max()), rel=1e-5)
        W = model.W_U.detach().double().T
        F = W.T @ (torch.diag(p) - torch.outer(p, p)) @ W
        assert attrs["fisher"].details["trace"] == pytest.approx(float(F.trace()), rel=1e-5)
        largest = float(torch.linalg.eigvalsh(F)[-1])
        assert attrs["fisher"].details["eigenvalues"][0] == pytest.approx(largest, rel=1e-5)


def test_trap_08_small_gradients_do_not_flush_to_zero_in_float16(kind: str) -> None:
    model = families.build("llama", kind, torch.float16).model
    tokens = families.prompt_tokens()
    v = torch.randn(families.D_MODEL, generator=torch.Generator().manual_seed(0))
    large = tls.jacobian_scope(model, tokens, direction=v)
    small = tls.jacobian_scope(model, tokens, direction=v * 2.0**-30)
    assert torch.equal(small.scores * 2.0**30, large.scores), "scaling by a power of two is exact"


# -- 9. the model's real read-out ------------------------------------------------------------------


def test_trap_09_soft_cap_and_scale_are_in_the_directions(kind: str) -> None:
    tokens = families.prompt_tokens()
    pairs = families_on(kind, "gemma2", "granite", "cohere")
    assert pairs
    for pair in pairs:
        attrs = tls.scopes(
            pair.model,
            tokens,
            methods=("semantic", "contrast", "fisher", "temperature"),
            target=TARGET,
            foil=FOIL,
        )
        rtol = families.FLOAT64_RTOL[pair.family]
        for method, expected in (
            ("semantic", oracles.semantic(pair.hf, tokens, 11, TARGET)),
            ("contrast", oracles.contrast(pair.hf, tokens, 11, TARGET, FOIL)),
            ("fisher", oracles.fisher(pair.hf, tokens, 11)),
            ("temperature", oracles.temperature(pair.hf, tokens, 11)),
        ):
            assert relative_error(attrs[method].scores, expected) < rtol, (pair.family, method)
        logits = oracles.run_tokens(pair.hf, tokens).logits[-1].detach()
        top = attrs["semantic"].top_predictions[0][1]
        assert top == pytest.approx(float(logits.softmax(-1).max()), rel=1e-5)
        assert attrs["semantic"].details["logit"] == pytest.approx(float(logits[TARGET]), rel=1e-5)
        assert attrs["temperature"].details["beta_is_inverse_temperature"] is False
        assert any("not the exact inverse temperature" in note for note in attrs["temperature"].notes)


def test_trap_09_unembedding_bias_after_folding_is_in_the_logits(kind: str) -> None:
    folded = families.processed("gpt2", kind)
    assert float(folded.model.b_U.detach().abs().max()) > 0.1
    tokens = families.prompt_tokens()
    expected = reference_log_probs(folded, tokens)[-1]
    attr = tls.contrast_scope(folded.model, tokens, target=TARGET, foil=FOIL)
    rtol = families.PROCESSED_RTOL
    assert attr.top_predictions[0][1] == pytest.approx(float(expected.max().exp()), rel=10 * rtol)
    difference = float(expected[TARGET] - expected[FOIL])
    assert attr.details["logit_difference"] == pytest.approx(difference, abs=10 * rtol)


# -- 10. repeated tokens, one token, too many ------------------------------------------------------


def test_trap_10_repeated_tokens_are_separate_entries(kind: str) -> None:
    pair = families.build("gpt2", kind)
    tokens = torch.tensor([families.BOS_ID, 7, 7, 9, 7, 7])
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET)
    assert relative_error(attr.scores, oracles.semantic(pair.hf, tokens, 5, TARGET)) < families.rtol(pair)
    same = attr.scores[tokens == 7]
    assert len(set(same.tolist())) == 4
    assert sorted(entry.pos for entry in attr.top(6)) == list(range(6))
    assert attr.to_frame()["score"].tolist() == attr.scores.tolist()


def test_trap_10_one_token_prompts_have_one_score(kind: str) -> None:
    pair = families.build("gpt2", kind)
    one = torch.tensor([VOCAB["the"]])
    expected = oracles.semantic(pair.hf, one, 0, TARGET)
    for prompt, bos in ((one, None), (one[None], None), ("the", False)):
        attr = tls.semantic_scope(pair.model, prompt, target=TARGET, prepend_bos=bos)
        assert attr.scores.shape == (1,)
        assert relative_error(attr.scores, expected) < families.rtol(pair)
    assert float(attr.normalized().scores) == 1


def test_trap_10_prompts_longer_than_the_context_are_refused_not_cut(kind: str) -> None:
    model = families.build("llama", kind).model
    context = families.N_CTX
    longest = families.prompt_tokens(context)
    assert len(tls.semantic_scope(model, longest, target=TARGET)) == context
    refusal = f"{context + 1} tokens are more than the model's context of {context}; shorten the prompt"
    with pytest.raises(ValueError, match=refusal):
        tls.semantic_scope(model, families.prompt_tokens(context + 1))
    with pytest.raises(ValueError, match=refusal):
        tls.semantic_scope(model, "the" + " dog" * (context - 1), prepend_bos=True)


def test_trap_10_prompts_without_tokens_are_refused(kind: str) -> None:
    model = families.build("llama", kind).model
    with pytest.raises(ValueError, match="the prompt is empty"):
        tls.semantic_scope(model, "")
    with pytest.raises(ValueError, match="the prompt has no tokens"):
        tls.semantic_scope(model, torch.tensor([], dtype=torch.int64))


# -- known causes ------------------------------------------------------------------------------------


def test_accepted_prompts_follow_every_swapped_cause(kind: str) -> None:
    """A word that decides nothing is no cause, whatever the example says."""
    model = tls.load_model("demo", kind=kind)
    example = next(e for e in examples("binding", 20) if len(e.others) >= 3)
    assert judged.acceptance(model, [example]).accepted == (example,)
    other = example.others[0]
    claimed = Swap(other.span, other.replacement, example.causes[0].answer)
    assert judged.acceptance(model, [replace(example, causes=(*example.causes, claimed))]).accepted == ()
