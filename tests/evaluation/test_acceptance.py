"""Invariant: a prompt is accepted if and only if the model says its answer, follows every swapped cause, and keeps the answer
under at least three other swaps; to say an answer is to write it greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from planted import copier

import tl_scopes as tls
from tl_scopes import tasks
from tl_scopes.demo.corpora.passages import Example, token_positions
from tl_scopes.evaluation import acceptance as judged
from tl_scopes.evaluation.acceptance import acceptance
from tl_scopes.model.vocabulary import pieces

EXAMPLES = tasks.examples("hint", 6)


def said_by(monkeypatch: pytest.MonkeyPatch, reader: Callable[[str], str]) -> None:
    """In place of the model, a reader: what follows a prompt."""

    def say(model: Any, asked: Sequence[tuple[str, str]], batch_size: Any, seen: Callable[[int], object]) -> list[bool]:
        seen(len(asked))
        return [reader(prompt) == answer for prompt, answer in asked]

    monkeypatch.setattr(judged, "_say", say)


def right(prompt: str) -> str:
    """What holds of the examples and of their swaps, by how they were made."""
    for example in EXAMPLES:
        for text, answer in [
            (example.prompt, example.answer),
            *((example.swapped(s), s.answer) for s in (*example.causes, *example.others)),
        ]:
            if text == prompt:
                return answer
    raise KeyError(prompt)


def original(prompt: str) -> Example:
    """The example that a prompt, swapped or not, was made of."""
    return next(e for e in EXAMPLES if prompt in (e.prompt, *(e.swapped(s) for s in (*e.causes, *e.others))))


def test_who_reads_the_causes_is_accepted(demo_model, monkeypatch: pytest.MonkeyPatch) -> None:
    said_by(monkeypatch, right)
    found = acceptance(demo_model, EXAMPLES)
    assert found.accepted == tuple(EXAMPLES)
    assert found.kept == (3,) * len(EXAMPLES)
    assert found.rates == {"says": 1, "follows": 1, "accepted": 1}
    assert str(found) == (
        "6 of 6 accepted (100 %): says the answer 100 %, and the counterpart's 100 %, and keeps it under 3 other swaps 100 %"
    )


def test_who_is_right_for_another_reason_is_not(demo_model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes whatever the cause says: only the swapped cause tells."""
    said_by(monkeypatch, lambda prompt: original(prompt).answer)
    found = acceptance(demo_model, EXAMPLES)
    assert found.rates == {"says": 1, "follows": 0, "accepted": 0}
    assert found.accepted == ()


def test_who_answers_otherwise_when_anything_changes_is_not(demo_model, monkeypatch: pytest.MonkeyPatch) -> None:
    said_by(monkeypatch, lambda prompt: right(prompt) if prompt in followed else " nothing")
    followed = {e.prompt for e in EXAMPLES} | {e.counterpart for e in EXAMPLES}
    assert acceptance(demo_model, EXAMPLES).rates == {"says": 1, "follows": 1, "accepted": 0}


