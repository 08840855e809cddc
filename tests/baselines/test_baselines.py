"""Every baseline is its textbook definition, computed here by plain Hugging Face autograd or by real interventions.

Invariants: scores equal the oracle's on several families and model classes; the batch, the order of prompts and the
global random state do not enter; integrated gradients are complete and their rule exact on polynomials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import families
import numpy as np
import oracles
import pytest
import torch
from families import Pair
from oracles import relative_error

import tl_scopes as tls
from tl_scopes.baselines import gradient_free as controls
from tl_scopes.baselines import gradients as baselines
from tl_scopes.baselines.integrated_gradients import integrated_gradients
from tl_scopes.numerics import quadrature

TARGET = families.VOCAB[" house"]
BASELINES: dict[str, Callable[..., Any]] = {
    "input_x_gradient": baselines.input_x_gradient,
    "gradient_norm": baselines.gradient_norm,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": baselines.smoothgrad,
    "leave_one_out": controls.leave_one_out,
    "attention_rollout": controls.attention_rollout,
    "random_attribution": controls.random_attribution,
}
each_baseline = pytest.mark.parametrize("name", BASELINES)
some_families = pytest.mark.on_families("gpt2", "llama", "gemma2", "granite")
SCALARS: dict[str, oracles.ScalarFn] = {
    "logit": lambda z, y: z[TARGET],
    "log_prob": lambda z, y: z.log_softmax(-1)[TARGET],
}
BATCHED_RTOL = 5e-6
"""Rows of a batch are summed in another order, through Hugging Face's float32 steps."""


@some_families
@pytest.mark.parametrize("of", SCALARS)
@pytest.mark.parametrize("pos", [-1, 5])
def test_gradient_methods_are_hugging_face_autograd(pair: Pair, of: Any, pos: int) -> None:
    tokens = families.prompt_tokens()
    rtol = 10 * (families.rtol(pair) if pos == -1 else families.FLOAT64_RTOL[pair.family])  # shorter sums, after a cut
    gradient = oracles.hf_gradient(pair.hf, tokens, pos % 12, SCALARS[of])
    x = oracles.embeddings(pair.hf, tokens)
    product = baselines.input_x_gradient(pair.model, tokens, target=TARGET, of=of, pos=pos)
    assert relative_error(product.scores, (x * gradient).norm(dim=-1)) < rtol
    assert relative_error(torch.tensor(product.details["signed"]), (x * gradient).sum(-1)[: pos % 12 + 1]) < 1e-4
    norm = baselines.gradient_norm(pair.model, tokens, target=TARGET, of=of, pos=pos, keep_gradient=True)
    assert relative_error(norm.scores, gradient.norm(dim=-1)) < rtol
    assert relative_error(norm.gradient, gradient) < rtol


def test_gradient_norm_of_the_logit_is_the_semantic_scope(demo_model: Any) -> None:
    prompt = "German: der Hund sieht die Katze. English: the"
    own = baselines.gradient_norm(demo_model, prompt, target=" dog", of="logit")
    assert torch.equal(own.scores, tls.semantic_scope(demo_model, prompt, target=" dog").scores)


def test_each_baseline_says_what_its_scores_are_in(demo_model: Any) -> None:
    prompt, logit = "German: der Hund sieht die Katze. English: the", {"target": " dog", "of": "logit"}
    said = {
        tls.input_x_gradient: (logit, "logit"),
        tls.gradient_norm: (logit, "logit per unit of embedding"),
        tls.integrated_gradients: (logit | {"n_steps": 2}, "logit"),
        tls.smoothgrad: ({"target": " dog", "of": "log_prob", "n_samples": 2}, "nats per unit of embedding"),
        tls.leave_one_out: ({"target": " dog", "of": "log_prob"}, "nats"),
        tls.attention_rollout: ({}, "share of attention"),
        tls.random_attribution: ({}, "random numbers"),
    }
    for call, (options, unit) in said.items():
        assert f", {unit}." in " ".join(str(call(demo_model, prompt, **options)).split()), call.__name__


