"""Invariant: what a token is shown as names that token again, or is refused with the ids that it may mean; no token's
space is lost, on any kind of tokenizer."""

from __future__ import annotations

import re

import pytest
import torch
import vocabularies
from vocabularies import Holder

from tl_scopes.model import vocabulary as module
from tl_scopes.model.prompts import token_strings
from tl_scopes.model.targets import encode_targets
from tl_scopes.model.vocabulary import Vocabulary, vocabulary

pytestmark = pytest.mark.one_lens


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "demo" else kind for kind in vocabularies.KINDS]
)
def test_every_token_is_named_by_what_it_is_shown_as_or_the_refusal_names_it(kind: str) -> None:
    model = Holder(vocabularies.KINDS[kind]())
    ids = range(model.W_U.shape[1])
    named, wrong = 0, []
    for i, text in zip(ids, token_strings(model, torch.tensor(ids)), strict=True):
        try:
            found = encode_targets(model, text, 1)[0]
        except ValueError as error:
            given = re.findall(r"(\d+) \('", str(error))
            known = str(i) in given or ("�" in text and "more. Pass" in str(error))
            if not known or not str(error).endswith("Pass the token id"):
                wrong.append((i, text, str(error)))
        else:
            named += found == i
            if found != i:
                wrong.append((i, text, found))
        assert encode_targets(model, i, 1) == [i]
    assert not wrong
    assert named > 0.3 * len(ids), "most are named, or refused for being half a character"


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "demo" else kind for kind in vocabularies.KINDS]
)
def test_a_text_looked_up_alone_names_the_tokens_that_the_whole_vocabulary_has(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = vocabularies.KINDS[kind]()
    size = Holder(tokenizer).W_U.shape[1]
    alone, whole = Vocabulary.of(tokenizer), Vocabulary.of(tokenizer)
    monkeypatch.setattr(module, "FEW", 0)
    wanted = {text: whole.shown_as(tokenizer, text, size) for text in whole.texts(tokenizer, range(size))}
    monkeypatch.setattr(module, "FEW", 10**9)
    for text, ids in wanted.items():
        if any(c.isalnum() for c in text):
            assert alone.shown_as(tokenizer, text, size) == ids, text
    assert alone.shown_as(tokenizer, "no such token", size) == []


@pytest.mark.parametrize("n", [1, 3])
def test_few_texts_are_looked_up_without_decoding_the_vocabulary_and_many_decode_it_once(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = vocabularies.byte_level()
    size = Holder(tokenizer).W_U.shape[1]
    decoded: list[int] = []
    real = module._decoded
    monkeypatch.setattr(module, "_decoded", lambda t, rows: decoded.append(len(rows)) or real(t, rows))
    monkeypatch.setattr(module, "FEW", 2)
    own = Vocabulary.of(tokenizer)
    for text in ("the", " dog", "dog")[:n] * 2:
        assert own.shown_as(tokenizer, text, size), text
    assert sum(rows > size / 2 for rows in decoded) == (n == 3)


@pytest.mark.parametrize("kind", [kind for kind in vocabularies.KINDS if kind not in ("demo", "wordpiece")])
def test_tokens_carry_the_spaces_of_the_text(kind: str) -> None:
    tokenizer = vocabularies.KINDS[kind]()
    model = Holder(tokenizer)
    text = "the dog saw  the dog"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = token_strings(model, torch.tensor(ids))
    assert "".join(shown).removeprefix(" ") == text


def test_pieces_of_words_are_told_from_words() -> None:
    model = Holder(vocabularies.wordpiece())
    ids = model.tokenizer("the dogs.", add_special_tokens=False)["input_ids"]
    assert token_strings(model, torch.tensor(ids)) == [" the", " dog", "s", "."]


def test_a_word_that_two_tokens_may_be_is_refused_with_both_and_each_can_be_named() -> None:
    model = Holder(vocabularies.llama(legacy=False))
    bare, spaced = (model.tokenizer.convert_tokens_to_ids(piece) for piece in ("dog", "▁dog"))
    with pytest.raises(
        ValueError, match=rf"target='dog'\): more than one token .*: {spaced} \(' dog'\), {bare} \('dog'\)\. "
    ):
        encode_targets(model, "dog", 1)
    assert encode_targets(model, [" dog", bare, spaced], 3) == [spaced, bare, spaced]


def test_the_advice_of_a_refusal_works() -> None:
    model = Holder(vocabularies.llama(legacy=False))
    with pytest.raises(ValueError, match=r"this is 3: \[' the', ' dog', 's'\], ids \[.*\]\. Pass a") as refused:
        encode_targets(model, "the dogs", 1)
    ids = [int(i) for i in re.findall(r"\d+", str(refused.value).split("ids")[1])]
    assert token_strings(model, torch.tensor(ids)) == [" the", " dog", "s"]
    with pytest.raises(ValueError, match=r"Did you mean ' saw', with its leading space") as hinted:
        encode_targets(Holder(vocabularies.gemma()), "saw", 1)
    assert "this is 3" in str(hinted.value)
    assert encode_targets(Holder(vocabularies.gemma()), " saw", 1) != [None]


def test_a_byte_that_is_a_character_too_has_a_name_of_its_own() -> None:
    model = Holder(vocabularies.gemma())
    i = model.tokenizer.convert_tokens_to_ids("<0x0A>")
    assert token_strings(model, torch.tensor([i, i + 1])) == ["<0x0A>", "\x0b"]
    assert encode_targets(model, ["<0x0A>", "\n"], 2) == [i, model.tokenizer.convert_tokens_to_ids("\n")]


def test_ids_without_a_token_have_a_name_that_is_read_back() -> None:
    model = Holder(vocabularies.llama(legacy=False))
    beyond = len(model.tokenizer)
    assert token_strings(model, torch.tensor([beyond])) == [f"<{beyond}>"]
    assert encode_targets(model, f"<{beyond}>", 1) == [beyond]
    bare = Holder(None, 7)
    assert encode_targets(bare, token_strings(bare, torch.tensor([6]))[0], 1) == [6]
    with pytest.raises(ValueError, match=r"target='<7>'\).* ids are 0\.\.6"):
        encode_targets(bare, "<7>", 1)


def test_tokens_added_later_are_known() -> None:
    model = Holder(vocabularies.byte_level())
    before = vocabulary(model.tokenizer)
    model.tokenizer.add_tokens(["zebra"])
    assert vocabulary(model.tokenizer) is not before
    assert encode_targets(model, "zebra", 1) == [len(model.tokenizer) - 1]
