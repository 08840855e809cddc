"""A GPT-2 byte-level BPE tokenizer in which every word of the demo corpora is one token.

The merges are not learnt: each word is built from left to right, ``Ġ+d -> Ġd``, ``Ġd+o -> Ġdo``, ``Ġdo+g ->
Ġdog``, so that a word is one token exactly where it is written as in the corpora, with its leading space.
"dog" without the space stays in pieces, as an unfortunate target does with GPT-2 itself. All 256 bytes are
tokens, hence any text can be encoded.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tl_scopes.demo.corpora import CORPORA, passages

BOS = "<|endoftext|>"
CONTEXT = 256
WORD = re.compile(r" ?[^\W\d_]+")


def corpus_words(n_passages: int = 4000) -> list[str]:
    """Every word of the corpora with the space it is written with, swaps included, sorted."""
    words: set[str] = set()
    for corpus in CORPORA:
        for passage in islice(passages(corpus, seed=0, split="train"), n_passages):
            words.update(WORD.findall(passage.text))
            for example in passage.examples:
                words.update(f" {swap.replacement}" for swap in (*example.causes, *example.others))
    return sorted(word for word in words if WORD.fullmatch(word))


def left_to_right_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges that build each word letter by letter; words with a leading space first: they always win."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(words, key=lambda word: (not word.startswith(" "), word)):
        letters = byte_level.pre_tokenize_str(word)[0][0]
        merges.update(dict.fromkeys((letters[:i], letters[i]) for i in range(1, len(letters))))
    return list(merges)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The demo tokenizer: BOS, 256 bytes, the pieces of every corpus word, and the numbers 10 ... 99."""
    numbers = [str(number) for number in range(10, 100)]
    merges = left_to_right_merges(corpus_words()) + [(number[0], number[1]) for number in numbers]
    pieces = [BOS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=BOS, unk_token=BOS, model_max_length=CONTEXT
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, vocab.json and merges.txt; loads as a GPT-2 tokenizer."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace(type(tokenizer).__name__, "GPT2Tokenizer"))
