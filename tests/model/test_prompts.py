"""Invariant: whatever a caller can get wrong is refused before the model runs, in words that say what to do."""

from __future__ import annotations

import families
import numpy as np
import pytest
import torch

import tl_scopes as tls

KIND = families.kinds_available()[-1]


@pytest.fixture(scope="module")
def model() -> object:
    model = families.build("gpt2", KIND, torch.float32).model
    tls.semantic_scope(model, torch.tensor([1, 2]))  # what is asked of a model once, it runs for
    return model


@pytest.fixture(autouse=True)
def never_runs(model, monkeypatch, request) -> None:
    """These mistakes must be found before any forward."""
    if "runs" not in request.keywords:

        def forward(*args: object, **kwargs: object) -> None:
            raise AssertionError("the model ran")

        monkeypatch.setattr(type(model), "__call__", forward)


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("", ValueError, "prompt is empty"),
        ([], ValueError, "list of prompts is empty"),
        (["the dog", ""], ValueError, r"prompt\[1\]=''.*empty"),
        (torch.zeros(0, dtype=torch.int64), ValueError, "no tokens"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), ValueError, r"expected \[pos\] or \[1, pos\]; for several prompts"),
        (torch.zeros(3), ValueError, "must be integers"),
        (torch.tensor([0, families.D_VOCAB]), ValueError, f"token id {families.D_VOCAB} is outside the vocabulary"),
        (torch.tensor([-1]), ValueError, "token id -1 is outside"),
        (torch.zeros(families.N_CTX + 1, dtype=torch.int64), ValueError, f"context of {families.N_CTX}"),
        (7, TypeError, "expected a text, token ids, a chat"),
        ([1, 2.5], TypeError, r"prompt\[1\]=2\.5\): expected an integer"),
        ([families.D_VOCAB], ValueError, f"token id {families.D_VOCAB} is outside the vocabulary"),
        (np.zeros(3), ValueError, "must be integers"),
        ([{"role": "user"}, "the dog"], TypeError, r"prompt\[0\]=\{'role': 'user'\}\): expected a string, .* got dict"),
        (None, TypeError, r"prompt=None\): expected a text, token ids, a chat"),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}, ValueError, r"prompt=\.\.\.\): .* inside a text"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, ValueError, "differ in shape"),
        ({"input_ids": [1, 2], "attention_mask": [0, 0]}, ValueError, "no tokens"),
        ({"input_ids": []}, ValueError, "no tokens"),
        ({"input_ids": torch.zeros(0, 3, dtype=torch.int64)}, ValueError, "list of prompts is empty"),
        ({"input_ids": torch.zeros(1, 2, 3, dtype=torch.int64)}, ValueError, r"expected \[pos\] or \[1, pos\]"),
        ({"input_ids": "the dog"}, TypeError, "input_ids are no numbers"),
        ({"input_ids": [0.5]}, ValueError, "must be integers"),
        ([{"input_ids": [[1], [2]]}], ValueError, r"prompt\[0\]=\.\.\.\): 2 texts in one item of a list"),
    ],
    ids=lambda v: None if isinstance(v, type) else str(v)[:20],
)
@pytest.mark.usefixtures("unchecked")
def test_unusable_prompts_are_refused(model, prompt, error, message) -> None:
    with pytest.raises(error, match=message):
        tls.semantic_scope(model, prompt)


