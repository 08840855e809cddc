"""What results say where a prompt begins with two BOS tokens, or with none."""

from __future__ import annotations

import warnings

from torch import Tensor

from tl_scopes.model.lens import LensModel
from tl_scopes.model.vocabulary import pieces

_TWO_BOS = (
    "The text begins with {bos!r} (rendered chat templates do) and another was put before it, so the prompt begins with "
    "two, which changes scores; prepend_bos=False leaves the text as it is."
)
_NO_BOS = (
    "The chat template writes no {bos!r}, with which this model's other prompts begin; prepend_bos=True puts one there."
)


def two_bos(model: LensModel, tokens: Tensor, text: str) -> tuple[str, ...]:
    """A warning, and the note for results, where the text has its own BOS after the one that was put before it."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    if bos is None or tokens[:2].tolist() != [bos, bos] or pieces(model.tokenizer, text) == tokens.tolist():
        return ()
    return warned(_TWO_BOS.format(bos=model.tokenizer.bos_token))


def no_bos(model: LensModel, tokens: Tensor) -> tuple[str, ...]:
    """The note for results, where a chat's template writes no BOS and the model's other prompts begin with one."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    if bos is None or int(tokens[0]) == bos or int(model.to_tokens("a", prepend_bos=None)[0, 0]) != bos:
        return ()
    return (_NO_BOS.format(bos=model.tokenizer.bos_token),)


def warned(note: str) -> tuple[str, ...]:
    """A note for results, said at once too."""
    warnings.warn(note, stacklevel=3)
    return (note,)
