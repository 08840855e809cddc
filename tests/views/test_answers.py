"""Pictures of several predictions: what is explained is outlined, prompt and answer stand apart, their shares add up.

Invariant: in every picture of an answer its tokens, and no others, are marked as explained; the shares of prompt and answer
are those of the squared scores that are shown.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

import tl_scopes as tls
from tl_scopes.views.wording import explained_tokens, number, title

PROMPT = "German: der Hund sieht die Katze. English: the"


@pytest.fixture(scope="module")
def answer(demo: Any) -> tls.Attribution:
    return tls.semantic_scope(demo, PROMPT, target=" dog sees the cat").without("special")


@pytest.fixture(scope="module")
def demo() -> Any:
    return tls.load_model()


def test_the_answers_tokens_are_outlined_and_no_others(answer: tls.Attribution) -> None:
    marked = re.findall(r'data-pos="(\d+)" class="[^"]*tls-explained', answer.html())
    assert sorted(set(map(int, marked))) == list(answer.answer)
    assert answer.html().count('"tls-target"') > 0, "an arrow stands between prompt and answer"


def test_what_the_model_thought_of_each_token_is_said(answer: tls.Attribution) -> None:
    said = str(answer)
    assert f"4 tokens together: log p {answer.details['log_prob']:.3g}".replace("-", "−") in said
    for log_prob in answer.details["target_log_probs"]:
        assert f"{math.exp(log_prob):.1%}" in said
    assert "log-probability of ' dog sees the cat'" in said


def test_the_shares_of_prompt_and_answer_are_of_the_squared_scores(answer: tls.Attribution) -> None:
    squares = answer.scores[answer.shown].double().square()
    own = [i for i, p in enumerate(answer.shown) if p in answer.answer]
    part = float(squares[own].sum() / squares.sum())
    line = f"prompt {1 - part:.1%}, answer {part:.1%}"
    assert line in " ".join(str(answer).split())
    assert line in answer.html()


def test_the_bars_name_the_explained_tokens_in_red(answer: tls.Attribution) -> None:
    left, right = answer.plot(kind="bars").axes
    red = [i for i, label in enumerate(left.get_xticklabels()) if label.get_color() == "#b2182b"]
    assert red == list(answer.answer)
    assert right.get_title() == "explained"
    assert len(right.get_yticklabels()) == len(answer.answer)


def test_a_comparison_says_both_log_probabilities(demo: Any) -> None:
    both = tls.contrast_scope(demo, PROMPT, target=" dog sees", foil=" cat")
    assert f"of ' cat' {both.details['foil_log_prob']:.3g}".replace("-", "−") in str(both)


def test_units_of_an_answer_are_shown(answer: tls.Attribution) -> None:
    words = answer.by_unit("word")
    assert words.answer, "words of the answer are known"
    assert "cat" in str(words) and words.html()


@pytest.mark.one_lens
def test_sentences_fold_on_a_telephone(demo: Any, look: Any) -> None:
    prompt = (
        "In spring the melt water carries gravel and sand down to the plain, and the farmers open the gates. " + PROMPT
    )
    units = tls.semantic_scope(demo, prompt, target=" dog sees the cat").by_unit("sentence")
    page = look(units.html())
    page.set_viewport_size({"width": 400, "height": 800})
    boxes = [b.bounding_box() for b in page.locator(".tls-tokens bdi, .tls-small bdi").all() if b.is_visible()]
    assert max(b["x"] + b["width"] for b in boxes) <= 400
    generated = look(tls.generate(demo, prompt, 8).html())
    generated.set_viewport_size({"width": 400, "height": 800})
    assert generated.evaluate("document.documentElement.scrollWidth") <= 400


def test_scores_say_how_several_predictions_are_joined(demo_model: Any) -> None:
    text = "German: der Hund sieht die Katze. English: the"
    summed, alone, sampled = (
        " ".join(str(tls.semantic_scope(demo_model, text, pos=range(1, 9), **keywords)).split())
        for keywords in ({}, {"combine": "norm"}, {"combine": "norm", "n_probes": 2})
    )
    assert "summed logits of" in summed and "offsets" in summed
    assert "summed logits" not in alone and "each by itself" in alone and "Estimated" not in alone
    assert "root of the summed squares, over 8 predictions" in alone
    assert "Estimated, with a standard error of at most" in sampled
    total = " ".join(str(tls.total_information(demo_model, text)).split())
    assert "first-order" not in total and "trace of the token's Fisher information" in total
    assert "offsets" not in str(tls.semantic_scope(demo_model, text, target=" dog sees"))


def test_a_matrix_of_sentences_prints_each_row_on_one_line_with_its_target(demo_model: Any) -> None:
    text = "The dog sees the cat in the garden. The cat sees the dog in the garden. The dog sees the"
    matrix = tls.attribution_matrix(demo_model, text).by_unit("sentence")
    lines = str(matrix).splitlines()
    assert len(lines) == 2 + len(matrix)
    for line, target in zip(lines[2:], matrix.target_strs, strict=True):
        assert target.strip()[:8] in line


def test_words_are_those_of_what_is_shown(demo_model: Any) -> None:
    text = "German: der Hund sieht die Katze. English: the"
    assert "logit" not in str(tls.temperature_scope(demo_model, text, pos=[3, 5]))
    contrast = str(tls.contrast_scope(demo_model, text, target=" dog", foil=" cat")).split("\n")[1]
    assert "(' dog' 89" in contrast, "whose probability it is, where the title ends with another token"
    for call in (tls.input_x_gradient, tls.integrated_gradients, tls.leave_one_out):
        assert "' dog'" in title(call(demo_model, text, target=" dog"))
    assert "change without the token" in str(tls.leave_one_out(demo_model, text))
    attr = tls.semantic_scope(demo_model, "He said: \"I'm the", target=" dog")
    assert "\\" not in title(attr) + str(attr)


def test_units_are_called_so_and_read_at_their_last_token(demo_model: Any) -> None:
    text = "The man sees the house. The dog, which is in the house of the old man in the garden behind it, sees the"
    attr = tls.semantic_scope(demo_model, text, target=" cat")
    units = attr.by_unit("sentence")
    assert "which sentences move" in title(units)
    first = str(units).split("\n")[0]
    assert f"(position {attr.pos})" in first
    assert len(first) < 140, "the end of a long unit is enough"
    assert f"(position {attr.pos})" in units.html()
    middle = tls.semantic_scope(demo_model, text, pos=9, target=" cat")
    said = str(middle).split("\n")[0].split(":")[0]
    for joined in (middle.by_word(), middle.by_unit("sentence"), middle.by_word().by_unit("sentence")):
        assert str(joined).split("\n")[0].split(":")[0] == said, "a unit may go on behind the token that is read"


def test_each_pane_has_its_own_strongest(demo_model: Any) -> None:
    attr = tls.semantic_scope(demo_model, "German: der Hund sieht die Katze. English: the")
    baseline = tls.positional_baseline(demo_model, attr.tokens, unrelated=3)
    panes = attr.html(baseline=baseline).split('class="tls-pane"')[1:]
    strongest = [pane.split("Strongest: ")[1].split("</p>")[0] for pane in panes]
    assert len(set(strongest)) > 1
    corrected = baseline.corrected(attr)
    assert number(corrected.top(1)[0].score) in strongest[-1]


def test_targets_of_ones_own_are_named_and_not_the_words_of_the_text(demo_model: Any) -> None:
    text, own = "The dog sees the cat", [" house", " man"]
    attr = tls.semantic_scope(demo_model, text, pos=[2, 3], target=own)
    line = str(attr).split("\n")[0]
    assert "house" in line and "man" in line and "sees" not in line
    assert not explained_tokens(attr)
    assert explained_tokens(tls.semantic_scope(demo_model, text, pos=[2, 3])).keys() == {3, 4}
    several = tls.contrast_scope(demo_model, text, pos=[2, 3], foil=own)
    assert "' house man'" in title(several)
    assert "offsets" not in str(several)


def test_a_variance_is_in_squared_units(demo_model: Any) -> None:
    series = "12,34,56,12,34,56,12,34,56,"
    variance = tls.moment_scope(demo_model, series, moment="variance")
    assert "squared units of the number" in " ".join(str(variance).split())
    assert "squared" in tls.verify(demo_model, variance, top=1).unit
    assert "squared units" not in " ".join(str(tls.moment_scope(demo_model, series)).split())


def test_errors_of_baselines_probes_are_said(demo_model: Any) -> None:
    attr = tls.input_x_gradient(demo_model, PROMPT, pos=range(2, 9), combine="norm", n_probes=3)
    assert "Estimated, with a standard error" in " ".join(str(attr).split())


def test_a_baseline_by_position_is_of_tokens_and_of_one_prediction(demo_model: Any) -> None:
    baseline = tls.positional_baseline(demo_model, PROMPT, target=" dog", unrelated=3)
    attr = tls.semantic_scope(demo_model, PROMPT, target=" dog")
    corrected = baseline.corrected(attr)
    for other in (tls.semantic_scope(demo_model, PROMPT, pos=range(3, 12)), attr.by_word(), corrected):
        with pytest.raises(ValueError, match="by token of one prediction"):
            baseline.corrected(other)
    with pytest.raises(ValueError, match="do not join"):
        corrected.by_unit("sentence")
    assert not {"row_scores", "signed", "interval"} & corrected.details.keys()
    twice = attr.normalized().without("special").normalized()
    assert float((twice.scores * twice.details["normalized_by"] - attr.scores).abs().max()) < 1e-5


def test_each_line_of_a_terminal_has_its_target_and_its_room(demo_model: Any) -> None:
    text = (
        "The dog sees the cat in the garden. The cat sees the dog in the garden. The man sees the dog. The dog sees the"
    )
    matrix = tls.attribution_matrix(demo_model, text, method="fisher", positions=[4, 5, -1])
    fisher = str(matrix).splitlines()[2:]
    assert [line.split()[1] for line in fisher[:2]] == [matrix.str_tokens[p].strip() for p in (5, 6)]
    assert "next token" in fisher[2]
    layers = tls.layer_influence(demo_model, text).by_unit("sentence")
    lines = [line for line in str(layers).splitlines() if "_p" in line]
    assert len(lines) == len(layers.layers)
    assert len(str(layers).splitlines()) <= len(lines) + 4, "one line for each layer, two heads, two notes"
