"""A GPT-2 whose weights are written by hand: it copies what followed the last token when that stood in the text before.

The residual stream has four parts of one width: the token, its position, the token before it, and what is said next. A head
of the first layer looks one position back and writes the token there into the third part; a head of the second looks for
the place whose third part is the token that stands here, and writes that place's token into the fourth, which is read out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import families
import torch
import transformers
from tokenizers_by_word import word_tokenizer

WIDTH = 96
"""Of each part; also the longest text."""
PIECE = r" ?\w+(?: =|:)?|;"
"""A word with its space and the mark that asks for what is next."""
LOOK_BACK, MATCH = 1.5, 1.7


def copier(texts: Iterable[str]) -> Any:
    """The model, whose vocabulary are the words of these texts."""
    words = sorted({piece for text in texts for piece in re.findall(PIECE, text)})
    size = len(words) + 2
    config = transformers.GPT2Config(
        vocab_size=size, n_positions=WIDTH, n_embd=4 * WIDTH, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        hf = transformers.GPT2LMHeadModel(config).eval()
        tokens, one = torch.randn(size, WIDTH), torch.eye(WIDTH)
        token, position, before, said = (slice(i * WIDTH, (i + 1) * WIDTH) for i in range(4))
        for name, parameter in hf.named_parameters():
            if ".ln_" not in name:
                parameter.zero_()
        hf.transformer.wte.weight[:, token] = tokens
        hf.transformer.wpe.weight[:, position] = WIDTH**0.5 * one
        hf.lm_head.weight[:, said] = tokens
        shift = torch.diag(torch.ones(WIDTH - 1), -1)  # from each position to the one before
        for layer, (query_from, query, key_from, written, sharp) in enumerate(
            [(position, shift, position, before, LOOK_BACK), (token, one, before, said, MATCH)]
        ):
            attention = hf.transformer.h[layer].attn
            queries, keys, values = attention.c_attn.weight.split(4 * WIDTH, dim=1)
            queries[query_from, :WIDTH] = sharp * query
            keys[key_from, :WIDTH] = sharp * one
            values[token, :WIDTH] = one
            attention.c_proj.weight[:WIDTH, written] = one
        hf.config.use_cache, hf.config.architectures = False, ["GPT2LMHeadModel"]
        tokenizer = word_tokenizer(words, PIECE, size)
        return families.TransformerBridge.boot_transformers(
            "tiny", hf_model=hf, tokenizer=tokenizer, device="cpu", dtype=torch.float32
        ).eval()
