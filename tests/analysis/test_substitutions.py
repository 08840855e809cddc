"""Invariant: predicted is the gradient times the change of embedding, measured is a real run of the swapped prompt.

Oracles: plain Hugging Face autograd through ``inputs_embeds`` and a Hugging Face forward of the swapped ids.
"""

from __future__ import annotations

from dataclasses import replace

import families
import pytest
import torch
import transformers
from bridged import WIDTHS, bridged
from plain_models import Plain

import tl_scopes as tls
from tl_scopes.model.forward import embedded

EXACT, HF_FLOAT32 = 1e-9, 5e-6  # Hugging Face computes norms and rotary angles in float32 on most families
FAMILIES = ("gpt2", "llama", "gemma2", "neox")
POS = 4


def oracle(pair: families.Pair, tokens: torch.Tensor, target: int, w: int) -> tuple[float, float]:
    """Predicted and measured change of the target's logit, by Hugging Face alone."""
    hf = pair.hf
    embed = hf.get_input_embeddings()
    swapped = tokens.clone()
    swapped[POS] = w
    x = embed(tokens[None]).detach().requires_grad_(True)
    logit = hf(inputs_embeds=x).logits[0, -1, target]
    (gradient,) = torch.autograd.grad(logit, x)
    predicted = (embed(swapped[None]) - x)[0, POS] @ gradient[0, POS]
    with torch.no_grad():
        after = hf(swapped[None]).logits[0, -1, target]
    return float(predicted.detach()), float((after - logit).detach())


@pytest.mark.on_families(*FAMILIES)
def test_prediction_and_measurement_equal_hugging_face(pair: families.Pair) -> None:
    tokens = families.prompt_tokens(10)
    attribution = tls.semantic_scope(pair.model, tokens, target=7)
    words = [i for piece, i in families.VOCAB.items() if not piece.startswith("<") and i != int(tokens[POS])][::9]
    result = tls.substitutions(pair.model, attribution, position=POS, k=4, candidates=words)
    expected = torch.tensor([oracle(pair, tokens, 7, w) for w in words], dtype=torch.float64)
    best = expected[:, 0].abs().topk(4).indices
    assert result.tokens.tolist() == [words[i] for i in best]
    tolerance = EXACT if pair.family == "gpt2" else HF_FLOAT32
    scale = float(expected.abs().max())
    torch.testing.assert_close(result.predicted, expected[best, 0], rtol=0, atol=tolerance * scale)
    torch.testing.assert_close(result.measured, expected[best, 1], rtol=0, atol=tolerance * scale)
    torch.testing.assert_close(result.delta_logit, expected[best, 1], rtol=0, atol=tolerance * scale)


def test_embeddings_are_what_the_model_sees(pair: families.Pair) -> None:
    tokens = families.prompt_tokens(9)
    seen = tls.semantic_scope(pair.model, tokens, cache="hook_embed").cache["hook_embed"][0]
    torch.testing.assert_close(embedded(pair.model, tokens[:, None]), seen.detach(), rtol=1e-12, atol=1e-12)


def test_an_embedding_that_depends_on_its_place_is_read_at_its_place():
    """BERT's embedding module adds positions and a norm before anything is seen of it."""
    config = transformers.BertConfig(**WIDTHS, intermediate_size=64, max_position_embeddings=64, is_decoder=True)
    model, hf = bridged(config, transformers.BertLMHeadModel)
    tokens, words = families.prompt_tokens(9), [20, 30, 40]
    plain = Plain(hf, tokens, "bert.embeddings")
    (g,) = plain.gradient(plain.z[-1, 7])
    result = tls.substitutions(model, tls.semantic_scope(model, tokens, target=7), position=POS, k=3, candidates=words)
    for word, predicted in zip(result.tokens.tolist(), result.predicted.tolist(), strict=True):
        other = torch.cat([tokens[:POS], torch.tensor([word]), tokens[POS + 1 :]])
        moved = (Plain(hf, other, "bert.embeddings").x - plain.x)[0, POS]
        assert abs(float(g[POS] @ moved) - predicted) < EXACT * float(g[POS].norm() * moved.norm())


def test_a_translated_word_follows_its_swapped_source(demo_model) -> None:
    prompt = "German: der Hund sieht die Katze. English: the"
    result = tls.substitutions(demo_model, tls.semantic_scope(demo_model, prompt, target=" dog"), k=6)
    assert (result.token, result.scalar) == (" Hund", "logit of ' dog'")
    frame = result.to_frame()
    assert list(frame.predicted.abs()) == sorted(frame.predicted.abs(), reverse=True)
    assert (frame.delta_log_prob < -1).all()  # any other word there takes the dog away
    assert demo_model.tokenizer.decode([int(result.tokens[0])]) == result.str_tokens[0]
    assert "in place of ' Hund'" in str(result)


def test_candidates_never_hold_specials_or_the_token_itself(kind: str) -> None:
    model = families.build("gpt2", kind).model
    attribution = tls.semantic_scope(model, families.prompt_tokens(10), target=7)
    left_out = {*model.tokenizer.all_special_ids, int(attribution.tokens[POS])}
    k = families.D_VOCAB - len(left_out)
    everything = tls.substitutions(model, attribution, position=POS, k=k, batch_size=64).tokens
    assert len(set(everything.tolist())) == k
    assert not left_out & set(everything.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be in 1"),
        ({"position": 40}, "up to the explained one"),
        ({"candidates": [10**6]}, "expected ids in 0"),
        ({"candidates": []}, "expected ids in 0"),
    ],
)
def test_mistakes_are_refused(demo_model, options, message) -> None:
    attribution = tls.semantic_scope(demo_model, "German: der Hund sieht die Katze. English: the", target=" dog")
    with pytest.raises(ValueError, match=message):
        tls.substitutions(demo_model, attribution, **options)


def test_pictures_show_every_swap_and_no_markup_of_a_token(demo_model) -> None:
    attribution = tls.semantic_scope(demo_model, "German: der <img onerror=1> sieht. English: the", target=" dog")
    result = tls.substitutions(demo_model, attribution, position=4, k=3)
    page = result.html()
    assert "<img onerror" not in page
    assert page.count("<tr>") == 4
    assert len(result.plot().axes) == 1


def test_a_swap_is_marked_by_sign_and_by_a_factor_of_two(demo_model) -> None:
    predicted = torch.tensor([1.29, 1.0, 1.0, 1.0, -1.0, -1.0])
    measured = torch.tensor([-9.57, 2.01, 1.99, 0.51, -0.49, 1.0])
    attribution = tls.semantic_scope(demo_model, "German: der Hund sieht die Katze. English: the", target=" dog")
    found = replace(tls.substitutions(demo_model, attribution, k=6), predicted=predicted, measured=measured)
    flags = ["sign", "size", "", "", "size", "sign"]
    assert found.to_frame().flag.tolist() == flags
    shown = str(found)
    assert "2 of 6 swaps as predicted (same sign, within a factor of 2), size off 2, wrong sign 2" in shown
    assert [line.split()[-1] for line in shown.splitlines()[2:8]][:2] == ["sign", "size"]
    labels = [t.get_text() for t in found.plot().legends[0].get_texts()]
    assert labels == ["measured = predicted", "as predicted", "size off", "wrong sign"]
    assert "(wrong sign)" in found.html()
