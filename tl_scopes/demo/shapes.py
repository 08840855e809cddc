"""The two bundled models: architecture, initial weights, and what each is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tl_scopes.demo import BUNDLED, initial, initial_rotary
from tl_scopes.demo.corpora import CHAINS, CORPORA
from tl_scopes.demo.tokenizer import CONTEXT

Causal = GPT2LMHeadModel | LlamaForCausalLM
Mix = Mapping[str, tuple[int, float]]
"""Corpus: passages per step, weight of its mean loss."""

MIX: Mix = {
    "translation": (36, 1.5),
    "binding": (8, 0.5),
    "mystery": (8, 0.5),
    "instruction": (10, 0.5),
    "bias": (4, 0.3),
    "series": (8, 0.7),
}
LOOK_UP_MIX: Mix = {"binding": (20, 1.0), "mystery": (14, 1.0), "series": (14, 1.0)}


def demo_config(vocab_size: int) -> GPT2Config:
    """GPT-2 of 4 layers, width 128, 4 heads, context 256, no dropout."""
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=CONTEXT,
        n_ctx=CONTEXT,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",  # saved under GPT-2's own name, see `train.save`
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=0,
    )


def llama_config(vocab_size: int) -> LlamaConfig:
    """Llama of 4 layers, width 128, 4 heads in 2 groups, context 256; slow rotations, see `initial_rotary`."""
    return LlamaConfig(
        vocab_size=vocab_size,
        max_position_embeddings=CONTEXT,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=0,
    )


@dataclass(frozen=True)
class Shape:
    """One bundled model.

    Attributes:
        name: what `load_model` calls it.
        corpora: what it speaks.
        model: its class.
        config: from the size of the vocabulary.
        initialise: sets the outline of the look-up circuit.
        steps, look_up_steps: of its training, and how many of them come first, with a mix of their own.
        mix, look_up_mix: of a training step.
    """

    name: str
    corpora: tuple[str, ...]
    model: type[Any]
    config: Callable[[int], Any]
    initialise: Callable[[Any], None]
    steps: int
    look_up_steps: int
    mix: Mix
    look_up_mix: Mix

    @property
    def folder(self) -> Path:
        """Where the bundled weights lie."""
        return BUNDLED[self.name]

    def untrained(self, vocab_size: int) -> Any:
        """The model with its initial weights; draws from torch's global generator."""
        model = self.model(self.config(vocab_size))
        self.initialise(model)
        return model


DEMO = Shape(
    name="demo",
    corpora=tuple(CORPORA),
    model=GPT2LMHeadModel,
    config=demo_config,
    initialise=initial.initialise,
    steps=1600,
    look_up_steps=250,
    mix=MIX,
    look_up_mix=LOOK_UP_MIX,
)
LLAMA = Shape(
    name="demo-llama",
    corpora=(*CORPORA, *CHAINS),
    model=LlamaForCausalLM,
    config=llama_config,
    initialise=initial_rotary.initialise,
    steps=1600,
    look_up_steps=80,
    mix={**MIX, "chain_2": (6, 0.4), "chain_3": (6, 0.4)},
    look_up_mix={**LOOK_UP_MIX, "chain_2": (10, 0.7), "chain_3": (8, 0.7)},
)
SHAPES = {shape.name: shape for shape in (DEMO, LLAMA)}


def shape_of(config: Any) -> Shape:
    """The bundled model of which a configuration is."""
    return next(shape for shape in SHAPES.values() if isinstance(config, shape.model.config_class))
