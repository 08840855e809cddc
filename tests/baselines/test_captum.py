"""Captum, run on the plain Hugging Face model's embeddings, computes the same baselines wherever it defines them alike.

Captum shares no code with this package or with the other oracles. Its answers are per embedding unit; ours are their
norms and sums over ``d_model``. Integrated gradients use another rule there, so both are compared where both have
converged; SmoothGrad's noise is the one number sequence that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import captum.attr
import families
import oracles
import pytest
import torch
from families import Pair
from oracles import relative_error
from torch import Tensor

from tl_scopes.baselines import gradient_free as controls
from tl_scopes.baselines import gradients as baselines
from tl_scopes.baselines.integrated_gradients import integrated_gradients
from tl_scopes.numerics.draws import prompt_generator

TARGET, POS = families.VOCAB[" house"], 9
NODES = 40
CONVERGED = 1e-4
"""Two rules of so many nodes on the whole path; Hugging Face's float32 steps leave about 1e-5."""
some_families = pytest.mark.on_families("gpt2", "llama", "gemma2", "granite")
each_scalar = pytest.mark.parametrize("of", ["logit", "log_prob"])


def forward(pair: Pair, of: str = "logit") -> Callable[[Tensor], Tensor]:
    """What captum differentiates: embeddings ``[batch, pos, d_model]`` to scalars ``[batch, d_vocab]`` at POS."""

    def run(x: Tensor) -> Tensor:
        logits = pair.hf(inputs_embeds=x / oracles.embed_scale(pair.hf), use_cache=False).logits[:, POS]
        return logits if of == "logit" else logits.log_softmax(-1)

    return run


def inputs(pair: Pair) -> tuple[Tensor, Tensor]:
    """Tokens, and their embeddings ``[1, pos, d_model]``."""
    tokens = families.prompt_tokens()
    return tokens, oracles.embeddings(pair.hf, tokens)[None]


@some_families
@each_scalar
def test_input_x_gradient(pair: Pair, of: Any) -> None:
    tokens, x = inputs(pair)
    theirs = captum.attr.InputXGradient(forward(pair, of)).attribute(x.requires_grad_(), target=TARGET)[0]
    ours = baselines.input_x_gradient(pair.model, tokens, target=TARGET, of=of, pos=POS)
    assert relative_error(ours.scores, theirs.norm(dim=-1)) < 10 * families.FLOAT64_RTOL[pair.family]
    assert relative_error(torch.tensor(ours.details["signed"]), theirs.sum(-1)[: POS + 1]) < 1e-4


@some_families
@each_scalar
def test_gradient_norm_is_the_norm_of_the_saliency(pair: Pair, of: Any) -> None:
    tokens, x = inputs(pair)
    theirs = captum.attr.Saliency(forward(pair, of)).attribute(x.requires_grad_(), target=TARGET, abs=False)[0]
    ours = baselines.gradient_norm(pair.model, tokens, target=TARGET, of=of, pos=POS)
    assert relative_error(ours.scores, theirs.norm(dim=-1)) < 10 * families.FLOAT64_RTOL[pair.family]


@pytest.mark.on_families("gpt2", "llama")
@each_scalar
@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_integrated_gradients(pair: Pair, of: Any, baseline: Any) -> None:
    """Near a zero baseline RMSNorm without positions needs more nodes than captum's one rule affords: mean only."""
    if baseline == "zero" and pair.family != "gpt2":
        return
    tokens, x = inputs(pair)
    start = torch.zeros_like(x)
    if baseline == "mean":  # BOS stays
        start = torch.cat([x[:, :1], x[:, 1 : POS + 1].mean(dim=1, keepdim=True).expand_as(x[:, 1:])], dim=1)
    theirs, delta = captum.attr.IntegratedGradients(forward(pair, of)).attribute(
        x, start, TARGET, n_steps=NODES, method="gausslegendre", return_convergence_delta=True
    )
    ours = integrated_gradients(
        pair.model, tokens, n_steps=NODES, baseline=baseline, target=TARGET, of=of, pos=POS, batch_size=NODES
    )
    assert relative_error(ours.scores, theirs[0].norm(dim=-1)) < CONVERGED
    assert relative_error(torch.tensor(ours.details["signed"]), theirs[0].sum(-1)[: POS + 1]) < CONVERGED
    assert float(theirs.sum() - delta) == pytest.approx(ours.details["change"], rel=1e-4, abs=1e-5)


