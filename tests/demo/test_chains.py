"""Invariant: in a chain the prompt decides the first written word, and each written word the next and nothing else; so what
a swap in the prompt changes is told by the statements and the two tables. `demo`'s own corpora do not know of chains."""

from __future__ import annotations

import re
import zlib
from itertools import islice

import pytest

from tl_scopes.demo import CHAINS, CORPORA, chains
from tl_scopes.demo.corpora import examples_in_passages, passages
from tl_scopes.demo.corpora.chains import LINKS, PLACE_OF, SLOTS, THING_OF, whole

pytestmark = pytest.mark.one_lens
STATED = r"(\w+) (?:sees|hears) a (\w+)[,.]"


@pytest.fixture(params=sorted(CHAINS))
def corpus(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def solved(corpus: str, prompt: str) -> str:
    """What follows the prompt, read off its text."""
    statements, _, question = prompt.rpartition(". I know that ")
    animal = dict(re.findall(STATED, statements + "."))[question.split()[0]]
    words = [animal, THING_OF[animal], PLACE_OF[THING_OF[animal]]]
    return "".join(f"{link} {word}" for link, word in zip(LINKS[corpus], words, strict=False))


def test_the_tables_lead_each_animal_to_a_place_of_its_own() -> None:
    assert len(set(THING_OF.values())) == len(THING_OF) == len(set(PLACE_OF.values()))
    assert set(PLACE_OF) == set(THING_OF.values())


def test_all_that_is_written_follows_from_statements_and_tables(corpus: str) -> None:
    for example in chains(corpus, 100):
        assert example.answer == solved(corpus, example.prompt)
        for swap in (*example.causes, *example.others):
            assert swap.answer == solved(corpus, example.swapped(swap))
        assert all(swap.answer.split()[-1] != example.answer.split()[-1] for swap in example.causes)


def test_a_chain_has_as_many_words_as_its_name_says(corpus: str) -> None:
    hops = int(corpus[-1])
    for passage in islice(passages(corpus, 0), 50):
        assert [example.slot for example in passage.examples] == list(SLOTS[:hops])
        first, last = passage.examples[0], passage.examples[-1]
        assert whole(first).answer == (last.prompt + last.answer)[len(first.prompt) :]


def test_only_the_first_word_is_caused_by_the_prompt(corpus: str) -> None:
    for passage in islice(passages(corpus, 0), 50):
        first, *later = passage.examples
        told = {swap.span for swap in first.causes}
        for before, example in zip(passage.examples, later, strict=False):
            (cause,) = example.causes
            assert example.prompt[slice(*cause.span)] == before.answer.strip()
            assert cause.span[0] > len(first.prompt)
            assert told <= {swap.span for swap in example.others}


def slips(corpus: str, text: str) -> int:
    """Questions whose first word is not the person's animal."""
    statements, *questions = text.split(". I know that ")
    seen = dict(re.findall(STATED, statements + "."))
    return sum(question.split()[3] != seen[question.split()[0]] for question in questions)


def test_slips_are_in_training_alone_and_nobody_learns_to_make_them(corpus: str) -> None:
    assert not any(slips(corpus, passage.text) for passage in islice(passages(corpus, 0), 200))
    trained = list(islice(passages(corpus, 0, "train"), 200))
    assert sum(slips(corpus, passage.text) for passage in trained) > 50
    for passage in trained:
        statements = passage.text.split(". I know")[0] + "."
        seen = dict(re.findall(STATED, statements))
        for start, end in passage.targets:
            first = passage.text[start:end].split()[0]
            if first in THING_OF:
                assert seen[passage.text[:start].split()[-3]] == first


def test_the_chains_leave_the_demos_own_corpora_as_they_were() -> None:
    assert not set(CHAINS) & set(CORPORA)
    drawn = ""
    for corpus in CORPORA:
        drawn += "".join(repr(pair) for pair in examples_in_passages(corpus, 20, 0))
        drawn += "".join(map(repr, islice(passages(corpus, 0, "train", 0.5), 20)))
    assert zlib.crc32(drawn.encode()) == 2247123732