@pytest.mark.on_families("gpt2", "gemma2", slow=("llama", "granite"))
@pytest.mark.parametrize("baseline", ["zero", "mean", "pad", "token", "prompt", "given"])
def test_integrated_gradients_are_the_dense_sum(pair: Pair, baseline: str) -> None:
    """The same nodes, one Hugging Face backward each; BOS stays where a baseline is made of one row."""
    tokens, other = families.prompt_tokens(), families.prompt_tokens(13, seed=5)
    x = oracles.embeddings(pair.hf, tokens)

    def all_but_bos(token: int) -> torch.Tensor:
        return oracles.embeddings(
            pair.hf, torch.full_like(tokens, token).index_fill(0, torch.tensor([0]), int(tokens[0]))
        )

    start = {
        "zero": torch.zeros_like(x),
        "mean": torch.cat([x[:1], x[1:].mean(dim=0).expand_as(x[1:])]),
        "pad": all_but_bos(families.PAD_ID),
        "token": all_but_bos(0),
        "prompt": oracles.embeddings(pair.hf, other[:12]),
        "given": 0.1 * x.flip(0),
    }[baseline]
    nodes, weights, _ = quadrature.split_rule(8)
    gradient = sum(
        w * oracles.gradient_at(pair.hf, start + a * (x - start), 11, SCALARS["logit"])
        for a, w in zip(nodes, weights, strict=True)
    )
    expected = (x - start) * gradient
    given: Any = {"given": start, "prompt": other[None], "token": 0}.get(baseline, baseline)
    attr = integrated_gradients(pair.model, tokens, n_steps=8, baseline=given, target=TARGET)
    assert relative_error(attr.scores, expected.norm(dim=-1)) < 20 * BATCHED_RTOL
    with torch.no_grad():
        change = oracles.run(pair.hf, x).logits[11, TARGET] - oracles.run(pair.hf, start).logits[11, TARGET]
    assert attr.details["change"] == pytest.approx(float(change), rel=1e-4, abs=1e-5)
    assert attr.details["completeness_gap"] == pytest.approx(float(expected.sum() - change), rel=1e-3, abs=1e-4)


@pytest.mark.on_families("gpt2")
@pytest.mark.parametrize("of", SCALARS)
def test_completeness_gap_goes_to_zero(pair: Pair, of: Any) -> None:
    gaps = []
    for n_steps in (8, 32, 128):
        details = integrated_gradients(
            pair.model, families.prompt_tokens(), n_steps=n_steps, target=TARGET, of=of
        ).details
        gaps.append(abs(details["completeness_gap"]) / abs(details["change"]))
        near = details["near_zero"]
        assert near["gap"] == pytest.approx(near["signed_sum"] - near["change"], abs=1e-12)
    assert gaps[2] < 1e-6 < gaps[0]
    assert gaps[1] < gaps[0]


def test_a_large_gap_is_said(demo_model: Any) -> None:
    prompt = "German: der Hund sieht die Katze. English: the"
    coarse = integrated_gradients(demo_model, prompt, n_steps=2, target=" dog")
    fine = integrated_gradients(demo_model, prompt, target=" dog")
    assert any("completeness gap" in note for note in coarse.notes)
    assert not any("completeness gap" in note for note in fine.notes)


@pytest.mark.on_families("llama", "gemma2", "gemma3")
def test_a_jump_at_the_baseline_is_not_answered_with_more_steps(pair: Pair) -> None:
    """Without a mean in the norms, zero is a limit: no number of steps reaches what lies below the first of them."""
    tokens = families.prompt_tokens()
    for n_steps in (20, 400):
        path = integrated_gradients(pair.model, tokens, n_steps=n_steps, target=TARGET)
        gap, change, near = (path.details[k] for k in ("completeness_gap", "change", "near_zero"))
        x = oracles.embeddings(pair.hf, tokens)
        z = [float(oracles.run(pair.hf, a * x).logits[11, TARGET].detach()) for a in (0.0, 1e-4)]
        assert near["jump"] == pytest.approx(z[1] - z[0], rel=1e-4, abs=1e-5)
        said = " ".join(path.notes)
        assert ("completeness gap" in said) == (abs(gap) > 0.05 * abs(change))
        if "completeness gap" in said and abs(near["gap"]) > 0.5 * abs(gap):
            assert "another baseline is needed, baseline='mean'" in said
            assert "Raise n_steps" not in said
    other = integrated_gradients(pair.model, tokens, baseline="mean", target=TARGET)
    assert abs(other.details["completeness_gap"]) < 1e-6 * abs(other.details["change"]), "completeness, in float64"
    assert other.notes == ()