def test_two_other_words_that_leave_the_answer_are_too_few(demo_model, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {e.swapped(e.others[1]) for e in EXAMPLES[:2]}
    said_by(monkeypatch, lambda prompt: " nothing" if prompt in lost else right(prompt))
    found = acceptance(demo_model, EXAMPLES)
    assert found.kept == (2, 2, 3, 3, 3, 3)
    assert found.accepted == tuple(EXAMPLES[2:])


def test_every_cause_must_be_followed(demo_model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one of the causes dead the prompt is not accepted."""
    example = tasks.examples("chain_3", 1)[0]
    for dead in example.causes:
        says = {example.swapped(s): s.answer for s in (*example.causes, *example.others)} | {
            example.prompt: example.answer,
            example.swapped(dead): example.answer,
        }
        said_by(monkeypatch, says.__getitem__)
        assert acceptance(demo_model, [example]).rates == {"says": 1, "follows": 0, "accepted": 0}


def test_what_fails_a_step_is_not_run_again(demo_model, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    said_by(monkeypatch, lambda prompt: ran.append(prompt) or " nothing")  # type: ignore[func-returns-value]
    assert acceptance(demo_model, EXAMPLES).rates["says"] == 0
    assert ran == [e.prompt for e in EXAMPLES]


# -- what a model says -----------------------------------------------------------------------------


def greedy(model: Any, prompt: str, answer: str) -> bool:
    """One token after the other by the model itself."""
    tokens = model.to_tokens(prompt)
    for token in pieces(model.tokenizer, answer):
        with torch.no_grad():
            if int(model(tokens)[0, -1].argmax()) != token:
                return False
        tokens = torch.cat([tokens, torch.tensor([[token]])], dim=1)
    return True


@pytest.mark.parametrize("batch_size", [3, pytest.param(1, marks=pytest.mark.slow), None])
def test_an_answer_is_said_if_it_is_written_greedily_token_by_token(demo_model, batch_size) -> None:
    prompt = "German: der Hund sieht die Katze. English:"
    asked = [
        (f"{prompt} the", " dog"),
        (f"{prompt} the", " cat"),
        (prompt, " the dog sees the cat"),
        (prompt, " the dog sees the dog"),
        (prompt, " the cat"),
        (f"{prompt} the dog", " sees the cat."),
        ("Anna lives in Paris, Tom lives in Rome. The home of Tom is", " Rome"),
    ]
    expected = [greedy(demo_model, *one) for one in asked]
    assert expected == [True, False, True, False, False, True, True]
    seen: list[int] = []
    assert judged._say(demo_model, asked, batch_size, seen.append) == expected
    assert sum(seen) == len(asked)


@pytest.mark.slow
@pytest.mark.one_lens
def test_a_model_whose_weights_copy_is_accepted_on_copying() -> None:
    found = [e for e in tasks.examples("copying", 30, length=6) if e.slot == "plain"]
    assert len(found) >= 4
    model = copier(t for e in found for s in (*e.causes, *e.others) for t in (e.prompt, e.swapped(s), s.answer))
    assert acceptance(model, found).accepted == tuple(found)
    scored = tls.semantic_scope(model, [e.prompt for e in found], target=[e.answer for e in found])
    for e, attribution in zip(found, scored, strict=True):
        causes = token_positions(model.tokenizer, e.prompt, [s.span for s in e.causes])
        assert int(attribution.without("special").scores.argmax()) in causes


@pytest.mark.slow
@pytest.mark.one_lens
def test_a_model_whose_weights_copy_is_accepted_on_retrieval_but_where_a_key_is_another_token() -> None:
    """The first word of a text has no space before it, so that this model does not know it again."""
    found = [e for e in tasks.examples("retrieval", 40, length=3) if e.slot == "table"]
    model = copier(t for e in found for s in (*e.causes, *e.others) for t in (e.prompt, e.swapped(s), s.answer))
    known = tuple(e for e in found if not e.prompt.startswith(f"{e.causes[1].replacement} ="))
    assert 4 <= len(known) < len(found)
    verdicts = acceptance(model, found)
    assert all(verdicts.says)
    assert set(known) <= set(verdicts.accepted) < set(found)


def test_what_cannot_be_accepted_is_refused(demo_model) -> None:
    with pytest.raises(ValueError, match=r"acceptance\(examples=\[\]\): there are no examples"):
        acceptance(demo_model, [])
    for wrong in (replace(EXAMPLES[0], others=EXAMPLES[0].others[:2]), replace(EXAMPLES[0], causes=())):
        n, m = len(wrong.causes), len(wrong.others)
        with pytest.raises(ValueError, match=rf"\(examples\[1\]\): {n} causes and {m} other words to swap"):
            acceptance(demo_model, [EXAMPLES[0], wrong])
