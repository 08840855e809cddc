"""Invariant: an autoencoder is of its activations whatever their scale and origin, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from tl_scopes.demo import train_sae

pytestmark = pytest.mark.one_lens


def test_scale_and_origin_of_the_activations_do_not_matter() -> None:
    h = torch.randn(600, 16, generator=torch.Generator().manual_seed(1)).cumsum(-1)
    shift = torch.arange(16.0)
    plain, other = train_sae.train(h, seed=3, steps=30), train_sae.train(4 * h + shift, seed=3, steps=30)
    assert torch.allclose(other.W_enc, plain.W_enc, atol=1e-2)
    assert torch.allclose(plain.W_dec.norm(dim=-1), torch.ones(len(plain.W_dec)), atol=1e-5)

    def reconstructed(sae: train_sae.Autoencoder, x: torch.Tensor) -> torch.Tensor:
        return sae.decode(train_sae.top_k(sae.pre(x), train_sae.K))

    expected = 4 * reconstructed(plain, h) + shift
    errors = (reconstructed(other, 4 * h + shift) - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(errors.median()) < 1e-4, "single rows may keep another of two features that are equally large"
    (start, end) = (train_sae.figures(train_sae.train(h, seed=3, steps=steps), h) for steps in (1, 60))
    assert end["explained_variance"] > start["explained_variance"] + 0.5
    assert end["features_per_position"] <= train_sae.K


def test_the_same_seed_gives_the_same_weights() -> None:
    h = torch.randn(300, 8, generator=torch.Generator().manual_seed(1))
    first, again, other = (train_sae.train(h, seed=seed, steps=3).W_enc for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_top_k_keeps_the_largest_where_positive() -> None:
    pre = torch.tensor([[3.0, -1.0, 2.0, 1.0], [-3.0, -1.0, -2.0, 4.0]])
    assert torch.equal(train_sae.top_k(pre, 2), torch.tensor([[3.0, 0, 2.0, 0], [0, 0, 0, 4.0]]))