@pytest.mark.parametrize("pos", [5, -6, 100])
def test_positions_outside_the_prompt_are_refused(model, pos) -> None:
    with pytest.raises(ValueError, match=rf"pos={pos}\): prompt has 5 tokens; pos must be in -5\.\.4"):
        tls.semantic_scope(model, torch.arange(5), pos=pos)
    with pytest.raises(TypeError, match="expected an integer"):
        tls.semantic_scope(model, torch.arange(5), pos=True)
    with pytest.raises(ValueError, match="2 positions for 1 prompt"):
        tls.semantic_scope(model, [torch.arange(5)], pos=[1, 2])


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("", ValueError, "has no tokens"),
        (" zebracorn", ValueError, "not in the vocabulary|a target is one token"),
        (families.D_VOCAB, ValueError, "outside the vocabulary"),
        (-1, ValueError, "outside the vocabulary"),
        (True, TypeError, "expected a text or a token id, or a list of these"),
        (1.5, TypeError, r"target=1.5\): expected a text or a token id, or a list of these"),
        ([1, 2], ValueError, "2 given for 1 prompt; give one for each"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unusable_targets_are_refused(model, target, error, message) -> None:
    with pytest.raises(error, match=message):
        tls.semantic_scope(model, "the dog", target=target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "hook_embd"}, r"at='hook_embd'.*did you mean .*'hook_embed'"),
        ({"grads_at": "blocks.9.hook_resid_pre"}, "grads_at='blocks.9.hook_resid_pre'.*no such hook point"),
        ({"cache": ["nowhere"]}, "cache='nowhere'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_unusable_options_are_refused(model, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        tls.semantic_scope(model, torch.arange(5), **options)


@pytest.mark.parametrize("name", ["batch_size", "memory_budget"])
def test_a_truth_value_is_no_number_of_anything(model, name) -> None:
    with pytest.raises(TypeError, match=rf"^semantic_scope\({name}=True\): expected an integer or None"):
        tls.semantic_scope(model, torch.arange(5), **{name: True})


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_a_transformerlens_model_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"got Identity\. Use tl_scopes\.load_model"):
        tls.semantic_scope(torch.nn.Identity(), "the dog")  # type: ignore[arg-type]


def test_a_missing_tokenizer_is_named(model, monkeypatch) -> None:
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(ValueError, match="no tokenizer; pass token ids"):
        tls.semantic_scope(model, "the dog")
    with pytest.raises(ValueError, match="no tokenizer; pass a token id"):
        tls.semantic_scope(model, torch.arange(3), target=" dog")


@pytest.mark.runs
def test_token_ids_and_text_of_the_same_prompt_give_the_same_result() -> None:
    model = families.build("gpt2", KIND, torch.float32).model
    text = tls.semantic_scope(model, families.PROMPT, target=" dog")
    tokens = model.to_tokens(families.PROMPT)
    for form in (tokens, tokens[0], tokens[0].to(torch.int32)):
        assert torch.equal(tls.semantic_scope(model, form, target=" dog").scores, text.scores)
    assert text.str_tokens == [str(t) for t in model.to_str_tokens(families.PROMPT)]
    assert text.special == {0}
    assert len(tls.semantic_scope(model, families.PROMPT, prepend_bos=False)) == len(text) - 1


@pytest.mark.runs
def test_a_target_per_prompt_and_a_position_per_prompt() -> None:
    model = families.build("gpt2", KIND, torch.float32).model
    prompts = [torch.arange(3), torch.arange(6)]
    got = tls.semantic_scope(model, prompts, target=[0, None], pos=[1, -1])
    assert [a.pos for a in got] == [1, 5]
    assert got[0].target == 0, "token id 0 is a target, not 'none given'"
    assert got[1].target == int(model(prompts[1][None])[0, -1].argmax())
    assert "own top prediction" in got[1].notes[0]
    assert not got[0].notes


@pytest.mark.runs
def test_offsets_tie_every_token_to_its_characters_and_make_whole_words(demo_model) -> None:
    text = "German: der 🦊 Hund sieht die Katze. English: the"
    attr = tls.semantic_scope(demo_model, text)
    assert attr.text == text
    assert attr.offsets is not None
    assert attr.offsets[0] == (0, 0), "BOS stands for no characters"
    pieces = [text[start:end] for start, end in attr.offsets[1:]]
    whole = [(p, s) for p, s in zip(pieces, attr.str_tokens[1:], strict=True) if "�" not in s]
    assert all(piece.strip() == string.strip() for piece, string in whole)
    words = attr.by_word()
    assert "🦊" in [w.strip() for w in words.str_tokens]
    assert not any("�" in w for w in words.str_tokens)
    by_ids = tls.semantic_scope(demo_model, attr.tokens)
    assert by_ids.text is None
    assert torch.equal(by_ids.scores, attr.scores)


