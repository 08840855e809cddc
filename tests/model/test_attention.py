"""What is said of attention holds of the model's own: latent attention, hybrids, and models without any.

Oracles are plain Hugging Face modules, never wrapped: a head's output is the input of the output projection, split by the
number of heads; its values come out of ``v_proj`` or ``kv_b_proj``.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch
import transformers
from einops import rearrange
from oracles import relative_error
from torch import Tensor, nn

import tl_scopes as tls
from tl_scopes.model.attention import attention_layers, attention_notes, by_head, require_equal_heads, value_hooks
from tl_scopes.model.hooks import required_residual_hooks
from tl_scopes.views.influence import influence_maps
from tl_scopes.views.sinks import sink_maps

TARGET = families.VOCAB[" house"]
QUIET: dict[str, Any] = {"methods": ("semantic",), "bos": (), "unrelated": 0}
_BASE = dict(vocab_size=families.D_VOCAB, hidden_size=32, bos_token_id=1, eos_token_id=2, pad_token_id=3)
_BLOCK = _BASE | dict(intermediate_size=64, max_position_embeddings=128)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    # a head's output is 6 wide and its rotary part 4: 16 heads look like 24
    "latent": (
        "DeepseekV3",
        _BLOCK
        | dict(num_hidden_layers=2, num_attention_heads=16, num_key_value_heads=16, kv_lora_rank=16, q_lora_rank=24)
        | dict(qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, first_k_dense_replace=2, n_routed_experts=8),
    ),
    "hybrid": (
        "Lfm2",
        _BLOCK
        | dict(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, block_auto_adjust_ff_dim=False)
        | dict(layer_types=["conv", "full_attention"] * 2),
    ),
    # values have a norm of their own, and layers 4 and 5 read those of 2 and 3
    "shared values": (
        "Gemma4Text",
        _BLOCK
        | dict(num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, head_dim=8, global_head_dim=16)
        | dict(layer_types=["sliding_attention", "full_attention"] * 3, num_kv_shared_layers=2)
        | dict(vocab_size_per_layer_input=families.D_VOCAB, hidden_size_per_layer_input=8),
    ),
    "without": ("Mamba", _BASE | dict(num_hidden_layers=2, state_size=4, time_step_rank=4)),
    "hidden": (
        "NemotronH",
        _BLOCK
        | dict(layers_block_type=["mamba", "attention"], num_attention_heads=4, num_key_value_heads=2, head_dim=8)
        | dict(
            ssm_state_size=4, mamba_num_heads=8, mamba_head_dim=8, n_groups=1, chunk_size=16, use_mamba_kernels=False
        ),
    ),
    "norm after the embedding": (
        "NanoChat",
        _BLOCK | dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4),
    ),
}


def hugging_face(name: str) -> Any:
    """The architecture's tiny float64 model, random but for its norms and state-space parameters."""
    prefix, sizes = ARCHITECTURES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        config = getattr(transformers, f"{prefix}Config")(**sizes)
        hf = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        for module in hf.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.data.normal_(std=0.5 if isinstance(module, nn.Embedding) else module.in_features**-0.5)
    hf.config.dtype = torch.float64
    hf.config.architectures = [type(hf).__name__]
    return hf.to(torch.float64).eval()


@cache
def bridge(name: str) -> Any:
    boot = families.TransformerBridge.boot_transformers
    hf, words = hugging_face(name), families.tokenizer()
    return boot(f"tiny-{name}", hf_model=hf, tokenizer=words, device="cpu", dtype=torch.float64).eval()


def attention_of(hf: Any) -> dict[int, tuple[Any, nn.Linear]]:
    """By layer: its attention, and the output projection."""
    found = {n: getattr(layer, "self_attn", None) for n, layer in enumerate(hf.base_model.layers)}
    return {n: (a, getattr(a, "o_proj", None) or a.out_proj) for n, a in found.items() if a is not None}


