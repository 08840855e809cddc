"""Invariant: what people do to a model before they give it to a bridge is exact against the same module's autograd, or
refused by name: adapters of peft, weights in 8 and 4 bit, Hugging Face's checkpointing, torch.compile.

Packages that the development extra does not install are skipped where they are missing.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import families
import pytest
import torch
import transformers
from bridged import SIZES, WIDTHS, bridge_around, hugging_face, logit_gradient
from oracles import relative_error
from torch import Tensor, nn

import tl_scopes as tls

TOKENS, TARGET = families.prompt_tokens(12), 7
EXACT = 1e-9


def gpt2(**options: Any) -> nn.Module:
    config = transformers.GPT2Config(**SIZES, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_ctx=64, **options)
    return hugging_face(config)


def llama(dtype: torch.dtype = torch.float64) -> nn.Module:
    sizes = dict(num_key_value_heads=2, intermediate_size=64, max_position_embeddings=64, tie_word_embeddings=False)
    return hugging_face(transformers.LlamaConfig(**WIDTHS, **sizes), dtype=dtype)


def error(model: Any, hf: nn.Module, **options: Any) -> float:
    """Of the package's gradient against the module's own."""
    found = tls.semantic_scope(model, TOKENS, target=TARGET, keep_gradient=True, **options)
    return relative_error(found.gradient, logit_gradient(hf, TOKENS, TARGET))


# -- Hugging Face's own checkpointing, torch.compile -----------------------------------------------------


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("whole", [True, False], ids=["bridge", "its model alone"])
def test_hugging_faces_checkpointing_in_training_mode_changes_nothing(make: Any, checkpoint: bool, whole: bool) -> None:
    hf = make() if make is llama else make(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    wrapped = copy.deepcopy(hf)
    wrapped.gradient_checkpointing_enable()
    model = bridge_around(wrapped)
    (model if whole else wrapped).train()
    assert model.training == whole
    on = [module for module in wrapped.modules() if getattr(module, "gradient_checkpointing", False)]
    assert error(model, hf, checkpoint=checkpoint, grads_at="blocks.0.hook_resid_post") < EXACT
    assert on
    assert all(module.gradient_checkpointing for module in on)


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model_inside_a_bridge_is_exact(make: Any, in_place: bool) -> None:
    hf = make()
    wrapped = copy.deepcopy(hf)
    if in_place:
        wrapped.compile(backend="eager")
    else:
        wrapped = torch.compile(wrapped, backend="eager")
    model = bridge_around(wrapped)
    assert error(model, hf) < EXACT
    assert tls.check_model(model)["hugging face"].ok


def test_a_compiled_bridge_is_refused_with_what_to_pass() -> None:
    model = torch.compile(bridge_around(gpt2()), backend="eager")
    with pytest.raises(TypeError, match=r"torch\.compile has put this model .* Pass the model that was given to"):
        tls.semantic_scope(model, TOKENS)


# -- adapters ------------------------------------------------------------------------------------------


def with_adapter(hf: nn.Module, *modules: str) -> Any:
    import peft

    of_conv = dict(fan_in_fan_out=True) if isinstance(hf, transformers.GPT2LMHeadModel) else {}
    config = peft.LoraConfig(r=4, target_modules=[*modules], lora_dropout=0.0, init_lora_weights=False, **of_conv)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return peft.get_peft_model(hf, config).double().eval()


def test_an_adapter_on_separate_projections_is_exact() -> None:
    hf = with_adapter(llama(), "q_proj", "v_proj", "up_proj").base_model.model
    assert error(bridge_around(copy.deepcopy(hf)), hf) < EXACT


def test_an_adapter_on_fused_projections_which_a_bridge_leaves_out_is_refused() -> None:
    adapted = with_adapter(gpt2(), "c_attn", "c_proj")
    hf = copy.deepcopy(adapted).base_model.model
    with pytest.raises(ValueError, match=r"what peft adds to them .*merge_and_unload\(\)"):
        tls.semantic_scope(bridge_around(copy.deepcopy(hf)), TOKENS)
    merged = adapted.merge_and_unload()
    assert error(bridge_around(copy.deepcopy(merged)), hf) < EXACT


def test_an_adapter_on_the_unembedding_is_refused_and_exact_once_merged() -> None:
    adapted = with_adapter(llama(), "lm_head", "q_proj")
    hf = copy.deepcopy(adapted).base_model.model
    model = bridge_around(copy.deepcopy(hf))
    for call in (tls.semantic_scope, tls.fisher_scope, tls.leave_one_out):
        with pytest.raises(ValueError, match=r"W_U .* differ by \d+%.* call merge_and_unload\(\) first"):
            call(model, TOKENS)
    assert not tls.check_model(model)["usable"].ok
    merged = adapted.merge_and_unload()
    assert error(bridge_around(copy.deepcopy(merged)), hf) < EXACT


# -- few bits ------------------------------------------------------------------------------------------


class FewBits(nn.Module):
    """A linear layer as the quantising packages have it: integers and a scale for each row, made floats in the forward."""

    def __init__(self, linear: nn.Linear, bits: int) -> None:
        super().__init__()
        most, weight = 2 ** (bits - 1) - 1, linear.weight.data
        scale = weight.abs().amax(dim=1, keepdim=True) / most
        whole = (weight / scale).round().to(torch.int8)
        packed = whole if bits == 8 else ((whole[:, ::2] + 8) * 16 + whole[:, 1::2] + 8).to(torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scale", scale)
        self.in_features, self.out_features, self.bias, self.bits = linear.in_features, linear.out_features, None, bits

    def forward(self, x: Tensor) -> Tensor:
        whole = self.weight
        if self.bits == 4:
            whole = torch.stack([whole // 16, whole % 16], dim=-1).flatten(1).to(torch.int8) - 8
        return x @ (whole.to(x) * self.scale.to(x)).T


def in_few_bits(bits: int, *spared: str) -> nn.Module:
    """A model whose linear layers have few bits, but for those spared."""
    hf = llama()
    for module in list(hf.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Linear) and name not in spared:
                setattr(module, name, FewBits(part, bits))
    return hf


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_that_are_no_floats_are_exact_against_their_own_autograd(bits: int) -> None:
    hf = in_few_bits(bits, "lm_head")
    model = bridge_around(copy.deepcopy(hf))
    for checkpoint in (False, True):
        assert error(model, hf, checkpoint=checkpoint) < EXACT
    assert tls.check_model(model).ok


@pytest.mark.parametrize("bits", [8, 4])
def test_an_unembedding_in_few_bits_is_refused_with_what_to_leave_out(bits: int) -> None:
    model = bridge_around(in_few_bits(bits))
    for call in (tls.semantic_scope, tls.total_information, tls.input_x_gradient):
        with pytest.raises(ValueError, match=r"W_U .* are u?int8.* leave the head out of a quantisation"):
            call(model, TOKENS)
    assert not tls.check_model(model)["usable"].ok


def int8_by_torchao() -> Any:
    quantization = pytest.importorskip("torchao.quantization", reason="tested where torchao is installed")
    return transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())


def bits(**options: Any) -> Any:
    pytest.importorskip("bitsandbytes", reason="tested where bitsandbytes is installed")
    return transformers.BitsAndBytesConfig(**options)


QUANTISED = {
    "int8 by torchao": int8_by_torchao,
    "int8 by bitsandbytes": lambda: bits(load_in_8bit=True),
    "nf4 by bitsandbytes": lambda: bits(
        load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, bnb_4bit_quant_type="nf4"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_model_is_exact_against_its_own_autograd(name: str, tmp_path: Path) -> None:
    config = QUANTISED[name]()
    llama(torch.float32).save_pretrained(tmp_path)

    def load() -> nn.Module:
        how = dict(quantization_config=config, dtype=torch.float32, attn_implementation="eager")
        hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, **how).eval()
        hf.config.use_cache = False
        return hf

    model = bridge_around(load())
    for checkpoint in (False, True):
        assert error(model, load(), checkpoint=checkpoint) < families.FLOAT32_RTOL
    report = tls.check_model(model)
    assert report["hugging face"].ok
    assert "not compared" not in report["hugging face"].text
