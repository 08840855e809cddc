"""A tiny random model of every text-only causal architecture that the installed TransformerLens lists.

    names()                     # the variants that are built, in the order of TransformerLens' own list
    variant = build("Jamba")    # Built(model, hf, spec): the bridge, and the plain Hugging Face model beside it

TransformerLens' list is read at run time: an architecture that is neither built here nor in `ELSEWHERE` with a reason is
`unlisted()`, and a test fails until it is one or the other. Configurations come from the architecture's own class with every
size that `SIZES` names made small; what that leaves wrong is in `VARIANTS`. Weights are random in float64, norm gains spread.

Each call makes new objects, from the variant's own seed: tests may change them.
"""

from __future__ import annotations

import copy
import logging
import zlib
from dataclasses import dataclass, field
from typing import Any

import families
import torch
import transformers
from torch import nn
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

D_MODEL, N_HEADS, N_KV_HEADS, D_HEAD, D_MLP, N_LAYERS, N_CTX = 32, 4, 2, 8, 64, 2, 128
WINDOW = 8  # shorter than the prompt, and two layers of it reach all of it

# ----------------------------------------------------------------------------
# Small configurations
# ----------------------------------------------------------------------------
_BY_SIZE: list[tuple[Any, str]] = [
    (families.D_VOCAB, "vocab_size vocab_size_per_layer_input"),
    (D_MODEL, "hidden_size n_embd d_model attention_hidden_size word_embed_proj_dim lru_width"),
    (D_MLP, "intermediate_size ffn_dim n_inner ffn_hidden_size mamba_d_ssm"),
    (D_MODEL // 2, "moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size"),
    (D_MODEL // 2, "shared_intermediate_size kv_lora_rank q_lora_rank o_lora_rank index_head_dim"),
    (D_MODEL // 2, "mamba_d_head mamba_head_dim mamba_headdim"),
    (N_LAYERS, "num_hidden_layers n_layer n_layers num_layers num_layers_per_stack"),
    (N_HEADS, "num_attention_heads n_head n_heads num_heads attention_heads"),
    (N_HEADS, "mamba_n_heads mamba_num_heads n_mamba_heads linear_num_value_heads index_n_heads"),
    (N_HEADS, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    (N_KV_HEADS, "num_key_value_heads linear_num_key_heads num_kv_heads num_experts_per_tok moe_k o_groups"),
    (D_HEAD, "head_dim kv_channels qk_nope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim"),
    (D_HEAD, "mamba_d_state state_size ssm_state_size time_step_rank mamba_dt_rank"),
    (D_HEAD, "hidden_size_per_layer_input adapter_rank index_topk"),
    (D_HEAD // 2, "qk_rope_head_dim rotary_dim mamba_chunk_size chunk_size"),
    (N_CTX, "max_position_embeddings n_positions n_ctx max_seq_len context_length"),
    (WINDOW, "sliding_window attention_window_size window_size local_attention"),
    (1, "n_group topk_group n_groups mamba_n_groups mamba_ngroups n_shared_experts num_shared_experts"),
    (1, "moe_num_shared_experts first_k_dense_replace num_dense_layers num_mem_blocks"),
    (0.0, "dropout attention_dropout hidden_dropout hidden_dropout_prob resid_pdrop embd_pdrop attn_pdrop"),
    (0.0, "attention_probs_dropout_prob residual_dropout resid_dropout embed_dropout embedding_dropout"),
    (0.0, "router_jitter_noise input_jitter_noise"),
]
SIZES: dict[str, Any] = {name: size for size, names in _BY_SIZE for name in names.split()}
"""A small value for every size that a configuration may have; one that a configuration lacks is not given to it."""
_IDS = dict(bos_token_id=families.BOS_ID, eos_token_id=families.EOS_ID, pad_token_id=families.PAD_ID)


def small_configuration(config_class: Any, sizes: dict[str, Any]) -> Any:
    """The class' own defaults with small sizes and one layer of each kind that the defaults have (at least two)."""
    known = {name: value for name, value in config_class().to_dict().items() if value is not None}
    chosen = {name: size for name, size in SIZES.items() if name in known}
    depth = known.get("num_hidden_layers")
    by_layer = {k: v for k, v in known.items() if isinstance(v, list) and len(v) == depth and isinstance(v[0], str)}
    if by_layer:
        kinds = list(dict.fromkeys(zip(*by_layer.values(), strict=True)))[:4]
        kinds = kinds if len(kinds) > 1 else kinds * N_LAYERS
        chosen |= {name: [kind[i] for kind in kinds] for i, name in enumerate(by_layer)}
        chosen["num_hidden_layers"] = len(kinds)
    return config_class(**chosen | _IDS | sizes)


@dataclass(frozen=True)
class Spec:
    """One variant: its architecture in TransformerLens' list, and what its small configuration needs beside `SIZES`.

    `leaf` is the module of the Hugging Face model whose output is what the bridge has at `hook_embed`, where that is not
    the token embedding itself.
    """

    architecture: str
    sizes: dict[str, Any] = field(default_factory=dict)
    hf_class: str = ""
    leaf: str = ""
    dtype: torch.dtype = torch.float64


_MLA = dict(head_dim=D_HEAD // 2, num_key_value_heads=N_HEADS)
_MULTIPLIERS = dict(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.7, attention_multiplier=0.3)
_NEEDS: dict[str, Spec] = {
    spec.architecture: spec
    for spec in (
        Spec("BambaForCausalLM", dict(attn_layer_indices=[1])),
        Spec("BertLMHeadModel", dict(is_decoder=True), leaf="bert.embeddings"),
        Spec("BloomForCausalLM", leaf="transformer.word_embeddings_layernorm"),
        Spec("DeepseekV2ForCausalLM", _MLA),
        Spec("DeepseekV3ForCausalLM", _MLA),
        Spec("Gemma1ForCausalLM", hf_class="GemmaForCausalLM"),
        Spec("Glm4MoeLiteForCausalLM", _MLA),
        Spec("GlmMoeDsaForCausalLM", _MLA),
        Spec("HunYuanDenseV1ForCausalLM", dict(head_dim=D_HEAD)),
        Spec("JambaForCausalLM", dict(attn_layer_period=2, attn_layer_offset=1)),
        Spec("JetMoEForCausalLM", hf_class="JetMoeForCausalLM"),
        Spec("Lfm2ForCausalLM", dict(layer_types=["conv", "full_attention"])),
        Spec("Lfm2MoeForCausalLM", dict(layer_types=["conv", "full_attention"])),
        Spec("MPTForCausalLM", hf_class="MptForCausalLM"),
        Spec("Mamba2ForCausalLM", dict(head_dim=D_MODEL // 2)),
        Spec("ModernBertDecoderForCausalLM", leaf="model.embeddings"),
        Spec("NemotronForCausalLM", dict(num_key_value_heads=N_KV_HEADS)),
        Spec("NeoForCausalLM", hf_class="GPTNeoForCausalLM"),
        Spec("NeoXForCausalLM", hf_class="GPTNeoXForCausalLM"),
        Spec("PhiMoEForCausalLM", hf_class="PhimoeForCausalLM"),
        Spec("RecurrentGemmaForCausalLM", dict(num_hidden_layers=3)),
        Spec("XGLMForCausalLM", dtype=torch.float32),  # its eager attention overflows in float64
        Spec("YoutuForCausalLM", _MLA),
    )
}
"""Configurations that the sizes alone do not make; a field has no default in its class, or two must fit each other."""
VARIANTS: dict[str, Spec] = {
    "BambaForCausalLM, no attention": Spec("BambaForCausalLM"),
    "DeepseekV2ForCausalLM, experts": Spec("DeepseekV2ForCausalLM", _MLA | dict(first_k_dense_replace=0)),
    "DeepseekV3ForCausalLM, whole queries": Spec("DeepseekV3ForCausalLM", _MLA | dict(q_lora_rank=None)),
    "FalconForCausalLM, new decoder": Spec("FalconForCausalLM", dict(new_decoder_architecture=True)),
    "FalconForCausalLM, ALiBi": Spec("FalconForCausalLM", dict(alibi=True)),
    "FalconForCausalLM, sequential": Spec("FalconForCausalLM", dict(parallel_attn=False)),
    "FalconForCausalLM, many key heads": Spec("FalconForCausalLM", dict(multi_query=False, num_kv_heads=N_HEADS)),
    "GPT2LMHeadModel, scaled by layer": Spec("GPT2LMHeadModel", dict(scale_attn_by_inverse_layer_idx=True)),
    "GPTBigCodeForCausalLM, many key heads": Spec("GPTBigCodeForCausalLM", dict(multi_query=False)),
    "GPTNeoXForCausalLM, sequential": Spec("GPTNeoXForCausalLM", dict(use_parallel_residual=False)),
    "Gemma4ForCausalLM, experts": Spec(
        "Gemma4ForCausalLM",
        dict(enable_moe_block=True, num_experts=N_HEADS, top_k_experts=2, moe_intermediate_size=D_MODEL // 2),
    ),
    "GraniteForCausalLM, multipliers": Spec("GraniteForCausalLM", _MULTIPLIERS),
    "GraniteMoeHybridForCausalLM, attention": Spec(
        "GraniteMoeHybridForCausalLM", _MULTIPLIERS | dict(layer_types=["linear_attention", "full_attention"])
    ),
    "LlamaForCausalLM, biases": Spec("LlamaForCausalLM", dict(attention_bias=True, mlp_bias=True)),
    "LlamaForCausalLM, tied": Spec("LlamaForCausalLM", dict(tie_word_embeddings=True)),
    "OPTForCausalLM, projections": Spec("OPTForCausalLM", dict(word_embed_proj_dim=D_MODEL // 2)),
    "OPTForCausalLM, norms after": Spec("OPTForCausalLM", dict(do_layer_norm_before=False)),
    "OlmoForCausalLM, clipped": Spec("OlmoForCausalLM", dict(clip_qkv=0.5)),
    "PhiForCausalLM, query and key norms": Spec("PhiForCausalLM", dict(qk_layernorm=True)),
    "Qwen2ForCausalLM, tied": Spec("Qwen2ForCausalLM", dict(tie_word_embeddings=True)),
    "Qwen2ForCausalLM, window": Spec("Qwen2ForCausalLM", dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)),
    "StableLmForCausalLM, parallel": Spec("StableLmForCausalLM", dict(use_parallel_residual=True, qk_layernorm=True)),
    "Zamba2ForCausalLM, adapters": Spec(
        "Zamba2ForCausalLM", dict(use_shared_attention_adapter=True, use_mem_rope=True)
    ),
}
"""Second configurations of an architecture, for what its own defaults leave out."""


def _reasons(by_reason: dict[str, str]) -> dict[str, str]:
    return {name: reason for reason, names in by_reason.items() for name in names.split()}


ELSEWHERE: dict[str, str] = _reasons(
    {
        "its code is on the Hugging Face Hub, not in transformers": "BaiChuanForCausalLM BaichuanForCausalLM "
        "ExaoneForCausalLM HyenaDNAForCausalLM InternLM2ForCausalLM OpenELMForCausalLM OuroForCausalLM QwenForCausalLM "
        "RavenForCausalLM RWKV7ForCausalLM",
        "a format of TransformerLens' own, without a Hugging Face model": "GPT2LMHeadCustomModel MinGPTForCausalLM "
        "NanoGPTForCausalLM NeelSoluOldForCausalLM TransformerLensNative TransformerLensPretrain",
        "denoises: not causal": "BD3LM DreamModel GiddForDiffusionLM LLaDA2MoeModelLM LLaDAModelLM",
        "no head that predicts a next token": "ASTForAudioClassification BertForMaskedLM BloomModel DeiTForImageClassification "
        "DeiTModel HubertForCTC HubertModel RobertaForMaskedLM ViTForImageClassification ViTModel Wav2Vec2ForCTC "
        "Wav2Vec2ForPreTraining Wav2Vec2Model",
        "encoder and decoder": "BartForConditionalGeneration BlenderbotForConditionalGeneration LEDForConditionalGeneration "
        "LongT5ForConditionalGeneration M2M100ForConditionalGeneration MBartForConditionalGeneration MT5ForConditionalGeneration "
        "MarianMTModel PegasusForConditionalGeneration SwitchTransformersForConditionalGeneration T5ForConditionalGeneration "
        "T5Gemma2ForConditionalGeneration T5GemmaForConditionalGeneration T5WithLMHeadModel",
        "reads images or sound beside text": "AudioFlamingo3ForConditionalGeneration Emu3ForConditionalGeneration "
        "Florence2ForConditionalGeneration Gemma3ForConditionalGeneration Gemma3nForConditionalGeneration "
        "Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration Glm4vForConditionalGeneration "
        "GlmAsrForConditionalGeneration Idefics3ForConditionalGeneration Llama4ForConditionalGeneration "
        "LlavaForConditionalGeneration LlavaNextForConditionalGeneration LlavaOnevisionForConditionalGeneration "
        "Mistral3ForConditionalGeneration MuseGlimmerForConditionalGeneration MusicFlamingoForConditionalGeneration "
        "Qwen2AudioForConditionalGeneration Qwen2_5_VLForConditionalGeneration Qwen3VLForConditionalGeneration "
        "Qwen3VLMoeForConditionalGeneration Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration",
    }
)
"""Architectures of TransformerLens' list that are not built here, and why."""


def names() -> list[str]:
    """The variants, in TransformerLens' order: each architecture's own defaults first, then its other configurations."""
    built = [name for name in SUPPORTED_ARCHITECTURES if name not in ELSEWHERE and hasattr(transformers, _hf_class(name))]
    return [v for name in built for v in (name, *(v for v, spec in VARIANTS.items() if spec.architecture == name))]


def unlisted() -> list[str]:
    """Architectures that this TransformerLens knows, and that are neither built nor listed with a reason."""
    return sorted(set(SUPPORTED_ARCHITECTURES) - set(ELSEWHERE) - set(names()))


def spec_of(name: str) -> Spec:
    """How the variant is built."""
    return VARIANTS.get(name) or _NEEDS.get(name) or Spec(name)


def _hf_class(name: str) -> str:
    spec = spec_of(name)
    return spec.hf_class or spec.architecture


# ----------------------------------------------------------------------------
# Models
# ----------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Built:
    """The bridge and the plain Hugging Face model with the same weights."""

    name: str
    spec: Spec
    model: Any
    hf: nn.Module


def hugging_face(name: str) -> nn.Module:
    """The variant's Hugging Face model alone, in eval mode."""
    spec = spec_of(name)
    cls = getattr(transformers, _hf_class(name))
    config = small_configuration(cls.config_class, spec.sizes)
    config._attn_implementation, config._experts_implementation = "eager", "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        hf = cls._from_config(config, dtype=torch.float32)
        draw_weights(hf, spec.dtype)
    hf.config.dtype = spec.dtype
    hf.config.architectures = [spec.architecture]
    return hf.eval()


def draw_weights(hf: nn.Module, dtype: torch.dtype) -> None:
    head = hf.get_output_embeddings()
    seen: set[int] = set()
    for module in hf.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:  # tied
                continue
            seen.add(id(parameter))
            noise, value = torch.randn(parameter.shape), parameter.data.float()
            matrix = value.ndim > 1 and min(value.shape[-2:]) > 1 and "log" not in kind
            if isinstance(module, nn.Embedding):
                value = 0.3 * noise
            elif module is head and kind == "weight":
                value = 0.35 * noise
            elif isinstance(module, nn.Conv1d) and kind == "weight":
                value = noise * value[0].numel() ** -0.5
            elif matrix:
                value = noise * value.shape[1 if isinstance(module, nn.Linear) else -2] ** -0.5
            elif "Norm" in type(module).__name__ and kind == "weight":
                value = value.mean().round() + 0.3 * noise
            else:
                value = value + 0.1 * noise
            parameter.data = value.to(dtype)


def build(name: str) -> Built:
    spec = spec_of(name)
    hf = hugging_face(name)
    inner = copy.deepcopy(hf)
    model = build_bridge_from_module(
        inner, spec.architecture, hf_config=inner.config, tokenizer=families.tokenizer(), dtype=spec.dtype, model_name=f"tiny-{name}"
    )
    return Built(name, spec, model.eval(), hf)
