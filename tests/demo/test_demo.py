"""The demo corpora know their causes, and the bundled models obey them.

Invariant: an example's spans, swaps and answers are true of its text (no model needed), and on held-out
combinations each bundled model predicts the answer, follows a swapped cause to the counterpart's answer and
ignores a swap of any other content word. The bounds are those the model must meet at any size (accuracy 98 %,
flips 95 %, other changes 5 %); the card, at n = 1000, says how far it exceeds them.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise
from typing import Any, Literal

import pytest
import torch
from transformers import GPT2LMHeadModel

from tl_scopes.demo import ALL_CORPORA, BUNDLED, CHAINS, DEMO_PROMPTS
from tl_scopes.demo.corpora import examples, passages
from tl_scopes.demo.corpora.bias import views
from tl_scopes.demo.corpora.passages import Example, token_positions
from tl_scopes.demo.corpora.series import SYSTEMS, rescale
from tl_scopes.demo.figures import (
    CorpusFigures,
    Rate,
    corpus_figures,
    disagreements,
    exchange_sources,
    load,
    measure,
    predictions,
    written_out_figures,
)
from tl_scopes.demo.initial import LAGS, initialise
from tl_scopes.demo.shapes import SHAPES, demo_config
from tl_scopes.demo.tokenizer import left_to_right_merges
from tl_scopes.demo.train import train

pytestmark = pytest.mark.one_lens  # corpora, tokenizer and weights by Hugging Face alone
N_TEXTS = 200
FACT = r"(\w+) (?:lives in|smelled of) (\w+)"
N_MODEL = 60
N_WRITTEN_OUT = 24
MIN_ACCURACY, MAX_EXCHANGED_ABOVE_CHANCE = 0.98, 0.1
MIN_FLIPS, MAX_CHANGES = 0.95, 0.05
MAX_FOLDER_BYTES = 8 * 1024 * 1024

KNOWN = [(name, corpus) for name, shape in SHAPES.items() for corpus in shape.corpora]
KNOWN += [("demo-llama", f"{corpus}, written out") for corpus in CHAINS]
"""Each model with each row of its card."""


@cache
def bundled(name: str = "demo") -> tuple[Any, Any]:
    return load(BUNDLED[name])


@cache
def figures(name: str, row: str) -> CorpusFigures:
    corpus, _, written_out = row.partition(", ")
    if written_out:
        return written_out_figures(*bundled(name), corpus, N_WRITTEN_OUT, seed=2)
    return corpus_figures(*bundled(name), corpus, N_MODEL, seed=2)


@pytest.fixture(params=sorted(ALL_CORPORA))
def corpus(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=KNOWN, ids="-".join)
def found(request: pytest.FixtureRequest) -> CorpusFigures:
    return figures(*request.param)


@cache
def determined(corpus: str, n: int = N_TEXTS, seed: int = 0) -> list[Example]:
    return [example for example in examples(corpus, n, seed) if example.determined]


@cache
def texts(corpus: str, split: Literal["train", "held_out"], n: int) -> list[str]:
    return [passage.text for passage in islice(passages(corpus, 0, split), n)]


# -- corpora ------------------------------------------------------------


def test_passages_are_the_same_for_the_same_seed(corpus: str) -> None:
    first, second, other = (list(islice(passages(corpus, seed), 20)) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_generators_leave_the_global_random_state_alone(corpus: str) -> None:
    state = random.getstate()
    list(islice(passages(corpus, 0), 20))
    assert random.getstate() == state


def combinations(corpus: str, text: str) -> set[tuple[str, ...]]:
    """The combinations of a text that the split is about, read off the text."""
    patterns = {
        "binding": FACT,
        "mystery": FACT,
        "instruction": r"(?:should|must) (\w+) (\w+)(?: with)? the (\w+)",
        "series": r"^(\d\d),(\d\d),(\d\d)",
        "chain_2": r"(\w+) sees a (\w+)[,.]",
        "chain_3": r"(\w+) hears a (\w+)[,.]",
    }
    found = re.findall(patterns[corpus], text)
    if corpus in ("binding", "mystery", *CHAINS):
        return {first + second for first, second in pairwise(found)}
    return set(found)


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["binding", "mystery", "instruction", "series", *CHAINS])
def test_held_out_combinations_never_occur_in_training(corpus: str) -> None:
    trained = {found for text in texts(corpus, "train", 600) for found in combinations(corpus, text)}
    for text in texts(corpus, "held_out", 200):
        assert combinations(corpus, text) - trained, text


@pytest.mark.slow
@pytest.mark.parametrize("corpus", sorted(ALL_CORPORA))
def test_no_held_out_prompt_occurs_in_training(corpus: str) -> None:
    assert not {*texts(corpus, "train", 600)} & {*texts(corpus, "held_out", 200)}


def test_spans_are_whole_words_of_the_prompt(corpus: str) -> None:
    for example in determined(corpus):
        for swap in (*example.causes, *example.others):
            start, end = swap.span
            assert 0 <= start < end <= len(example.prompt)
            word = example.prompt[start:end]
            assert re.fullmatch(r"\w+", word), (word, example.prompt)
            assert start == 0 or not example.prompt[start - 1].isalnum()
            assert end == len(example.prompt) or not example.prompt[end].isalnum()
            assert swap.replacement != word


def test_a_cause_has_another_answer_and_an_other_word_the_same(corpus: str) -> None:
    for example in determined(corpus):
        assert example.causes
        assert all(swap.answer != example.answer for swap in example.causes)
        assert all(swap.answer == example.answer for swap in example.others)
        assert not {swap.span for swap in example.causes} & {swap.span for swap in example.others}


def test_the_source_holds_a_cause(corpus: str) -> None:
    for example in determined(corpus):
        start, end = example.source
        assert any(start <= swap.span[0] and swap.span[1] <= end for swap in example.causes)


def test_prompts_are_cut_before_their_answer(corpus: str) -> None:
    for passage in islice(passages(corpus, 0), N_TEXTS):
        for example in passage.examples:
            assert passage.text.startswith(example.prompt + example.answer)
            at = len(example.prompt + example.answer)
            assert any(start < at <= end for start, end in passage.targets)


@pytest.mark.slow
def test_a_translated_word_is_caused_by_its_source_word() -> None:
    found = {
        (example.prompt[slice(*swap.span)], example.answer)
        for example in determined("translation", 800)
        for swap in example.causes
    }
    assert {("Hund", " dog"), ("perro", " dog"), ("inu", " dog")} <= found
    assert ("Hund", " cat") not in found


def test_binding_answers_follow_from_the_statements() -> None:
    def look_up(prompt: str) -> str:
        (asked,) = re.findall(r"The home of (\w+) is$", prompt)
        return f" {dict(re.findall(FACT, prompt))[asked]}"

    for example in determined("binding"):
        assert example.answer == look_up(example.prompt)
        assert all(swap.answer == look_up(example.swapped(swap)) for swap in (*example.causes, *example.others))


def test_mixed_leanings_are_moderate() -> None:
    assert views(" liberal") == views(" liberal", " liberal") == " liberal"
    assert views(" liberal", " conservative") == " moderate"


def test_series_values_stay_inside_their_range() -> None:
    for name, system in SYSTEMS.items():
        numbers = system(random.Random(name), 100)
        assert len(numbers) == 100
        assert min(numbers) >= 15
        assert max(numbers) <= 85
    assert rescale([1.0, 1.0]) == [15, 15]


def test_periodic_examples_have_their_cause_once_in_the_prompt() -> None:
    for example in determined("series"):
        (swap,) = example.causes
        assert example.prompt[slice(*swap.span)] == example.answer
        assert example.prompt.count(f"{example.answer},") == 1


# -- tokenizer ------------------------------------------------------------


def test_every_answer_and_swapped_word_is_one_token(corpus: str) -> None:
    tokenizer = bundled()[1]
    for example in determined(corpus, 60):
        prompt = tokenizer(example.prompt, add_special_tokens=False)["input_ids"]
        whole = tokenizer(example.prompt + example.answer, add_special_tokens=False)["input_ids"]
        assert whole[:-1] == prompt
        assert tokenizer.decode(whole[-1:]) == example.answer
        assert tokenizer.decode(prompt) == example.prompt
        for swap in (*example.causes, *example.others):
            assert len(token_positions(tokenizer, example.prompt, [swap.span])) == 1
            swapped = tokenizer(example.swapped(swap), add_special_tokens=False)["input_ids"]
            assert len(swapped) == len(prompt)


def test_token_positions_count_bos_as_zero() -> None:
    tokenizer = bundled()[1]
    prompt = "German: der Hund sieht"
    span = (prompt.index("Hund"), prompt.index("Hund") + 4)
    assert token_positions(tokenizer, prompt, [span]) == [4]
    assert token_positions(tokenizer, prompt, [span], prepend_bos=False) == [3]
    assert token_positions(tokenizer, "29,30,", [(3, 5)]) == [3]


@pytest.mark.parametrize("text", ["German: der größte Hund", "naïve 日本語 🙂", " \n\n\ttab", "1234 7", ""])
def test_any_text_survives_encoding(text: str) -> None:
    tokenizer = bundled()[1]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_word_without_its_space_is_several_tokens() -> None:
    tokenizer = bundled()[1]
    assert len(tokenizer(" dog")["input_ids"]) == 1
    assert len(tokenizer("dog")["input_ids"]) > 1


def test_numbers_and_commas_are_one_token_each() -> None:
    tokenizer = bundled()[1]
    text = "".join(f"{number}," for number in range(10, 100))
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 180


def test_merges_build_spaced_words_first() -> None:
    assert left_to_right_merges(["ab", " abc"]) == [("Ġ", "a"), ("Ġa", "b"), ("Ġab", "c"), ("a", "b")]


# -- model ------------------------------------------------------------


@pytest.mark.parametrize("model", BUNDLED)
def test_the_bundled_folders_are_small(model: str) -> None:
    assert sum(file.stat().st_size for file in BUNDLED[model].iterdir()) <= MAX_FOLDER_BYTES


@pytest.mark.parametrize("model", BUNDLED)
def test_the_bundled_models_are_of_their_shapes(model: str) -> None:
    shape, config = SHAPES[model], bundled(model)[0].config
    assert shape.folder == BUNDLED[model]
    assert isinstance(bundled(model)[0], shape.model)
    expected = shape.config(config.vocab_size)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"):
        assert getattr(config, key) == getattr(expected, key)


def test_both_models_have_the_same_tokenizer() -> None:
    first, second = (folder / "tokenizer.json" for folder in BUNDLED.values())
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("model", BUNDLED)
@pytest.mark.parametrize("name", sorted(DEMO_PROMPTS))
def test_demo_prompts_show_what_they_say(name: str, model: str) -> None:
    demo = DEMO_PROMPTS[name]
    assert predictions(*bundled(model), [demo.prompt]) == [demo.target]
    assert all(re.search(rf"\b{cause}\b", demo.prompt) for cause in demo.causes)


def test_held_out_answers_are_predicted(found: CorpusFigures) -> None:
    assert found.accuracy.value >= MIN_ACCURACY, found


def test_another_examples_source_takes_the_answer_away(found: CorpusFigures) -> None:
    assert found.exchanged.value <= found.chance + MAX_EXCHANGED_ABOVE_CHANCE, found


def test_a_swapped_cause_flips_the_prediction_to_its_counterpart(found: CorpusFigures) -> None:
    assert found.cause_flips.value >= MIN_FLIPS, found


def test_swapping_another_content_word_leaves_the_prediction(found: CorpusFigures) -> None:
    assert found.other_changes.value <= MAX_CHANGES, found


@pytest.mark.slow
@pytest.mark.parametrize("model", BUNDLED)
def test_the_card_says_what_is_measured(model: str, unchecked: None) -> None:
    printed = {
        row[0].strip(): float(row[1].split()[0])
        for row in (line.strip("| ").split("|") for line in (BUNDLED[model] / "README.md").read_text().splitlines())
        if len(row) == 6 and "[" in row[1]
    }
    measured = {row.corpus: 100 * row.accuracy.value for row in measure(BUNDLED[model], 400)}
    assert measured == pytest.approx(printed, abs=1)


def test_exchanged_sources_come_from_other_examples() -> None:
    batch = determined("binding", 50)
    exchanged = exchange_sources(batch, random.Random(0))
    assert sum(a.prompt != b for a, b in zip(batch, exchanged, strict=True)) > 45


def test_wilson_interval_covers_the_rate_and_narrows() -> None:
    few, many = Rate(9, 10), Rate(900, 1000)
    assert few.interval[0] < 0.9 < few.interval[1]
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    assert Rate(10, 10).interval[1] == pytest.approx(1.0)


def test_a_retraining_disagrees_where_intervals_do_not_meet() -> None:
    def row(accuracy: Rate) -> CorpusFigures:
        return CorpusFigures("series", accuracy, Rate(1, 10), 0.1, Rate(99, 100), Rate(0, 100))

    assert disagreements([row(Rate(98, 100))], [row(Rate(99, 100))]) == []
    (line,) = disagreements([row(Rate(70, 100))], [row(Rate(99, 100))])
    assert line.startswith("series, accuracy: 70.0")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_training_is_a_function_of_its_seed(name: str, unchecked: None) -> None:
    shape = replace(SHAPES[name], look_up_steps=1)  # both phases within two steps
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        first, again, other = (train(2, seed, 1, shape=shape)[0].state_dict() for seed in (0, 0, 1))
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


def test_the_initial_weights_look_back_by_their_lags() -> None:
    """The planted heads of layer 0 attend to the word 1, 2 and 3 back, before any training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(demo_config(400))
        initialise(model)
        tokens = torch.randint(400, (4, 40))
    model.eval().set_attn_implementation("eager")
    pattern = model(tokens, output_attentions=True).attentions[0]
    for head, lag in enumerate(LAGS):
        on_lag = pattern[:, head].diagonal(-lag, 1, 2)[:, 8:]
        assert on_lag.mean() > 0.5, (lag, on_lag.mean())
