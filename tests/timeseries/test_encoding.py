"""Invariant: numbers stand for values to within half a step, tokens stand for numbers, and nothing else is accepted.

Tokenizers: the demo's and the tiny families' have one token per number and per comma; one made here has a token per
digit, another joins a number and its comma.
"""

from __future__ import annotations

from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_by_word import digit_model, with_tokenizer, word_tokenizer

from tl_scopes import timeseries as ts
from tl_scopes.model.prompts import encode_prompts
from tl_scopes.timeseries.encoding import NUMBERS, by_number, number_ids, number_pieces, token_places

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=30).filter(lambda v: max(v) - min(v) > 1e-3)


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_decoding_is_off_by_at_most_half_a_step(values: list[float]) -> None:
    encoded = ts.encode(values)
    assert encoded.numbers.min() == 15
    assert encoded.numbers.max() == 85
    assert np.abs(encoded.decode(encoded.numbers) - values).max() <= 0.5 / encoded.scale * (1 + 1e-6)
    assert (np.diff(encoded.numbers[np.argsort(values)]) >= 0).all(), "the map keeps the order"
    assert [int(piece) for piece in encoded.text.removesuffix(",").split(",")] == encoded.numbers.tolist()
    assert [encoded.text[a:b] for a, b in encoded.spans] == [str(n) for n in encoded.numbers]


def test_the_future_does_not_change_what_stands_for_the_past() -> None:
    past = [3.0, 1.0, 2.0]
    first, second = (ts.encode([*past, next_], n_fit=3) for next_ in (3.1, 1.2))
    assert first.numbers[:3].tolist() == second.numbers[:3].tolist() == [85, 15, 50]
    assert first.numbers[3] == 88, "room above the history"
    assert ts.encode(past).number(0.9) == 12, "and below"
    assert ts.encode([*past, 3.1]).numbers[0] != 85, "without n_fit the scale is fitted on everything given"


@pytest.mark.parametrize("high", [1e15, -1e15, 1e12])
@pytest.mark.parametrize("limits", [None, 1])
def test_large_values_keep_their_differences(high: float, limits: int | None) -> None:
    values = [high + k / 8 for k in range(9)]
    encoded = ts.encode(values, limits=None if limits is None else (values[0], values[-1]))
    assert encoded.numbers.tolist() == ts.encode([k / 8 for k in range(9)]).numbers.tolist()
    assert np.abs(encoded.decode(encoded.numbers) - values).max() <= 0.5 / encoded.scale + np.spacing(abs(high))
    assert encoded.number(values[3]) == encoded.numbers[3]


def test_given_limits_keep_numbers_as_they_are() -> None:
    encoded = ts.encode([29, 61, 40], limits=(15.0, 85.0))
    assert encoded.text == "29,61,40,"
    assert encoded.decode(61).tolist() == [61.0]


