"""Invariant: a bridge that computes something else than its Hugging Face model is refused, one that does not never is; and
no prompt's scores depend on what it is padded with.

The oracle is the Hugging Face model that no bridge has touched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import families
import pytest
import torch
import transformers
from bridged import SIZES, WIDTHS, bridge_around, bridged, hugging_face, logit_gradient
from oracles import relative_error
from plain_models import Plain
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

import tl_scopes as tls
from tl_scopes.model import soundness
from tl_scopes.model.lens import whole
from tl_scopes.model.prompts import encode_prompts
from tl_scopes.model.soundness import disagreement, plain_twin
from tl_scopes.model.state import model_state
from tl_scopes.timeseries.spelled import spelled

LONG, SHORT = families.prompt_tokens(12), families.prompt_tokens(7)
TARGET = 7
EXACT = 1e-9


def openai_gpt() -> Any:
    dropout = dict(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    return bridged(transformers.OpenAIGPTConfig(**SIZES, n_embd=32, n_layer=2, n_head=4, n_positions=64, **dropout))


def falcon(**options: Any) -> Any:
    return bridged(transformers.FalconConfig(**WIDTHS, alibi=False, bias=False, **options))


@cache
def bert() -> Any:
    """A model that sees both ways."""
    config = transformers.BertConfig(**WIDTHS, intermediate_size=64, max_position_embeddings=64, is_decoder=False)
    return bridged(config, transformers.BertLMHeadModel)


# -- against Hugging Face ------------------------------------------------------------------------------


def test_openai_gpt_keeps_its_causal_mask() -> None:
    model, hf = openai_gpt()
    for prompts in ([LONG], [SHORT], [LONG, SHORT]):
        for prompt, found in zip(
            prompts, tls.semantic_scope(model, prompts, target=[TARGET] * len(prompts), keep_gradient=True), strict=True
        ):
            assert relative_error(found.gradient, logit_gradient(hf, prompt, TARGET)) < EXACT
    assert tls.check_model(model).ok


def test_a_bridge_with_other_logits_than_its_model_is_refused_by_every_door() -> None:
    model, _ = falcon(new_decoder_architecture=True, multi_query=False, num_kv_heads=2)
    other = families.build("gpt2", "bridge").model
    text = (
        r"bridge computes FalconForCausalLM otherwise than the Hugging Face model inside it: its logits differ by \d\d"
    )
    attribution = tls.semantic_scope(other, LONG, target=TARGET)
    for call in (
        lambda: tls.semantic_scope(model, LONG),
        lambda: tls.integrated_gradients(model, LONG),
        lambda: tls.attribution_matrix(model, LONG),
        lambda: tls.aopc(model, [LONG], ["semantic"]),
        lambda: tls.verify(model, attribution),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    finding = tls.check_model(model)["hugging face"]
    assert not finding.ok
    assert "another version of TransformerLens" in str(finding)


@pytest.mark.parametrize("multi_query", [False, True])
def test_falcons_old_decoder_is_right_and_not_refused(multi_query: bool) -> None:
    model, hf = falcon(new_decoder_architecture=False, multi_query=multi_query)
    found = tls.semantic_scope(model, LONG, target=TARGET, keep_gradient=True)
    assert relative_error(found.gradient, logit_gradient(hf, LONG, TARGET)) < EXACT


@pytest.mark.on_families(*families.FAMILIES)
def test_the_twin_is_the_model_that_no_bridge_has_touched_and_shares_its_weights(pair: families.Pair) -> None:
    if pair.kind != "bridge":
        assert "no Hugging Face model" in disagreement(pair.model)
        return
    twin = plain_twin(whole(pair.model))
    with torch.no_grad():
        assert torch.equal(twin(LONG[None]).logits, pair.hf(LONG[None]).logits)
    held = {p.data_ptr() for p in whole(pair.model).parameters()}
    assert {p.data_ptr() for p in twin.parameters()} <= held
    assert not any(type(module).__module__.startswith("transformer_lens") for module in twin.modules())
    difference = disagreement(pair.model)
    assert isinstance(difference, float)
    assert difference < families.FLOAT64_RTOL[pair.family]


def test_the_comparison_is_made_once_for_one_state_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = families.build("gpt2", "bridge", fresh=True)
    compared = []
    make = soundness.plain_twin
    monkeypatch.setattr(soundness, "plain_twin", lambda module: compared.append(1) or make(module))
    tls.semantic_scope(pair.model, LONG)
    tls.fisher_scope(pair.model, SHORT)
    assert len(compared) == 1
    pair.model.unembed.original_component.weight.data.mul_(2)
    tls.semantic_scope(pair.model, LONG)
    assert len(compared) == 2


def test_hooks_of_the_user_take_no_part_in_the_comparison() -> None:
    model = families.build("gpt2", "bridge", fresh=True).model
    model.hook_dict["blocks.0.hook_resid_post"].add_hook(lambda t, hook: 2 * t)
    assert disagreement(model) < EXACT
    tls.semantic_scope(model, LONG)


def test_projections_edited_after_the_bridge_split_them_are_the_users_own() -> None:
    model, _ = falcon(new_decoder_architecture=False, multi_query=True)
    model.blocks[0].attn.q.original_component.weight.data.mul_(3)
    tls.semantic_scope(model, LONG)
    finding = tls.check_model(model)["hugging face"]
    assert finding.ok
    assert "edited" in finding.text


def test_processed_weights_are_not_compared() -> None:
    model = families.processed("gpt2", "bridge").model
    assert "processed" in disagreement(model)
    assert tls.check_model(model)["hugging face"].ok


# -- architectures without a stack of blocks, or without embeddings of the stream's width ----------------


STACKS = WIDTHS | dict(head_dim=8, intermediate_size=64, max_position_embeddings=64, num_layers_per_stack=2)
STACKS |= dict(H_cycles=2, L_cycles=2, embedding_scale=3.0)


@cache
def stacks() -> Any:
    """Two stacks that run in turn, several times."""
    return bridged(transformers.HrmTextConfig(**STACKS, L_bp_cycles=[2, 2]))


def test_stacks_that_run_several_times_are_differentiated_at_the_embeddings() -> None:
    model, hf = stacks()
    for checkpoint in (False, True):
        found = tls.semantic_scope(model, LONG, target=TARGET, keep_gradient=True, checkpoint=checkpoint)
        assert relative_error(found.gradient, logit_gradient(hf, LONG, TARGET)) < EXACT
    with pytest.raises(
        ValueError, match=r"shows no attn.hook_pattern in any layer of HrmTextForCausalLM.*Use a scope$"
    ):
        tls.attention_rollout(model, LONG)
    report = tls.check_model(model)
    assert report["hugging face"].ok
    assert report["vjp"].ok


def test_blocks_that_run_without_gradient_are_refused_where_a_gradient_is_wanted() -> None:
    model, hf = bridged(transformers.HrmTextConfig(**STACKS, L_bp_cycles=[1, 2]))
    refused = r"runs some of its blocks without gradient.*L_bp_cycles=\[config\.L_cycles\] \* config\.H_cycles"
    for call in (tls.semantic_scope, tls.fisher_scope, tls.integrated_gradients, tls.attribution_matrix):
        with pytest.raises(ValueError, match=refused):
            call(model, LONG)
    assert not tls.check_model(model)["vjp"].ok
    found = tls.leave_one_out(model, LONG, target=TARGET)
    whole, without = Plain(hf, LONG), Plain(hf, LONG, zeroed=[3])
    change = float((without.log_prob(-1, TARGET) - whole.log_prob(-1, TARGET)).abs())
    assert abs(float(found.scores[3]) - change) < EXACT


class Noisy(transformers.LlamaModel):
    """Draws in its forward, as Raven does."""

    draws = torch.Generator().manual_seed(0)

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        x = self.embed_tokens(input_ids)
        noise = torch.randn(x.shape, generator=self.draws, dtype=x.dtype)
        return super().forward(**options | {"inputs_embeds": x + noise})


def test_a_model_that_draws_random_numbers_is_refused() -> None:
    hf = hugging_face(transformers.LlamaConfig(**WIDTHS, intermediate_size=64, max_position_embeddings=64))
    hf.model.__class__ = Noisy
    with pytest.raises(ValueError, match="two runs of LlamaForCausalLM on the same tokens give logits that differ"):
        tls.semantic_scope(bridge_around(hf), LONG)


class Twice(transformers.LlamaModel):
    """Its layers run a second time on what came out of them, as Ouro's do."""

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        x, n = self.embed_tokens(input_ids), input_ids.shape[1]
        places = torch.arange(n)[None]
        mask = torch.full((n, n), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)[None, None]
        turned = self.rotary_emb(x, places)
        for layer in [*self.layers, *self.layers]:
            x = layer(x, attention_mask=mask, position_ids=places, position_embeddings=turned)
            x = x[0] if isinstance(x, tuple) else x
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x))