@pytest.mark.parametrize("n_steps", [2, 5, 20])
def test_rule_is_exact_on_polynomials(n_steps: int) -> None:
    nodes, weights, near = quadrature.split_rule(n_steps)
    assert len(nodes) == n_steps
    assert 0 < near < n_steps
    assert all(0 < a < quadrature.NEAR_ZERO for a in nodes[:near])
    degree = 2 * min(near, n_steps - near) - 1
    for d in range(degree + 1):
        total = sum(w * a**d for a, w in zip(nodes, weights, strict=True))
        assert total == pytest.approx(1 / (d + 1), rel=1e-12)


@pytest.mark.parametrize("n_steps", [30, 50, 100])
def test_carried_rule_integrates_what_it_is_for(n_steps: int) -> None:
    """Constants and low powers to rounding, and a bump of a trained model's width better than Gauss–Legendre."""
    nodes, weights, _ = quadrature.split_rule(n_steps)
    assert all(0 < a < 1 for a in nodes)
    assert nodes == sorted(nodes)
    for d in range(4):
        total = sum(w * a**d for a, w in zip(nodes, weights, strict=True))
        assert total == pytest.approx(1 / (d + 1), rel=1e-7 if n_steps == 30 else 1e-10)

    def errors(centre: float) -> list[float]:
        exact = 0.05 * (np.arctan((1 - centre) / 0.05) - np.arctan((0.05 - centre) / 0.05))
        rules = (quadrature.carried_rule, quadrature.gauss_legendre)
        sums = [
            sum(w / (1 + ((a - centre) / 0.05) ** 2) for a, w in zip(*r(36, 0.05, 1.0), strict=True)) for r in rules
        ]
        return [abs(s - exact) for s in sums]

    for centre in (0.2, 0.4):
        ours, plain = errors(centre)
        assert ours < plain / 3, centre


@some_families
def test_smoothgrad_is_the_mean_of_noisy_gradients(pair: Pair) -> None:
    from tl_scopes.numerics.draws import prompt_generator

    tokens = families.prompt_tokens()
    x = oracles.embeddings(pair.hf, tokens)
    sigma = 0.1 * float(x.square().mean().sqrt())
    generator = prompt_generator(3, tokens)
    noise = sigma * torch.randn(6, *x.shape, generator=generator, dtype=torch.float64)
    gradients = [oracles.gradient_at(pair.hf, x + e.to(x), 11, SCALARS["logit"]) for e in noise]
    attr = baselines.smoothgrad(pair.model, tokens, n_samples=6, seed=3, target=TARGET)
    assert attr.details["sigma"] == pytest.approx(sigma, rel=1e-6)
    assert relative_error(attr.scores, torch.stack(gradients).mean(dim=0).norm(dim=-1)) < 1e-4


def test_smoothgrad_without_noise_is_the_gradient_norm(demo_model: Any) -> None:
    prompt = "German: der Hund"
    plain = tls.semantic_scope(demo_model, prompt).scores
    assert relative_error(baselines.smoothgrad(demo_model, prompt, sigma=0.0).scores, plain) < 1e-5


@some_families
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_leave_one_out_is_the_measured_change(pair: Pair, ablation: Any) -> None:
    tokens, pos = families.prompt_tokens(), 8
    x = oracles.embeddings(pair.hf, tokens)
    attr = controls.leave_one_out(pair.model, tokens, target=TARGET, ablation=ablation, pos=pos)
    for name, scalar in SCALARS.items():
        clean = scalar(oracles.run(pair.hf, x).logits[pos].detach(), x)
        for t in range(pos + 1):
            changed = x.clone()
            changed[t] = 0 if ablation == "zero" else x[1 : pos + 1].mean(dim=0)
            delta = float(scalar(oracles.run(pair.hf, changed).logits[pos].detach(), x) - clean)
            assert attr.details[f"delta_{name}"][t] == pytest.approx(delta, rel=1e-4, abs=2e-5)
    assert attr.scores[: pos + 1].tolist() == pytest.approx(np.abs(attr.details["delta_log_prob"]).tolist())
    assert not attr.scores[pos + 1 :].any()


def test_resampling_moves_every_candidate_and_nothing_else() -> None:
    from tl_scopes.kernel.ablation import substitutes

    x = torch.arange(8.0)[:, None]
    values = substitutes("resample", range(2, 7), torch.arange(8), seed=0)(x)[:, 0]
    assert values[[0, 1, 7]].tolist() == [0, 1, 7]
    assert sorted(values[2:7].tolist()) == [2, 3, 4, 5, 6]
    assert not bool((values[2:7] == x[2:7, 0]).any())


