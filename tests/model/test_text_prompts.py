"""Invariant: what is wrong with a text is said, in every call: a second BOS in the result, half a character by the name of
its argument."""

from __future__ import annotations

import families
import pytest
import torch
import vocabularies
from tokenizers_by_word import with_tokenizer

import tl_scopes as tls
from tl_scopes.model.targets import encode_targets

KIND = families.kinds_available()[-1]
HALF = "the \udcff dog"
TEXT = "<bos>" + families.PROMPT


@pytest.fixture(scope="module")
def model() -> object:
    return families.build("gpt2", KIND, torch.float32).model


@pytest.fixture(scope="module")
def attr(model) -> tls.Attribution:
    return tls.semantic_scope(model, families.PROMPT, target=" dog")


CALLS = {
    "semantic_scope": lambda model, text: tls.semantic_scope(model, text),
    "scopes": lambda model, text: tls.scopes(model, text, methods=["semantic", "fisher"])["fisher"],
    "attribution_matrix": lambda model, text: tls.attribution_matrix(model, text),
    "input_x_gradient": lambda model, text: tls.input_x_gradient(model, text),
    "integrated_gradients": lambda model, text: tls.integrated_gradients(model, text),
    "leave_one_out": lambda model, text: tls.leave_one_out(model, text),
    "attention_rollout": lambda model, text: tls.attention_rollout(model, text),
    "smoothgrad": lambda model, text: tls.smoothgrad(model, text, n_samples=2),
    "layer_influence": lambda model, text: tls.layer_influence(model, text).attribution,
    "attention_sinks": lambda model, text: tls.attention_sinks(model, text, bos=(), unrelated=0),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_second_bos_is_noted_in_every_result_and_there_is_a_way_out(model, call: str) -> None:
    with pytest.warns(UserWarning, match=r"begins with '<bos>'.*prepend_bos=False"):
        result = CALLS[call](model, TEXT)
    assert any("begins with two" in note for note in result.notes)
    assert not any("begins with two" in note for note in CALLS[call](model, families.PROMPT).notes)


@pytest.mark.usefixtures("unchecked")
def test_the_note_on_bos_is_printed_and_gone_without_a_second(model) -> None:
    with pytest.warns(UserWarning, match="begins with two"):
        doubled = tls.semantic_scope(model, TEXT, target=" dog")
    assert doubled.str_tokens[:2] == ["<bos>", "<bos>"]
    for shown in (str(doubled), doubled.html(), str(doubled.by_word())):
        assert "begins with two" in " ".join(shown.split())
    once = tls.semantic_scope(model, TEXT, target=" dog", prepend_bos=False)
    assert once.notes == ()
    assert torch.equal(once.scores, tls.semantic_scope(model, families.PROMPT, target=" dog").scores)
    ids = torch.cat([once.tokens[:1], once.tokens])
    assert tls.semantic_scope(model, ids, target=" dog").notes == (), "ids are as the caller chose them"


def test_results_without_notes_warn_of_a_second_bos(model) -> None:
    with pytest.warns(UserWarning, match="begins with two"):
        tls.fisher_spectrum(model, [TEXT])
    with pytest.warns(UserWarning, match="begins with two"):
        tls.aopc(model, [TEXT], ["random"])


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("prompt", lambda model, attr: tls.semantic_scope(model, HALF)),
        (r"prompt\[1\]", lambda model, attr: tls.semantic_scope(model, ["the dog", HALF])),
        ("target", lambda model, attr: tls.semantic_scope(model, "the dog", target=HALF)),
        ("foil", lambda model, attr: tls.contrast_scope(model, "the dog", target=" cat", foil=HALF)),
        ("prompt", lambda model, attr: tls.attribution_matrix(model, HALF)),
        (
            r"unrelated\[0\]",
            lambda model, attr: tls.positional_baseline(model, families.PROMPT, unrelated=[HALF, HALF]),
        ),
        ("clean", lambda model, attr: tls.patch_top(model, HALF, families.PROMPT, attr)),
        ("corrupt", lambda model, attr: tls.patch_top(model, families.PROMPT, HALF, attr)),
        ("precision_prompt", lambda model, attr: tls.check_model(model, precision_prompt=HALF)),
        ("candidates", lambda model, attr: tls.substitutions(model, attr, k=1, candidates=[" cat", HALF])),
    ],
)
def test_half_a_character_is_refused_by_the_name_of_its_argument(model, attr, argument: str, call) -> None:
    with pytest.raises(
        ValueError, match=rf"\({argument}='the \\udcff dog'\): character 4, '\\udcff', is half a character"
    ):
        call(model, attr)


def test_a_passage_with_half_a_character_is_a_failure_with_its_reason(model, tmp_path) -> None:
    table = tls.aopc(model, [families.PROMPT, HALF], ["random"], out=tmp_path)
    assert list(table.failures) == [1]
    assert "half a character" in table.failures[1]
    assert tls.load_aopc(tmp_path).failures == table.failures
    assert "half a character" in str(table)


