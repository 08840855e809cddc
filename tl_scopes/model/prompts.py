"""From what a user types to token ids, positions and target ids, or a clear refusal.

Everything a caller can get wrong about the input is refused here, before the model runs. Messages name the
call and the argument, say what was found, and what to do.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from tl_scopes.model.bos import no_bos, two_bos, warned
from tl_scopes.model.chats import is_chat, rendered_chat
from tl_scopes.model.encodings import as_encoding, is_encoding, rows_of
from tl_scopes.model.lens import LensModel
from tl_scopes.model.units import Unit
from tl_scopes.model.vocabulary import pieces, vocabulary
from tl_scopes.numerics.annotations import InWords


class GivenTokens:
    """A prompt whose tokens are known already: what a result that may be a prompt has.

    Attributes:
        tokens: ``[pos]`` ids on the CPU.
        offsets: characters of :attr:`text` that each token stands for, where they are known.
        units: parts of the text that have names.
        answer_start: position of the first token of the part that is explained.
    """

    in_words: ClassVar[str] = "what generate() gave"
    tokens: Tensor
    offsets: tuple[tuple[int, int], ...] | None
    units: tuple[Unit, ...]
    answer_start: int

    @property
    def text(self) -> str:
        """The tokens as text."""
        raise NotImplementedError


Encoding = Mapping[str, Any]
Ids = Tensor | NDArray[np.generic] | Sequence[int]
OnePrompt = Annotated[
    str | Ids | Encoding | GivenTokens | Sequence[Any],
    InWords("a text, token ids, a chat (a list of messages), what a tokenizer returned or what generate() gave"),
]
"""A string, token ids in a 1-D or ``[1, pos]`` tensor, an array or a list, what a tokenizer returned, a chat as a list of
messages, or what was generated."""
Prompt = Annotated[
    str
    | Ids
    | Encoding
    | GivenTokens
    | Sequence[str | Ids | GivenTokens | Mapping[str, Any] | Sequence[Mapping[str, Any]]],
    InWords("a text, token ids, a chat (a list of messages), what a tokenizer or generate() gave, or a list of these"),
]
"""One prompt, a list of them, a ``[batch, pos]`` tensor or array, or what a tokenizer returned for several texts."""
Token = str | int
Answer = Token | Sequence[Token | None] | None
"""What is explained of one prompt: a token, a text of several, or one token for each position of a span."""
Target = Annotated[
    Token | Sequence[Token | Sequence[Token | None] | None] | None,
    InWords("a text or a token id, or a list of these, one for each prompt or position"),
]
Position = int | Sequence[int]
"""One explained position, or several that are explained together."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """One prompt as the model sees it.

    Attributes:
        tokens: ``[pos]`` ids on the CPU.
        str_tokens: their texts.
        pos: the explained position, non-negative; the last of several.
        special: positions of special tokens.
        text: the prompt as it was typed, None if ids were given or the tokenizer keeps no offsets.
        offsets: characters of the text that each token stands for; empty spans for added special tokens.
        notes: for the reader of any result.
        span: the explained positions in their order, where they were given as a span; else empty.
        answer: positions of the tokens that were put behind the prompt, to be explained.
        against: the same prompt with another answer, from whose log-probability the difference is explained.
        units: parts of the text that have names: the turns of a chat.
    """

    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    pos: int
    special: frozenset[int]
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    notes: tuple[str, ...] = ()
    span: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    against: EncodedPrompt | None = None
    units: tuple[Unit, ...] = ()

    @property
    def branches(self) -> tuple[EncodedPrompt, ...]:
        """The texts that are run for it: itself, and what it is compared with."""
        return (self,) if self.against is None else (self, self.against)

    @property
    def positions(self) -> list[tuple[int, int]]:
        """(branch, position) of each explained position, one or several."""
        return [(b, p) for b, one in enumerate(self.branches) for p in one.span or (one.pos,)]


def encode_prompts(
    model: LensModel,
    prompt: Prompt,
    *,
    pos: Position | Sequence[Position],
    prepend_bos: bool | None,
    chat_options: Mapping[str, Any] | None = None,
    argument: str = "prompt",
    spans: bool = False,
) -> list[EncodedPrompt]:
    """Token ids of each prompt; errors name the caller's ``argument``.

    With ``spans`` an answer that was generated is explained as a whole, where no position is named.
    """
    items, single, given = prompt_items(prompt, argument), is_single(prompt, argument), as_encoding(prompt)
    if not single and (isinstance(given, Tensor) or (is_encoding(given) and given.get("attention_mask") is None)):
        _refuse_padding(model, cast("list[Tensor]", items), argument)
    positions: list[Any] = [pos] * len(items) if single or isinstance(pos, int) else list(pos)
    if len(positions) != len(items):
        raise ValueError(f"(pos=...): {len(positions)} positions for {len(items)} prompt{'s' * (len(items) > 1)}")
    if chat_options is not None and not any(map(is_chat, items)):
        raise ValueError(f"(chat_options=...): they are for chats, and {argument} is not a list of messages")
    encoded = []
    for i, (item, p) in enumerate(zip(items, positions, strict=True)):
        name = argument if single else f"{argument}[{i}]"
        read = _read(model, item, prepend_bos, chat_options, name)
        if spans and read.answer and p == -1:
            p = [t - 1 for t in read.answer]
        else:
            read = replace(read, answer=())
        encoded.append(_encoded(model, read, p, name))
    return encoded


def is_single(prompt: object, argument: str = "prompt") -> bool:
    """One prompt, so that one result is given, or a list of them?"""
    prompt = as_encoding(prompt)
    if isinstance(prompt, Tensor):
        return prompt.ndim != 2 or len(prompt) < 2
    if is_encoding(prompt):
        return len(rows_of(prompt, argument)) == 1
    return isinstance(prompt, str | GivenTokens) or is_chat(prompt)


def prompt_items(prompt: object, argument: str = "prompt") -> list[object]:
    """The prompts that a caller gave, one by one."""
    prompt = as_encoding(prompt)
    if is_encoding(prompt):
        prompt = rows_of(prompt, argument)
    elif is_single(prompt, argument):
        return [prompt]
    if not isinstance(prompt, list | tuple | Tensor):
        raise TypeError(
            f"({argument}=...): expected a string, token ids, what a tokenizer returned, a list of messages, or "
            f"a list of these; got {type(prompt).__name__}"
        )
    if not len(prompt):
        raise ValueError(f"({argument}=[]): the list of prompts is empty")
    return list(prompt)


def _refuse_padding(model: LensModel, rows: Sequence[Tensor], argument: str) -> None:
    """Refuse rows that something was put before or behind to make them of one length: the model would read it as text."""
    for i, row in enumerate(rows):
        name = f"{argument}[{i}]"
        if found := _padding(model, _flat(row, name).tolist(), behind=True):
            raise ValueError(
                f"({name}=...): {found} the text would be read as text. Pass the strings, or a list of 1-D "
                "tensors without padding"
            )


def _padding(model: LensModel, ids: Sequence[int], behind: bool) -> str | None:
    """How many padding tokens stand before or behind a text, in words; None where none does.

    One in front may be a BOS; and one text may well end with what is used for padding, an EOS.
    """
    pad, bos, eos = (getattr(model.tokenizer, f"{name}_token_id", None) for name in ("pad", "bos", "eos"))
    for order, where, own in ((1, "before", pad == bos), (-1, "behind", False)):
        n = len(list(takewhile(lambda token: token == pad, ids[::order]))) - own
        if pad is not None and n > 0 and (where == "before" or behind or pad != eos):
            return f"{n} padding token{'s' * (n > 1)} ({model.tokenizer.pad_token!r}) {where}"
    return None


def _read(
    model: LensModel, item: object, prepend_bos: bool | None, chat_options: Mapping[str, Any] | None, name: str
) -> _Read:
    """One prompt as ids, checked for type, emptiness and length; with its text where there is one."""
    item = as_encoding(item)
    if is_encoding(item):
        rows = rows_of(item, name)
        if len(rows) != 1:
            raise ValueError(f"({name}=...): {len(rows)} texts in one item of a list; give them by themselves")
        item = rows[0]
    if isinstance(item, Tensor):
        tokens = _checked_ids(model, _flat(item, name), name)
        return _Read(tokens, notes=_padded(model, tokens))
    if isinstance(item, GivenTokens):
        tokens = _checked_ids(model, item.tokens, name)
        return _Read(tokens, item.text, item.offsets, item.units, answer=tuple(range(item.answer_start, len(tokens))))
    if is_chat(item):
        chat = rendered_chat(model.tokenizer, cast("Sequence[Mapping[str, Any]]", item), chat_options, name)
        refuse_surrogates(name, chat.text)
        bos, ids = getattr(model.tokenizer, "bos_token_id", None), pieces(model.tokenizer, chat.text)
        if prepend_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        tokens = _checked_ids(model, torch.tensor(ids, dtype=torch.int64), name)
        notes = no_bos(model, tokens) if prepend_bos is None else ()
        return _Read(tokens, chat.text, offsets_of(model, tokens, chat.text), chat.units, notes)
    if not isinstance(item, str):
        raise TypeError(
            f"({name}={item!r}): expected a string, token ids, what a tokenizer returned, or a list of messages, "
            f"got {type(item).__name__}"
        )
    if not item:
        raise ValueError(f"({name}=''): the prompt is empty")
    if model.tokenizer is None:
        raise ValueError(f"({name}={item!r}): this model has no tokenizer; pass token ids as a tensor")
    refuse_surrogates(name, item)
    tokens = _checked_ids(model, model.to_tokens(item, prepend_bos=prepend_bos, truncate=False)[0], name)
    notes = two_bos(model, tokens, item) if prepend_bos is not False else ()
    return _Read(tokens, item, offsets_of(model, tokens, item), notes=notes)


@dataclass(frozen=True, eq=False)
class _Read:
    """One prompt as ids, with its text, the tokens' characters and named parts where they are known."""

    tokens: Int[Tensor, " pos"]
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    units: tuple[Unit, ...] = ()
    notes: tuple[str, ...] = ()
    answer: tuple[int, ...] = ()


