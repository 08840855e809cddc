"""GPT-2s whose weights are written by hand, so that it is known how they do a task.

The residual stream is cut into parts of one width. In all of them the first two are what a token says and where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import families
import torch
import transformers
from tokenizers_by_word import word_tokenizer
from torch import Tensor

WIDTH = 96
"""Of each part; also the longest text."""
PIECE = r" ?\w+(?: =|:| ->| be| equal| is)?|;"
"""A word with its space and the mark that asks for what is next."""
LOOK_BACK, MATCH = 1.5, 2.0
LATER = 0.2
"""What each further position adds to the score of what is found."""
NAME = 12.0
"""Score of a name, which later positions do not outweigh within `NAME / LATER` words."""
SAID, PLACE = 0, 1


def part(index: int) -> slice:
    """Dimensions of one part of the residual stream."""
    return slice(index * WIDTH, (index + 1) * WIDTH)


def words_of(texts: Iterable[str]) -> list[str]:
    """The vocabulary of these texts."""
    return sorted({piece for text in texts for piece in re.findall(PIECE, text)})


def meanings(words: Collection[str]) -> Tensor:
    """A random vector of RMS 1 for each word, 0 for BOS and what is no word; the last dimension is free."""
    return torch.cat([torch.zeros(2, WIDTH), vectors(len(words))])


def vectors(n: int) -> Tensor:
    """Random directions of one length."""
    drawn = torch.randn(n, WIDTH - 1)
    drawn = drawn / drawn.square().mean(1, keepdim=True).sqrt()
    return torch.cat([drawn, torch.zeros(n, 1)], dim=1)


def blank(n_words: int, n_parts: int, n_layers: int) -> Any:
    """A GPT-2 that does nothing, with as many heads to a layer as parts; each position has a dimension of its part."""
    config = transformers.GPT2Config(
        vocab_size=n_words + 2, n_positions=WIDTH, n_embd=n_parts * WIDTH, n_layer=n_layers, n_head=n_parts, n_inner=1,
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    hf = transformers.GPT2LMHeadModel(config).eval()
    for name, parameter in hf.named_parameters():
        if ".ln_" not in name:
            parameter.zero_()
    hf.transformer.wpe.weight[:, part(PLACE)] = WIDTH**0.5 * torch.eye(WIDTH)
    hf.config.use_cache, hf.config.architectures = False, ["GPT2LMHeadModel"]
    return hf


def maps(hf: Any, layer: int, head: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Weights of one head: queries, keys and values ``[d_model, WIDTH]``, outputs ``[WIDTH, d_model]``, bias of queries."""
    attention = hf.transformer.h[layer].attn
    queries, keys, values = (w[:, part(head)] for w in attention.c_attn.weight.split(hf.config.n_embd, dim=1))
    return queries, keys, values, attention.c_proj.weight[part(head)], attention.c_attn.bias[part(head)]


def latest(keys: Tensor, bias: Tensor) -> None:
    """Let a head prefer later positions, in the dimension that words leave free; sums to 0 for the norm's mean."""
    bias[-1] = 1.0
    keys[part(PLACE), -1] = LATER * (torch.arange(WIDTH) - (WIDTH - 1) / 2)


def bridge(hf: Any, tokenizer: Any) -> Any:
    """The model as TransformerLens has it."""
    return families.TransformerBridge.boot_transformers(
        "tiny", hf_model=hf, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    ).eval()


def copier(
    texts: Iterable[str],
    marks: tuple[str, ...] = (),
    kinds: Mapping[str, str] | None = None,
    hops: int = 1,
    meaning: Mapping[str, str] | None = None,
) -> Any:
    """It says what followed the last token when that stood in the text before, the latest time; and what followed that.

    Part 2 is what a token is looked up by, part 3 the same of the token before it, which a head of the first layer brings
    by looking one position back. A head of each further layer looks for the place whose part 3 is the last token's part 2,
    or what the layer before has found, and writes what that place says into a part of its own. The last one is read out.

    Args:
        texts: whose words are the vocabulary.
        marks: only words with one of these marks are looked up by; without any, all are.
        kinds: of words that are looked up by their kind.
        hops: layers that look for something.
        meaning: of words that are said in place of the found one.
    """
    words = words_of(texts)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        said = meanings(words)
        by_kind = dict(zip(sorted({*(kinds or {}).values()}), vectors(99), strict=False))
        number = {word: i for i, word in enumerate(words, start=2)}
        looked_up = torch.zeros_like(said)
        for word, i in number.items():
            bare = re.match(r" ?\w+", word)
            if bare is None or (marks and not word.endswith(marks)):
                continue
            name = " " + bare[0].strip()
            kind = (kinds or {}).get(name.strip())
            looked_up[i] = by_kind[kind] if kind else said[number.get(name, i)]
        for word, i in number.items():
            if marks and word.endswith(marks):
                said[i] = 0.0
        hf = blank(len(words), 4 + hops, 1 + hops)
        key, before, one = part(2), part(3), torch.eye(WIDTH)
        hf.transformer.wte.weight[:, part(SAID)] = said
        hf.transformer.wte.weight[:, key] = looked_up
        spoken = said.clone()
        if meaning:
            spoken.zero_()
            for word, found in meaning.items():
                spoken[number[word]] = said[number[found]]
        hf.lm_head.weight[:, part(3 + hops)] = spoken
        queries, keys, values, written, _ = maps(hf, 0, 0)
        queries[part(PLACE)] = LOOK_BACK * torch.diag(torch.ones(WIDTH - 1), -1)
        keys[part(PLACE)] = LOOK_BACK * one
        values[key], written[:, before] = one, one
        for layer in range(1, 1 + hops):
            queries, keys, values, written, bias = maps(hf, layer, 0)
            queries[key if layer == 1 else part(2 + layer)] = MATCH * one
            keys[before] = MATCH * one
            latest(keys, bias)
            values[part(SAID)], written[:, part(3 + layer)] = one, one
        return bridge(hf, word_tokenizer(words, PIECE, len(words) + 2))


def the_other(texts: Iterable[str], names: Collection[str]) -> Any:
    """It says the name that was said but not last: one head adds all names, another takes away the latest."""
    words = words_of(texts)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        said = meanings(words)
        hf = blank(len(words), 3, 1)
        hf.transformer.wte.weight[:, part(SAID)] = said
        is_name = torch.tensor([0.0, 0.0] + [float(word.strip() in names) for word in words])
        hf.transformer.wte.weight[:, WIDTH - 1] = WIDTH**0.5 * is_name
        hf.lm_head.weight[:, part(2)] = said
        for head, sign in enumerate((1.0, -1.0)):
            _, keys, values, written, bias = maps(hf, 0, head)
            if sign < 0:
                latest(keys, bias)
            bias[-1] = 1.0
            keys[WIDTH - 1, -1] = NAME
            values[part(SAID)], written[:, part(2)] = torch.eye(WIDTH), sign * torch.eye(WIDTH)
        return bridge(hf, word_tokenizer(words, PIECE, len(words) + 2))
