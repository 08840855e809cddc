"""Invariant: any direction at any hook `[batch, pos, ...]` gives the norms of ∂⟨v, h⟩/∂x, from any earlier source.

Oracle: TransformerLens' own hooks and one `autograd.grad` per direction on the model as it is, without this package.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch

import tl_scopes as tls

PROMPT = families.PROMPT
RTOL = 1e-9


def expected(model: Any, tokens: torch.Tensor, at: str, hook: str, v: torch.Tensor, pos: int) -> torch.Tensor:
    """‖∂⟨v, h[pos]⟩/∂x_t‖ by plain hooks; `v` has the shape of one position's activation."""
    got: dict[str, torch.Tensor] = {}

    def leaf(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        got["x"] = activation.detach().clone().requires_grad_(True)
        return got["x"] * 1

    def keep(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        got["h"] = activation
        return activation

    model.run_with_hooks(tokens[None], fwd_hooks=[(at, leaf), (hook, keep)])
    (gradient,) = torch.autograd.grad((got["h"][0, pos] * v).sum(), got["x"])
    return gradient[0].norm(dim=-1)


def one_hot(n: int, i: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(i), n).double()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def head_slice(head: int) -> torch.Tensor:
    v = torch.zeros(families.N_HEADS, families.D_HEAD, dtype=torch.float64)
    v[head] = noise(families.D_HEAD)
    return v


CASES = {
    "neuron": ("blocks.1.mlp.hook_post", lambda m: one_hot(m.cfg.d_mlp, 5)),
    "head output": ("blocks.1.attn.hook_z", lambda m: head_slice(2)),
    "lens vector": ("blocks.0.hook_resid_post", lambda m: noise(m.cfg.d_model)),
    "attention output": ("blocks.1.hook_attn_out", lambda m: noise(m.cfg.d_model)),
}


@pytest.mark.on_families("gpt2", "llama", "neox")
@pytest.mark.parametrize("case", [*CASES])
def test_directions_inside_the_model(pair: families.Pair, case: str) -> None:
    hook, make = CASES[case]
    v = make(pair.model)
    attribution = tls.jacobian_scope(pair.model, PROMPT, direction=v, target_hook=hook, pos=-2)
    oracle = expected(pair.model, attribution.tokens, "hook_embed", hook, v, attribution.pos)
    assert torch.allclose(attribution.scores, oracle, rtol=RTOL, atol=1e-12) and float(oracle.max()) > 1e-3
    assert torch.equal(attribution.direction[0], v)


@pytest.mark.on_families("gpt2", "llama")
def test_source_at_an_earlier_layer(pair: families.Pair) -> None:
    v = one_hot(pair.model.cfg.d_mlp, 5)
    hook, at = "blocks.1.mlp.hook_post", "blocks.1.hook_resid_pre"
    attribution = tls.jacobian_scope(pair.model, PROMPT, direction=v, target_hook=hook, at=at)
    oracle = expected(pair.model, attribution.tokens, at, hook, v, attribution.pos)
    assert torch.allclose(attribution.scores, oracle, rtol=RTOL, atol=1e-12) and float(oracle.max()) > 1e-3


def fake_sae(d_in: int, hook: str, **cfg: Any) -> Any:
    return SimpleNamespace(
        W_enc=noise(d_in, 6),
        b_enc=noise(6),
        W_dec=noise(6, d_in).flip(0),
        b_dec=noise(d_in),
        cfg=SimpleNamespace(metadata=SimpleNamespace(hook_name=hook), **cfg),
    )


def test_pre_activation_is_what_the_sae_computes(kind: str) -> None:
    """Against autograd through an encoder that subtracts its bias and rescales by the decoder's norms."""
    model = families.build("gpt2", kind).model
    hook = "blocks.0.hook_resid_post"
    sae = fake_sae(families.D_MODEL, hook, rescale_acts_by_decoder_norm=True, normalize_activations="none")

    def pre(h: torch.Tensor) -> torch.Tensor:
        return (((h - sae.b_dec) @ sae.W_enc + sae.b_enc) * sae.W_dec.norm(dim=-1))[4]

    gradient = torch.autograd.functional.jacobian(pre, noise(families.D_MODEL))
    found = tls.sae_feature(sae, 4)
    assert found.target_hook == hook and torch.allclose(found.direction, gradient, rtol=RTOL)
    attribution = tls.jacobian_scope(model, PROMPT, **found._asdict())
    oracle = expected(model, attribution.tokens, "hook_embed", hook, gradient, attribution.pos)
    assert torch.allclose(attribution.scores, oracle, rtol=RTOL, atol=1e-12)


def test_all_heads_in_one_row(kind: str) -> None:
    """An SAE on `hook_z` sees heads side by side: `(head d_head)`."""
    model = families.build("llama", kind).model
    sae = fake_sae(families.N_HEADS * families.D_HEAD, "blocks.0.attn.hook_z")
    flat = tls.sae_feature(sae, 2, kind="encoder")
    heads = flat.direction.reshape(families.N_HEADS, families.D_HEAD)
    first = tls.jacobian_scope(model, PROMPT, **flat._asdict())
    second = tls.jacobian_scope(model, PROMPT, direction=heads, target_hook=flat.target_hook)
    assert torch.equal(first.scores, second.scores) and float(first.scores.max()) > 0
    several = torch.stack([flat.direction, sae.W_enc[:, 3]])
    assert len(tls.jacobian_scope(model, PROMPT, direction=several, target_hook=flat.target_hook).direction) == 2


def test_decoder_row_and_where_it_writes() -> None:
    sae = fake_sae(8, "a")
    assert torch.equal(tls.sae_feature(sae, 1, kind="decoder").direction, sae.W_dec[1])
    sae.cfg.metadata.hook_name_out = "b"
    assert tls.sae_feature(sae, 1, kind="decoder").target_hook == "b"
    assert tls.sae_feature(sae, 1, kind="encoder").target_hook == "a"
    old = SimpleNamespace(W_enc=sae.W_enc, W_dec=sae.W_dec, cfg=SimpleNamespace(hook_name="c"))
    assert tls.sae_feature(old, 0).target_hook == "c"


def test_what_is_no_feature_is_refused(unchecked: None) -> None:
    sae = fake_sae(8, "a", normalize_activations="layer_norm")
    for options, words in (
        ({"feature": 6}, r"0\.\.5"),
        ({"feature": 0, "kind": "both"}, "expected 'encoder'"),
        ({"feature": 0}, "normalises its input"),
    ):
        with pytest.raises(ValueError, match=words):
            tls.sae_feature(sae, **options)
    with pytest.raises(ValueError, match="names no hook"):
        tls.sae_feature(SimpleNamespace(W_enc=sae.W_enc, W_dec=sae.W_dec, cfg=SimpleNamespace()), 0)
    with pytest.raises(TypeError, match="or an SAE with W_enc"):
        tls.sae_feature(object(), 0)


def test_hooks_that_have_no_position_are_refused(kind: str) -> None:
    model = families.build("gpt2", kind).model
    n = len(PROMPT.split()) + 1
    for hook, shape in (("blocks.0.attn.hook_pattern", (n,)), ("unembed.hook_out", (families.D_VOCAB,))):
        with pytest.raises(ValueError, match="to be read at one position"):
            tls.jacobian_scope(model, PROMPT, direction=noise(*shape), target_hook=hook)
    with pytest.raises(ValueError, match="does not fit the activation"):
        tls.jacobian_scope(model, PROMPT, direction=noise(5), target_hook="blocks.0.attn.hook_z")
