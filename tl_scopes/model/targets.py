"""From a target as a user writes it to token ids, or a clear refusal: by a token's text as results show it, or by its id."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Answer, Target, refuse_surrogates, token_strings
from tl_scopes.model.vocabulary import pieces, vocabulary

_MOST_NAMED = 20
"""Tokens that a refusal names."""


def encode_targets(
    model: LensModel,
    target: Target,
    n: int,
    *,
    argument: str = "target",
    each: str = "prompt",
) -> list[int | None]:
    """One target id for each of n prompts (or positions); None stands for the model's own top prediction."""
    if target is None or isinstance(target, str | int):
        return [_target_id(model, target, argument)] * n
    targets = list(target)
    if len(targets) != n:
        raise ValueError(f"({argument}=...): {len(targets)} given for {n} {each}{'s' * (n > 1)}; give one for each")
    return [_target_id(model, t, argument) for t in targets]


def _target_id(model: LensModel, target: Answer, argument: str) -> int | None:
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, str | int):
        raise TypeError(f"({argument}={target!r}): expected a string or a token id, got {type(target).__name__}")
    if isinstance(target, int):
        if not 0 <= target < model.W_U.shape[1]:
            raise ValueError(f"({argument}={target}): token id outside the vocabulary 0..{model.W_U.shape[1] - 1}")
        return target
    ids = tokens_of(model, target, argument)
    if len(ids) > 1:
        raise ValueError(f"({argument}={target!r}): a target is one token here; {_what_it_is(model, target)}")
    return ids[0]


def tokens_of(model: LensModel, text: str, argument: str) -> list[int]:
    """The one token that a text names, or the several that it is by itself.

    Raises:
        ValueError: it may name more than one, or is no token at all; with a leading space it would be one.
    """
    refuse_surrogates(argument, text)
    if model.tokenizer is None and not re.fullmatch(r"<\d+>", text):
        raise ValueError(f"({argument}={text!r}): this model has no tokenizer; pass a token id")
    named = _named(model, text)
    if len(named) == 1:
        return named
    if named:
        tokens = ", ".join(_names(model, named[:_MOST_NAMED]))
        more = f" and {len(named) - _MOST_NAMED} more" * (len(named) > _MOST_NAMED)
        raise ValueError(
            f"({argument}={text!r}): more than one token may be meant, by what it is shown as or by how the text is read "
            f"by itself: {tokens}{more}. Pass the token id"
        )
    ids = [] if model.tokenizer is None else pieces(model.tokenizer, text)
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    if len(ids) > 1 and unknown not in ids and max(ids) < model.W_U.shape[1] and len(_named(model, " " + text)) != 1:
        return ids
    raise ValueError(f"({argument}={text!r}): a target is one token; {_what_it_is(model, text)}")


def _named(model: LensModel, text: str) -> list[int]:
    """Ids of the tokens that a text may name: those shown as it, and the one that it is by itself."""
    size = int(model.W_U.shape[1])
    if model.tokenizer is None:
        return [i for i in (int(text[1:-1]),) if i < size]
    shown = vocabulary(model.tokenizer).shown_as(model.tokenizer, text, size)
    ids = pieces(model.tokenizer, text)
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    alone = ids[:1] if len(ids) == 1 and ids[0] != unknown else []
    return sorted({*shown, *(i for i in alone if i < size)})


def _names(model: LensModel, ids: Sequence[int]) -> list[str]:
    """Each token's id and text."""
    return [f"{i} ({text!r})" for i, text in zip(ids, token_strings(model, torch.tensor(ids)), strict=True)]


def _what_it_is(model: LensModel, text: str) -> str:
    """What a text that names no token is, and what to pass."""
    if model.tokenizer is None:
        return f"ids are 0..{model.W_U.shape[1] - 1}"
    ids = pieces(model.tokenizer, text)
    if len(_named(model, " " + text)) == 1:
        hint = f"Did you mean {' ' + text!r}, with its leading space?"
    else:
        hint = "Pass a token id, or one of these" if len(ids) > 1 else "Pass a token id"
    if not ids:
        return f"this text has no tokens. {hint}"
    if len(ids) == 1:
        return f"this text is not in the vocabulary. {hint}"
    return f"this is {len(ids)}: {token_strings(model, torch.tensor(ids))}, ids {ids}. {hint}"
