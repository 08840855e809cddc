"""What must hold of the scores whatever the model, the prompt and the direction.

Invariant: the score is the norm of a linear functional of the perturbation (adjoint identity, linearity, the bound of
appendix A.7 against real forwards), it is causal, and it does not depend on how the work is cut up (batches, chunks of
rows), on what stands after the read position, or, for quantities of the distribution, on weight processing.

Tolerances. GPT-2 is float64 throughout: a central difference at step 1e-5 is good to 1e-10 (`oracles`), here 1e-8.
The other families take float32 steps inside: 5e-6 (`families.FLOAT64_RTOL`) between two orders of summation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import oracles
import pytest
import torch
from families import VOCAB, Pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import relative_error
from torch import Tensor

import tl_scopes as tls
from tl_scopes.kernel import explain as kernel

TARGET, FOIL = VOCAB[" house"], VOCAB[" city"]
D = families.D_MODEL
ROUNDING = 1e-12
CENTRAL_RTOL = 1e-8
EPSILON = 1e-4
"""Size of a perturbation of an embedding of norm about 2; one-sided, the second order adds about EPSILON relative."""
few = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
seeds = st.integers(0, 2**31)


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(pair: Pair, tokens: Tensor, v: Tensor, **options: Any) -> Tensor:
    """vᵀJ, [pos, d_model], by the package."""
    kept = tls.jacobian_scope(pair.model, tokens, direction=v, keep_gradient=True, **options).gradient
    assert kept is not None
    return kept


# -- the score is the norm of a linear functional ------------------------------


@pytest.mark.on_families("gpt2")
@few
@given(seed=seeds, pos=st.integers(0, 11))
def test_pulled_back_gradient_is_the_adjoint_of_the_forward_derivative(pair: Pair, seed: int, pos: int) -> None:
    tokens = families.prompt_tokens(seed=seed % 7)
    v, delta, t = gaussian(D, seed=seed), gaussian(D, seed=seed + 1), seed % (pos + 1)
    g = gradient(pair, tokens, v, pos=pos)
    forward = oracles.central_difference(pair.hf, tokens, pos, lambda z, y: (v * y).sum(), t, delta)
    assert abs(float(g[t] @ delta) - forward) < CENTRAL_RTOL * float(g[t].norm() * delta.norm())


@pytest.mark.on_families("gpt2", "llama", "gemma2")
@few
@given(seed=seeds, a=st.floats(-4, 4), b=st.floats(-4, 4))
def test_pulled_back_gradient_is_linear_in_v(pair: Pair, seed: int, a: float, b: float) -> None:
    tokens = families.prompt_tokens()
    v, w = gaussian(D, seed=seed), gaussian(D, seed=seed + 1)
    parts = a * gradient(pair, tokens, v), b * gradient(pair, tokens, w)
    size = float(max(part.abs().max() for part in parts))
    if size == 0:
        return
    error = gradient(pair, tokens, a * v + b * w) - parts[0] - parts[1]
    assert float(error.abs().max()) < families.FLOAT64_RTOL[pair.family] * size


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_score_is_proportional_to_the_length_of_v_and_blind_to_its_sign(pair: Pair) -> None:
    tokens, v = families.prompt_tokens(), gaussian(D, seed=0)
    one, other = (tls.jacobian_scope(pair.model, tokens, direction=c * v).scores for c in (1, -1024))
    assert torch.equal(1024 * one, other), "scaling by a power of two is exact"


@pytest.mark.on_families("gpt2", "llama")
def test_several_rows_give_the_root_of_their_squared_scores(pair: Pair) -> None:
    tokens, V = families.prompt_tokens(), gaussian(3, D, seed=0)
    single = torch.stack([tls.jacobian_scope(pair.model, tokens, direction=v).scores for v in V])
    joint = tls.jacobian_scope(pair.model, tokens, direction=V)
    rtol = families.FLOAT64_RTOL[pair.family]
    assert relative_error(joint.scores, single.square().sum(0).sqrt()) < rtol
    assert relative_error(torch.tensor(joint.details["row_scores"], dtype=torch.float64), single) < rtol


# -- appendix A.7, by real forwards --------------------------------------------


def change(pair: Pair, tokens: Tensor, delta: Tensor) -> float:
    """z_target(x + δ) − z_target(x) at the last position, δ [pos, d_model]."""
    x = oracles.embeddings(pair.hf, tokens)
    with torch.no_grad():
        moved, base = (oracles.run(pair.hf, at).logits[-1, TARGET] for at in (x + delta, x))
    return float(moved - base)


@pytest.mark.on_families("gpt2")
@few
@given(seed=seeds)
def test_no_random_direction_beats_the_score_and_the_gradient_direction_attains_it(pair: Pair, seed: int) -> None:
    tokens = families.prompt_tokens(8, seed=seed % 5)
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET, keep_gradient=True)
    slack = 1e-2  # second order: curvature times EPSILON
    for t in range(len(tokens)):
        score = float(attr.scores[t])
        delta = torch.zeros(len(tokens), D, dtype=torch.float64)
        delta[t] = gaussian(D, seed=seed + t)
        delta *= EPSILON / delta.norm()
        assert abs(change(pair, tokens, delta)) < (1 + slack) * score * EPSILON
        delta[t] = EPSILON * attr.gradient[t] / attr.gradient[t].norm()
        assert change(pair, tokens, delta) == pytest.approx(score * EPSILON, rel=slack)


@pytest.mark.on_families("gpt2")
def test_root_of_squares_over_tokens_is_the_score_of_moving_them_together(pair: Pair) -> None:
    tokens = families.prompt_tokens(8)
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET, keep_gradient=True)
    together = float(attr.scores[2:5].square().sum().sqrt())
    delta = torch.zeros_like(attr.gradient)
    delta[2:5] = EPSILON * attr.gradient[2:5] / together
    assert float(delta.norm()) == pytest.approx(EPSILON, rel=ROUNDING)
    assert change(pair, tokens, delta) == pytest.approx(together * EPSILON, rel=1e-2)


@pytest.mark.on_families("gpt2")
@few
@given(seed=seeds)
def test_fisher_scores_bound_the_kl_divergence_of_a_small_move(pair: Pair, seed: int) -> None:
    # 2 KL(ε) = ε² δᵀJᵀFJδ + O(ε³): at least the part along u_1, at most the whole trace
    tokens, t = families.prompt_tokens(8, seed=seed % 5), seed % 8
    first = tls.fisher_scope(pair.model, tokens, keep_gradient=True)
    whole = tls.fisher_scope(pair.model, tokens, rank=D)
    largest = first.details["eigenvalues"][0]
    delta = gaussian(D, seed=seed)
    delta /= delta.norm()
    x = oracles.embeddings(pair.hf, tokens)
    x[t] += 1e-3 * delta
    moved = 2 * oracles.kl_divergence(pair.hf, tokens, 7, x) / 1e-6
    slack = 0.05  # third order: about 1e-3 times derivatives of size 10
    assert moved > (1 - slack) * largest * float(first.gradient[t] @ delta) ** 2
    assert moved < (1 + slack) * largest * float(whole.scores[t]) ** 2


# -- causality -----------------------------------------------------------------


@pytest.mark.on_families("gpt2", "mistral", "gemma3")
@few
@given(pos=st.integers(0, 10), seed=seeds)
def test_score_is_zero_after_the_read_position_and_blind_to_what_stands_there(pair: Pair, pos: int, seed: int) -> None:
    tokens = families.prompt_tokens()
    changed = torch.cat([tokens[: pos + 1], families.prompt_tokens(12, seed=seed)[pos + 1 :]])
    rtol = families.FLOAT64_RTOL[pair.family]
    forms = (tokens, changed, tokens[: pos + 1])
    first, *others = (tls.scopes(pair.model, form, pos=pos, target=TARGET) for form in forms)
    for method, attr in first.items():
        assert attr.scores.shape == (12,)
        assert not attr.scores[pos + 1 :].any()
        assert bool((attr.scores[: pos + 1] > 0).any())
        for other in (found[method].scores for found in others):
            assert not other[pos + 1 :].any()
            assert relative_error(attr.scores[: pos + 1], other[: pos + 1]) < rtol


@pytest.mark.on_families("mistral")
def test_a_sliding_window_delays_influence_but_does_not_cut_it(pair: Pair) -> None:
    tokens = families.prompt_tokens(24)
    expected = oracles.semantic(pair.hf, tokens, 23, TARGET)
    attr = tls.semantic_scope(pair.model, tokens, target=TARGET)
    assert float(expected[0]) == 0, "24 tokens are out of reach of three windows of six"
    assert float(attr.scores[0]) == 0
    assert relative_error(attr.scores, expected) < families.rtol(pair)


# -- how the work is cut up ----------------------------------------------------


@pytest.mark.on_families("gpt2", "neox", "llama", "mistral", "gemma2")
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 2, None])
def test_a_batch_of_unequal_lengths_scores_as_its_prompts_alone(pair: Pair, batch_size: int | None) -> None:
    prompts = [families.prompt_tokens(n, seed=n) for n in (3, 11, 1, 7)]
    together = tls.fisher_scope(pair.model, prompts, rank=2, batch_size=batch_size)
    for tokens, attr in zip(prompts, together, strict=True):
        alone = tls.fisher_scope(pair.model, tokens, rank=2)
        assert attr.tokens.tolist() == tokens.tolist()
        assert relative_error(attr.scores, alone.scores) < families.FLOAT64_RTOL[pair.family]


@pytest.mark.on_families("gpt2", "llama")
def test_scores_do_not_depend_on_how_many_rows_are_pulled_back_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = families.prompt_tokens()
    expected = tls.fisher_scope(pair.model, tokens, rank=10)
    for chunk in (1, 3, 32):
        monkeypatch.setattr(kernel, "VJP_CHUNK", chunk)
        attr = tls.fisher_scope(pair.model, tokens, rank=10)
        assert relative_error(attr.scores, expected.scores) < families.FLOAT64_RTOL[pair.family]


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_the_same_call_gives_the_same_bits(pair: Pair) -> None:
    first, second = (tls.scopes(pair.model, families.prompt_tokens(), rank=3) for _ in range(2))
    for method, attr in first.items():
        assert torch.equal(attr.scores, second[method].scores), method


def test_each_prompt_of_a_list_has_its_own_target_foil_and_position(kind: str) -> None:
    pair = families.build("gpt2", kind)
    prompts = [families.prompt_tokens(n, seed=n) for n in (4, 9, 6)]
    targets, foils, positions = [0, " dog", None], [FOIL, 0, " city"], [1, -2, -1]
    attrs = tls.contrast_scope(pair.model, prompts, target=targets, foil=foils, pos=positions)
    for tokens, attr, pos, target, foil in zip(
        prompts, attrs, (1, 7, 5), (0, VOCAB[" dog"], attrs[2].target), (FOIL, 0, FOIL), strict=True
    ):
        assert (attr.pos, attr.target, attr.details["foil"]) == (pos, target, foil)
        assert relative_error(attr.scores, oracles.contrast(pair.hf, tokens, pos, target, foil)) < ROUNDING * 100


# -- weight processing ---------------------------------------------------------


@pytest.mark.on_families("gpt2", "llama")
def test_contrast_does_not_change_under_weight_processing(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    folded = families.processed(pair.family, pair.kind).model
    raw, after = (tls.contrast_scope(m, tokens, target=TARGET, foil=FOIL) for m in (pair.model, folded))
    assert relative_error(after.scores, raw.scores) < families.PROCESSED_RTOL


@pytest.mark.on_families("gpt2", "llama")
def test_log_probability_gradient_does_not_change_under_weight_processing(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    z = oracles.run_tokens(pair.hf, tokens).logits[-1].detach()
    moved = torch.nn.functional.one_hot(torch.tensor(TARGET), len(z)) - z.softmax(-1)  # ∂ log p_target/∂z
    expected = oracles.hf_gradient(pair.hf, tokens, 11, lambda z, y: z.log_softmax(-1)[TARGET]).norm(dim=-1)
    for model in (pair.model, families.processed(pair.family, pair.kind).model):
        attr = tls.jacobian_scope(model, tokens, direction=model.W_U.detach() @ moved)
        assert relative_error(attr.scores, expected) < families.PROCESSED_RTOL


# -- the result ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_saved_result_loads_without_loss(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    pair = families.build("gemma2", kind, dtype)
    attrs = tls.scopes(
        pair.model,
        families.PROMPT,
        methods=("semantic", "contrast", "fisher", "temperature"),
        foil=FOIL,
        keep_gradient=True,
    )
    for method, attr in attrs.items():
        back = tls.Attribution.load(attr.save(tmp_path / f"{method}.json"))
        assert back.scores.dtype == attr.scores.dtype == dtype
        assert torch.equal(back.scores, attr.scores)
        assert torch.equal(back.gradient, attr.gradient)
        assert back.to_dict() == attr.to_dict()


def test_rows_pulled_back_by_fisher_can_be_saved_with_their_scores(kind: str, tmp_path: Path) -> None:
    attr = tls.fisher_scope(families.build("gpt2", kind).model, families.PROMPT, rank=D)
    back = tls.Attribution.load(attr.save(tmp_path / "fisher.json"))
    assert back.details == dict(attr.details)
    assert torch.equal(back.scores, attr.scores)
