"""Every scope is, token by token, the norm of the gradient that plain Hugging Face autograd gives.

Invariant: on every family and model class, at any explained position and length, the scores equal the oracle's,
which goes through `inputs_embeds` of the unwrapped Hugging Face model, one backward per row. Errors are relative to
the largest score of the prompt.

Tolerances (`families.rtol`, measured there): float64 1e-9 where nothing is computed in float32 (GPT-2), or where
both sides take bit-equal float32 steps (RMSNorm families on the bridge); 5e-6 elsewhere, because Hugging Face computes
rotary angles, attention softmax and norms in float32 even in a float64 model. float32: 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import families
import numpy as np
import oracles
import pytest
import torch
import transformers
from families import Pair
from oracles import relative_error
from torch import Tensor, nn

import tl_scopes as tls

TARGET, FOIL = families.VOCAB[" house"], families.VOCAB[" city"]
MIDDLE = 5
ROUNDING = 1e-12
"""Two orders of summation in float64."""
PLACES = [pytest.param(12, -1, id="last_of_12"), pytest.param(12, MIDDLE, id="middle"), pytest.param(1, -1, id="T1")]

Scope = tuple[Callable[..., Any], Callable[..., Tensor]]
SCOPES: dict[str, Scope] = {
    "semantic": (
        lambda model, tokens, **kw: tls.semantic_scope(model, tokens, target=TARGET, **kw),
        lambda hf, tokens, pos: oracles.semantic(hf, tokens, pos, TARGET),
    ),
    "contrast": (
        lambda model, tokens, **kw: tls.contrast_scope(model, tokens, target=TARGET, foil=FOIL, **kw),
        lambda hf, tokens, pos: oracles.contrast(hf, tokens, pos, TARGET, FOIL),
    ),
    "temperature": (tls.temperature_scope, oracles.temperature),
    "fisher_rank_1": (tls.fisher_scope, oracles.fisher),
    "fisher_rank_4": (
        lambda model, tokens, **kw: tls.fisher_scope(model, tokens, rank=4, **kw),
        lambda hf, tokens, pos: oracles.fisher(hf, tokens, pos, rank=4),
    ),
}
each_scope = pytest.mark.parametrize("name", SCOPES)


# -- the definition --------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "pos"), PLACES)
@each_scope
def test_scores_are_the_gradient_norms_of_hugging_face_autograd(pair: Pair, name: str, length: int, pos: int) -> None:
    scope, oracle = SCOPES[name]
    tokens = families.prompt_tokens(length)
    attr = scope(pair.model, tokens, pos=pos)
    expected = oracle(pair.hf, tokens, pos % length)
    assert attr.scores.dtype == torch.float64
    assert float(expected.max()) > 1e-3, "a degenerate case shows nothing"
    assert relative_error(attr.scores, expected) < families.rtol(pair)


@pytest.mark.on_families("gpt2", "neox", "llama", "gemma2", "gemma3", "granite")
@pytest.mark.parametrize("name", ["semantic", "contrast", "temperature", "fisher_rank_4"])
def test_float32_scores_are_right_to_1e_5_of_the_largest(pair: Pair, name: str) -> None:
    pair = families.build(pair.family, pair.kind, torch.float32)
    scope, oracle = SCOPES[name]
    tokens = families.prompt_tokens()
    attr = scope(pair.model, tokens)
    assert attr.scores.dtype == torch.float32
    assert relative_error(attr.scores, oracle(pair.hf, tokens, 11)) < families.FLOAT32_RTOL


HALF_RTOL = {torch.bfloat16: 0.2, torch.float16: 0.03}
"""Several rounding steps of 2^-9 and 2^-11 in each of 2-3 layers; measured 0.07 and 0.01 (`families`)."""


@pytest.mark.on_families("gpt2", "llama", "gemma2", "gemma3")
@pytest.mark.parametrize("dtype", HALF_RTOL, ids=str)
def test_half_precision_scores_are_float32_and_near_hugging_face_in_the_same_dtype(
    pair: Pair, dtype: torch.dtype
) -> None:
    pair = families.build(pair.family, pair.kind, dtype)
    tokens = families.prompt_tokens()
    for name in ("semantic", "temperature"):
        scope, oracle = SCOPES[name]
        attr = scope(pair.model, tokens)
        assert attr.scores.dtype == torch.float32
        assert relative_error(attr.scores, oracle(pair.hf, tokens, 11)) < HALF_RTOL[dtype], name


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_kept_gradient_is_the_signed_gradient_behind_the_scores(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET, keep_gradient=True)
    expected = oracles.hf_gradient(pair.hf, tokens, 11, lambda z, y: z[TARGET])
    assert relative_error(attr.gradient, expected) < families.rtol(pair)
    assert relative_error(attr.gradient.norm(dim=-1), attr.scores) < ROUNDING


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_semantic_scope_without_target_explains_the_top_prediction(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    logits = oracles.run_tokens(pair.hf, tokens).logits[-1].detach()
    attr = tls.semantic_scope(pair.model, tokens)
    assert attr.target == int(logits.argmax())
    assert attr.top_predictions[0][0] == attr.target_str
    assert attr.top_predictions[0][1] == pytest.approx(float(logits.softmax(-1).max()), rel=1e-5)
    assert relative_error(attr.scores, oracles.semantic(pair.hf, tokens, 11, attr.target)) < families.rtol(pair)


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_fisher_details_are_the_spectrum_of_the_dense_matrix(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    F = oracles.dense_fisher(pair.hf, tokens, 11)
    values = torch.linalg.eigvalsh(F).flip(0)
    details = tls.fisher_scope(pair.model, tokens, rank=4).details
    rtol = 10 * families.rtol(pair)  # p is exponential in logits of size 10
    assert details["eigenvalues"] == pytest.approx(values[:4].tolist(), rel=rtol)
    assert details["next_eigenvalue"] == pytest.approx(float(values[4]), rel=rtol)
    assert details["trace"] == pytest.approx(float(F.trace()), rel=rtol)
    assert details["explained_share"] == pytest.approx(float(values[:4].sum() / F.trace()), rel=rtol)
    assert details["eigengap"] == pytest.approx(float(values[0] - values[1]), rel=rtol)
    assert max(details["relative_residual"]) < 1e-9


@pytest.mark.on_families("gpt2", "llama")
def test_fisher_at_full_rank_is_the_total_information_over_lambda_1(pair: Pair) -> None:
    tokens = families.prompt_tokens(5)
    attr = tls.fisher_scope(pair.model, tokens, rank=families.D_MODEL)
    expected = oracles.total_information(pair.hf, tokens, 4) / attr.details["eigenvalues"][0]
    # the oracle pulls back other rows, through float32 steps on llama
    assert relative_error(attr.scores.square(), expected) < families.FLOAT64_RTOL[pair.family]
    assert attr.details["explained_share"] == pytest.approx(1, rel=ROUNDING)


@pytest.mark.on_families("gpt2", "llama", "gemma2", "granite")
def test_temperature_details_hold_beta_and_say_where_it_is_not_exact(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    attr = tls.temperature_scope(pair.model, tokens)
    beta = float(oracles.run_tokens(pair.hf, tokens).y[-1].detach().norm())
    assert attr.details["beta"] == pytest.approx(beta, rel=families.rtol(pair))
    exact = pair.family not in ("gemma2", "granite")  # soft cap, logit scale
    assert attr.details["beta_is_inverse_temperature"] is exact
    assert bool(attr.notes) is not exact


# -- any direction, any hook -----------------------------------------------------------------------


def layer_output(hf: nn.Module, tokens: Tensor, layer: int) -> tuple[oracles.Run, Tensor]:
    """The reference run and the output [T, d] of one of its blocks."""
    got: list[Tensor] = []
    blocks = hf.base_model.h if hasattr(hf.base_model, "h") else hf.base_model.layers

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        got.append(output[0] if isinstance(output, tuple) else output)

    handle = blocks[layer].register_forward_hook(keep)
    try:
        out = oracles.run_tokens(hf, tokens)
    finally:
        handle.remove()
    return out, got[0]


@pytest.mark.on_families("gpt2", "neox", "llama", "mistral", "gemma2")
@pytest.mark.parametrize("pos", [-1, MIDDLE])
def test_jacobian_scope_at_a_middle_layer_is_the_dense_jacobian_there(pair: Pair, pos: int) -> None:
    tokens = families.prompt_tokens()
    V = torch.randn(3, families.D_MODEL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out, hidden = layer_output(pair.hf, tokens, 0)
    rows = [torch.autograd.grad(h, out.x, retain_graph=True)[0] for h in hidden[0, pos]]
    J = torch.stack(rows)  # [d, T, d]
    by_row = torch.einsum("ki,itd->ktd", V, J).norm(dim=-1)
    attr = tls.jacobian_scope(pair.model, tokens, direction=V, target_hook="blocks.0.hook_resid_post", pos=pos)
    rtol = families.FLOAT64_RTOL[pair.family]  # vmapped rows are summed in another order
    assert relative_error(attr.scores, by_row.square().sum(0).sqrt()) < rtol
    assert relative_error(torch.tensor(attr.details["row_scores"], dtype=torch.float64), by_row) < rtol
    assert attr.target is None


def test_jacobian_scope_along_an_unembedding_row_is_the_semantic_scope_without_a_cap(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    v = pair.model.W_U[:, TARGET]
    attr = tls.jacobian_scope(pair.model, tokens, direction=v)
    expected = oracles.directional(pair.hf, tokens, 11, v)
    assert relative_error(attr.scores, expected) < families.rtol(pair)


@pytest.mark.on_families("gpt2", "llama")
def test_jacobian_scope_takes_a_direction_of_the_shape_of_a_head_activation(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    shape = (families.N_HEADS, families.D_HEAD)
    v = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    attr = tls.jacobian_scope(pair.model, tokens, direction=v, target_hook="blocks.1.attn.hook_z")
    got = hook_run(pair, tokens, ["blocks.1.attn.hook_z"])
    (gradient,) = torch.autograd.grad((got["blocks.1.attn.hook_z"][0, 11] * v).sum(), got["hook_embed"])
    assert relative_error(attr.scores, gradient[0].norm(dim=-1)) < families.rtol(pair)


@pytest.mark.on_families("gpt2", "neox", "llama", "gemma2")
def test_source_at_a_later_residual_stream_is_the_gradient_there(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    out, hidden = layer_output(pair.hf, tokens, 0)
    (gradient,) = torch.autograd.grad(out.logits[11, TARGET], hidden)
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET, at="blocks.1.hook_resid_pre")
    assert relative_error(attr.scores, gradient[0].norm(dim=-1)) < families.rtol(pair)


@pytest.mark.on_families("gpt2")
def test_source_at_the_position_embedding_has_the_token_embeddings_gradient(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    at_pos, at_embed = (
        tls.semantic_scope(pair.model, tokens, target=TARGET, at=at, keep_gradient=True)
        for at in ("hook_pos_embed", "hook_embed")
    )
    assert relative_error(at_pos.gradient, at_embed.gradient) < ROUNDING


@pytest.mark.on_families("neox", "llama", "gemma2")
def test_position_embedding_of_a_rotary_model_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"at='hook_pos_embed'.*no additive position embedding.*Use 'hook_embed'"):
        tls.semantic_scope(pair.model, families.prompt_tokens(), at="hook_pos_embed")


# -- several scopes, one forward -------------------------------------------------------------------


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_scopes_equals_separate_calls_from_one_forward(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    forwards: list[str] = []
    count = [("unembed.hook_in", lambda activation, hook: forwards.append(hook.name))]
    with pair.model.hooks(fwd_hooks=count):
        together = tls.scopes(
            pair.model,
            tokens,
            methods=("temperature", "fisher", "contrast", "semantic"),
            target=TARGET,
            foil=FOIL,
            rank=4,
            pos=MIDDLE,
        )
    assert len(forwards) == 1
    assert list(together) == ["temperature", "fisher", "contrast", "semantic"]
    for method, attr in together.items():
        scope, _ = SCOPES["fisher_rank_4" if method == "fisher" else method]
        alone = scope(pair.model, tokens, pos=MIDDLE)
        assert attr.method == method
        # rows of one batched backward and of separate ones are summed in another order
        assert relative_error(attr.scores, alone.scores) < families.FLOAT64_RTOL[pair.family], method
        assert attr.details.keys() == alone.details.keys()


@pytest.mark.on_families("gpt2")
def test_scopes_takes_the_other_methods_with_their_own_keywords(pair: Pair) -> None:
    tokens, values, v = families.prompt_tokens(), {5: 1.0, 9: 2.5, 17: 4.0}, torch.full_like(ONES, 0.5).double()
    together = tls.scopes(
        pair.model,
        tokens,
        methods=("total_information", "moment", "jacobian"),
        moment="variance",
        values=values,
        direction=v,
        rank=3,
        n_samples=20,
        seed=7,
    )
    alone = {
        "total_information": tls.total_information(pair.model, tokens, rank=3, n_samples=20, seed=7),
        "moment": tls.moment_scope(pair.model, tokens, moment="variance", values=values),
        "jacobian": tls.jacobian_scope(pair.model, tokens, direction=v),
    }
    for method, attr in together.items():
        assert relative_error(attr.scores, alone[method].scores) < families.FLOAT64_RTOL[pair.family], method
        assert attr.details.keys() == alone[method].details.keys()


@pytest.mark.on_families("gpt2")
def test_every_form_of_a_prompt_gives_the_same_scores(pair: Pair) -> None:
    text = families.PROMPT
    tokens = pair.model.to_tokens(text)
    attrs = [
        tls.semantic_scope(pair.model, form, target=" house")
        for form in (text, tokens, tokens[0], tokens[0].int(), [text], [tokens[0]])
    ]
    assert isinstance(attrs[-1], list)
    attrs[-2:] = [attr for (attr,) in attrs[-2:]]
    for attr in attrs:
        assert attr.tokens.tolist() == tokens[0].tolist()
        assert torch.equal(attr.scores, attrs[0].scores)
        assert attr.target == TARGET
        assert attr.target_str == " house"


# -- activations of the same run -------------------------------------------------------------------


def hook_run(pair: Pair, tokens: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Activations on the path from a leaf at `hook_embed`, and `logits`, by hooks made by hand."""
    got: dict[str, Tensor] = {}

    def leaf(value: Tensor, hook: Any) -> Tensor:
        got["hook_embed"] = value.detach().clone().requires_grad_(True)
        return got["hook_embed"]

    def tap(name: str) -> Callable[..., Tensor]:
        def keep(value: Tensor, hook: Any) -> Tensor:
            got.setdefault(name, value)
            return value

        return keep

    options = {} if pair.kind == "hooked" else {"use_cache": False}
    hooks = [("hook_embed", leaf), *((name, tap(name)) for name in names)]
    with pair.model.hooks(fwd_hooks=hooks):
        got["logits"] = pair.model(tokens[None], return_type="logits", **options)
    return got