def test_blocks_that_run_twice_have_no_one_activation_and_the_embeddings_are_exact() -> None:
    hf = hugging_face(transformers.LlamaConfig(**WIDTHS, intermediate_size=64, max_position_embeddings=64))
    hf.model.__class__ = Twice
    model = bridge_around(copy.deepcopy(hf))
    for checkpoint in (False, True):
        found = tls.semantic_scope(model, LONG, target=TARGET, keep_gradient=True, checkpoint=checkpoint)
        assert relative_error(found.gradient, logit_gradient(hf, LONG, TARGET)) < EXACT
    row = tls.attribution_matrix(model, LONG, positions=[3, 8]).scores[1]
    assert relative_error(row, tls.semantic_scope(model, LONG, target=int(LONG[9]), pos=8).scores) < EXACT
    other = LONG.clone()
    other[3] = 20
    ones = torch.ones(32, dtype=torch.float64)
    for call in (
        lambda: tls.layer_influence(model, LONG),
        lambda: tls.head_influence(model, LONG),
        lambda: tls.attention_rollout(model, LONG),
        lambda: tls.attention_sinks(model, LONG, unrelated=0),
        lambda: tls.patch_top(model, LONG, other, found, k=2),
        lambda: tls.jacobian_scope(model, LONG, direction=ones, target_hook="blocks.0.hook_resid_post"),
        lambda: tls.semantic_scope(model, LONG, cache="blocks.1.hook_resid_post"),
        lambda: tls.semantic_scope(model, LONG, at="blocks.0.hook_resid_pre"),
    ):
        with pytest.raises(ValueError, match="fires more than once in a forward"):
            call()