def _flat(item: Tensor, name: str) -> Tensor:
    """One row of ids."""
    tokens = item[0] if item.ndim == 2 and item.shape[0] == 1 else item
    if tokens.ndim != 1:
        raise ValueError(
            f"({name}=tensor of shape {list(item.shape)}): expected [pos] or [1, pos]; for several prompts pass [batch, pos] "
            "or a list of 1-D tensors"
        )
    if tokens.numel() and tokens.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        raise ValueError(f"({name}=...): token ids must be integers, got {tokens.dtype}")
    return tokens


def _checked_ids(model: LensModel, tokens: Tensor, name: str) -> Int[Tensor, " pos"]:
    """Ids on the CPU that the model takes; a copy made outside inference mode, so that it can enter a graph."""
    tokens = torch.tensor(tokens.tolist(), dtype=torch.int64)
    if not len(tokens):
        raise ValueError(f"({name}=...): the prompt has no tokens")
    if len(tokens) > model.cfg.n_ctx:
        raise ValueError(
            f"({name}=...): {len(tokens)} tokens are more than the model's context of {model.cfg.n_ctx}; "
            f"shorten the {name.partition('[')[0]}"
        )
    outside = tokens[(tokens < 0) | (tokens >= model.cfg.d_vocab)]
    if len(outside):
        raise ValueError(
            f"({name}=...): token id {int(outside[0])} is outside the vocabulary 0..{model.cfg.d_vocab - 1}"
        )
    return tokens


