"""Invariant: what is written without a unit is what the model writes after the prompt without it, and the p-value counts the
random units whose loss changes the answer too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import every_result
import pytest
import torch

import tl_scopes as tls
from tl_scopes.demo.corpora import chains
from tl_scopes.results.chain_units import TextUnit

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


def test_an_earlier_mention_does_not_count_as_the_answer() -> None:
    """The answer is the second place of its word: a text with the first one alone has lost it."""
    pair = replace(
        every_result.chain(), text="a <b> so\n so", str_tokens=["<bos>", "a", " <b>", " so", "\n", " so"],
        offsets=((0, 0), (0, 1), (1, 5), (5, 8), (8, 9), (9, 12)), weights=torch.tensor([0.0, 0.0, 1.0]),
        steps=tuple(TextUnit(s, (p,)) for p, s in ((3, " so"), (4, "\n"), (5, " so"))),
    )  # fmt: skip
    texts = (" so\n so", " so\n no", " so so", " also\n so")
    found = replace(every_result.regenerated(), chain=pair, drawn=((0,), (0,)), texts=texts)
    assert (found.place, found.reproduced, found.changed, found.drawn_changed) == (2, True, True, (False, True))
    assert replace(found, chain=pair.of(0)).changed is False
    unlike = replace(found, texts=texts[1:] + texts[:1])
    assert "'so' is not 2 times" in unlike.sentence and "was sampled" in unlike.sentence
    assert (
        "Raise max_new_tokens: it is 2, and the answer ends with token 3" in replace(unlike, max_new_tokens=2).sentence
    )


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
    apart = replace(chain, weights=torch.tensor([0.5, *[0.0] * (len(chain.steps) - 2), 0.5]))
    piece = replace(chain.steps[-1], text=chain.steps[-1].text[:-1])
    with mock.patch("tl_scopes.evaluation.chain_verification.written", side_effect=AssertionError("it ran")):
        with pytest.raises(
            ValueError, match=r"^verify_chain\(chain=\.\.\.\): its answer is the steps 0, \d, which are not"
        ):
            tls.verify_chain(llama, apart)
        with pytest.raises(ValueError, match=r"begins or ends inside a word of the written text"):
            tls.verify_chain(llama, replace(chain, steps=(*chain.steps[:-1], piece)).of(-1))
    with pytest.raises(ValueError, match=r"^ChainVerification: n_candidates: 1, which does not fit"):
        replace(every_result.regenerated(), n_candidates=1)
    foreign = replace(chain, tokens=chain.tokens + 10**6)
    with pytest.raises(ValueError, match="pass the model that wrote the text"):
        tls.verify_chain(llama, foreign)
    renamed = replace(chain, provenance={**chain.provenance, "model_name": "gpt2"})
    with pytest.raises(
        ValueError, match=r"^verify_chain\(chain=\.\.\.\): it was made with the model 'gpt2', and this is"
    ):
        tls.verify_chain(llama, renamed)
    with pytest.raises(ValueError, match=r"its tokens are not this model's; pass the model that wrote the text"):
        tls.verify_chain(llama, replace(chain, str_tokens=["x", *chain.str_tokens[1:]], provenance={}))