@pytest.mark.runs
def test_a_tensor_of_several_rows_is_a_list_of_prompts(model) -> None:
    rows = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    together, alone = tls.semantic_scope(model, rows), tls.semantic_scope(model, list(rows))
    assert [a.tokens.tolist() for a in together] == rows.tolist()
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(together, alone, strict=True))
    assert not isinstance(tls.semantic_scope(model, rows[:1]), list)
    assert [a.pos for a in tls.semantic_scope(model, rows, pos=[1, 2], target=[5, 6])] == [1, 2]
    with pytest.raises(ValueError, match=r"attribution_matrix\(prompt=tensor of shape \[2, 4\]\): expected one prompt"):
        tls.attribution_matrix(model, rows)


# -- what a tokenizer returned ---------------------------------------------------------------------------------


@pytest.mark.runs
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("form", [None, "pt", "np"])
def test_what_a_tokenizer_returned_is_its_texts_without_padding(demo_model, side, form, monkeypatch) -> None:
    texts = ["German: der Hund sieht die Katze. English: the", "the dog"]
    monkeypatch.setattr(demo_model.tokenizer, "padding_side", side)
    encoded = demo_model.tokenizer(texts, padding=True, return_tensors=form)
    assert len({len(row) for row in encoded["input_ids"]}) == 1, "padded"
    together = tls.semantic_scope(demo_model, encoded, pos=[-1, 1], target=[" cat", " dog"])
    ids = [torch.tensor(demo_model.tokenizer(text)["input_ids"]) for text in texts]
    for given, attr in zip(ids, together, strict=True):
        assert attr.tokens.tolist() == given.tolist()
        assert not attr.notes
    assert [attr.pos for attr in together] == [len(ids[0]) - 1, 1]
    alone = demo_model.tokenizer(texts[0], return_tensors=form)
    one = tls.semantic_scope(demo_model, alone, target=" cat")
    assert torch.equal(one.scores, tls.semantic_scope(demo_model, ids[0], target=" cat").scores)
    assert tls.attribution_matrix(demo_model, alone).tokens.tolist() == ids[0].tolist()
    listed = tls.semantic_scope(demo_model, [alone, texts[1]])
    assert listed[0].tokens.tolist() == ids[0].tolist()
    assert tls.generate(demo_model, encoded, max_new_tokens=1)[1].answer_start == len(ids[1])


@pytest.mark.runs
@pytest.mark.parametrize(
    "encoded",
    [{"input_ids": [[1, 2, 3], [1, 2]]}, {"input_ids": torch.tensor([[0, 1], [1, 2]]), "attention_mask": None}],
)
def test_encodings_without_a_mask_are_taken_as_they_are(demo_model, encoded) -> None:
    found = tls.semantic_scope(demo_model, encoded)
    assert [attr.tokens.tolist() for attr in found] == [list(map(int, row)) for row in encoded["input_ids"]]
    with pytest.raises(TypeError, match=r"expected one prompt, got a list of 2"):
        tls.attribution_matrix(demo_model, encoded)


@pytest.mark.runs  # the model is looked at first
def test_padded_encodings_without_a_mask_are_refused(demo_model) -> None:
    texts = ["the", "German: der Hund sieht die Katze."]
    encoded = demo_model.tokenizer(texts, padding=True, return_attention_mask=False)
    with pytest.raises(ValueError, match=r"prompt\[0\]=\.\.\.\): .* padding token"):
        tls.semantic_scope(demo_model, encoded)
