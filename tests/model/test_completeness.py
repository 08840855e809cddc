"""Invariant: with everything frozen the products of leaves and gradients add up to the scalar, on every family that is let
through; a model where they do not is refused.

The tolerance is 1e-9 where nothing is computed in float32, else 1e-6: Hugging Face's norms are.
"""

from __future__ import annotations

from typing import Any

import families
import frozen_models
import oracles
import pytest
import torch
from torch import Tensor, nn

import tl_scopes as tls
from tl_scopes.model import completeness
from tl_scopes.model.completeness import TOKENS, everything_held, refuse_unfrozen
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.leaves import BIASES, OFFSETS, POSITIONS, UNEMBEDDING, live_leaves, share
from tl_scopes.model.lens import whole
from tl_scopes.results.completeness import sums_up

PROMPT = torch.tensor(families.tokenizer()(families.PROMPT).input_ids)
IN_FLOAT64 = ("gpt2", "neox", "neox_sequential", "cohere")


BOTH, LINEAR = {OFFSETS, BIASES}, {BIASES}
OF_BIASES = {"gpt2": BOTH, "neox": BOTH, "neox_sequential": BOTH, "qwen2": LINEAR, "qwen2_tied": LINEAR}


def exact(pair: families.Pair) -> float:
    """Norms of a HookedTransformer and LayerNorms of Hugging Face are float64 throughout."""
    return 1e-9 if pair.kind == "hooked" or pair.family in IN_FLOAT64 else 1e-6


def test_the_parts_add_up(pair: families.Pair) -> None:
    found = everything_held(pair.model)
    assert found.gap < exact(pair)
    assert all(n > 0 for n in found.held.values())
    assert found.parts[TOKENS] != 0
    assert (found.parts[POSITIONS] != 0) == (pair.family == "gpt2")
    assert {kind for kind in (OFFSETS, BIASES) if found.parts[kind]} == OF_BIASES.get(pair.family, set())


def plain_parts(pair: families.Pair, target: int) -> dict[str, float]:
    """Share of each kind of leaf in a logit of plain Hugging Face with everything detached: its parameters are leaves."""
    hf, kinds = pair.hf, dict[str, list[nn.Parameter]]()
    head = hf.get_output_embeddings()
    for module, name, parameter in families.parameters_once(hf):
        if name == "bias":
            kind = UNEMBEDDING if module is head else OFFSETS if "Norm" in type(module).__name__ else BIASES
            kinds.setdefault(kind, []).append(parameter)
    if pair.family == "gpt2":
        kinds[POSITIONS] = [hf.transformer.wpe.weight]  # type: ignore[union-attr, list-item]
    x = oracles.embeddings(hf, PROMPT).requires_grad_(True)
    with frozen_models.detached(hf, ("norms", "attention", "activations")):
        run = oracles.run(hf, x)
        scalar = frozen_models.frozen_logit(hf, target, ("activations",))(run.logits[-1], run.y[-1])
        flat = [x, *(p for of_kind in kinds.values() for p in of_kind)]
        gradients = torch.autograd.grad(scalar, flat, allow_unused=True)
    found = {"tokens": float((x.detach() * gradients[0]).sum()), "whole": float(scalar.detach())}
    each = iter(gradients[1:])
    for kind, of_kind in kinds.items():
        found[kind] = sum(
            0.0 if g is None else float((p.detach() * g).sum()) for p, g in zip(of_kind, each, strict=False)
        )
    return found


@pytest.mark.parametrize("checkpoint", [False, True])
def test_each_part_is_that_of_plain_hugging_face(pair: families.Pair, checkpoint: bool) -> None:
    found = tls.input_x_gradient(pair.model, PROMPT, target=7, frozen="all", checkpoint=checkpoint)
    parts = dict(found.details["completeness"])
    wanted = {name: part for name, part in plain_parts(pair, 7).items() if part}
    rounding, size = abs(parts.pop("rounding")), sum(map(abs, wanted.values()))
    assert rounding < exact(pair) * size
    assert parts == pytest.approx(wanted, abs=(1e-9 if pair.family == "gpt2" else 5e-6) * size)