CACHED = [
    "hook_embed",
    "blocks.0.attn.hook_pattern",
    "blocks.0.attn.hook_z",
    "blocks.1.hook_resid_pre",
    "blocks.1.hook_resid_post",
    "unembed.hook_in",
]


def test_cache_is_what_run_with_cache_gives(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET, pos=MIDDLE, cache=CACHED)
    _, expected = pair.model.run_with_cache(tokens[None], names_filter=CACHED)
    assert type(attr.cache) is type(expected)
    assert set(attr.cache.keys()) == set(CACHED)
    for name in CACHED:
        assert attr.cache[name].shape == expected[name].shape, name
        assert not attr.cache[name].requires_grad
        assert relative_error(attr.cache[name], expected[name]) < families.rtol(pair), name


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_cache_takes_every_form_of_a_names_filter(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    name = "blocks.1.hook_resid_pre"

    def keys(cache: Any) -> set[str]:
        found = tls.semantic_scope(pair.model, tokens, target=TARGET, cache=cache).cache
        return set(found.keys())

    assert keys(name) == {name}
    assert keys([name]) == {name}
    assert keys(lambda found: found == name) == {name}
    assert set(CACHED) <= keys(True)
    assert tls.semantic_scope(pair.model, tokens, target=TARGET).cache is None


@pytest.mark.on_families("gpt2", "gemma2")
def test_cached_logits_hold_the_explained_position_only(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET, pos=MIDDLE, cache="unembed.hook_out")
    _, full = pair.model.run_with_cache(tokens[None], names_filter="unembed.hook_out")
    assert attr.cache["unembed.hook_out"].shape == (1, 1, families.D_VOCAB)
    assert relative_error(attr.cache["unembed.hook_out"][0, 0], full["unembed.hook_out"][0, MIDDLE]) < ROUNDING


GRADS = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_z", "blocks.1.attn.hook_pattern", "hook_embed"]


def test_gradients_in_the_cache_are_autograd_through_hooks_made_by_hand(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET, grads_at=GRADS)
    got = hook_run(pair, tokens, GRADS[:-1])
    gradients = torch.autograd.grad(got["logits"][0, 11, TARGET], [got[name] for name in GRADS])
    assert set(attr.cache.keys()) == {*GRADS, *(f"{name}_grad" for name in GRADS)}
    for name, expected in zip(GRADS, gradients, strict=True):
        assert relative_error(attr.cache[f"{name}_grad"], expected) < families.rtol(pair), name
        assert relative_error(attr.cache[name], got[name]) < families.rtol(pair), name
    assert relative_error(attr.cache["hook_embed_grad"][0].norm(dim=-1), attr.scores) < ROUNDING


@pytest.mark.parametrize("call", [tls.input_x_gradient, tls.gradient_norm, tls.total_information])
def test_every_call_on_one_forward_and_one_graph_gives_its_cache(demo_model: Any, call: Any) -> None:
    names = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_pattern"]
    own = {} if call is tls.total_information else {"grads_at": names[0]}
    cache = call(demo_model, "German: der Hund", cache=names, **own).cache
    _, plain = demo_model.run_with_cache("German: der Hund", names_filter=names)
    for name in names:
        torch.testing.assert_close(cache[name], plain[name])
    if own:
        of = call(demo_model, "German: der Hund").details["of"]
        scope = tls.semantic_scope(demo_model, "German: der Hund", of=of, **own)
        assert torch.equal(cache[f"{names[0]}_grad"], scope.cache[f"{names[0]}_grad"])
    else:
        with pytest.raises(ValueError, match="no single gradient to keep"):
            call(demo_model, "German: der Hund", grads_at=names)


def test_gradient_at_the_final_hidden_state_is_v_at_the_explained_position(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    attr = tls.contrast_scope(pair.model, tokens, target=TARGET, foil=FOIL, pos=MIDDLE, grads_at="unembed.hook_in")
    y = oracles.run_tokens(pair.hf, tokens).y[MIDDLE].detach()
    A = oracles.read_out_jacobian(pair.hf, y)
    gradient = attr.cache["unembed.hook_in_grad"][0]
    assert relative_error(gradient[MIDDLE], A[TARGET] - A[FOIL]) < families.rtol(pair)
    gradient[MIDDLE] = 0
    assert not gradient.any()


# -- refusals --------------------------------------------------------------------------------------


TOKENS = families.prompt_tokens()
ONES = torch.ones(families.D_MODEL)
REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "model": (lambda m: tls.semantic_scope(nn.Identity(), TOKENS), TypeError, "expected a TransformerLens model"),
    "prompt type": (lambda m: tls.semantic_scope(m, 3), TypeError, "expected a text, token ids"),
    "prompt empty": (lambda m: tls.semantic_scope(m, ""), ValueError, r"prompt=''\): the prompt is empty"),
    "prompts none": (lambda m: tls.semantic_scope(m, []), ValueError, "list of prompts is empty"),
    "prompt float": (lambda m: tls.semantic_scope(m, TOKENS.float()), ValueError, "must be integers, got torch.float"),
    "prompt id": (lambda m: tls.semantic_scope(m, TOKENS + 1000), ValueError, "outside the vocabulary 0..159"),
    "pos": (lambda m: tls.semantic_scope(m, TOKENS, pos=12), ValueError, r"pos=12\).*12 tokens; .* -12..11"),
    "pos low": (lambda m: tls.semantic_scope(m, TOKENS, pos=-13), ValueError, r"pos=-13\)"),
    "pos count": (lambda m: tls.semantic_scope(m, [TOKENS], pos=[1, 2]), ValueError, "2 positions for 1 prompt"),
    "target count": (
        lambda m: tls.semantic_scope(m, [TOKENS], target=[1, 2]),
        ValueError,
        "2 given for 1 prompt; give one for each",
    ),
    "batch_size": (lambda m: tls.semantic_scope(m, TOKENS, batch_size=0), ValueError, r"batch_size=0\)"),
    "at": (
        lambda m: tls.semantic_scope(m, TOKENS, at="block.1.hook_resid_pre"),
        ValueError,
        r"no such hook point; did you mean .*'blocks.1.hook_resid_pre'",
    ),
    "at shape": (
        lambda m: tls.semantic_scope(m, TOKENS, at="blocks.0.attn.hook_z"),
        ValueError,
        r"\[1, 12, 4, 8\], not \[batch, pos, d_model\]",
    ),
    "cache name": (lambda m: tls.semantic_scope(m, TOKENS, cache="hook_embd"), ValueError, r"cache='hook_embd'"),
    "grads name": (lambda m: tls.semantic_scope(m, TOKENS, grads_at="nope"), ValueError, r"grads_at='nope'"),
    "rows kept": (
        lambda m: tls.fisher_scope(m, TOKENS, rank=2, keep_gradient=True),
        ValueError,
        "pulls back several rows here, so there is no single gradient",
    ),
    "same foil": (
        lambda m: tls.contrast_scope(m, TOKENS, target=5, foil=5),
        ValueError,
        "target and foil are the same token",
    ),
    "no foil": (lambda m: tls.contrast_scope(m, [TOKENS], foil=[None]), ValueError, "needs a foil"),
    "rank 0": (lambda m: tls.fisher_scope(m, TOKENS, rank=0), ValueError, r"rank must be in 1..d_model=32"),
    "rank": (lambda m: tls.fisher_scope(m, TOKENS, rank=33), ValueError, r"rank must be in 1..d_model=32"),
    "tol": (lambda m: tls.fisher_scope(m, TOKENS, tol=0.0), ValueError, r"tol=0.0\): tol is a relative residual"),
    "direction": (
        lambda m: tls.jacobian_scope(m, TOKENS, direction=ONES[:3]),
        ValueError,
        r"\[3\] does not fit the activation \[32\]",
    ),
    "direction NaN": (lambda m: tls.jacobian_scope(m, TOKENS, direction=ONES * torch.nan), ValueError, "NaN"),
    "direction int": (lambda m: tls.jacobian_scope(m, TOKENS, direction=ONES.long()), TypeError, "floating-point"),
    "backwards": (
        lambda m: tls.jacobian_scope(
            m, TOKENS, direction=ONES, target_hook="blocks.0.hook_resid_pre", at="blocks.1.hook_resid_pre"
        ),
        ValueError,
        "nothing flows from there to target_hook='blocks.0.hook_resid_pre'",
    ),
    "methods": (
        lambda m: tls.scopes(m, TOKENS, methods=("semantic", "x")),
        ValueError,
        r"scopes\(methods=.*expected different names among",
    ),
    "scopes one name": (
        lambda m: tls.scopes(m, TOKENS, methods="semantic"),
        TypeError,
        r"scopes\(methods='semantic'\): expected a list of strings",
    ),
    "scopes unread": (
        lambda m: tls.scopes(m, TOKENS, methods=("semantic", "fisher"), seed=1),
        ValueError,
        r"scopes\(seed=\.\.\.\): method 'semantic', 'fisher' does not read it; it belongs to 'total_information'",
    ),
    "checkpoint": (
        lambda m: tls.semantic_scope(m, TOKENS, checkpoint="yes"),
        TypeError,
        r"semantic_scope\(checkpoint='yes'\): expected True, False or None",
    ),
    "methods twice": (lambda m: tls.scopes(m, TOKENS, methods=("fisher", "fisher")), ValueError, "different names"),
    "scopes foil": (lambda m: tls.scopes(m, TOKENS, methods=("contrast",)), ValueError, "contrast scope needs a foil"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("unchecked")
def test_a_mistake_is_refused_with_its_argument_and_the_way_out(case: str, kind: str) -> None:
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call(families.build("gpt2", kind).model)


@pytest.mark.on_families("gpt2")
def test_weights_with_nan_are_refused_not_scored(pair: Pair) -> None:
    own = families.build(pair.family, pair.kind, fresh=True)
    with torch.no_grad():
        next(own.model.embed.parameters())[families.BOS_ID, 0] = torch.nan
    with pytest.raises(ValueError, match=r"logits hold NaN or infinity. Check its weights"):
        tls.semantic_scope(own.model, families.prompt_tokens(), target=TARGET)


def test_the_stream_between_attention_and_mlp_is_read_whole_or_not_at_all(kind: str) -> None:
    """A bridge's `hook_resid_mid` feeds the MLP alone: as a source it would miss what passes the MLP by."""
    model, name = families.build("gpt2", kind).model, "blocks.0.hook_resid_mid"
    kept = tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name).cache[f"{name}_grad"][0]
    if kind == "hooked":
        assert (
            relative_error(tls.semantic_scope(model, TOKENS, target=TARGET, at=name).scores, kept.norm(dim=-1)) < 1e-9
        )
        return
    for call in (tls.semantic_scope, tls.integrated_gradients, tls.attribution_matrix):
        with pytest.raises(ValueError, match=r"hook_resid_mid'\): on a TransformerBridge .* grads_at="):
            call(model, TOKENS, at=name)


@pytest.mark.slow
@pytest.mark.on_families("llama", slow=("gpt2",))
@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
def test_a_gradient_at_a_hook_is_the_effect_of_what_a_hook_there_gives_back(pair: Pair) -> None:
    """By central differences through TransformerLens' own hooks: of one branch where a bridge's hook is on a branch."""
    model = families.build(pair.family, pair.kind).model
    fires = [n for n in model.run_with_cache(TOKENS[None])[1] if n.startswith(("blocks.0.", "ln_final."))]
    whole_stream = {"blocks.0.hook_resid_mid"} if pair.kind == "bridge" else set()
    thrice = {"blocks.0.ln1.hook_normalized", "blocks.0.ln1.hook_scale"} if pair.kind == "hooked" else set()
    generator = torch.Generator().manual_seed(0)
    h = 1e-3  # no smaller: Hugging Face's softmax is in float32
    for name in sorted({*fires} - whole_stream - thrice):
        cache = tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name, cache=name).cache
        step = torch.randn(cache[name].shape, dtype=torch.float64, generator=generator)
        there = [logit(model, name, by * step) for by in (h, -h)]
        measured = (there[0] - there[1]) / (2 * h)
        assert float((cache[f"{name}_grad"] * step).sum()) == pytest.approx(measured, rel=5e-3, abs=5e-3), name
    for name in thrice:
        with pytest.raises(ValueError, match=r"grads_at='blocks\.0\.ln1\..* fires more than once"):
            tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name)
        if name.endswith("normalized"):
            with pytest.raises(ValueError, match=r"\(at='blocks\.0\.ln1\..* fires more than once"):
                tls.semantic_scope(model, TOKENS, target=TARGET, at=name)


