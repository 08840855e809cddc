from __future__ import annotations

import pytest
from families import Pair
from torch import nn

from tl_scopes.model.lens import all_modules, weights


@pytest.mark.on_families("gpt2", "gemma2")
def test_modules_and_weights_are_those_that_torch_walks_to(pair: Pair) -> None:
    model = pair.model
    assert len(all_modules(model)) == len(set(all_modules(model)))
    assert set(all_modules(model)) == set(model.modules())
    assert weights(model) == set(model.parameters())
    blocks = list(model.blocks)
    assert set(all_modules(*blocks)) == {module for block in blocks for module in block.modules()}


@pytest.mark.one_lens
def test_a_module_that_stands_twice_or_inside_itself_is_one() -> None:
    part = nn.Tanh()
    twice = nn.Sequential(part, nn.Sequential(part), nn.ReLU())
    twice[1].register_module("round", twice)
    assert all_modules(twice) == [twice, part, twice[1], twice[2]]
    assert all_modules(part, part, twice[2]) == [part, twice[2]]
