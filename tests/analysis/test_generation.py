"""Invariant: an answer is what the model says step by step, by plain forwards; as a prompt it is the text of prompt and
answer, every character where it stands; and nothing is left changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import pytest
import torch
from families import Pair

import tl_scopes as tls
from tl_scopes.model.chats import answer_units
from tl_scopes.model.generation import AT_ONCE, answer_offsets, answer_text
from tl_scopes.model.vocabulary import pieces

GERMAN = "German: der Hund sieht die Katze. English: the"


def greedy(model: Any, tokens: torch.Tensor, n: int) -> list[int]:
    """The most probable token again and again, each by a forward of everything before it."""
    ids = tokens.tolist()
    for _ in range(n):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), return_type="logits")[0, -1].argmax()))
    return ids


@pytest.mark.on_families("gpt2", "llama")
def test_it_is_what_plain_forwards_say(pair: Pair) -> None:
    tokens = torch.tensor([4, 5, 8, 2])
    found = tls.generate(pair.model, tokens, 6)
    said = greedy(pair.model, tokens, 6)
    eos = getattr(pair.model.tokenizer, "eos_token_id", None)
    assert found.tokens.tolist() == said[: said.index(eos, 4) if eos in said[4:] else None]
    assert found.answer_positions == range(4, len(found)) and found.answer_start == 4
    assert tls.generate(pair.model, tokens, 6, temperature=1.0, seed=3).tokens.tolist() == (
        tls.generate(pair.model, tokens, 6, temperature=1.0, seed=3).tokens.tolist()
    )


def test_more_tokens_than_are_written_at_once_are_the_same(demo_model: Any) -> None:
    n = AT_ONCE + 3
    found = tls.generate(demo_model, GERMAN, n)
    prompt = demo_model.to_tokens(GERMAN)[0]
    said = greedy(demo_model, prompt, n)
    eos = demo_model.tokenizer.eos_token_id
    ended = said.index(eos, len(prompt)) if eos in said[len(prompt) :] else None
    assert found.tokens.tolist() == said[:ended]
    assert found.stopped == ("length" if ended is None else "eos") and eos not in found.tokens.tolist()[len(prompt) :]
    assert found.text == GERMAN + found.answer == GERMAN + str(found)


def test_an_answer_ends_before_a_stop_string(demo_model: Any) -> None:
    whole = tls.generate(demo_model, GERMAN, 6)
    assert whole.answer.startswith(" dog sees the cat")
    cut = tls.generate(demo_model, GERMAN, 6, stop=[" cat", " sees the"])
    assert (cut.answer, cut.stopped) == (" dog", "stop")
    assert cut.tokens.tolist() == whole.tokens.tolist()[: len(cut)]
    inside = tls.generate(demo_model, GERMAN, 6, stop="ees the")
    assert inside.answer.startswith(" dog s") and "the" not in inside.answer, "a token that it begins inside stays"


def test_draws_come_from_the_seed_alone(demo_model: Any) -> None:
    state = torch.get_rng_state()
    one = tls.generate(demo_model, "The old man", 8, temperature=1.0, seed=5)
    torch.manual_seed(99)
    again = tls.generate(demo_model, ["x", "The old man"], 8, temperature=1.0, seed=4)[1]
    assert one.tokens.tolist() == again.tokens.tolist()
    assert one.tokens.tolist() != tls.generate(demo_model, "The old man", 8, temperature=1.0, seed=6).tokens.tolist()
    torch.set_rng_state(state)


def test_every_call_takes_it_as_a_prompt(demo_model: Any) -> None:
    said = tls.generate(demo_model, GERMAN, 4)
    attr = tls.semantic_scope(demo_model, said, pos=said.answer_start - 1)
    typed = tls.semantic_scope(demo_model, said.text, pos=said.answer_start - 1)
    assert attr.target_str == " dog" and torch.equal(attr.scores, typed.scores)
    assert (attr.text, attr.offsets) == (typed.text, typed.offsets), "as if it had been typed"
    matrix = tls.attribution_matrix(demo_model, said, positions=[p - 1 for p in said.answer_positions])
    assert "".join(s or "" for s in matrix.target_strs) == said.answer
    assert len(tls.temperature_scope(demo_model, [said, GERMAN])) == 2
    longer = tls.generate(demo_model, said, 2)
    assert longer.prompt == said.text and longer.tokens.tolist() == tls.generate(demo_model, GERMAN, 6).tokens.tolist()


def test_the_answer_to_a_chat_is_a_turn(demo_model: Any) -> None:
    template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}English: the{% endif %}"
    )
    chat = [{"role": "user", "content": "German: der Hund sieht die Katze."}]
    said = tls.generate(demo_model, chat, 4, chat_options={"chat_template": template})
    assert [(u.name, said.text[u.start : u.end]) for u in said.units] == [
        ("user", chat[0]["content"]), ("assistant", said.answer)
    ]  # fmt: skip
    turns = tls.semantic_scope(demo_model, said).by_unit("turn")
    assert turns.str_tokens[-1] == said.answer and turns.details["names"][-1] == "assistant"


@pytest.mark.one_lens
def test_what_an_answer_thinks_is_a_unit() -> None:
    def named(answer: str) -> list[tuple[str, str]]:
        return [(u.name, answer[u.start - 7 : u.end - 7]) for u in answer_units(answer, 7)]

    assert named("<think>a</think>\n\nb") == [("thinking", "<think>a</think>"), ("assistant", "\n\nb")]
    assert named("a</think>b") == [("thinking", "a</think>"), ("assistant", "b")], "the template had begun it"
    assert named("b") == [("assistant", "b")] and named("") == []


@pytest.mark.one_lens
def test_tokens_of_one_character_share_it(demo_model: Any) -> None:
    text = " a 🦊 dog"
    ids = pieces(demo_model.tokenizer, text)
    assert answer_text(demo_model, ids) == text
    offsets = answer_offsets(demo_model, ids, text)
    wanted = demo_model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    fox = [o for o in offsets if text[slice(*o)] == "🦊"]
    assert len(fox) > 1 and len(offsets) == len(ids)
    assert [text[slice(*o)].strip() for o in offsets if "🦊" not in text[slice(*o)]] == [
        text[slice(*o)].strip() for o in wanted if "🦊" not in text[slice(*o)]
    ]


@pytest.mark.one_lens
def test_it_is_saved_without_loss(demo_model: Any, tmp_path: Path) -> None:
    said = tls.generate(demo_model, GERMAN, 4, temperature=0.5, seed=2)
    back = tls.Generation.load(said.save(tmp_path / "said.json"))
    assert back.to_dict() == said.to_dict() and back.settings["seed"] == 2
    assert torch.equal(tls.temperature_scope(demo_model, back).scores, tls.temperature_scope(demo_model, said).scores)
    assert "tokens after 12" in repr(said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_new_tokens": 0}, r"max_new_tokens=0\)"),
        ({"max_new_tokens": 10**6}, r"max_new_tokens=1000000\): with the prompt's 12 tokens they are more than"),
        ({"temperature": -1.0}, r"temperature=-1\.0\): expected 0"),
        ({"stop": ["a", ""]}, r"\(stop=\.\.\.\): an empty string"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(given: dict[str, Any], said: str, demo_model: Any) -> None:
    with pytest.raises(ValueError, match=rf"generate\({said}" if not said.startswith(r"\(") else rf"generate{said}"):
        tls.generate(demo_model, GERMAN, **given)


def test_a_model_without_a_tokenizer_generates_ids() -> None:
    model = families.build("gpt2", families.kinds_available()[-1], fresh=True).model
    model.tokenizer = None
    found = tls.generate(model, torch.tensor([1, 2, 3]), 3)
    assert found.tokens.tolist() == greedy(model, torch.tensor([1, 2, 3]), 3)
    assert found.answer == "".join(f"<{i}>" for i in found.tokens.tolist()[3:])
