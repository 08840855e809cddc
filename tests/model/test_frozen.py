"""Invariant: what is frozen is held in the backward alone. The forward is identical to the bit, and the gradient that of the
plain Hugging Face model with the same things detached.

The oracles are `support/frozen_models.py`, module by module in plain Hugging Face, and central differences of a run in which
the patterns may not move. What is float64 throughout agrees to 1e-9, else to the family's own tolerance
(`families.FLOAT64_RTOL`): Hugging Face computes norms in float32.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import architectures
import families
import frozen_models
import oracles
import pytest
import torch
from oracles import relative_error
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

import tl_scopes as tls
from tl_scopes.model.forward import Recording, forward_pass, run_with_hooks
from tl_scopes.model.frozen import frozen_parts, held
from tl_scopes.model.held_functions import PARTS, Valve
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.lens import whole
from tl_scopes.numerics import quadrature

TOKENS = torch.tensor(families.tokenizer()(families.PROMPT).input_ids)
TARGET, LAST = 7, len(TOKENS) - 1
SUBSETS = [parts for n in (1, 2, 3) for parts in itertools.combinations(PARTS, n)]
SOON = [("attention",), PARTS]
"""The others are of the slow tier."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(model: Any, frozen: Any, **options: Any) -> Tensor:
    found = tls.semantic_scope(model, TOKENS, target=TARGET, frozen=frozen, keep_gradient=True, **options)
    assert found.gradient is not None
    return found.gradient


def expected(hf: nn.Module, parts: Any) -> Tensor:
    with frozen_models.detached(hf, parts):
        return oracles.hf_gradient(hf, TOKENS, LAST, frozen_models.frozen_logit(hf, TARGET, parts))


# -- values ----------------------------------------------------------------------------------------------


def test_the_forward_is_identical_to_the_bit(pair: families.Pair) -> None:
    runs = []
    for frozen in ((), PARTS):
        with differentiable(pair.model):
            read = torch.tensor([LAST])
            runs.append(forward_pass(pair.model, TOKENS[None], read, Recording(cache=True, frozen=frozen)))
    plain, held_run = runs
    assert torch.equal(plain.logits, held_run.logits)
    assert torch.equal(plain.y, held_run.y)
    assert plain.activations.keys() == held_run.activations.keys()
    for name, value in plain.activations.items():
        assert torch.equal(value, held_run.activations[name]), name


@pytest.mark.on_families("gpt2", "llama")
def test_nothing_frozen_is_the_scope_of_before(pair: families.Pair) -> None:
    plain = tls.semantic_scope(pair.model, TOKENS, target=TARGET, keep_gradient=True)
    none = tls.semantic_scope(pair.model, TOKENS, target=TARGET, keep_gradient=True, frozen=())
    assert plain.to_dict() == none.to_dict()
    assert "frozen" not in plain.details
    assert "frozen" not in plain.provenance


def test_the_model_is_left_as_it_was() -> None:
    model = families.build("gemma2", "bridge").model
    modules = [*model.modules(), *whole(model).modules()]
    before = [{name: value for name, value in vars(module).items() if callable(value)} for module in modules]
    gradient(model, "all")
    assert before == [{name: value for name, value in vars(module).items() if callable(value)} for module in modules]


# -- gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts", [p if p in SOON else pytest.param(p, marks=pytest.mark.slow) for p in SUBSETS], ids="-".join
)
def test_the_gradient_is_hugging_faces_with_the_same_things_detached(pair: families.Pair, parts: Any) -> None:
    assert relative_error(gradient(pair.model, parts), expected(pair.hf, parts)) < families.FLOAT64_RTOL[pair.family]


@pytest.mark.parametrize("parts", SUBSETS, ids="-".join)
@pytest.mark.parametrize("name", ["MixtralForCausalLM", "Qwen3ForCausalLM"])
def test_experts_and_norms_of_queries_and_keys(name: str, parts: Any) -> None:
    built = _architecture(name)
    assert relative_error(gradient(built.model, parts), expected(built.hf, parts)) < 5e-6


@cache
def _architecture(name: str) -> architectures.Built:
    return architectures.build(name)