def test_a_constant_norm_is_seen_whatever_the_final_norm_is_called() -> None:
    model, _ = stacks()
    with pytest.raises(ValueError, match="has no Temperature Scope"):
        tls.temperature_scope(model, LONG)
    assert model_state(model).provenance()["constant_norm"]
    assert "temperature" not in tls.check_model(model).valid_scopes


def test_a_norm_is_not_called_constant_where_a_projection_follows_it() -> None:
    """Of OPT-350m's kind: y is made from the final norm's output."""
    sizes = dict(word_embed_proj_dim=16, ffn_dim=64, max_position_embeddings=64, dropout=0.0)
    model, _ = bridged(transformers.OPTConfig(**WIDTHS, **sizes))
    norm = whole(model).model.decoder.final_layer_norm
    norm.weight.data.fill_(1.0)
    norm.bias.data.zero_()
    found = tls.temperature_scope(model, LONG, at="blocks.0.hook_resid_pre")
    assert float(found.scores.max()) > 1e-3


def test_narrow_embeddings_are_refused_with_the_hook_that_is_exact() -> None:
    sizes = dict(
        word_embed_proj_dim=16, ffn_dim=64, max_position_embeddings=64, do_layer_norm_before=False, dropout=0.0
    )
    model, hf = bridged(transformers.OPTConfig(**WIDTHS, **sizes))
    with pytest.raises(ValueError, match=r"16\], not .*= \[1, 12, 32\]\. Use 'blocks\.0\.hook_resid_pre';"):
        tls.semantic_scope(model, LONG)
    found = tls.semantic_scope(model, LONG, target=TARGET, keep_gradient=True, at="blocks.0.hook_resid_pre")
    # the first layer's input is the projected embedding plus positions: a leaf there has the same gradient
    assert relative_error(found.gradient, logit_gradient(hf, LONG, TARGET, hf.model.decoder.project_in)) < 1e-5
    for call in (tls.ig_path, tls.attention_rollout):
        with pytest.raises(ValueError, match="a call that takes no at= has no answer on this model$"):
            call(model, LONG)
    last = Plain(hf, LONG).last
    assert relative_error(tls.fisher_spectrum(model, LONG, k=3).eigenvalues[0], last.values[:3]) < 1e-5
    report = tls.check_model(model)
    assert not report["embedding"].ok
    assert "at='blocks.0.hook_resid_pre'" in report["embedding"].remedy
    assert report["vjp"].ok, str(report)


