"""Is what a chain found needed? The model writes again, greedily, without it; and without random units, for comparison.

Legend: ``S`` the k prompt units with the largest total, ``R_1 … R_n`` sets of k drawn without replacement from all units that
may go (the strong ones too). With ``c(·)`` whether the answer is gone from what is written then,

    p = (1 + #{i : c(R_i) ≥ c(S)}) / (n + 1)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from tl_scopes.model.generation import sampling, stop_strings, written
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import token_strings
from tl_scopes.model.soundness import refuse_wrong
from tl_scopes.model.state import model_state
from tl_scopes.model.units import TEMPLATE
from tl_scopes.numerics.arguments import Seed, integer
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.progress import progress
from tl_scopes.numerics.ranking import most_influential, other_sets
from tl_scopes.results.chain import Chain
from tl_scopes.results.chain_units import TextUnit, require_names
from tl_scopes.results.chain_verification import ChainVerification, How, answer_place


@model_call
def verify_chain(
    model: LensModel,
    chain: Chain,
    k: int = 1,
    n_random: int = 20,
    *,
    how: How = "remove",
    among: Sequence[str] = (),
    seed: Seed = 0,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] = (),
) -> ChainVerification:
    """Does the answer change without the source that a chain found? The model writes again, greedily, and without others.

    The ``k`` prompt units with the largest total go, then each of ``n_random`` sets as large, and what the model writes after
    what is left is searched for the answer's own words: they must be there as often as in the text up to the answer.
    ``p = (1 + #{random sets that change it at least as much}) / (n + 1)``.

    Args:
        model: the model that wrote the text.
        chain: of :func:`tl_scopes.chain`; give it a short ``answer=`` that can be recognised.
        k: units that go together.
        n_random: random sets; all other sets where there are no more than that.
        how: ``"remove"`` cuts the tokens of a unit out, ``"swap"`` puts another unit's in their place, drawn by the seed.
        among: names of the units that may go, of a prompt whose units have names: its documents, say, and not the question;
            none for all.
        seed: of the draws; the global RNG is not used.
        max_new_tokens: the most tokens that are written each time; None is as many as the text has.
        stop: strings before which the writing ends.

    Returns:
        A :class:`ChainVerification`; print it for the sentence, ``.changed``, ``.p``, ``.texts``, ``.html()``. Where the
        model does not write the answer after the unchanged prompt, as with a text that was sampled, ``.reproduced`` is False.

    Raises:
        ValueError: a chain of another model, by its name or its tokens; an answer of steps that are not neighbours, or of a
            part of a word; a name that no unit has; k that leaves no unit; no room in the context.

    Cost: ``n_random + 2`` times what the model takes to write the text.

    >>> said = generate(model, "German: der Hund sieht die Katze. English: the", 4)
    >>> found = verify_chain(model, chain(model, said, units="word", answer=" dog", method="input_x_gradient"), n_random=5)
    >>> found.reproduced, len(found.texts)
    (True, 7)

    Reference: this package.
    """
    integer("k", k, least=1)
    integer("n_random", n_random, least=1)
    if max_new_tokens is not None:
        integer("max_new_tokens", max_new_tokens, least=1)
    stops = stop_strings(stop)
    model = require_lens_model(model)
    refuse_wrong(model)
    _require_same_model(model, chain)
    _require_answer(chain)
    most = len(chain.tokens) - chain.answer_start if max_new_tokens is None else max_new_tokens
    require_names(chain.sources, among)
    candidates = may_go(chain.sources, among)
    if k >= len(candidates):
        raise ValueError(
            f"(k={k}): k must be below {len(candidates)}, the number of prompt units that may go; chain.by_unit('word') cuts "
            "the prompt finer"
        )
    generator = prompt_generator(seed, chain.tokens)
    total = chain.total[candidates].tolist()
    strongest = tuple(most_influential(total, range(len(candidates)), k))
    drawn, exhaustive = other_sets(len(candidates), strongest, n_random, generator)
    order = torch.randperm(len(candidates), generator=generator).tolist()
    other = dict(zip(order, order[1:] + order[:1], strict=True))
    prompts = [_without(chain, candidates, one, how, other) for one in ((), strongest, *drawn)]
    if (longest := max(map(len, prompts))) + most > model.cfg.n_ctx:
        raise ValueError(
            f"(max_new_tokens={most}): with a prompt of {longest} tokens they are more than the model's context of "
            f"{model.cfg.n_ctx}"
        )
    texts = []
    for tokens in progress(prompts, unit="text"):
        with sampling(model, 0):
            new = written(model, tokens, most, temperature=0.0, stop=stops, seen=lambda n: None)
        texts.append(new.text)
    return ChainVerification(
        chain=chain,
        k=k,
        how=how,
        n_candidates=len(candidates),
        strongest=tuple(candidates[i] for i in strongest),
        drawn=tuple(tuple(candidates[i] for i in one) for one in drawn),
        exhaustive=exhaustive,
        texts=tuple(texts),
        seed=seed,
        max_new_tokens=most,
    )


def _require_same_model(model: LensModel, chain: Chain) -> None:
    """Refuse a model of another vocabulary, or of the same class and another name; classes may spell one name differently."""
    own, made = model_state(model).provenance(), chain.provenance
    names = [str(one.get("model_name", "")) for one in (made, own)]
    if all(names) and names[0] != names[1] and made.get("model_class") == own["model_class"]:
        raise ValueError(
            f"(chain=...): it was made with the model {names[0]!r}, and this is {names[1]!r}; pass the model that wrote "
            "the text"
        )
    known = int(chain.tokens.max()) < model.cfg.d_vocab
    if not known or token_strings(model, chain.tokens) != chain.str_tokens:
        raise ValueError("(chain=...): its tokens are not this model's; pass the model that wrote the text")


def _require_answer(chain: Chain) -> None:
    """Refuse an answer whose words cannot be looked for in a text."""
    steps = chain.answer
    if steps[-1] - steps[0] >= len(steps):
        raise ValueError(
            f"(chain=...): its answer is the steps {', '.join(map(str, steps))}, which are not neighbours, so they are "
            "no text to look for; verify chain.of(step) of one at a time"
        )
    if not answer_place(chain):
        raise ValueError(
            f"(chain=...): its answer, {chain.answer_text!r}, begins or ends inside a word of the written text, so it cannot "
            "be looked for; give chain(answer=...) whole words"
        )


def may_go(sources: Sequence[TextUnit], among: Sequence[str] = ()) -> list[int]:
    """Numbers of the prompt's units that may go; what a chat's template wrote stays."""
    return [q for q, s in enumerate(sources) if s.name != TEMPLATE and (not among or s.name in among)]


def _without(
    chain: Chain, candidates: Sequence[int], gone: Sequence[int], how: How, other: dict[int, int]
) -> Int[Tensor, " pos"]:
    """The prompt's tokens after some units were cut out, or had those of others put in their place."""
    places = [chain.sources[q].positions for q in candidates]
    put = {places[i][0]: places[other[i]] if how == "swap" else () for i in gone}
    cut = {p for i in gone for p in places[i]}
    kept: list[int] = []
    for p in range(chain.answer_start):
        kept += put.get(p, () if p in cut else (p,))
    if not kept:
        raise ValueError("(k=...): without these units nothing is left of the prompt")
    return chain.tokens[kept]