@pytest.mark.on_families("gpt2", "gemma2", slow=("llama", "neox"))
def test_frozen_attention_is_what_moves_while_patterns_stay(pair: families.Pair) -> None:
    """Exact less frozen is then what goes through the patterns: exact is checked elsewhere."""
    model, step = pair.model, 1e-5 if pair.family == "gpt2" else 1e-3
    patterns: dict[str, Tensor] = {}
    names = [f"blocks.{n}.attn.hook_pattern" for n in range(model.cfg.n_layers)]

    def keep(activation: Tensor, hook: Any) -> None:
        patterns[hook.name] = activation.clone()

    def pin(activation: Tensor, hook: Any) -> Tensor:
        return patterns[hook.name]

    direction = drawn(1, len(TOKENS), model.cfg.d_model)

    def logit(shift: float) -> float:
        move = [("hook_embed", lambda activation, hook: activation + shift * direction)]
        with torch.no_grad():
            return float(run_with_hooks(model, TOKENS[None], [*move, *((name, pin) for name in names)])[0, -1, TARGET])

    with torch.no_grad():
        run_with_hooks(model, TOKENS[None], [(name, keep) for name in names])
    difference = (logit(step) - logit(-step)) / (2 * step)
    found = float((gradient(model, "attention") * direction[0]).sum())
    exact = float((gradient(model, ()) * direction[0]).sum())
    assert abs(found - difference) < (1e-8 if pair.family == "gpt2" else 1e-3) * abs(difference)
    assert abs(exact - difference) > 10 * abs(found - difference)


def test_fused_attention_holds_its_queries_and_keys() -> None:
    q, k, v = (drawn(1, 2, 5, 4, seed=n).requires_grad_(True) for n in range(3))
    with held(("attention",), []):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    pattern = ((q @ k.mT) / 2 + torch.full((5, 5), -torch.inf).triu(1)).softmax(-1).detach()
    cotangent = drawn(*out.shape)
    assert torch.autograd.grad(out, [q, k], cotangent, allow_unused=True, retain_graph=True) == (None, None)
    (found,) = torch.autograd.grad(out, v, cotangent)
    torch.testing.assert_close(found, pattern.mT @ cotangent)


def test_a_valve_makes_two_linearisations_of_one_graph() -> None:
    """Of attention written out in a module of that name, and of the fused one; nothing else is behind it."""
    valve = Valve()
    q, k, v = (drawn(1, 2, 5, 4, seed=n).requires_grad_(True) for n in range(3))

    class PlainAttention(nn.Module):
        def forward(self) -> Tensor:
            return (q @ k.mT).softmax(-1) @ v

    plain = PlainAttention()
    for run in (plain, lambda: F.scaled_dot_product_attention(q, k, v)):
        exact = torch.autograd.grad(run().sum(), [q, k, v])
        with held((), [plain], valve) as mode:
            out = run()
        assert mode.held["attention"]
        opened = torch.autograd.grad(out.sum(), [q, k, v], retain_graph=True)
        valve.open = False
        shut = torch.autograd.grad(out.sum(), [q, k, v], retain_graph=True)
        rows = torch.autograd.grad(out, [q, k, v], torch.ones(3, *out.shape, dtype=out.dtype), is_grads_batched=True)
        valve.open = True
        for plainly, again, part, by_row in zip(exact, opened, shut, rows, strict=True):
            assert torch.equal(plainly, again)
            torch.testing.assert_close(by_row, part.expand(3, *part.shape))
        assert not shut[0].any() and not shut[1].any() and torch.equal(shut[2], exact[2])