def captured(hf: Any, tokens: Tensor) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
    """The target's logit; by layer the heads' outputs ``[pos, head · width]`` and the projection that holds the values."""
    outputs: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    handles = []
    for n, (attention, projection) in attention_of(hf).items():
        source = attention.kv_b_proj if hasattr(attention, "kv_b_proj") else attention.v_proj
        handles.append(projection.register_forward_pre_hook(lambda _, args, n=n: outputs.update({n: args[0]})))
        handles.append(source.register_forward_hook(lambda _, args, out, n=n: values.update({n: out})))
    logit = hf(tokens[None], use_cache=False).logits[0, -1, TARGET]
    for handle in handles:
        handle.remove()
    return logit, outputs, values


CASES = [("latent", 10), ("latent", 20), ("latent", 16), ("hybrid", 10), ("hybrid", 4)]
"""More heads than tokens, fewer, and as many."""


@pytest.mark.parametrize(("name", "n"), CASES)
def test_a_heads_influence_is_taken_at_its_slice_of_the_output_projections_input(name: str, n: int) -> None:
    hf, tokens = hugging_face(name), families.prompt_tokens(n)
    logit, outputs, _ = captured(hf, tokens)
    gradients = torch.autograd.grad(logit, list(outputs.values()))
    heads = hf.config.num_attention_heads
    wanted = torch.stack(
        [
            rearrange(z * g, "1 pos (head d) -> head pos d", head=heads).sum(-1)
            for z, g in zip(outputs.values(), gradients, strict=True)
        ]
    ).detach()
    found = tls.head_influence(bridge(name), tokens, target=TARGET)
    assert found.layers == tuple(outputs)
    assert found.scores.shape == wanted.shape
    assert relative_error(found.scores, wanted) < 5e-6
    norms = torch.stack([rearrange(g, "1 pos (head d) -> head pos d", head=heads).norm(dim=-1) for g in gradients])
    sensitivity = tls.head_influence(bridge(name), tokens, target=TARGET, kind="sensitivity")
    assert relative_error(sensitivity.scores, norms) < 5e-6


