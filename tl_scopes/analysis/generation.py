"""What a model says next: text that can then be explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tl_scopes.kernel.calls import encode, prompt_call
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.chats import answer_units
from tl_scopes.model.generation import answer_offsets, joined_offsets, sampling, stop_strings, written
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, Prompt, token_strings
from tl_scopes.model.state import model_state
from tl_scopes.numerics.arguments import Seed, integer
from tl_scopes.numerics.progress import progress
from tl_scopes.results.generation import Generation

COLDEST = 1e-6
"""Least temperature above 0: logits divided by much less overflow."""


@prompt_call
def generate(
    model: LensModel,
    prompt: Prompt,
    max_new_tokens: int = 40,
    *,
    temperature: float = 0.0,
    seed: Seed = 0,
    stop: str | Sequence[str] = (),
    prepend_bos: bool | None = None,
    chat_options: Mapping[str, Any] | None = None,
) -> list[Generation]:
    """The model's own continuation of a prompt, which every call on prompts then takes as its prompt.

    The model's ``generate`` writes it: at each step the most probable token, or, with a temperature, one drawn from
    ``softmax(logits / temperature)``.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: a string, a 1-D or ``[1, pos]`` tensor of token ids, what a tokenizer returned (without the padding that
            its mask names), a chat as a list of messages, or what was generated, which is continued; a list of these, a
            ``[batch, pos]`` tensor, or what a tokenizer returned for several texts, gives a list of results.
        max_new_tokens: the most tokens that are written.
        temperature: 0 takes the most probable token.
        seed: of the draws for the first prompt, one more for each further one; the global RNG is not used.
        stop: strings before which the answer ends. A token that one begins inside stays.
        prepend_bos: put BOS before string prompts; None is the model's own default.
        chat_options: of a chat, as in :func:`tl_scopes.semantic_scope`.

    Returns:
        A :class:`Generation`: ``.answer``, ``.tokens`` of prompt and answer, ``.answer_positions``, ``.stopped``; ``print``
        it. The end-of-sequence token is not part of it.

    Raises:
        ValueError: prompt and answer do not fit the model's context; a negative number; stop strings without a tokenizer;
            and as :func:`tl_scopes.semantic_scope`.
        TypeError: not a TransformerLens model; a number of the wrong type.

    Cost: one forward for each token; a ``HookedTransformer`` keeps keys and values, for 16 tokens at a time.

    >>> said = generate(model, "German: der Hund sieht die Katze. English: the", 4)
    >>> said.answer
    ' dog sees the cat'
    >>> semantic_scope(model, said, pos=said.answer_start - 1).target_str
    ' dog'
    """
    integer("max_new_tokens", max_new_tokens, least=1)
    if temperature != 0 and not temperature >= COLDEST:
        raise ValueError(
            f"(temperature={temperature}): expected 0, for the most probable token, or a number of at least {COLDEST:g}"
        )
    stops = stop_strings(stop)
    model, prompts = encode(model, prompt, RunOptions(prepend_bos=prepend_bos, chat_options=chat_options))
    for given in prompts:
        if len(given.tokens) + max_new_tokens > model.cfg.n_ctx:
            raise ValueError(
                f"(max_new_tokens={max_new_tokens}): with the prompt's {len(given.tokens)} tokens they are more than the "
                f"model's context of {model.cfg.n_ctx}"
            )
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "stop": stops}
    found = []
    with progress(total=max_new_tokens * len(prompts), unit="token") as bar:
        for i, given in enumerate(prompts):
            with sampling(model, (seed + i) % 2**63):
                new = written(model, given.tokens, max_new_tokens, temperature=temperature, stop=stops, seen=bar.update)
            bar.update(max_new_tokens * (i + 1) - bar.n)
            found.append(_generation(model, given, new.ids, new.text, {"seed": seed + i, **settings}, new.stopped))
    return found


def _generation(
    model: LensModel, given: EncodedPrompt, ids: Sequence[int], answer: str, settings: Mapping[str, Any], stopped: Any
) -> Generation:
    """The result, with the characters of every token."""
    tokens = torch.cat([given.tokens, torch.tensor(ids, dtype=torch.int64)])
    text, offsets = given.text, given.offsets
    if text is None or offsets is None:
        text, offsets = "".join(given.str_tokens), joined_offsets(given.str_tokens)
    after = tuple((len(text) + a, len(text) + b) for a, b in answer_offsets(model, ids, answer))
    return Generation(
        prompt=text,
        answer=answer,
        tokens=tokens,
        str_tokens=token_strings(model, tokens),
        answer_start=len(given.tokens),
        stopped=stopped,
        offsets=(*offsets, *after),
        units=(*given.units, *(answer_units(answer, len(text)) if given.units else ())),
        settings=settings,
        provenance=model_state(model).provenance(),
    )