@pytest.mark.parametrize("function", [F.gelu, F.silu, torch.relu, torch.tanh, lambda u: torch.clamp(u, max=1.5)])
def test_a_secant_at_0_is_the_slope_there(function: Any) -> None:
    u = torch.tensor([-2.0, 0.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    with held(("activations",), []):
        value = function(u)
    (found,) = torch.autograd.grad(value.sum(), u)
    at_0 = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(function(at_0), at_0)
    torch.testing.assert_close(found[[0, 3]], (value / u)[[0, 3]].detach())
    assert found[1] == found[2] == slope


def test_a_gate_is_held_whole_and_a_product_shares_its_gradient() -> None:
    a, b = (drawn(5, seed=n).requires_grad_(True) for n in range(2))
    with held(("activations",), []):
        gated, product = a * torch.sigmoid(b), a * b
    of_gated = torch.autograd.grad(gated.sum(), [a, b], allow_unused=True)
    assert torch.equal(of_gated[0], b.sigmoid())
    assert of_gated[1] is None
    assert torch.equal(torch.stack(torch.autograd.grad(product.sum(), [a, b])), torch.stack([b, a]).detach() / 2)


@pytest.mark.parametrize("shape", [(6,), (5, 6)])
@pytest.mark.parametrize("centred", [True, False])
def test_a_fused_norm_has_the_gradient_of_the_same_written_out(shape: tuple[int, ...], centred: bool) -> None:
    x = drawn(3, 5, 6).requires_grad_(True)
    w = drawn(*shape, seed=1)
    dims = tuple(range(-len(shape), 0))
    with held(("norms",), []):
        value = F.layer_norm(x, shape, w) if centred else F.rms_norm(x, shape, w, 1e-5)
    live = x - x.mean(dims, keepdim=True) if centred else x
    written = w * live / (live.square().mean(dims, keepdim=True) + 1e-5).sqrt().detach()
    cotangents = drawn(2, *value.shape, seed=2)
    (found,) = torch.autograd.grad(value, x, cotangents, is_grads_batched=True)
    (expected,) = torch.autograd.grad(written, x, cotangents, is_grads_batched=True)
    torch.testing.assert_close(value, written)
    torch.testing.assert_close(found, expected)


# -- ways of running --------------------------------------------------------------------------------------


@pytest.mark.on_families("gpt2", slow=("gemma2",))
def test_ways_of_running_do_not_matter(pair: families.Pair) -> None:
    """Checkpointed, in a batch, from inside the model, and several rows at once."""
    exact = gradient(pair.model, "all")
    tight = families.FLOAT64_RTOL[pair.family]
    assert relative_error(gradient(pair.model, "all", checkpoint=True), exact) < 1e-12
    prompts = [families.prompt_tokens(7, seed=1), TOKENS]
    batch = tls.semantic_scope(
        pair.model, prompts, target=[TARGET] * 2, frozen="all", keep_gradient=True, checkpoint=True
    )
    assert relative_error(batch[1].gradient, exact) < tight
    rows = torch.eye(pair.model.cfg.d_model, dtype=torch.float64)[:3]
    together = tls.jacobian_scope(pair.model, TOKENS, direction=rows, frozen="all").details["row_scores"]
    alone = [tls.jacobian_scope(pair.model, TOKENS, direction=row, frozen="all").scores for row in rows]
    assert relative_error(torch.tensor(together, dtype=torch.float64), torch.stack(alone)) < 1e-10


def path_gradients(model: Any, parts: Any, n_steps: int) -> torch.Tensor:
    """Integrated gradients from zero, one call at a time: the embeddings are moved by a hook of the caller's."""
    nodes, weights, _ = quadrature.split_rule(n_steps)
    total = 0.0
    for alpha, weight in zip(nodes, weights, strict=True):
        with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook, a=alpha: a * x)]):
            moved = tls.input_x_gradient(model, TOKENS, target=TARGET, frozen=parts)
        total = total + weight / alpha * moved.signed  # of α x
    return total


@pytest.mark.on_families("gpt2", slow=("gemma2",))
def test_every_call_has_the_same_linearisation(pair: families.Pair) -> None:
    model, parts = pair.model, ("norms", "attention")
    scope = tls.semantic_scope(model, TOKENS, target=TARGET, frozen=parts)
    inside = tls.semantic_scope(model, TOKENS, target=TARGET, frozen=parts, at="blocks.1.hook_resid_pre")
    layers = tls.layer_influence(model, TOKENS, target=TARGET, frozen=parts)
    row = tls.attribution_matrix(model, TOKENS, positions=[5], frozen=parts)
    same = tls.semantic_scope(model, TOKENS, target=int(TOKENS[6]), pos=5, frozen=parts)
    torch.testing.assert_close(layers.scores[1], inside.scores)
    torch.testing.assert_close(layers.attribution.scores, scope.scores)
    torch.testing.assert_close(row.scores[0], same.scores, rtol=1e-6, atol=0)
    product = tls.input_x_gradient(model, TOKENS, target=TARGET, frozen=parts, keep_gradient=True)
    assert product.gradient is not None
    torch.testing.assert_close(product.gradient.norm(dim=-1), scope.scores)
    still = tls.smoothgrad(model, TOKENS, target=TARGET, frozen=parts, n_samples=2, sigma=0.0)
    torch.testing.assert_close(still.scores, scope.scores, rtol=1e-6, atol=0)
    path = tls.integrated_gradients(model, TOKENS, target=TARGET, frozen=parts, n_steps=6)
    assert relative_error(path.signed, path_gradients(model, parts, 6)) < 1e-6
    assert path.details["frozen"] == list(parts)
    heads = tls.head_influence(model, TOKENS, target=TARGET, frozen="all")
    assert heads.scores.isfinite().all()
    for found in (scope, layers.attribution, row, product, still):
        assert found.details["frozen"] == list(parts)
        assert found.provenance["frozen"] == list(parts)
    information = tls.total_information(model, TOKENS, method="exact", frozen="all")
    traced = tls.fisher_scope(model, TOKENS, rank=model.cfg.d_model, tol=1e-10, frozen="all")
    first = traced.details["eigenvalues"][0]
    torch.testing.assert_close(first * traced.scores.square(), information.scores, rtol=1e-5, atol=0)


