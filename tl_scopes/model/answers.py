"""What is explained of each prompt: one token, the text's own tokens at several positions, or an answer put behind it.

Explained positions of all prompts are counted through, in the order of prompts: directions have one target for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tl_scopes.model.chats import answer_units
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Answer, EncodedPrompt, Target, offsets_of, token_strings
from tl_scopes.model.targets import encode_targets, tokens_of
from tl_scopes.model.vocabulary import pieces


@dataclass(frozen=True)
class Side:
    """Stands for the foil at the positions of an answer that is compared with another one: which of the two it is."""

    sign: int


Foil = int | Side | None


def with_targets(
    model: LensModel, prompts: Sequence[EncodedPrompt], target: Target, foil: Target = None
) -> tuple[list[EncodedPrompt], list[int | None], list[Foil]]:
    """The prompts, answers of several tokens put behind them; a target and a foil for each explained position.

    A target of None stands for the model's own top prediction; at the positions of a span, for the token that follows in the
    text.

    Raises:
        ValueError: as :func:`tl_scopes.model.targets.encode_targets`; an answer of several tokens that is not to follow
            its prompt's last token; a span with another number of targets than positions.
    """
    asked, foils = _one_each(prompts, target, "target"), _one_each(prompts, foil, "foil")
    found: list[EncodedPrompt] = []
    targets: list[int | None] = []
    others: list[Foil] = []
    for prompt, answer, other in zip(prompts, asked, foils, strict=True):
        if prompt.span:
            targets += _of_span(model, prompt, answer)
            others += encode_targets(model, other, len(prompt.span), argument="foil", each="position")
            found.append(prompt)
            continue
        one, two = _ids(model, prompt, answer, "target"), _ids(model, prompt, other, "foil")
        if max(len(one), len(two)) < 2:
            targets += one or [None]
            others += two or [None]
        elif two and not one:
            raise ValueError(
                f"(foil={other!r}): these are {len(two)} tokens, to be compared with an answer: pass target="
            )
        else:
            whole = prompt
            prompt = answered(model, whole, _text(model, answer, one), one, "target")
            targets += one
            others += [Side(1)] * len(one) if two else [None] * len(one)
            if two:
                against = answered(model, whole, _text(model, other, two), two, "foil")
                prompt = replace(prompt, against=against, pos=whole.pos)
                targets += two
                others += [Side(-1)] * len(two)
        found.append(prompt)
    return found, targets, others


def _ids(model: LensModel, prompt: EncodedPrompt, answer: Answer, argument: str) -> list[int]:
    """The tokens of a text, the one that an id is; none where nothing is given."""
    if isinstance(answer, str):
        return tokens_of(model, answer, argument)
    if isinstance(answer, list | tuple):
        raise ValueError(
            f"({argument}={answer!r}): a list of tokens is for the positions that pos= names together, and one position is "
            f"explained here, {prompt.pos}. Pass one token, or the answer as text"
        )
    return [token for token in encode_targets(model, answer, 1, argument=argument) if token is not None]


def _text(model: LensModel, answer: Answer, ids: Sequence[int]) -> str:
    """An answer as it was typed, or as its tokens are shown."""
    return answer if isinstance(answer, str) else "".join(token_strings(model, torch.tensor(ids)))


def _one_each(prompts: Sequence[EncodedPrompt], target: Target, argument: str) -> list[Answer]:
    """What is asked of each prompt; a list for one prompt may be that of its span's positions, but for ``[None]``."""
    if target is None or isinstance(target, str | int):
        return [target] * len(prompts)
    asked: list[Answer] = list(target)
    of_span = asked != [None] and not any(isinstance(a, list | tuple) for a in asked)
    if len(prompts) == 1 and prompts[0].span and of_span:
        return [asked]  # type: ignore[list-item]
    if len(asked) != len(prompts):
        n = len(prompts)
        raise ValueError(f"({argument}=...): {len(asked)} given for {n} prompt{'s' * (n > 1)}; give one for each")
    return asked


def _of_span(model: LensModel, prompt: EncodedPrompt, answer: Answer) -> list[int | None]:
    """The given targets of a span, or the text's own tokens; the last token's is None, the top prediction."""
    n = len(prompt.span)
    if answer is None:
        following = [*prompt.tokens.tolist()[1:], None]
        return [following[p] for p in prompt.span]
    if isinstance(answer, str | int) and n > 1:
        raise ValueError(
            f"(target={answer!r}): pos= names {n} positions, whose targets are the tokens that follow them in the text. "
            "Leave the target out, or give a list with one for each position"
        )
    return encode_targets(model, answer, n, each="position")


def answered(model: LensModel, prompt: EncodedPrompt, answer: str, ids: Sequence[int], argument: str) -> EncodedPrompt:
    """The prompt with an answer behind it, every token of which is explained."""
    n, m = len(prompt.tokens), len(ids)
    if prompt.pos != n - 1:
        raise ValueError(
            f"({argument}={answer!r}): an answer of {m} tokens follows the prompt's last token, and pos={prompt.pos} is not "
            "that. Cut the prompt there; if the answer is in the text already, pass pos=range(...) and no target"
        )
    if n + m > model.cfg.n_ctx:
        raise ValueError(
            f"({argument}=...): {n} tokens and {m} of the answer are more than the model's context of {model.cfg.n_ctx}; "
            "shorten the prompt"
        )
    tokens = torch.tensor(ids)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    offsets = offsets_of(model, tokens, answer) if prompt.text is not None and prompt.offsets else None
    notes = prompt.notes
    if prompt.text is not None and prompt.tokens.tolist()[-len(own := pieces(model.tokenizer, prompt.text)) :] == own:
        together = pieces(model.tokenizer, prompt.text + answer)
        if together != [*own, *ids]:
            notes += (
                f"Read in one piece, prompt and answer are other tokens than {ids}: here the answer is read by itself and "
                "put behind the prompt's own tokens.",
            )
    return replace(
        prompt,
        tokens=torch.cat([prompt.tokens, tokens]),
        str_tokens=[*prompt.str_tokens, *token_strings(model, tokens)],
        pos=n + m - 2,
        span=tuple(range(n - 1, n + m - 1)),
        answer=tuple(range(n, n + m)),
        special=prompt.special | {n + i for i, token in enumerate(ids) if token in special},
        text=None if offsets is None else f"{prompt.text}{answer}",
        offsets=None
        if offsets is None
        else (*(prompt.offsets or ()), *((len(prompt.text or "") + a, len(prompt.text or "") + b) for a, b in offsets)),
        notes=notes,
        units=(*prompt.units, *answer_units(answer, len(prompt.text or "")))
        if prompt.units and offsets
        else prompt.units,
    )
