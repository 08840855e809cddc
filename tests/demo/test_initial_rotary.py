"""Invariant: before any training the planted rotary heads look back by their lags, and find the word that matches."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from tl_scopes.demo.initial_rotary import CONSTANT, LAGS, LOOK_UPS
from tl_scopes.demo.shapes import LLAMA

pytestmark = pytest.mark.one_lens
REPEATED = 25


@cache
def patterns() -> tuple[Tensor, ...]:
    """Attention of an untrained model, of random words said twice."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LLAMA.untrained(400)
        tokens = torch.randint(400, (8, REPEATED)).repeat(1, 2)
    assert (model.model.embed_tokens.weight[:, 0] == CONSTANT).all()
    model.eval().set_attn_implementation("eager")
    return tuple(model(tokens, output_attentions=True).attentions)


@pytest.mark.parametrize(("head", "lag"), list(enumerate(lag for group in LAGS for lag in group)))
def test_the_heads_of_layer_0_look_back_by_their_lags(head: int, lag: int) -> None:
    assert patterns()[0][:, head].diagonal(-lag, 1, 2)[:, 8:].mean() > 0.9


HEADS = [
    (layer, 2 * group + i, query_lag, key_lag)
    for layer, groups in LOOK_UPS.items()
    for group, (key_lag, query_lags) in enumerate(groups)
    for i, query_lag in enumerate(query_lags)
]


@pytest.mark.parametrize(("layer", "head", "query_lag", "key_lag"), HEADS)
def test_the_searching_heads_find_the_word_that_matches(layer: int, head: int, query_lag: int, key_lag: int) -> None:
    """Where the word ``key_lag`` back is the one ``query_lag`` back here, the first time it was said."""
    at = torch.arange(REPEATED + 8, 2 * REPEATED)
    found = patterns()[layer][:, head, at, at - REPEATED - query_lag + key_lag].mean()
    assert found > 4 / (2 * REPEATED), found
