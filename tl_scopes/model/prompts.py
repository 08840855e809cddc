"""From what a user types to token ids, positions and target ids, or a clear refusal.

Everything a caller can get wrong about the input is refused here, before the model runs. Messages name the
call and the argument, say what was found, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from tl_scopes.model.lens import LensModel

Prompt = str | Tensor | Sequence[str | Tensor]
"""A string, a 1-D or ``[1, pos]`` tensor of token ids, or a list of strings or of 1-D tensors."""
Token = str | int
Target = Token | Sequence[Token | None] | None


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """One prompt as the model sees it.

    Attributes:
        tokens: ``[pos]`` ids on the CPU.
        str_tokens: their texts.
        pos: the explained position, non-negative.
        special: positions of special tokens.
        text: the prompt as it was typed, None if ids were given or the tokenizer keeps no offsets.
        offsets: characters of the text that each token stands for; empty spans for added special tokens.
    """

    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    pos: int
    special: frozenset[int]
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None


def encode_prompts(
    model: LensModel,
    prompt: Prompt,
    *,
    pos: int | Sequence[int],
    prepend_bos: bool | None,
    argument: str = "prompt",
) -> list[EncodedPrompt]:
    """Token ids of each prompt; errors name the caller's ``argument``."""
    single = isinstance(prompt, str | Tensor)
    if not single and not isinstance(prompt, list | tuple):
        raise TypeError(
            f"({argument}=...): expected a string, a tensor of token ids, or a list of either; got "
            f"{type(prompt).__name__}"
        )
    items: list[object] = [prompt] if single else list(prompt)
    if not items:
        raise ValueError(f"({argument}=[]): the list of prompts is empty")
    positions = [pos] * len(items) if isinstance(pos, int) else list(pos)
    if len(positions) != len(items):
        raise ValueError(f"(pos=...): {len(positions)} positions for {len(items)} prompt{'s' * (len(items) > 1)}")
    encoded = []
    for i, (item, p) in enumerate(zip(items, positions, strict=True)):
        name = argument if single else f"{argument}[{i}]"
        tokens = _token_ids(model, item, prepend_bos, name)
        encoded.append(_encoded(model, tokens, p, item, name))
    return encoded


def _token_ids(model: LensModel, item: object, prepend_bos: bool | None, name: str) -> Int[Tensor, " pos"]:
    """Ids of one prompt on the CPU, checked for type, emptiness and length."""
    if isinstance(item, str):
        if not item:
            raise ValueError(f"({name}=''): the prompt is empty")
        if model.tokenizer is None:
            raise ValueError(f"({name}={item!r}): this model has no tokenizer; pass token ids as a tensor")
        tokens = model.to_tokens(item, prepend_bos=prepend_bos, truncate=False)[0]
    elif isinstance(item, Tensor):
        tokens = item[0] if item.ndim == 2 and item.shape[0] == 1 else item
        if tokens.ndim != 1:
            raise ValueError(
                f"({name}=tensor of shape {list(item.shape)}): expected [pos] or [1, pos]; for several "
                "prompts pass a list of 1-D tensors"
            )
        if tokens.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
            raise ValueError(f"({name}=...): token ids must be integers, got {tokens.dtype}")
    else:
        raise TypeError(f"({name}={item!r}): expected a string or a tensor of token ids, got {type(item).__name__}")
    # A copy made outside inference mode, so that it can enter a graph.
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


def _encoded(model: LensModel, tokens: Tensor, pos: int, item: object, name: str) -> EncodedPrompt:
    n = len(tokens)
    if isinstance(pos, bool) or not isinstance(pos, int):
        raise TypeError(f"(pos={pos!r}): expected an integer, got {type(pos).__name__}")
    if not -n <= pos < n:
        raise ValueError(f"(pos={pos}): {name} has {n} tokens; pos must be in {-n}..{n - 1}")
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    offsets = _offsets(model, tokens, item) if isinstance(item, str) else None
    return EncodedPrompt(
        tokens=tokens,
        str_tokens=token_strings(model, tokens),
        pos=pos % n,
        special=frozenset(i for i, token in enumerate(tokens.tolist()) if token in special),
        text=item if isinstance(item, str) and offsets is not None else None,
        offsets=offsets,
    )


def _offsets(model: LensModel, tokens: Tensor, text: str) -> tuple[tuple[int, int], ...] | None:
    """Character span of each token, where a fast tokenizer gives the same ids (a BOS before them has no characters)."""
    if not getattr(model.tokenizer, "is_fast", False):
        return None
    encoding = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, added = encoding["input_ids"], len(tokens) - len(encoding["input_ids"])
    if added < 0 or not ids or tokens[added:].tolist() != ids:
        return None
    return ((0, 0),) * added + tuple((int(a), int(b)) for a, b in encoding["offset_mapping"])


def token_strings(model: LensModel, tokens: Int[Tensor, " pos"]) -> list[str]:
    """Text of each token; ``<id>`` where the model has no tokenizer."""
    if model.tokenizer is None:
        return [f"<{token}>" for token in tokens.tolist()]
    return [str(text) for text in model.to_str_tokens(tokens)]


def pad_right(prompts: Sequence[EncodedPrompt]) -> Int[Tensor, "batch pos"]:
    """One right-padded batch of token ids, whatever side the tokenizer pads on.

    In a causal model nothing at a real position can depend on what stands to its right.
    """
    longest = max(len(p.tokens) for p in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt.tokens)] = prompt.tokens
    return tokens


def encode_targets(model: LensModel, target: Target, n_prompts: int, *, argument: str = "target") -> list[int | None]:
    """One target id for each prompt; None stands for the model's own top prediction."""
    if target is None or isinstance(target, str | int):
        return [_target_id(model, target, argument)] * n_prompts
    targets = list(target)
    if len(targets) != n_prompts:
        raise ValueError(
            f"({argument}=...): {len(targets)} given for {n_prompts} prompt{'s' * (n_prompts > 1)}; give one for each"
        )
    return [_target_id(model, t, argument) for t in targets]


def _target_id(model: LensModel, target: Token | None, argument: str) -> int | None:
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, str | int):
        raise TypeError(f"({argument}={target!r}): expected a string or a token id, got {type(target).__name__}")
    if isinstance(target, int):
        if not 0 <= target < model.W_U.shape[1]:
            raise ValueError(f"({argument}={target}): token id outside the vocabulary 0..{model.W_U.shape[1] - 1}")
        return target
    if model.tokenizer is None:
        raise ValueError(f"({argument}={target!r}): this model has no tokenizer; pass a token id")
    ids = _pieces(model, target)
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    if len(ids) == 1 and (ids[0] != unknown or target == model.tokenizer.unk_token):
        return ids[0]
    if not ids or ids == [unknown]:
        found = "this text is not in the vocabulary" if ids else "this text has no tokens"
    else:
        pieces = token_strings(model, torch.tensor(ids))
        found = f"this is {len(ids)}: {pieces}"
    spaced = _pieces(model, " " + target)
    hint = "Pass a token id, or one of these"
    if len(spaced) == 1 and spaced[0] != unknown:
        hint = f"Did you mean {' ' + target!r}, with its leading space?"
    raise ValueError(f"({argument}={target!r}): a target is one token; {found}. {hint}")


def _pieces(model: LensModel, text: str) -> list[int]:
    """Ids of a piece of text by itself, without BOS."""
    if not text:
        return []
    ids: list[int] = model.to_tokens(text, prepend_bos=False, truncate=False)[0].tolist()
    return ids
