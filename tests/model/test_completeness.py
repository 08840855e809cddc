"""Invariant: with everything frozen the products of leaves and gradients add up to the scalar, on every family that is let
through; a model where they do not is refused.

The tolerance is 1e-9 where nothing is computed in float32, else 1e-6: Hugging Face's norms are.
"""

from __future__ import annotations

from typing import Any

import families
import pytest
import torch
from torch import Tensor, nn

import tl_scopes as tls
from tl_scopes.model import completeness
from tl_scopes.model.completeness import BIASES, POSITIONS, TOKENS, everything_held, refuse_unfrozen
from tl_scopes.model.lens import whole

PROMPT = torch.tensor(families.tokenizer()(families.PROMPT).input_ids)
IN_FLOAT64 = ("gpt2", "neox", "neox_sequential", "cohere")


def exact(pair: families.Pair) -> float:
    """Norms of a HookedTransformer and LayerNorms of Hugging Face are float64 throughout."""
    return 1e-9 if pair.kind == "hooked" or pair.family in IN_FLOAT64 else 1e-6


def test_the_parts_add_up(pair: families.Pair) -> None:
    found = everything_held(pair.model)
    assert found.gap < exact(pair)
    assert all(n > 0 for n in found.held.values())
    assert found.parts[TOKENS] != 0
    assert (found.parts[POSITIONS] != 0) == (pair.family == "gpt2")
    has_bias = pair.family in ("gpt2", "neox", "neox_sequential", "qwen2", "qwen2_tied")
    assert (found.parts[BIASES] != 0) == has_bias


def test_signed_scores_and_what_is_named_are_the_logit(pair: families.Pair) -> None:
    found = tls.input_x_gradient(pair.model, PROMPT, target=7, frozen="all", keep_gradient=True)
    parts = dict(found.details["completeness"])
    whole = parts.pop("whole")
    with torch.no_grad():
        logit = float(pair.hf(input_ids=PROMPT[None], use_cache=False).logits[0, -1, 7])
        x = pair.hf.get_input_embeddings()(PROMPT) if pair.family == "gpt2" else None
    assert abs(whole - logit) < 5e-6 * abs(logit)
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-12)
    assert parts["tokens"] == pytest.approx(float(found.signed.sum()), rel=1e-6)
    named = {
        "gpt2": "positions and biases",
        "neox": "biases",
        "qwen2": "biases",
        "llama": "rounding",
        "gemma2": "rounding",
    }
    if name := named.get(pair.family):
        assert set(parts) == {"tokens", name}
        assert name != "rounding" or abs(parts[name]) < exact(pair) * abs(whole)
    assert found.notes[-1].startswith(f"Signed scores {parts['tokens']:.4g}".replace("-", "−"))
    if x is not None:
        torch.testing.assert_close(found.signed, (x * found.gradient).sum(-1))


def test_signed_is_saved_joined_and_absent_from_older_files() -> None:
    model = families.build("gpt2", families.kinds_available()[0]).model
    found = tls.input_x_gradient(model, PROMPT, target=7)
    assert "completeness" not in found.details
    assert found.details["signed"] == found.signed[: found.pos + 1].tolist()
    saved = found.to_dict()
    assert torch.equal(tls.Attribution.from_dict(saved).signed, found.signed)
    del saved["signed"]
    assert tls.Attribution.from_dict(saved).signed is None
    torch.testing.assert_close(found.by_word().signed.sum(), found.signed.sum())
    assert tls.semantic_scope(model, PROMPT, target=7).signed is None
    path = tls.integrated_gradients(model, PROMPT, target=7, n_steps=4)
    assert path.details["signed"] == path.signed[: path.pos + 1].tolist()


@pytest.mark.on_families("gpt2")
def test_the_models_parameters_ask_for_what_they_asked_for(pair: families.Pair) -> None:
    before = [parameter.requires_grad for parameter in whole(pair.model).parameters()]
    everything_held.__wrapped__(pair.model)  # type: ignore[attr-defined]
    assert before == [parameter.requires_grad for parameter in whole(pair.model).parameters()]


class Odd(nn.Module):
    """An activation that nobody knows, on whatever stands in its place."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out = self.inner(*args, **kwargs)
        return out + torch.logaddexp(out, out.flip(-1))


def test_what_is_not_seen_is_refused() -> None:
    model = families.build("llama", "bridge", fresh=True).model
    refuse_unfrozen(model, ("norms",))
    layer = whole(model).model.layers[1]
    while "_original_component" in layer._modules:
        layer = layer._modules["_original_component"]
    layer.mlp = Odd(layer.mlp)
    with torch.no_grad():
        model.unembed.original_component.weight.mul_(1.5)  # another state, looked at anew
    with pytest.raises(ValueError, match=r"with everything frozen the parts of a prediction .* add up to"):
        refuse_unfrozen(model, ("norms",))


def test_a_part_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.build("gpt2", families.kinds_available()[0]).model
    nothing = completeness.Held({"norms": 5, "attention": 0, "activations": 2}, {TOKENS: 1.0}, 1.0, 1.0)
    monkeypatch.setattr(completeness, "everything_held", lambda model: nothing)
    with pytest.raises(ValueError, match=r"^semantic_scope.*a softmax in a module of attention was not found"):
        tls.semantic_scope(model, PROMPT, target=7, frozen="attention")