def test_every_string_that_results_show_names_its_token(attr) -> None:
    """On a SentencePiece tokenizer, whose own decoder drops spaces."""
    tokenizer = vocabularies.llama(legacy=False, bytes_known=range(0x30, 0x70))
    assert len(tokenizer) <= families.D_VOCAB
    model = with_tokenizer(KIND, tokenizer)
    text = "the dog saw Paris , the dogs in 5"
    found = tls.semantic_scope(model, text, prepend_bos=False)
    assert "".join(found.str_tokens) == " " + text
    matrix = tls.attribution_matrix(model, text, prepend_bos=False)
    swaps = tls.substitutions(model, found, k=20)
    shown = {
        *zip(found.str_tokens, found.tokens.tolist(), strict=True),
        *((string, i) for (string, _), i in zip(found.top_predictions, found.top_tokens, strict=True)),
        (found.target_str, found.target),
        *zip(matrix.str_tokens, matrix.tokens.tolist(), strict=True),
        *zip(matrix.target_strs, matrix.targets, strict=True),
        *zip(swaps.str_tokens, swaps.tokens.tolist(), strict=True),
    }
    named = [named_again(model, string, i) for string, i in shown]
    assert sum(named) > len(shown) / 2
    assert [w.strip() for w in found.by_word().str_tokens] == text.split()
    for string, i in zip(swaps.str_tokens[:5], swaps.tokens[:5].tolist(), strict=True):
        if named_again(model, string, i):
            assert tls.substitutions(model, found, k=1, candidates=[string]).tokens.tolist() == [i]


def named_again(model: torch.nn.Module, string: str, i: int) -> bool:
    """Does a string name token ``i``? Else the refusal names it."""
    try:
        (found,) = encode_targets(model, string, 1)
    except ValueError as error:
        refusal = str(error)
    else:
        assert found == i
        return True
    assert f"{i} ({string!r})" in refusal
    return False


@pytest.mark.enable_socket
def test_pictures_show_the_spaces_of_a_sentencepiece_text(look) -> None:
    model = with_tokenizer(KIND, vocabularies.llama(legacy=False, bytes_known=range(0x30, 0x70)))
    text = "the dog saw Paris, the dogs in 5"
    found = tls.semantic_scope(model, text, prepend_bos=False)
    page = look(found.html())
    assert "".join(page.eval_on_selector_all("bdi[data-pos]", "all => all.map(e => e.textContent)")) == " " + text
    gap = """e => {
        const letter = document.createRange();
        letter.setStart(e.firstChild, 0);
        letter.setEnd(e.firstChild, 1);
        return letter.getBoundingClientRect().width;
    }"""
    assert page.eval_on_selector('bdi[data-pos="1"]', gap) > 1, "the space is drawn"
    assert "the dog saw Paris, the dogs in 5" in str(found)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["own", "bos"])  # GPT-2's is the token that texts begin with
def test_texts_padded_to_one_length_are_refused_and_without_their_padding_are_not(side: str, pad: str) -> None:
    model = families.build("llama", KIND, torch.float32, fresh=True).model
    model.tokenizer.padding_side = side
    model.tokenizer.pad_token = model.tokenizer.bos_token if pad == "bos" else " cat"
    texts = ["the dog", "the old man saw a dog"]
    where = "before" if side == "left" else "behind"
    message = (
        rf"^semantic_scope\(prompt\[0\]=\.\.\.\): 4 padding tokens \('{model.tokenizer.pad_token}'\) {where} the text"
    )
    with pytest.raises(ValueError, match=message):
        tls.semantic_scope(model, model.to_tokens(texts))
    with pytest.raises(ValueError, match=r"prompt\[0\]=\.\.\.\): token ids must be integers"):
        tls.semantic_scope(model, model.to_tokens(texts).float())
    with pytest.warns(UserWarning, match=f"^4 padding tokens .* {where} the text"):
        assert tls.semantic_scope(model, model.to_tokens(texts)[0]).notes[0].startswith("4 padding tokens")
    bare = [model.to_tokens(text)[0] for text in texts]
    for by_ids, by_text in zip(tls.semantic_scope(model, bare), tls.semantic_scope(model, texts), strict=True):
        assert torch.equal(by_ids.scores, by_text.scores)
    assert len(tls.semantic_scope(model, model.to_tokens([texts[0], "a man"]))) == 2


def test_one_text_may_end_with_what_pads_others() -> None:
    model = families.build("llama", KIND, torch.float32, fresh=True).model
    model.tokenizer.pad_token = model.tokenizer.eos_token
    ended = torch.tensor([*model.to_tokens("the dog")[0].tolist(), model.tokenizer.eos_token_id])
    assert not any("padding" in note for note in tls.semantic_scope(model, ended).notes)
    with pytest.raises(ValueError, match="1 padding token .* behind"):
        tls.semantic_scope(model, torch.stack([ended, ended]))