@pytest.mark.on_families("gpt2", "qwen2")
def test_integrated_gradients_from_padding_through_the_embedding_layer(pair: Pair) -> None:
    """Captum's layer form starts from token ids, so that even the embeddings of the baseline are its own."""
    tokens, _ = inputs(pair)
    method = captum.attr.LayerIntegratedGradients(
        lambda ids: pair.hf(ids, use_cache=False).logits[:, POS], pair.hf.get_input_embeddings()
    )
    pad = torch.full_like(tokens, families.PAD_ID)[None]
    pad[0, 0] = tokens[0]  # BOS stays
    theirs = method.attribute(tokens[None], pad, TARGET, n_steps=NODES, method="gausslegendre")[0]
    ours = integrated_gradients(pair.model, tokens, n_steps=NODES, baseline="pad", target=TARGET, pos=POS)
    assert relative_error(ours.scores, theirs.norm(dim=-1)) < CONVERGED


@some_families
@each_scalar
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_leave_one_out_is_feature_ablation_by_token(pair: Pair, of: Any, ablation: Any) -> None:
    tokens, x = inputs(pair)
    start = torch.zeros_like(x) if ablation == "zero" else x[:, 1 : POS + 1].mean(dim=1, keepdim=True).expand_as(x)
    groups = torch.arange(x.shape[1])[None, :, None]
    theirs = captum.attr.FeatureAblation(forward(pair, of)).attribute(
        x, start, TARGET, feature_mask=groups, perturbations_per_eval=6
    )[0]
    ours = controls.leave_one_out(pair.model, tokens, target=TARGET, of=of, pos=POS, ablation=ablation)
    assert relative_error(ours.scores, theirs[:, 0].abs()) < 1e-4
    assert relative_error(torch.tensor(ours.details[f"delta_{of}"]), -theirs[: POS + 1, 0]) < 1e-4
    assert not theirs[POS + 1 :].any()


@pytest.mark.on_families("gpt2", "llama")
def test_leave_one_out_is_occlusion_with_a_window_of_one_token(pair: Pair) -> None:
    tokens, x = inputs(pair)
    window = (1, x.shape[2])
    theirs = captum.attr.Occlusion(forward(pair, "log_prob")).attribute(x, window, baselines=0, target=TARGET)[0]
    ours = controls.leave_one_out(pair.model, tokens, target=TARGET, pos=POS)
    assert relative_error(torch.tensor(ours.details["delta_log_prob"]), -theirs[: POS + 1, 0]) < 1e-4


@pytest.mark.on_families("gpt2", "llama")
@each_scalar
def test_smoothgrad_is_the_noise_tunnel_over_the_same_noise(pair: Pair, of: Any) -> None:
    tokens, x = inputs(pair)
    n, seed = 6, 3
    generator = prompt_generator(seed, tokens)
    unit = torch.randn(n, POS + 1, x.shape[2], generator=generator, dtype=torch.float64)
    noise = torch.cat([unit, torch.full((n, 2, x.shape[2]), 7.0)], dim=1)  # what follows POS must not matter

    def normal(mean: float, stdev: Tensor) -> Tensor:
        return mean + stdev.double() * noise.reshape(stdev.shape)

    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(forward(pair, of)))
    with mock.patch.object(torch, "normal", normal):
        theirs = tunnel.attribute(
            x,
            nt_type="smoothgrad",
            nt_samples=n,
            stdevs=0.25,
            target=TARGET,
            abs=False,
            draw_baseline_from_distrib=False,
        )[0]
    ours = baselines.smoothgrad(pair.model, tokens, n_samples=n, sigma=0.25, seed=seed, target=TARGET, of=of, pos=POS)
    assert relative_error(ours.scores, theirs.norm(dim=-1)) < 1e-4
