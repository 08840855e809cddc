"""Small tokenizers of each kind, over vocabularies in which different tokens are easily taken for each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tl_scopes.demo import DEMO_PATH

WORDS = ("▁the", "the", "▁dog", "dog", "▁saw", "▁Paris", "s", "▁,", "▁▁", "▁▁▁▁", "▁é", "日本", "▁5", "in")
CHARACTERS = tuple("▁abcdefghinoprstuwyAPé日本,.!5\n")
BYTES = tuple(range(256))
SPECIAL = ("<unk>", "<s>", "</s>", "[INST]")


def sentencepiece(bytes_known: Sequence[int] = BYTES, line_break: bool = False) -> tuple[dict[str, int], list]:
    """Vocabulary and merges: byte fallback, "dog" beside "▁dog", "," beside "▁,"."""
    characters = [c for c in CHARACTERS if line_break or c != "\n"]
    merges = [(word[:i], word[i]) for word in WORDS for i in range(1, len(word)) if word != "▁▁▁▁"] + [("▁▁", "▁▁")]
    pieces = [*SPECIAL, *(f"<0x{b:02X}>" for b in bytes_known), *characters, *(a + b for a, b in merges)]
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, list(dict.fromkeys(merges))


def _fast(core: Tokenizer, unknown: str = "<unk>", bos: str = "<s>") -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=core, name_or_path="tiny", unk_token=unknown, bos_token=bos, eos_token="</s>"
    )


def _bpe(vocab: dict[str, int], merges: list) -> Tokenizer:
    core = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    bos = ("<s>", vocab["<s>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[bos])
    return core


def byte_level() -> PreTrainedTokenizerBase:
    """As GPT-2: 256 bytes, and words with their space."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merges = []
    for word in ("the", " the", "dog", " dog", " 日", "é", "  ", "\n\n"):
        written = level.pre_tokenize_str(word)[0][0]
        merges += [(written[:i], written[i]) for i in range(1, len(written))]
    merges = list(dict.fromkeys(merges))
    pieces = ["<s>", "</s>", *alphabet, *(a + b for a, b in merges)]
    core = Tokenizer(models.BPE({p: i for i, p in enumerate(dict.fromkeys(pieces))}, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    return _fast(core, unknown="<s>")


def llama(*, legacy: bool, prefix: bool = True, bytes_known: Sequence[int] = BYTES) -> PreTrainedTokenizerBase:
    """As Llama 2 in transformers' own class; ``prefix`` is SentencePiece's ``add_dummy_prefix``."""
    vocab, merges = sentencepiece(bytes_known)
    tokenizer = LlamaTokenizer(
        vocab=vocab, merges=merges, legacy=legacy, add_prefix_space=prefix, name_or_path="tiny", add_bos_token=True
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["[INST]"]})
    return tokenizer


def llama_file() -> PreTrainedTokenizerBase:
    """As the published ``tokenizer.json`` of Llama 2: the space is put before by the normalizer."""
    core = _bpe(*sentencepiece())
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _fast(core)


def metaspace() -> PreTrainedTokenizerBase:
    """As T5 and XGLM: unigram pieces, and a decoder that drops the first space."""
    vocab, _ = sentencepiece(())
    core = Tokenizer(models.Unigram([(piece, -float(i)) for piece, i in vocab.items()], unk_id=0))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    core.add_special_tokens(list(SPECIAL))
    return _fast(core)


def gemma() -> PreTrainedTokenizerBase:
    """As Gemma: no space is put before, line breaks and runs of spaces are pieces beside their bytes."""
    core = _bpe(*sentencepiece(line_break=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _fast(core)


def wordpiece() -> PreTrainedTokenizerBase:
    """As BERT: pieces that begin a word, and pieces that go on ("##s")."""
    pieces = ["[UNK]", "[CLS]", "</s>", "the", "dog", "##s", "s", "##dog", ".", "##.", "a", "##a", "é", "日", "##"]
    core = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = (
        normalizers.BertNormalizer(strip_accents=False),
        pre_tokenizers.BertPreTokenizer(),
    )
    core.decoder = decoders.WordPiece()
    core.add_special_tokens(["[UNK]", "[CLS]", "</s>"])
    return _fast(core, unknown="[UNK]", bos="[CLS]")


def demo() -> PreTrainedTokenizerBase:
    """The demo model's."""
    return AutoTokenizer.from_pretrained(DEMO_PATH)


class Holder(nn.Module):
    """What of a model says which tokens there are; its unembedding has three rows that the tokenizer does not know."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, size: int = 0) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.W_U = torch.zeros(1, size if tokenizer is None else len(tokenizer) + 3)


KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "byte level": byte_level,
    "llama": lambda: llama(legacy=False),
    "llama legacy": lambda: llama(legacy=True),
    "llama without dummy prefix": lambda: llama(legacy=False, prefix=False),
    "llama file": llama_file,
    "metaspace": metaspace,
    "gemma": gemma,
    "wordpiece": wordpiece,
    "demo": demo,
}