@pytest.mark.slow
@pytest.mark.on_families("gpt2", "qwen2")
def test_parts_are_of_their_own_prompt_and_question(pair: families.Pair) -> None:
    texts = [PROMPT, PROMPT[:7], PROMPT]
    for keywords in ({}, {"of": "log_prob"}):
        together = tls.input_x_gradient(pair.model, texts, target=[7, 9, 12], frozen="all", **keywords)
        for text, target, found in zip(texts, (7, 9, 12), together, strict=True):
            alone = tls.input_x_gradient(pair.model, text, target=target, frozen="all", **keywords)
            size = sum(map(abs, alone.details["completeness"].values()))
            assert found.details["completeness"] == pytest.approx(alone.details["completeness"], abs=1e-9 * size)
    span = tls.input_x_gradient(pair.model, PROMPT, pos=[3, 6], of="logit", frozen="all").details["completeness"]
    each = [tls.input_x_gradient(pair.model, PROMPT[: p + 1], target=int(PROMPT[p + 1]), frozen="all") for p in (3, 6)]
    assert span["whole"] == pytest.approx(sum(one.details["logit"] for one in each), rel=1e-5)
    for name in set(span) - {"whole", "rounding"}:
        assert span[name] == pytest.approx(sum(one.details["completeness"][name] for one in each), abs=1e-5)


@pytest.mark.on_families("gpt2")
def test_the_bias_of_the_unembedding_is_a_part(pair: families.Pair) -> None:
    model = families.processed(pair.family, pair.kind).model
    assert bool((model.b_U != 0).any())
    for of in ("logit", "log_prob"):
        found = tls.input_x_gradient(model, PROMPT, target=7, frozen="all", of=of)
        parts = dict(found.details["completeness"])
        with torch.no_grad():
            z = model(PROMPT[None])[0, -1].double()
        weights = torch.nn.functional.one_hot(torch.tensor(7), len(z)) - z.softmax(-1) * (of == "log_prob")
        assert parts[UNEMBEDDING] == pytest.approx(float((weights * model.b_U).sum()), rel=1e-6)
        assert parts["whole"] == pytest.approx(float((weights * z).sum()), rel=1e-6)
        assert abs(parts["rounding"]) < 1e-9 * sum(map(abs, parts.values()))
        assert "unembedding bias" in found.notes[-1]


def test_a_number_and_a_table_have_one_share_for_each_row() -> None:
    rows = torch.tensor([2.0, -1.0], dtype=torch.float64)
    assert share(torch.tensor(3.0), rows).tolist() == [6.0, -3.0], "what a model adds may be a number"
    table = torch.ones(2, 3)
    assert share(table, torch.stack([table, -table])).tolist() == [6.0, -6.0]


def test_the_line_names_every_part_and_sums() -> None:
    parts = {"tokens": 11.94, "positions": 0.1, "biases": -0.3, "rounding": 1e-7, "whole": 11.74}
    assert sums_up({"completeness": parts}) == "Signed scores 11.94 + positions 0.10 + biases −0.30 = logit 11.74."
    assert "rounding 0.10" in sums_up({"completeness": {**parts, "rounding": 0.1}})
    spans = {"completeness": parts, "of": "log_prob", "target_log_probs": [-1.0, -2.0]}
    assert sums_up(spans).endswith("= summed logits less those expected of all tokens 11.74.")
    old = {"completeness": {"tokens": 15.68, "positions and biases": -5.007, "whole": 10.67}, "of": "logit"}
    assert sums_up(old) == "Signed scores 15.68 + positions and biases −5.01 = logit 10.67."
    assert sums_up({"signed": [1.0]}) == ""


def test_a_bias_before_the_embeddings_hook_is_part_of_the_embeddings() -> None:
    model = families.build("gpt2", "bridge", fresh=True).model
    plain = tls.input_x_gradient(model, PROMPT, target=7, frozen="all")
    bias = nn.Parameter(torch.linspace(-0.3, 0.2, families.D_MODEL, dtype=torch.float64), requires_grad=False)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = bias

        def forward(self, x: Tensor) -> Tensor:
            return x + self.bias

    model.embed.register_module("shift", Shifted())
    handle = model.hook_dict["hook_embed"].register_forward_hook(lambda module, args, out: model.embed.shift(out))
    found = tls.input_x_gradient(model, PROMPT, target=7, frozen="all")
    handle.remove()
    parts = found.details["completeness"]
    assert parts["tokens"] != pytest.approx(plain.details["completeness"]["tokens"], rel=1e-3)
    assert abs(parts["rounding"]) < 1e-9 * sum(map(abs, parts.values()))


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


def test_a_run_in_another_thread_leaves_nothing_among_the_leaves(kind: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = families.build("gpt2", kind).model
    with differentiable(model), live_leaves(model) as found, ThreadPoolExecutor(1) as other:
        before = {name: len(leaves) for name, leaves in found.items()}
        other.submit(model, families.prompt_tokens(5)[None]).result(60)
        assert {name: len(leaves) for name, leaves in found.items()} == before
        model(families.prompt_tokens(5)[None])
        assert len(found["positions"]) > before["positions"]