# -- padding -------------------------------------------------------------------------------------------


NOT_CAUSAL = "in a batch also the padding of shorter prompts, influences its prediction: this model is not causal"


@pytest.mark.parametrize(
    "call", [tls.semantic_scope, tls.fisher_scope, tls.input_x_gradient, tls.attention_rollout, tls.random_attribution]
)
def test_padding_that_a_model_sees_is_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=NOT_CAUSAL):
        call(bert()[0], [LONG, SHORT])


MIDDLE: dict[str, Callable[[Any], Any]] = {
    "several positions": lambda model: tls.semantic_scope(model, LONG, pos=[5, -1]),
    "a baseline": lambda model: tls.input_x_gradient(model, LONG, pos=5),
    "removed tokens": lambda model: tls.leave_one_out(model, LONG, pos=5),
    "noisy copies": lambda model: tls.smoothgrad(model, LONG, pos=5, n_samples=2),
    "a path": lambda model: tls.integrated_gradients(model, LONG, pos=5, n_steps=4),
    "a path looked at": lambda model: tls.ig_path(model, LONG, pos=5),
    "a matrix": lambda model: tls.attribution_matrix(model, LONG, positions=[5]),
    "a passage without its last token": lambda model: tls.aopc(model, [LONG], ["random"]),
    "a verdict": lambda model: tls.verdict(model, elsewhere()),
    "a verification": lambda model: tls.verify(model, elsewhere()),
    "a number spelled in digits": lambda model: spelled(
        model, encode_prompts(model, LONG, pos=-1, prepend_bos=None)[0]
    ),
    "a swap": lambda model: tls.substitutions(model, elsewhere(), position=3),
}
"""What looks at a prompt up to the explained position alone."""


def elsewhere() -> Any:
    """An attribution at a middle position, as of the model."""
    found = tls.leave_one_out(families.build("gpt2", "bridge").model, LONG, pos=5)
    return replace(found, top_predictions=[])


@pytest.mark.parametrize("of", MIDDLE)
def test_a_prompt_is_not_cut_for_a_model_that_sees_the_rest(of: str) -> None:
    with pytest.raises(ValueError, match="this model is not causal"):
        MIDDLE[of](bert()[0])


def test_the_last_position_of_one_prompt_is_exact_and_measured_where_a_model_sees_both_ways() -> None:
    model, hf = bert()
    for prompt in (LONG, SHORT):
        found = tls.semantic_scope(model, prompt, target=TARGET, keep_gradient=True)
        assert relative_error(found.gradient, logit_gradient(hf, prompt, TARGET, hf.bert.embeddings)) < EXACT
    found = tls.leave_one_out(model, LONG, target=TARGET)
    whole = Plain(hf, LONG, "bert.embeddings")
    without = [Plain(hf, LONG, "bert.embeddings", zeroed=[t]).log_prob(-1, TARGET) for t in range(len(LONG))]
    change = (torch.stack(without) - whole.log_prob(-1, TARGET)).detach()
    assert relative_error(found.scores, change.abs()) < EXACT
    semantic = tls.semantic_scope(model, LONG, target=TARGET)
    steps = tls.verify(model, semantic, step=1e-4)
    assert relative_error(steps.predicted, steps.measured) < 1e-2
    verdict = tls.verdict(model, semantic, k=1, n_random=2)
    assert abs(float(verdict.effect) - float(change[verdict.strongest[0][0]])) < EXACT
    clean_last = tls.attribution_matrix(model, LONG, positions=[-1])
    assert relative_error(clean_last.scores[0], tls.semantic_scope(model, LONG).scores) < EXACT
    finding = tls.check_model(model)["causal"]
    assert not finding.ok
    assert "one prompt at a time" in finding.remedy
