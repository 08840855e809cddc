"""A tiny random model of every text-only causal architecture that the installed TransformerLens lists.

    names()                             # the variants built here, in alphabetical order
    built = build("JambaForCausalLM")   # Built(name, spec, model, hf): the bridge, and the plain Hugging Face model beside it

TransformerLens' own list is read at run time: an architecture that is neither built here nor in `ELSEWHERE` with a reason is
`untested()`, and a test fails until it is one or the other. Configurations are the architecture's own with small sizes
(`small_models`); what that leaves wrong or out is in `SPECS`. Weights are random in float64, norm gains spread.

What TransformerLens gets wrong is in `BROKEN`. Of this package no fault is known.
Each `build` makes new objects, from the variant's own seed: tests may change them.
"""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass, field
from typing import Any

import families
import torch
import transformers
from families import TL_MAJOR
from small_models import D_HEAD, D_MODEL, N_HEADS, N_KV_HEADS, WINDOW, draw_weights, small_configuration
from torch import nn
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module


# ----------------------------------------------------------------------------
# What is built
# ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Spec:
    """One variant: its architecture in TransformerLens' list, and what its small configuration needs beside the sizes.

    `hf_class` is the class of transformers where it has another name. `leaf` is the module of the Hugging Face model whose
    output is what the bridge has at `hook_embed`, where that is not the token embedding itself.
    """

    architecture: str
    sizes: dict[str, Any] = field(default_factory=dict)
    hf_class: str = ""
    leaf: str = ""
    dtype: torch.dtype = torch.float64