def _padded(model: LensModel, tokens: Tensor) -> tuple[str, ...]:
    """A warning, and the note for results, where padding stands before or behind one text."""
    found = _padding(model, tokens.tolist(), behind=False)
    if found is None:
        return ()
    return warned(f"{found} the text: the model reads padding as text, which changes scores. Leave it out.")


def refuse_surrogates(name: str, text: str) -> None:
    """Refuse what no tokenizer can read: half a character, as the command line gives for a byte that is not UTF-8."""
    if found := _SURROGATE.search(text):
        raise ValueError(
            f"({name}={text!r}): character {found.start()}, {found[0]!r}, is half a character (a lone surrogate; bytes "
            "that are not UTF-8 arrive so) and no text; leave it out, or decode the bytes as what they are"
        )


def _explained(pos: Position, n: int, name: str) -> list[int]:
    """Non-negative positions, in their order."""
    positions = [pos] if isinstance(pos, int | str) or not isinstance(pos, Sequence) else list(pos)
    if not positions:
        raise ValueError(f"(pos={pos!r}): no position to explain")
    for p in positions:
        if isinstance(p, bool) or not isinstance(p, int):
            raise TypeError(f"(pos={pos!r}): expected an integer, or several; got {type(p).__name__}")
        if not -n <= p < n:
            raise ValueError(f"(pos={pos}): {name} has {n} tokens; pos must be in {-n}..{n - 1}")
    found = [p % n for p in positions]
    if any(b <= a for a, b in pairwise(found)):
        raise ValueError(f"(pos={pos!r}): the positions of a span are different and in their order in the text")
    return found


