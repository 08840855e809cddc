"""Invariant: what is written without a unit is what the model writes after the prompt without it, and the p-value counts the
random units whose loss changes the answer too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import tl_scopes as tls
from tl_scopes.demo.corpora import chains

pytestmark = pytest.mark.one_lens


@pytest.fixture(scope="module")
def llama() -> Any:
    return tls.load_model("demo-llama")


@pytest.fixture(scope="module")
def planted(llama: Any) -> tuple[tls.Chain, int, int]:
    """A chain that the model writes, with the number of the prompt's deciding word and of one that decides nothing."""
    example = chains("chain_2", 1, seed=1)[0]
    said = tls.generate(llama, example.prompt, 5)
    assert said.answer == example.answer
    found = tls.chain(llama, said, units="word")
    texts = [s.text.strip() for s in found.sources]
    swap = example.causes[0]
    return found, texts.index(example.prompt[slice(*swap.span)]), texts.index("near")


def with_strongest(chain: tls.Chain, q: int) -> tls.Chain:
    """The same, as if every step rested on one prompt unit most."""
    scores = chain.scores.clone()
    scores[:, list(chain.sources[q].positions)] = 100 * float(scores.max())
    return replace(chain, scores=scores)


@pytest.mark.parametrize("how", ["remove", "swap"])
def test_the_planted_cause_changes_the_answer_and_another_word_does_not(llama: Any, planted: Any, how: str) -> None:
    chain, cause, other = planted
    found = tls.verify_chain(llama, with_strongest(chain, cause), n_random=6, how=how)
    assert (found.strongest, found.reproduced, found.changed) == ((cause,), True, True)
    assert found.p == (1 + sum(found.drawn_changed)) / 7 < 1
    assert "changes the answer" in found.sentence
    places = chain.sources[cause].positions
    if how == "remove":
        rest = torch.tensor([t for p, t in enumerate(chain.tokens[: chain.answer_start].tolist()) if p not in places])
        assert found.texts[1] == tls.generate(llama, rest, 5).answer
    none = tls.verify_chain(llama, with_strongest(chain, other), n_random=1)
    assert (none.changed, none.p) == (False, 1.0)
    assert "leaves the answer as it is" in none.sentence


def test_seeds_decide_the_draws_and_nothing_else(llama: Any, planted: Any) -> None:
    chain, *_ = planted
    one, again, other = (tls.verify_chain(llama, chain, n_random=3, seed=s) for s in (0, 0, 1))
    assert one.to_dict() == again.to_dict()
    assert one.drawn != other.drawn
    assert one.texts[:2] == other.texts[:2]
    named = [replace(s, name=f"u{i}") if i in (2, 5) else s for i, s in enumerate(chain.sources)]
    two = tls.verify_chain(llama, replace(chain, sources=tuple(named)), n_random=1, among=["u2", "u5"])
    assert {two.strongest[0], *two.drawn[0]} == {2, 5} and two.n_candidates == 2
    few = replace(chain, sources=chain.sources[:4])
    every = tls.verify_chain(llama, few, n_random=3)
    assert every.exhaustive and {*every.drawn, every.strongest} == {(0,), (1,), (2,), (3,)}


def test_an_answer_that_is_not_written_again_gets_no_verdict(llama: Any, planted: Any) -> None:
    chain, *_ = planted
    typed = tls.chain(
        llama, (chain.text[: chain.offsets[chain.answer_start][0]], " wolf that holds a castle"), units="word"
    )
    found = tls.verify_chain(llama, typed, n_random=1)
    assert not found.reproduced and found.p != found.p
    assert found.sentence.startswith("No verdict: after the unchanged prompt the model writes")


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_verified_is_refused(llama: Any, planted: Any) -> None:
    chain, *_ = planted
    for given, says in (
        ({"k": len(chain.sources)}, r"verify_chain\(k=\d+\): k must be below"),
        ({"how": "zero"}, r"verify_chain\(how='zero'\)"),
        ({"max_new_tokens": 400}, r"more than the model's context"),
        ({"n_random": 0}, r"n_random"),
        (
            {"among": ["a"]},
            r"verify_chain\(among=\.\.\.\): no unit of the prompt is called 'a'; there are: none has a name",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            tls.verify_chain(llama, chain, **given)
    foreign = replace(chain, tokens=chain.tokens + 10**6)
    with pytest.raises(ValueError, match="pass the model that wrote the text"):
        tls.verify_chain(llama, foreign)