@pytest.mark.on_families("gpt2", "llama", "gemma3")
def test_rollout_is_the_product_of_hugging_face_patterns(pair: Pair) -> None:
    tokens = families.prompt_tokens()
    with torch.no_grad():
        patterns = pair.hf(tokens[None], output_attentions=True, use_cache=False).attentions
    flow = torch.eye(12, dtype=torch.float64)
    for pattern in patterns:
        flow = (0.5 * pattern[0].double().mean(dim=0) + 0.5 * torch.eye(12, dtype=torch.float64)) @ flow
    for pos in (11, 4):
        attr = controls.attention_rollout(pair.model, tokens, pos=pos)
        assert relative_error(attr.scores, flow[pos]) < 1e-5
        assert float(attr.scores.sum()) == pytest.approx(1, abs=1e-5)


def test_random_scores_are_uniform_and_seeded(demo_model: Any) -> None:
    prompts = [f"{a},{b},{a},{b}," for a in range(10, 40) for b in (50, 60)]
    attrs = controls.random_attribution(demo_model, prompts)
    drawn = torch.cat([a.scores for a in attrs])
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    assert float(drawn.mean()) == pytest.approx(0.5, abs=4 * (1 / 12 / len(drawn)) ** 0.5)
    assert len({tuple(a.scores.tolist()) for a in attrs}) == len(prompts), "each prompt has its own draw"
    other = controls.random_attribution(demo_model, prompts[0], seed=1).scores
    assert not torch.equal(other, attrs[0].scores)


@each_baseline
@pytest.mark.on_families("gpt2", slow=("llama",))
@pytest.mark.parametrize("batch_size", [3, 30])
def test_a_list_gives_the_same_as_one_by_one(pair: Pair, name: str, batch_size: int) -> None:
    prompts = [families.prompt_tokens(length, seed=length) for length in (12, 3, 7, 1)]
    few: Any = {"integrated_gradients": {"n_steps": 8}, "smoothgrad": {"n_samples": 4}}.get(name, {})
    targets, positions = [TARGET, None, TARGET, 0], [-1, 1, 4, 0]
    together = BASELINES[name](pair.model, prompts, target=targets, pos=positions, batch_size=batch_size, **few)
    for attr, prompt, target, pos in zip(together, prompts, targets, positions, strict=True):
        alone = BASELINES[name](pair.model, prompt, target=target, pos=pos, **few)
        assert relative_error(attr.scores, alone.scores) < 20 * BATCHED_RTOL
        assert attr.pos == pos % len(prompt)
        assert not attr.scores[attr.pos + 1 :].any()
        assert bool((attr.scores >= 0).all())
        if target is not None:
            assert attr.target == target, "id 0 is a target like any other"


@each_baseline
def test_results_are_complete_attributions(demo_model: Any, name: str, tmp_path: Any) -> None:
    attr = BASELINES[name](demo_model, "German: der Hund sieht die Katze. English: the", target=" dog")
    assert attr.method == name
    assert attr.target_str == " dog"
    assert attr.top_predictions[0][0] == " dog"
    assert attr.special == {0}
    assert attr.scores.dtype == torch.float32
    back = tls.Attribution.load(attr.save(tmp_path / "a.json"))
    assert torch.equal(back.scores, attr.scores)
    assert back.details == attr.details


@each_baseline
def test_baselines_work_without_grad_mode_and_in_inference_mode(demo_model: Any, name: str) -> None:
    prompt = "German: der Hund"
    expected = BASELINES[name](demo_model, prompt).scores
    with torch.no_grad():
        assert torch.equal(BASELINES[name](demo_model, prompt).scores, expected)
    with torch.inference_mode():
        assert torch.equal(BASELINES[name](demo_model, prompt).scores, expected)


