"""Models with random weights in the shapes that the benchmarks use, as plain Hugging Face and as a bridge.

M1 is GPT-2 small (d=768, 12 layers, V=50,257); M2 and M3 are Llamas with Llama-3.2-1B's vocabulary (V=128,256), M2 of
half its width with 8 layers (d=1024), M3 of its width with 4 layers (d=2048); M0 is M2 of half the width (d=512); the
narrow one has Gemma 3's vocabulary (V=262,144) over 2 layers (d=256). ``real`` takes the trained model of a folder instead,
and ``prose`` a text for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from tl_scopes.model.lens import bridge_class


def gpt2_small(seed: int = 0, n_ctx: int = 1024, peak: float = 1.0) -> Any:
    """M1, eager attention, frozen; ``peak`` scales the final norm's gain and so the logits: 9 makes p about 4 nats."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(n_ctx=n_ctx, n_positions=n_ctx, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    # Fresh norms have one gain for all units, which makes ‖y‖ constant: the Temperature Scope would be refused.
    torch.nn.init.normal_(model.transformer.ln_f.weight, 1.0, 0.3)
    model.transformer.ln_f.weight.mul_(peak)
    return model


def llama_small(seed: int = 0, peak: float = 3.0) -> Any:
    """M0; else as M3."""
    return _llama(seed, peak, d_model=512, n_layers=8)


def llama_medium(seed: int = 0, peak: float = 3.0) -> Any:
    """M2; else as M3."""
    return _llama(seed, peak, d_model=1024, n_layers=8)


def llama_wide(seed: int = 0, peak: float = 3.0) -> Any:
    """M3, eager attention, frozen; ``peak`` scales the unembedding so that p is as peaked as a trained model's."""
    return _llama(seed, peak, d_model=2048, n_layers=4)


def llama_narrow(seed: int = 0, peak: float = 20.0) -> Any:
    """A small body under a large vocabulary; else as M3."""
    return _llama(seed, peak, d_model=256, n_layers=2, d_vocab=262_144)


def _llama(seed: int, peak: float, d_model: int, n_layers: int, d_vocab: int = 128_256) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=d_model,
        intermediate_size=4 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=d_model // 64,
        num_key_value_heads=d_model // 256,
        vocab_size=d_vocab,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.model.norm.weight, 1.0, 0.3)
    model.lm_head.weight.mul_(peak)
    return model


def real(folder: str) -> Callable[[], Any]:
    """The causal language model of a local folder, eager attention, frozen, float32; each call loads a copy."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    return lambda: load(folder, dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)


def describe(hf: Any) -> str:
    """A model's sizes, for the head of an output."""
    c = hf.config
    return f"{c.model_type}, d={c.hidden_size}, {c.num_hidden_layers} layers, V={c.vocab_size:,}"


def prose(folder: str) -> torch.Tensor:
    """Ids of an English text as the folder's tokenizer gives them, BOS first where the model has one."""
    text = (Path(__file__).parent.parent / "docs" / "what_it_does_not_show.md").read_text(encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return torch.tensor(tokenizer(text)["input_ids"])


def as_bridge(hf: Any) -> Any:
    """The same kind of model as a TransformerBridge (which changes ``hf`` in place: give it a copy of its own)."""
    return on_device(hf, "cpu", torch.float32)


def on_device(hf: Any, device: str, dtype: torch.dtype) -> Any:
    """… on a device, in a precision."""
    boot = bridge_class().boot_transformers
    return boot("stand-in", hf_model=hf.to(device, dtype), device=device, dtype=dtype, tokenizer=_tokenizer(hf))


def _tokenizer(hf: Any) -> transformers.PreTrainedTokenizerFast:
    """One word per id, ``w0 w1 …``, split at spaces: the benchmarks feed token ids, a peer that takes text these words."""
    size = hf.config.vocab_size
    words = {f"w{i}": i for i in range(size - 1)} | {"<|endoftext|>": size - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        name_or_path="stand-in",
        add_bos_token=True,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