def logit(model: nn.Module, name: str, step: Tensor) -> float:
    """The target's logit with ``step`` added at the hook."""
    with torch.no_grad():
        logits = model.run_with_hooks(TOKENS[None], fwd_hooks=[(name, lambda activation, hook: activation + step)])
    return float(logits[0, -1, TARGET])


@pytest.mark.on_families("llama")
def test_a_score_at_a_branch_does_not_depend_on_what_else_is_kept(pair: Pair) -> None:
    """On a bridge the branches share the tensor that goes into them; its gradient is not that of one branch."""
    model = families.build(pair.family, pair.kind).model
    here = {"bridge": ("mlp.gate.hook_in", "attn.q.hook_in", "ln2.hook_in"), "hooked": ("ln2.hook_normalized",)}
    for name in here[pair.kind]:
        at = f"blocks.1.{name}"
        alone = tls.jacobian_scope(model, TOKENS, direction=ONES, at=at)
        beside = tls.jacobian_scope(model, TOKENS, direction=ONES, at=at, grads_at="blocks.0.hook_resid_pre")
        assert relative_error(beside.scores, alone.scores) < 1e-9, name


def test_the_whole_stream_after_attention_also_where_nothing_lies_above(kind: str) -> None:
    model, name = families.build("gpt2", kind).model, "blocks.1.hook_resid_mid"
    above = tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name).cache
    beside = tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name, at="blocks.1.hook_mlp_out").cache
    assert relative_error(beside[f"{name}_grad"], above[f"{name}_grad"]) < 1e-9
    assert set(beside) == set(above), "what the graph begins at is not in the cache"


