"""Tiny models with a tokenizer of chosen pieces, e.g. one token per digit."""

from __future__ import annotations

from typing import Any

import families
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


def word_tokenizer(pieces: list[str], split: str, size: int = families.D_VOCAB) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of as many pieces as the tiny models have."""
    filler = [f"w{i}" for i in range(size)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(["<bos>", "<unk>", *pieces, *filler]))}
    vocab = dict(list(vocab.items())[:size])
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(split), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        name_or_path="tiny",
        add_bos_token=True,
        bos_token="<bos>",
        pad_token="<unk>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def with_tokenizer(kind: str, tokenizer: PreTrainedTokenizerFast, family: str = "gpt2") -> Any:
    model = families.build(family, kind, fresh=True).model
    model.tokenizer = tokenizer
    return model


def digit_model(kind: str, family: str = "gpt2") -> Any:
    return with_tokenizer(kind, word_tokenizer([*"0123456789", ","], r"."), family)
