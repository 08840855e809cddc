"""What a tokenizer of Hugging Face returned (``BatchEncoding``), as rows of token ids without padding."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor


def is_encoding(prompt: object) -> TypeGuard[Mapping[str, Any]]:
    """Is it what a tokenizer returned?"""
    return isinstance(prompt, Mapping) and "input_ids" in prompt


def as_encoding(prompt: object) -> object:
    """Token ids in a list or an array as if a tokenizer had returned them; anything else as it is."""
    ids = isinstance(prompt, list | tuple) and prompt and all(isinstance(i, Integral) for i in prompt)
    return {"input_ids": prompt} if ids or isinstance(prompt, np.ndarray) else prompt


def rows_of(encoding: Mapping[str, Any], name: str) -> list[Tensor]:
    """Token ids of each text, without what the attention mask, where there is one, leaves out at the ends.

    Raises:
        TypeError: the ids, or the mask, are no numbers.
        ValueError: the mask has another shape than the ids, or leaves out tokens inside a text.
    """
    rows = _rows(encoding, "input_ids", name)
    if encoding.get("attention_mask") is None:
        return rows
    masks = _rows(encoding, "attention_mask", name)
    if [mask.shape for mask in masks] != [row.shape for row in rows]:
        raise ValueError(f"({name}=...): attention_mask and input_ids differ in shape")
    return [_kept(row, mask, name) if row.ndim == 1 else row for row, mask in zip(rows, masks, strict=True)]


def _rows(encoding: Mapping[str, Any], key: str, name: str) -> list[Tensor]:
    """Of a tensor, an array, a list of numbers or a list of such lists."""
    values = encoding[key]
    try:
        if isinstance(values, list | tuple) and values and isinstance(values[0], list | tuple):
            return [torch.as_tensor(row).cpu() for row in values]
        found = torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"({name}=...): {key} are no numbers: {error}") from error
    return list(found) if found.ndim == 2 else [found]


def _kept(row: Tensor, mask: Tensor, name: str) -> Tensor:
    """The part of a row that its mask keeps."""
    at = mask.nonzero()[:, 0]
    if len(at) and int(at[-1] - at[0]) + 1 != len(at):
        raise ValueError(
            f"({name}=...): attention_mask leaves out tokens inside a text; only padding before or behind it can be left out"
        )
    return row[at]