def _encoded(model: LensModel, read: _Read, pos: Position, name: str) -> EncodedPrompt:
    tokens = read.tokens
    n = len(tokens)
    explained = _explained(pos, n, name)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    return EncodedPrompt(
        tokens=tokens,
        str_tokens=token_strings(model, tokens),
        pos=explained[-1],
        span=() if isinstance(pos, int) else tuple(explained),
        answer=read.answer,
        special=frozenset(i for i, token in enumerate(tokens.tolist()) if token in special),
        text=None if read.offsets is None else read.text,
        offsets=read.offsets,
        notes=read.notes,
        units=() if read.offsets is None else read.units,
    )


def offsets_of(model: LensModel, tokens: Tensor, text: str) -> tuple[tuple[int, int], ...] | None:
    """Character span of each token, where a fast tokenizer gives the same ids (a BOS before them has no characters)."""
    if not getattr(model.tokenizer, "is_fast", False):
        return None
    encoding = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, added = encoding["input_ids"], len(tokens) - len(encoding["input_ids"])
    if added < 0 or not ids or tokens[added:].tolist() != ids:
        return None
    return ((0, 0),) * added + spread_bytes(text, encoding["offset_mapping"])


def spread_bytes(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Characters of each token, where a tokenizer gives those of a whole run of unknown characters to each of their bytes."""
    found: list[tuple[int, int]] = []
    for span, run in itertools.groupby((int(a), int(b)) for a, b in offsets):
        n, characters = len(list(run)), range(*span)
        own = [(c, c + 1) for c in characters for _ in text[c].encode()] if n > 1 and len(characters) > 1 else []
        found += own if len(own) == n else [span] * n
    return tuple(found)


def token_strings(model: LensModel, tokens: Int[Tensor, " pos"]) -> list[str]:
    """Text of each token, by :mod:`tl_scopes.model.vocabulary`; ``<id>`` where the model has no tokenizer."""
    if model.tokenizer is None:
        return [f"<{token}>" for token in tokens.tolist()]
    return vocabulary(model.tokenizer).texts(model.tokenizer, tokens.tolist())


def pad_right(prompts: Sequence[EncodedPrompt]) -> Int[Tensor, "batch pos"]:
    """One right-padded batch of token ids, whatever side the tokenizer pads on.

    In a causal model nothing at a real position can depend on what stands to its right.
    """
    longest = max(len(p.tokens) for p in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt.tokens)] = prompt.tokens
    return tokens