def test_a_span_is_the_sum_of_its_positions() -> None:
    model = families.build("gpt2", families.kinds_available()[0]).model
    span = tls.semantic_scope(model, TOKENS, pos=[4, 5], frozen="all", keep_gradient=True)
    parts = [
        tls.semantic_scope(model, TOKENS, pos=p, target=int(TOKENS[p + 1]), frozen="all", keep_gradient=True)
        for p in (4, 5)
    ]
    torch.testing.assert_close(span.gradient, parts[0].gradient + parts[1].gradient)


def test_a_root_inside_an_activation_is_no_norms() -> None:
    activation = ACT2FN["sqrtsoftplus"]
    gradients = []
    for parts in ((), ("norms",), ("activations",)):
        u = drawn(6).requires_grad_()
        with held(parts, [activation]):
            value = activation(u)
        gradients.append(torch.autograd.grad(value.sum(), u, allow_unused=True)[0] if value.requires_grad else None)
    assert torch.equal(gradients[0], gradients[1])
    assert gradients[2] is None, "it is not 0 at 0, and held whole"


# -- what is said -----------------------------------------------------------------------------------------


def test_names_are_taken_in_any_order_and_refused_before_any_work(unchecked: None) -> None:
    assert frozen_parts(["attention", "norms"]) == ("norms", "attention")
    assert frozen_parts("all") == frozen_parts(("norms", "all")) == PARTS
    assert tls.gradient_norm(families.build("gpt2", "bridge").model, TOKENS, frozen=["all"]).details["frozen"] == [
        *PARTS
    ]
    assert frozen_parts(()) == ()
    model = families.build("gpt2", families.kinds_available()[0]).model
    with pytest.raises(ValueError, match=r"^semantic_scope.*frozen.*'norms'"):
        tls.semantic_scope(model, "no such token ever read", target="and no such target", frozen="norm")
    with pytest.raises((TypeError, ValueError), match=r"^semantic_scope.*frozen"):
        tls.semantic_scope(model, TOKENS, target=TARGET, frozen=3)
    with pytest.raises(TypeError, match="frozen"):
        tls.leave_one_out(model, TOKENS, target=TARGET, frozen="all")


def test_titles_say_which_linearisation_it_is() -> None:
    model = families.build("gpt2", families.kinds_available()[0]).model
    assert "(everything frozen)" in str(tls.semantic_scope(model, TOKENS, target=TARGET, frozen="all"))
    assert "(norms and attention frozen)" in str(
        tls.attribution_matrix(model, TOKENS, positions=[5], frozen=["attention", "norms"])
    )
    assert "(attention frozen)" in str(tls.layer_influence(model, TOKENS, target=TARGET, frozen="attention"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MambaForCausalLM", "JambaForCausalLM"])
def test_a_state_space_mixer_is_refused_by_name(name: str) -> None:
    model = _architecture(name).model
    for frozen in ("all", "attention", "activations"):
        with pytest.raises(ValueError, match=r"^semantic_scope.*carries a state from token to token in \w*Mixer"):
            tls.semantic_scope(model, TOKENS, target=TARGET, frozen=frozen)
    assert relative_error(gradient(model, "norms"), gradient(model, ())) > 1e-3


@pytest.mark.one_lens
def test_names_may_come_in_any_order_and_collection(demo_model: Any) -> None:
    asked = (
        {"norms", "attention"},
        frozenset({"attention", "norms"}),
        ["attention", "norms"],
        (n for n in ("norms", "attention")),
    )
    for frozen in asked:
        assert tls.semantic_scope(demo_model, "the dog", frozen=frozen).details["frozen"] == ["norms", "attention"]
    with pytest.raises(TypeError, match="frozen="):
        tls.semantic_scope(demo_model, "the dog", frozen={"norms": True})