_MLA = dict(head_dim=D_HEAD // 2, num_key_value_heads=N_HEADS)
_NEO = dict(attention_types=[[["global", "local"], 1]])
_ZAMBA = dict(attention_hidden_size=2 * D_MODEL, attention_head_dim=2 * D_MODEL // N_HEADS, num_key_value_heads=N_HEADS)
_MULTIPLIERS = dict(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.7, attention_multiplier=0.3)
_EXPERTS = dict(enable_moe_block=True, num_experts=N_HEADS, top_k_experts=2, moe_intermediate_size=D_MODEL // 2)
_CONV = dict(layer_types=["conv", "full_attention"])
_ROPE = _MULTIPLIERS | dict(position_embedding_type="rope", layer_types=["linear_attention", "full_attention"])

_DEFAULTS = """
AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM BitNetForCausalLM CodeGenForCausalLM Cohere2ForCausalLM
CohereForCausalLM DeepseekV4ForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM Exaone4ForCausalLM FalconForCausalLM
FalconH1ForCausalLM FalconMambaForCausalLM FlexOlmoForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM
GPTNeoXForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma4ForCausalLM GemmaForCausalLM Glm4ForCausalLM
Glm4MoeForCausalLM GlmForCausalLM GptOssForCausalLM GraniteForCausalLM GraniteMoeForCausalLM GraniteMoeHybridForCausalLM
HrmTextForCausalLM Jais2ForCausalLM JetMoeForCausalLM LagunaForCausalLM Llama4ForCausalLM LlamaForCausalLM
MambaForCausalLM MiniMaxM2ForCausalLM Ministral3ForCausalLM MistralForCausalLM MixtralForCausalLM MptForCausalLM
NanoChatForCausalLM NemotronHForCausalLM OPTForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM
OlmoHybridForCausalLM OlmoeForCausalLM OpenAIGPTLMHeadModel Phi3ForCausalLM PhiForCausalLM Qwen2ForCausalLM
Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3NextForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM
RwkvForCausalLM SeedOssForCausalLM SmolLM3ForCausalLM StableLmForCausalLM Starcoder2ForCausalLM VaultGemmaForCausalLM
"""
SPECS: dict[str, Spec] = {name: Spec(name) for name in _DEFAULTS.split()} | {
    "BambaForCausalLM": Spec("BambaForCausalLM", dict(attn_layer_indices=[1])),
    "BambaForCausalLM, no attention": Spec("BambaForCausalLM"),
    "BertLMHeadModel": Spec("BertLMHeadModel", dict(is_decoder=True), leaf="bert.embeddings"),
    "BloomForCausalLM": Spec("BloomForCausalLM", leaf="transformer.word_embeddings_layernorm"),
    "DeepseekV2ForCausalLM": Spec("DeepseekV2ForCausalLM", _MLA | dict(num_experts_per_tok=2)),
    "DeepseekV3ForCausalLM": Spec("DeepseekV3ForCausalLM", _MLA),
    "DeepseekV3ForCausalLM, whole queries": Spec("DeepseekV3ForCausalLM", _MLA | dict(q_lora_rank=None)),
    "FalconForCausalLM, ALiBi": Spec("FalconForCausalLM", dict(alibi=True)),
    "FalconForCausalLM, many key heads": Spec("FalconForCausalLM", dict(multi_query=False, num_kv_heads=N_HEADS)),
    "FalconForCausalLM, new decoder": Spec("FalconForCausalLM", dict(new_decoder_architecture=True)),
    "FalconForCausalLM, sequential": Spec("FalconForCausalLM", dict(parallel_attn=False)),
    "GPT2LMHeadModel, scaled by layer": Spec("GPT2LMHeadModel", dict(scale_attn_by_inverse_layer_idx=True)),
    "GPTBigCodeForCausalLM, many key heads": Spec("GPTBigCodeForCausalLM", dict(multi_query=False)),
    "GPTNeoForCausalLM": Spec("GPTNeoForCausalLM", _NEO),
    "GPTNeoXForCausalLM, sequential": Spec("GPTNeoXForCausalLM", dict(use_parallel_residual=False)),
    "Gemma1ForCausalLM": Spec("Gemma1ForCausalLM", hf_class="GemmaForCausalLM"),
    "Gemma4ForCausalLM, experts": Spec("Gemma4ForCausalLM", _EXPERTS),
    "Glm4MoeLiteForCausalLM": Spec("Glm4MoeLiteForCausalLM", _MLA),
    "GlmMoeDsaForCausalLM": Spec("GlmMoeDsaForCausalLM", _MLA),
    "GraniteForCausalLM, multipliers": Spec("GraniteForCausalLM", _MULTIPLIERS),
    "GraniteMoeHybridForCausalLM, rotary": Spec("GraniteMoeHybridForCausalLM", _ROPE),
    "HrmTextForCausalLM, gradient in all cycles": Spec("HrmTextForCausalLM", dict(L_bp_cycles=[3, 3])),
    "HunYuanDenseV1ForCausalLM": Spec("HunYuanDenseV1ForCausalLM", dict(head_dim=D_HEAD)),
    "JambaForCausalLM": Spec("JambaForCausalLM", dict(attn_layer_period=2, attn_layer_offset=1)),
    "JetMoEForCausalLM": Spec("JetMoEForCausalLM", hf_class="JetMoeForCausalLM"),
    "Lfm2ForCausalLM": Spec("Lfm2ForCausalLM", _CONV),
    "Lfm2MoeForCausalLM": Spec("Lfm2MoeForCausalLM", _CONV),
    "LlamaForCausalLM, biases": Spec("LlamaForCausalLM", dict(attention_bias=True, mlp_bias=True)),
    "LlamaForCausalLM, tied": Spec("LlamaForCausalLM", dict(tie_word_embeddings=True)),
    "MPTForCausalLM": Spec("MPTForCausalLM", hf_class="MptForCausalLM"),
    "Mamba2ForCausalLM": Spec("Mamba2ForCausalLM", dict(head_dim=D_MODEL // 2)),
    "ModernBertDecoderForCausalLM": Spec("ModernBertDecoderForCausalLM", leaf="model.embeddings"),
    "NemotronForCausalLM": Spec("NemotronForCausalLM", dict(num_key_value_heads=N_KV_HEADS)),
    "NeoForCausalLM": Spec("NeoForCausalLM", _NEO, hf_class="GPTNeoForCausalLM"),
    "NeoXForCausalLM": Spec("NeoXForCausalLM", hf_class="GPTNeoXForCausalLM"),
    "OPTForCausalLM, norms after": Spec("OPTForCausalLM", dict(do_layer_norm_before=False)),
    "OPTForCausalLM, projections": Spec("OPTForCausalLM", dict(word_embed_proj_dim=D_MODEL // 2)),
    "OlmoForCausalLM, clipped": Spec("OlmoForCausalLM", dict(clip_qkv=0.5)),
    "PhiForCausalLM, query and key norms": Spec("PhiForCausalLM", dict(qk_layernorm=True)),
    "PhiMoEForCausalLM": Spec("PhiMoEForCausalLM", hf_class="PhimoeForCausalLM"),
    "Qwen2ForCausalLM, tied": Spec("Qwen2ForCausalLM", dict(tie_word_embeddings=True)),
    "Qwen2ForCausalLM, window": Spec(
        "Qwen2ForCausalLM", dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)
    ),
    "RecurrentGemmaForCausalLM": Spec("RecurrentGemmaForCausalLM", dict(num_hidden_layers=3)),
    "StableLmForCausalLM, parallel": Spec("StableLmForCausalLM", dict(use_parallel_residual=True, qk_layernorm=True)),
    # float32: its eager attention overflows in a float64 model
    "XGLMForCausalLM": Spec("XGLMForCausalLM", dtype=torch.float32),
    "YoutuForCausalLM": Spec("YoutuForCausalLM", _MLA),
    "Zamba2ForCausalLM": Spec("Zamba2ForCausalLM", _ZAMBA),
    "Zamba2ForCausalLM, adapters": Spec(
        "Zamba2ForCausalLM", _ZAMBA | dict(use_shared_attention_adapter=True, use_mem_rope=True)
    ),
}
"""Every variant: each architecture's own defaults, and further configurations for what those leave out."""


def _by_name(reasons: dict[str, str]) -> dict[str, str]:
    return {name: reason for reason, names in reasons.items() for name in names.split()}


ELSEWHERE: dict[str, str] = _by_name(
    {
        "its code is on the Hugging Face Hub, not in transformers": """BaiChuanForCausalLM BaichuanForCausalLM
            ExaoneForCausalLM HyenaDNAForCausalLM InternLM2ForCausalLM OpenELMForCausalLM OuroForCausalLM QwenForCausalLM
            RavenForCausalLM RWKV7ForCausalLM""",
        "a format of TransformerLens' own, without a Hugging Face model": """GPT2LMHeadCustomModel MinGPTForCausalLM
            NanoGPTForCausalLM NeelSoluOldForCausalLM TransformerLensNative TransformerLensPretrain""",
        "denoises: not causal": "BD3LM DreamModel GiddForDiffusionLM LLaDA2MoeModelLM LLaDAModelLM",
        "no head that predicts a next token": """ASTForAudioClassification BertForMaskedLM BloomModel
            DeiTForImageClassification DeiTModel HubertForCTC HubertModel RobertaForMaskedLM ViTForImageClassification
            ViTModel Wav2Vec2ForCTC Wav2Vec2ForPreTraining Wav2Vec2Model""",
        "encoder and decoder": """BartForConditionalGeneration BlenderbotForConditionalGeneration
            LEDForConditionalGeneration LongT5ForConditionalGeneration M2M100ForConditionalGeneration
            MBartForConditionalGeneration MT5ForConditionalGeneration MarianMTModel PegasusForConditionalGeneration
            SwitchTransformersForConditionalGeneration T5ForConditionalGeneration T5Gemma2ForConditionalGeneration
            T5GemmaForConditionalGeneration T5WithLMHeadModel""",
        "reads images or sound beside text": """AudioFlamingo3ForConditionalGeneration Emu3ForConditionalGeneration
            Florence2ForConditionalGeneration Gemma3ForConditionalGeneration Gemma3nForConditionalGeneration
            Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration Glm4vForConditionalGeneration
            GlmAsrForConditionalGeneration Idefics3ForConditionalGeneration Llama4ForConditionalGeneration
            LlavaForConditionalGeneration LlavaNextForConditionalGeneration LlavaOnevisionForConditionalGeneration
            Mistral3ForConditionalGeneration MuseGlimmerForConditionalGeneration MusicFlamingoForConditionalGeneration
            Qwen2AudioForConditionalGeneration Qwen2_5_VLForConditionalGeneration Qwen3VLForConditionalGeneration
            Qwen3VLMoeForConditionalGeneration Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration""",
    }
)
"""Architectures of TransformerLens' list that are not built here, and why."""

# ----------------------------------------------------------------------------
# What does not work
# ----------------------------------------------------------------------------
_BROKEN: dict[str, str] = {
    "CodeGenForCausalLM": "the bridge does not run: CodeGenAttention has no embed_positions in this transformers",
    "FalconForCausalLM, new decoder": "the bridge is not built: it splits the joint projection into wrong sizes",
    "GPTBigCodeForCausalLM, many key heads": "its adapter refuses multi_query=False",
    "GraniteMoeHybridForCausalLM": "the bridge does not run without rotary embeddings, the architecture's default",
    "OPTForCausalLM, norms after": "the bridge does not run: it expects the final norm that OPT-350m lacks",
    "PhiForCausalLM, query and key norms": "its adapter refuses qk_layernorm=True",
}
_DELTA = "the bridge does not run: its linear attention has no causal_conv1d_fn in this transformers"
BROKEN: dict[int, dict[str, str]] = {
    4: _BROKEN,
    3: _BROKEN
    | {name: _DELTA for name in ("Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM")}
    | {name: "other logits: rotary pairs are wrong" for name in ("CohereForCausalLM", "Cohere2ForCausalLM")}
    | {"HunYuanDenseV1ForCausalLM": "other logits than Hugging Face's"},
}
"""By TransformerLens' major version: variants whose bridge it does not build, does not run, or gets other logits from."""


# ----------------------------------------------------------------------------
# Models
# ----------------------------------------------------------------------------
def names() -> list[str]:
    """The variants whose architecture the installed TransformerLens lists."""
    return sorted(name for name, spec in SPECS.items() if spec.architecture in SUPPORTED_ARCHITECTURES)


def untested() -> list[str]:
    """Architectures that this TransformerLens lists, and that are neither built here nor listed with a reason."""
    return sorted(set(SUPPORTED_ARCHITECTURES) - set(ELSEWHERE) - {spec.architecture for spec in SPECS.values()})


def broken() -> dict[str, str]:
    """The variants that the installed TransformerLens gets wrong, and how."""
    return BROKEN[TL_MAJOR]


@dataclass(frozen=True, eq=False)
class Built:
    """The bridge and the plain Hugging Face model with the same weights."""

    name: str
    spec: Spec
    model: Any
    hf: nn.Module


def hugging_face(name: str) -> nn.Module:
    """The variant's Hugging Face model alone, in eval mode; every part of it eager."""
    spec = SPECS[name]
    hf_class = getattr(transformers, spec.hf_class or spec.architecture)
    config = small_configuration(hf_class.config_class, spec.sizes)
    config._attn_implementation = config._experts_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        hf = hf_class._from_config(config, dtype=torch.float32)
        draw_weights(hf, spec.dtype)
    hf.config.dtype = spec.dtype
    hf.config.architectures = [spec.architecture]
    return hf.eval()


def build(name: str) -> Built:
    """The variant's `Built`; the bridge is around a copy of the Hugging Face model."""
    spec, hf = SPECS[name], hugging_face(name)
    inner = copy.deepcopy(hf)
    with torch.random.fork_rng(devices=[]):  # adapters that split a joint projection make layers, and draw for them
        model = build_bridge_from_module(
            inner,
            spec.architecture,
            hf_config=inner.config,
            tokenizer=families.tokenizer(),
            dtype=spec.dtype,
            model_name=f"tiny-{name}",
        )
    return Built(name, spec, model.eval(), hf)
