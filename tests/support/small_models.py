"""Any Hugging Face architecture made small: its sizes, found by the names that configurations give them, and its weights."""

from __future__ import annotations

from typing import Any

import families
import torch
from torch import nn

D_MODEL, N_HEADS, N_KV_HEADS, D_HEAD, D_MLP, N_LAYERS, N_CTX = 32, 4, 2, 8, 64, 2, 128
WINDOW = 8  # shorter than the prompt, and two layers of it reach all of it

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


def draw_weights(hf: nn.Module, dtype: torch.dtype) -> None:
    head = hf.get_output_embeddings()
    for module, kind, parameter in families.parameters_once(hf):
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