@pytest.mark.parametrize(
    ("name", "kwargs", "match"),
    [
        ("input_x_gradient", {"of": "loss"}, "expected 'logit', 'log_prob' or None"),
        ("leave_one_out", {"of": "loss"}, "expected 'logit' or 'log_prob'"),
        ("leave_one_out", {"ablation": "noise"}, "expected 'zero', 'mean' or 'resample'"),
        ("integrated_gradients", {"n_steps": 1}, "at least 2"),
        ("integrated_gradients", {"baseline": "ones"}, "expected 'zero', 'mean', 'pad', an integer or a tensor"),
        ("integrated_gradients", {"baseline": 10**6}, "token id 1000000 is outside the vocabulary"),
        ("integrated_gradients", {"baseline": torch.zeros(2, dtype=torch.int64)}, "one id for each of at least"),
        ("integrated_gradients", {"baseline": torch.full((64,), float("nan"))}, "NaN or infinity"),
        ("integrated_gradients", {"baseline": torch.zeros(3)}, r"expected \[d_model\] or \[pos, d_model\]"),
        ("smoothgrad", {"n_samples": 0}, "positive integer"),
        ("smoothgrad", {"sigma": -1.0}, "at least 0"),
        ("smoothgrad", {"batch_size": 0}, "positive integer"),
        ("gradient_norm", {"at": "hook_nothing"}, "no such hook point"),
        ("random_attribution", {"pos": 99}, "pos must be in"),
    ],
)
def test_a_wrong_argument_is_refused(
    unchecked: None, demo_model: Any, name: str, kwargs: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        BASELINES[name](demo_model, "German: der Hund", **kwargs)


@each_baseline
def test_dropout_is_refused(name: str) -> None:
    pair = families.build("gpt2", "bridge", fresh=True)
    pair.model.train()
    with pytest.raises(ValueError, match=rf"{name}: the model is in training mode"):
        BASELINES[name](pair.model, families.prompt_tokens())


@pytest.mark.on_families("gpt2", "llama")
def test_log_prob_gradient_survives_a_peaked_prediction(pair: Pair) -> None:
    """1 − p of the target is 1e-9 and less: the direction still has relative accuracy."""
    from tl_scopes.directions.base import ReadOut
    from tl_scopes.directions.logits import Semantic
    from tl_scopes.model.predictions import Predictions, Table
    from tl_scopes.model.state import model_state

    W = pair.model.W_U.detach()
    logits = torch.zeros(W.shape[1], dtype=torch.float32)
    logits[TARGET] = 25.0
    y = torch.zeros(W.shape[0], dtype=torch.float32)
    predicted = Predictions.all_of(Table(logits[None], None, W.float()))
    read = ReadOut(
        y=y,
        hidden=y,
        predictions=predicted,
        W_U=W.float(),
        index=0,
        tokens=torch.zeros(1, 1, dtype=torch.int64),
        place=(0, 0),
    )
    v = Semantic((TARGET,), "log_prob").rows([read], model_state(pair.model))[0].V[0]
    p = logits.double().softmax(-1)
    exact = (W.double() * torch.where(torch.arange(len(p)) == TARGET, 0, -p)).sum(-1)
    exact = exact + W[:, TARGET].double() * p[torch.arange(len(p)) != TARGET].sum()
    assert relative_error(v, exact) < 1e-5


@some_families
@pytest.mark.parametrize("n_probes", [None, 3])
def test_products_of_several_predictions_have_their_own_rows(pair: Pair, n_probes: int | None) -> None:
    tokens, span = families.prompt_tokens(), range(4, 9)
    attr = baselines.input_x_gradient(pair.model, tokens, pos=span, combine="norm", n_probes=n_probes)
    rows = torch.tensor(attr.details["row_scores"], dtype=torch.float64)
    if n_probes is None:
        x = oracles.embeddings(pair.hf, tokens)
        gradients = [oracles.hf_gradient(pair.hf, tokens, p, lambda z, y, p=p: z[tokens[p + 1]]) for p in span]
        expected = torch.stack([(x * gradient).norm(dim=-1) for gradient in gradients])
        assert relative_error(rows, expected) < 100 * families.FLOAT64_RTOL[pair.family]
        assert relative_error(attr.scores, expected.norm(dim=0)) < 100 * families.FLOAT64_RTOL[pair.family]
        assert attr.stderr is None
        return
    squares, seen = rows.square(), attr.scores > 0
    assert relative_error(attr.scores, squares.mean(0).sqrt()) < 1e-6
    stderr = squares.std(0) / 3**0.5 / 2 / attr.scores
    assert relative_error(attr.stderr[seen], stderr[seen]) < 1e-5
    low, high = torch.tensor(attr.details["interval"])
    assert bool(((low <= attr.scores) & (attr.scores <= high))[seen].all())