def test_the_whole_stream_beside_its_branch_and_beside_a_hook_of_the_user(kind: str) -> None:
    """On a bridge `ln2.hook_in` is the same hook point as `hook_resid_mid`."""
    model, name = families.build("gpt2", kind).model, "blocks.0.hook_resid_mid"
    alone = tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name).cache[f"{name}_grad"]
    if kind == "bridge":
        branch = "blocks.0.ln2.hook_in"
        both = ((branch, name), (name, branch))
        for options in (*({"grads_at": names} for names in both), {"grads_at": name, "at": branch}):
            kept = tls.semantic_scope(model, TOKENS, target=TARGET, **options).cache[f"{name}_grad"]
            assert relative_error(kept, alone) < 1e-9, options
    model.add_hook(name, lambda activation, hook: activation * 1.0)
    try:
        if kind == "bridge":
            with pytest.raises(ValueError, match="a hook of yours stands there"):
                tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name)
        else:
            kept = tls.semantic_scope(model, TOKENS, target=TARGET, grads_at=name).cache[f"{name}_grad"]
            assert relative_error(kept, alone) < 1e-9
    finally:
        model.reset_hooks()


def test_a_pattern_that_the_model_does_not_read_has_no_gradient_and_the_error_says_so() -> None:
    """OPT's bridge shows its attention patterns after the fact, and throws away what a hook there gives back."""
    like = families.build("gpt2", "bridge")
    config = transformers.OPTConfig(
        vocab_size=len(families.VOCAB), hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        hf = transformers.OPTForCausalLM(config).eval()
    model = families.TransformerBridge.boot_transformers("tiny", hf_model=hf, tokenizer=like.tokenizer)
    hooks = lambda: {name: list(point.fwd_hooks) for name, point in model.hook_dict.items()}  # noqa: E731
    before = hooks()
    with pytest.raises(ValueError, match=r"hook_pattern'\): nothing flows from there .* some bridges throw away"):
        tls.semantic_scope(model, TOKENS, target=TARGET, grads_at="blocks.0.attn.hook_pattern")
    assert hooks() == before


def test_token_ids_may_be_in_a_list_or_an_array(kind: str) -> None:
    model = families.build("gpt2", kind).model
    tokens = families.prompt_tokens(6)
    ids, scores = tokens.tolist(), tls.semantic_scope(model, tokens).scores
    for prompt in (ids, tuple(ids), tokens.numpy(), tokens.numpy()[None], [np.int64(i) for i in ids]):
        assert torch.equal(tls.semantic_scope(model, prompt).scores, scores)
    several = [tls.semantic_scope(model, tokens[:n]) for n in (6, 4)]
    for prompts in ([ids, ids[:4]], [tokens.numpy(), ids[:4]]):
        found = tls.semantic_scope(model, prompts)
        for one, alone in zip(found, several, strict=True):
            torch.testing.assert_close(one.scores, alone.scores, rtol=1e-5, atol=1e-6)
    assert len(tls.semantic_scope(model, np.stack([tokens.numpy()] * 3))) == 3
    assert tls.attribution_matrix(model, ids).tokens.tolist() == ids
    with pytest.raises(TypeError, match=r"prompt=\[\.\.\.\]\): expected one prompt, got a list of 2"):
        tls.attribution_matrix(model, np.stack([tokens.numpy()] * 2))
