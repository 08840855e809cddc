"""Invariant: blocks that `device_map` leaves on disk change no score, and with checkpointing the graph keeps none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tl_scopes as tls
from tl_scopes.demo import BUNDLED

pytestmark = pytest.mark.one_lens  # the bridge of TransformerLens 3.9 refuses disk targets itself
FOLDER = BUNDLED["demo-llama"]
PROMPT = "German: der Hund sieht die Katze. English: the"
OUTSIDE = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
BLOCKS = tuple(f"model.layers.{layer}" for layer in range(4))


def offloaded(on_disk: tuple[str, ...], folder: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {name: "disk" if name in on_disk else "cpu" for name in (*OUTSIDE, *BLOCKS)}
    options = {"device_map": where, "offload_folder": folder, "attn_implementation": "eager", "dtype": torch.float32}
    hf_model = AutoModelForCausalLM.from_pretrained(FOLDER, **options)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    return TransformerBridge.boot_transformers(str(FOLDER), hf_model=hf_model, tokenizer=tokenizer).eval()


def kept(model: Any, checkpoint: bool) -> tuple[torch.Tensor, int]:
    """Scores, and bytes of the storages that the graph keeps for its backward."""
    storages: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # so that no storage's address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = tls.semantic_scope(model, PROMPT, target=" dog", checkpoint=checkpoint)
    return found.scores, sum(storages.values())


def test_blocks_on_disk_give_the_same_scores_and_checkpointing_lets_go_of_them(tmp_path: Path) -> None:
    expected = tls.semantic_scope(tls.load_model("demo-llama"), PROMPT, target=" dog").scores
    model = offloaded(BLOCKS, tmp_path)
    weights = sum(p.numel() * p.element_size() for p in model.blocks.parameters() if p.is_meta)
    assert weights > 2**21, "the blocks are not offloaded: the test says nothing"
    plain, plain_bytes = kept(model, checkpoint=False)
    again, fewer_bytes = kept(model, checkpoint=True)
    assert torch.equal(plain, expected)
    assert torch.equal(again, expected)
    assert plain_bytes > weights > 2 * fewer_bytes
    assert all(p.is_meta for p in model.blocks.parameters()), "the weights are as they were: not in memory"


def test_an_unembedding_that_is_not_in_memory_is_refused(tmp_path: Path) -> None:
    model = offloaded(("model.embed_tokens", "lm_head"), tmp_path)
    with pytest.raises(ValueError, match=r"semantic_scope: the weights .* not in memory .*give lm_head"):
        tls.semantic_scope(model, PROMPT, target=" dog")