def test_scaling_a_latent_head_changes_the_logit_by_its_influence() -> None:
    hf, tokens = hugging_face("latent"), families.prompt_tokens(10)
    found = tls.head_influence(bridge("latent"), tokens, target=TARGET)
    layer, head, _ = found.top_heads(1)[0]
    width, size = hf.config.v_head_dim, 1e-3

    def scaled(factor: float) -> float:
        def hook(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].clone()
            z[..., head * width : (head + 1) * width] *= factor
            return (z,)

        handle = hf.base_model.layers[layer].self_attn.o_proj.register_forward_pre_hook(hook)
        with torch.no_grad():
            logit = float(hf(tokens[None]).logits[0, -1, TARGET])
        handle.remove()
        return logit

    measured = (scaled(1 + size) - scaled(1 - size)) / (2 * size)
    assert measured == pytest.approx(float(found.scores[found.layers.index(layer), head].sum()), rel=1e-3)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_value_norms_are_those_of_the_value_projection(name: str, n: int) -> None:
    hf, tokens = hugging_face(name), families.prompt_tokens(n)
    _, outputs, values = captured(hf, tokens)
    heads = hf.config.num_attention_heads
    wanted = []
    for layer, out in values.items():
        by_kv = out.detach().reshape(
            n, -1, hf.config.qk_nope_head_dim + hf.config.v_head_dim if name == "latent" else 8
        )
        norms = (by_kv[..., hf.config.qk_nope_head_dim :] if name == "latent" else by_kv).norm(dim=-1)
        wanted.append(norms.repeat_interleave(heads // norms.shape[1], dim=1).T)
        assert outputs[layer].shape[-1] % heads == 0
    sinks = tls.attention_sinks(bridge(name), tokens, target=TARGET, **QUIET)
    assert sinks.layers == tuple(values)
    assert relative_error(sinks.value_norms, torch.stack(wanted)) < 5e-6


def test_values_are_those_that_are_read_normed_and_shared() -> None:
    hf, tokens = hugging_face("shared values"), families.prompt_tokens(8)
    norms: list[Tensor] = []
    for n in range(4):
        norm = hf.base_model.layers[n].self_attn.v_norm
        norm.register_forward_hook(lambda _, args, out: norms.append(out[0].detach().norm(dim=-1).T))
    with torch.no_grad():
        hf(tokens[None], use_cache=False)
    sinks = tls.attention_sinks(bridge("shared values"), tokens, target=TARGET, **QUIET)
    assert sinks.layers == (0, 1, 2, 3, 4, 5) and not sinks.notes
    read = [*norms, norms[2], norms[3]]  # normed, they are alike: where they come from is asked by itself
    assert list(value_hooks(bridge("shared values"), range(6)).values()) == [
        f"blocks.{n}.attn.v_norm.hook_out" for n in (0, 1, 2, 3, 2, 3)
    ]
    assert relative_error(sinks.value_norms, torch.stack([n.repeat_interleave(2, dim=0) for n in read])) < 5e-6


def test_a_hybrids_rows_bear_the_numbers_of_their_layers(tmp_path: Path) -> None:
    model, tokens = bridge("hybrid"), families.prompt_tokens(8)
    heads = tls.head_influence(model, tokens, target=TARGET)
    sinks = tls.attention_sinks(model, tokens, target=TARGET, **QUIET)
    assert (heads.layers, sinks.layers) == ((1, 3), (1, 3))
    for frame in (heads.to_frame(), sinks.to_frame()):
        assert frame.layer.unique().tolist() == [1, 3]
    best = heads.top_heads(1)[0]
    assert best.score == pytest.approx(float(heads.by_head()[heads.layers.index(best.layer), best.head]))
    top = heads.top(1)[0]
    assert top.score == float(heads.scores[heads.layers.index(top.layer), top.head, top.pos])
    table, by_token = influence_maps(heads)
    assert table.rows == ("3", "1")
    assert {row.split(".")[0] for row in by_token.rows} <= {"1", "3"}
    attention, norms, received = sink_maps(sinks)
    assert (attention.rows, received.rows) == (("3", "1"), ("3", "1"))
    assert norms.rows == ("final_post", "3_pre", "2_pre", "1_pre", "0_pre")
    for result in (heads, sinks):
        assert "layers 1, 3 of 0..3" in " ".join(result.notes)
        assert "layers 1, 3 of 0..3" in " ".join(str(result).split()) and "layers 1, 3 of 0..3" in result.html()
        again = type(result).load(result.save(tmp_path / f"{type(result).__name__}.json"))
        assert (again.layers, again.notes) == (result.layers, result.notes)


def test_a_file_from_before_layers_had_numbers_is_read() -> None:
    model, tokens = families.build("llama", families.kinds_available()[-1]).model, families.prompt_tokens(8)
    for result in (
        tls.head_influence(model, tokens, target=TARGET),
        tls.attention_sinks(model, tokens, target=TARGET, **QUIET),
    ):
        raw = result.to_dict()
        del raw["layers"]
        assert type(result).from_dict(raw).layers == result.layers == (0, 1)


def test_a_hybrids_rollout_is_the_product_of_its_patterns_and_says_what_it_leaves_out() -> None:
    tokens = families.prompt_tokens(9)
    with torch.no_grad():
        patterns = hugging_face("hybrid")(tokens[None], output_attentions=True).attentions
    unit = flow = torch.eye(len(tokens), dtype=torch.float64)
    for pattern in patterns:
        flow = (pattern[0].mean(0) + unit) / 2 @ flow
    assert len(patterns) == 2
    found = tls.attention_rollout(bridge("hybrid"), tokens)
    assert relative_error(found.scores, flow[-1]) < 5e-6
    assert "layers 1, 3 of 0..3" in " ".join(found.notes)


@pytest.mark.slow
def test_patching_takes_the_layers_that_have_the_component() -> None:
    model, tokens = bridge("hybrid"), families.prompt_tokens(8)
    other = tokens.clone()
    other[3] = families.VOCAB[" king"]
    attribution = tls.semantic_scope(model, tokens, target=TARGET)
    patched = tls.patch_top(model, tokens, other, attribution, k=2, n_random=1, component="attn_out")
    assert patched.layers == (1, 3)
    bare = bridge("without")
    attribution = tls.semantic_scope(bare, tokens, target=TARGET)
    with pytest.raises(ValueError, match=r"component='attn_out'.*no hook_attn_out in any layer of MambaForCausalLM"):
        tls.patch_top(bare, tokens, other, attribution, k=2, n_random=1, component="attn_out")


CALLS: dict[str, Any] = {
    "head_influence": tls.head_influence,
    "attention_sinks": tls.attention_sinks,
    "attention_rollout": tls.attention_rollout,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_model_without_attention_is_refused_by_name(call: str) -> None:
    with pytest.raises(
        ValueError, match=f"^{call}: MambaForCausalLM has no attention in any layer. Use layer_influence"
    ):
        CALLS[call](bridge("without"), families.prompt_tokens(8))


@pytest.mark.parametrize("call", CALLS)
def test_attention_that_transformer_lens_does_not_show_is_refused_by_name(call: str) -> None:
    with pytest.raises(
        ValueError, match=f"^{call}: .*shows no attn.hook_.* in any layer of NemotronHForCausalLM.*Use "
    ):
        CALLS[call](bridge("hidden"), families.prompt_tokens(8))


def test_layers_are_found_by_what_they_show() -> None:
    assert attention_layers(bridge("hybrid"), "attn.hook_z") == (1, 3)
    assert attention_layers(bridge("latent"), "attn.hook_v", "attn.hook_pattern") == (0, 1)


def test_heads_are_split_by_their_number() -> None:
    z = torch.arange(24.0).reshape(1, 2, 3, 4)  # as a bridge splits two heads of width 6
    assert torch.equal(by_head(z, 2, 2), z.reshape(1, 2, 2, 6))
    assert torch.equal(by_head(z.flatten(2), 2, 2), z.reshape(1, 2, 2, 6))
    assert by_head(z, 2, None) is z
    with pytest.raises(ValueError, match="for 5 heads"):
        by_head(z, 2, 5)


class Shown(nn.Module):
    """A model of two layers that shows these hook points."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(n_layers=2, architecture="StreamsForCausalLM")
        self.hook_dict = dict.fromkeys(names)


def test_a_model_without_one_residual_stream_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"shows no blocks.0.hook_resid_pre in StreamsForCausalLM: several residual streams"
    ):
        required_residual_hooks(Shown("blocks.0.hook_in"))


def test_layers_of_different_numbers_of_heads_make_no_table() -> None:
    require_equal_heads(Shown(), {0: 4, 1: 4})
    with pytest.raises(ValueError, match="StreamsForCausalLM has different numbers of heads"):
        require_equal_heads(Shown(), {0: 4, 1: 2})


def test_a_state_space_mixer_beside_attention_is_said() -> None:
    model = Shown("blocks.1.attn.hook_z", "blocks.1.mamba.hook_ssm_state")
    assert attention_notes(model, (0, 1)) == (
        "A state-space mixer works beside attention in layer 1, and is not in it.",
    )


def test_a_first_row_that_is_not_the_scope_is_said() -> None:
    model, tokens = bridge("norm after the embedding"), families.prompt_tokens(8)
    layers = tls.layer_influence(model, tokens, target=TARGET)
    off = (layers.scores[0] - layers.attribution.scores).abs().max() / layers.attribution.scores.max()
    (note,) = layers.notes
    assert f"up to {float(off):.2g} times" in note
    assert note in " ".join(str(layers).split()) and "Row 0_pre is not the scope" in layers.html()
    assert tls.layer_influence(model, tokens, target=TARGET, relative=True).notes == layers.notes
    assert not tls.layer_influence(model, tokens, target=TARGET, at="blocks.0.hook_resid_pre").notes


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_a_first_row_that_is_the_scope_needs_no_word(pair: families.Pair) -> None:
    assert tls.layer_influence(pair.model, families.prompt_tokens(8), target=TARGET).notes == ()