def test_half_precision_is_read_as_it_is() -> None:
    values = [0.5, 1.25, -3.0]
    for dtype in (torch.bfloat16, torch.float16):
        assert ts.encode(torch.tensor(values, dtype=dtype)).numbers.tolist() == ts.encode(values).numbers.tolist()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ts.encode([]), "not empty"),
        (lambda: ts.encode([[1.0, 2.0]]), "expected one-dimensional"),
        (lambda: ts.encode(["a", "b"]), "expected one-dimensional numbers"),
        (lambda: ts.encode([1.0, float("nan"), 2.0]), "value 1 is nan; fill or drop it first"),
        (lambda: ts.encode([2.0, 2.0]), "there is no scale to fit"),
        (lambda: ts.encode([-1e308, 1e308]), r"from -1e\+308 to 1e\+308 the range is too large"),
        (lambda: ts.encode([0.0, 5e-324]), "the range is too small"),
        (lambda: ts.encode(np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])), "value 1 is masked"),
        (lambda: ts.encode(pd.Series([1, None, 3], dtype="Int64")), "value 1 is nan|value 1 is <NA>"),
        (lambda: ts.encode([1, pd.NA, 3]), "value 1 is <NA>"),
        (lambda: ts.encode([1, None, 3]), "value 1 is nan"),
        (lambda: ts.encode(np.array(["2020-01-01", "NaT"], dtype="M8[D]")), "these are datetime64"),
        (lambda: ts.encode(np.array([1 + 2j, 3])), "these are complex"),
        (lambda: ts.encode([0.0, 1.0, 2.0], n_fit=2), r"value 2 \(2\) would be 155, outside 10 … 99"),
        (lambda: ts.encode([0.0, 1.0], n_fit=3), "expected 1 … 2"),
        (lambda: ts.encode([0.0, 1.0], limits=(1.0, 0.0)), "the smaller first"),
        (lambda: ts.encode([0.0, 1.0], n_fit=1, limits=(0.0, 1.0)), "give one of them"),
        (
            lambda: ts.encode([0.0, 1.0]).number(1.3),
            r"^EncodedSeries\.number\(value=1\.3\): it would be 106, outside 10 … 99",
        ),
        (
            lambda: ts.encode([0.0, 1.0]).number(float("inf")),
            r"^EncodedSeries\.number\(value=inf\): expected a finite number",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


# -- tokens ------------------------------------------------------------------------------------------------


def test_each_number_of_the_demo_model_is_one_token(demo_model: Any) -> None:
    encoded = ts.encode(ts.lorenz(30))
    prompt = encode_prompts(demo_model, encoded.text, pos=-1, prepend_bos=None)[0]
    places = token_places(prompt, encoded.text)
    assert all(len(p) == 1 for p in places.numbers)
    assert [prompt.str_tokens[p[0]] for p in places.numbers] == [str(n) for n in encoded.numbers]
    assert {prompt.str_tokens[p] for p in places.delimiters} == {","}
    assert set(places.rest) == set(prompt.special)
    ids = number_ids(demo_model)
    assert ids is not None
    assert [demo_model.tokenizer.decode([i]) for i in ids] == [str(n) for n in NUMBERS]


def test_places_are_the_same_without_character_offsets(kind: str) -> None:
    from dataclasses import replace

    model = families.build("gpt2", kind).model
    encoded = ts.encode([1.0, 5.0, 2.0])
    prompt = encode_prompts(model, encoded.text, pos=-1, prepend_bos=None)[0]
    assert prompt.offsets is not None
    by_offsets = token_places(prompt, encoded.text)
    by_text = token_places(replace(prompt, offsets=None, text=None), encoded.text)
    assert (by_text.numbers, by_text.delimiters, by_text.rest) == (
        by_offsets.numbers,
        by_offsets.delimiters,
        by_offsets.rest,
    )


def test_digits_are_grouped_into_their_number(kind: str) -> None:
    model = digit_model(kind)
    encoded = ts.encode([1.0, 5.0, 2.0])
    prompt = encode_prompts(model, encoded.text, pos=-1, prepend_bos=None)[0]
    places = token_places(prompt, encoded.text)
    assert places.numbers == ((1, 2), (4, 5), (7, 8))
    assert places.delimiters == (3, 6, 9)
    assert places.rest == (0,)
    assert number_ids(model) is None
    assert [model.tokenizer.decode(list(pair)) for pair in number_pieces(model)] == [str(n) for n in NUMBERS]
    scores = torch.arange(10.0, dtype=torch.float64)
    expected = torch.tensor([5.0**0.5, 41.0**0.5, 113.0**0.5], dtype=torch.float64)
    assert torch.allclose(by_number(scores, places.numbers), expected)


def test_a_token_of_number_and_comma_is_refused(kind: str) -> None:
    joined = with_tokenizer(kind, word_tokenizer([f"{n}," for n in NUMBERS], r"\d\d,"))
    with pytest.raises(ValueError, match=r"joins '10,' into one token, so numbers and commas cannot be told apart"):
        ts.forecast_scope(joined, [1.0, 2.0, 1.5])


def test_a_tokenizer_without_digits_is_refused(kind: str) -> None:
    silent = with_tokenizer(kind, word_tokenizer([","], r"."))
    with pytest.raises(ValueError, match="do not spell|with the same tokens"):
        ts.forecast_scope(silent, [1.0, 2.0, 1.5])
