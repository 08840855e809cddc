"""The references agree with each other, and each TransformerLens model is the Hugging Face model beside it.

Two routes to each number: autograd against central differences, one vector-Jacobian product against the dense
Jacobian, the Fisher matrix against the Hessian and the second-order expansion of the KL divergence. What is
wrong here makes every other test file worthless, so nothing in this file imports the package under test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import families
import oracles
import pytest
import torch
from families import FAMILIES, PAIRS, PROMPT, Pair
from oracles import relative_error
from torch import Tensor, nn

HERE = [family for family in FAMILIES if families.supported(family, "bridge")]
POS = 11  # the last of the twelve tokens
TARGET, FOIL = families.VOCAB[" house"], families.VOCAB[" city"]
ALGEBRA_RTOL = 1e-6  # two backwards through one graph, part of it in float32
Scalars = dict[str, oracles.ScalarFn]
SCALARS: Scalars = {
    "logit": lambda z, y: z[TARGET],
    "log_prob": lambda z, y: z.log_softmax(dim=-1)[TARGET],
    "norm": lambda z, y: y.norm(),
    "fixed_v": lambda z, y: y[::2].sum() - y[1::2].sum(),
}


def reference(family: str) -> nn.Module:
    return families.build(family, "bridge").hf


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    ids = torch.tensor(families.tokenizer()(PROMPT).input_ids)
    assert len(ids) == POS + 1
    return ids


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors are faster without a thread pool."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tl_run(pair: Pair, tokens: Tensor, pos: int, scalars: Scalars) -> tuple[oracles.Run, dict[str, Tensor]]:
    """One forward of TransformerLens and the gradient at `hook_embed` of each scalar."""
    got: dict[str, Tensor] = {}

    def leaf(value: Tensor, hook: Any) -> Tensor:
        got["x"] = value.detach().clone().requires_grad_(True)
        return got["x"]

    def tap(value: Tensor, hook: Any) -> Tensor:
        got["y"] = value
        return value

    options = {} if pair.kind == "hooked" else {"use_cache": False}
    with pair.model.hooks(fwd_hooks=[("hook_embed", leaf), ("unembed.hook_in", tap)]):
        logits = pair.model(tokens[None], return_type="logits", **options)[0]
    y = got["y"][0]
    gradients = {
        name: torch.autograd.grad(scalar_fn(logits[pos], y[pos]), [got["x"]], retain_graph=True)[0][0]
        for name, scalar_fn in scalars.items()
    }
    return oracles.Run(got["x"].detach()[0], y.detach(), logits.detach()), gradients


def disagreement(pair: Pair, tokens: Tensor, scalars: Scalars = SCALARS) -> dict[str, float]:
    """Relative error of TransformerLens against Hugging Face: x, y, logits, the gradient of each scalar."""
    pos = len(tokens) - 1
    expected = oracles.run_tokens(pair.hf, tokens)
    actual, gradients = tl_run(pair, tokens, pos, scalars)
    errors = {
        "x": relative_error(actual.x, expected.x),
        "y": relative_error(actual.y, expected.y),
        "logits": relative_error(actual.logits, expected.logits),
    }
    for name, scalar_fn in scalars.items():
        errors[name] = relative_error(gradients[name], oracles.hf_gradient(pair.hf, tokens, pos, scalar_fn))
    return errors


# ----------------------------------------------------------------------------
# The zoo
# ----------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_transformer_lens_computes_what_hugging_face_computes(family, kind, dtype, tokens):
    pair = families.build(family, kind, dtype)
    errors = disagreement(pair, tokens)
    assert max(errors.values()) <= families.rtol(pair), errors


@pytest.mark.parametrize(
    ("family", "kind", "dtype"),
    [(f, k, torch.bfloat16) for f, k in PAIRS] + [(f, k, torch.float16) for f, k in PAIRS if f == "llama"],
)
def test_half_precision_checkpoints_run_and_agree(family, kind, dtype, tokens):
    pair = families.build(family, kind, dtype, fresh=True)
    errors = disagreement(pair, tokens, {"logit": SCALARS["logit"]})
    assert max(errors.values()) <= families.rtol(pair), errors


@pytest.mark.one_lens
@pytest.mark.parametrize("family", HERE)
def test_checkpoint_is_not_degenerate(family, tokens):
    hf = reference(family)
    out = oracles.run_tokens(hf, tokens)
    p = out.logits[POS].detach().softmax(dim=-1)
    entropy = float(-(p * p.log()).sum())
    assert 1.5 < entropy < 4.7, f"entropy {entropy:.2f} nats, the flat one has {math.log(len(p)):.2f}"
    assert float(p.max()) < 0.8
    norms = out.y.detach().norm(dim=-1)
    assert float(norms.std() / norms.mean()) > 0.02, "‖y‖ is nearly constant: the final gain is too even"
    for score in (oracles.semantic(hf, tokens, POS, TARGET), oracles.temperature(hf, tokens, POS)):
        assert float(score.min()) > 1e-3 and float(score.max() / score.min()) < 100, score


@pytest.mark.parametrize(("family", "kind"), PAIRS)
def test_the_reference_shares_no_weight_with_the_transformer_lens_model(family, kind):
    pair = families.build(family, kind)
    ours = {parameter.data_ptr() for parameter in pair.model.parameters()}
    assert not ours & {parameter.data_ptr() for parameter in pair.hf.parameters()}
    assert not pair.hf.training and not pair.model.training


def test_windows_and_soft_caps_are_active(tokens):
    for family in ("mistral", "gemma2", "gemma3"):
        first = reference(family)(tokens[None], output_attentions=True).attentions[0][0]
        reached = (first[:, POS] > 0).sum(dim=-1)
        assert (reached == families.WINDOW).all(), f"{family}: layer 0 reads {reached.tolist()} positions"
    hf = reference("gemma2")
    out = oracles.run_tokens(hf, tokens)
    smallest = float((out.logits[POS] / hf.lm_head(out.y[POS])).detach().min())
    assert smallest < 0.8, f"the final cap bends no logit: capped / raw is at least {smallest:.2f}"


def test_building_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    for kind in families.kinds_available():
        families.build("llama", kind, fresh=True)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_builds_are_shared_unless_fresh():
    kind = families.kinds_available()[0]
    assert families.build("gpt2", kind) is families.build("gpt2", kind, torch.float64)
    own = families.build("gpt2", kind, fresh=True)
    assert own.model is not families.build("gpt2", kind).model
    assert torch.equal(own.model.W_U, families.build("gpt2", kind).model.W_U), "not the same checkpoint"


def test_a_family_that_is_missing_here_is_refused_by_name():
    with pytest.raises(ValueError, match=r"build\('cohere', 'hooked'\): not available here"):
        families.build("cohere", "hooked")


@pytest.mark.parametrize("kind", families.kinds_available())
def test_tokenizer_survives_transformer_lens(kind):
    model = families.build("llama", kind).model
    assert model.to_str_tokens(PROMPT)[:4] == ["<bos>", "the", " dog", " saw"]
    assert model.to_tokens(PROMPT)[0].tolist() == families.tokenizer()(PROMPT).input_ids
    assert model.to_single_token(" the") == 0 and model.to_string([0]) == " the"
    assert model.to_str_tokens("29,30,45!", prepend_bos=False) == ["29", ",", "30", ",", "45", "!"]


@pytest.mark.parametrize("kind", families.kinds_available())
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_processing_moves_logits_but_no_log_probability(family, kind, dtype, tokens):
    pair = families.processed(family, kind, dtype)
    errors = disagreement(pair, tokens)
    assert errors["log_prob"] <= families.PROCESSED_RTOL, errors
    assert errors["logit"] > 1e-2, "the unembedding is not centred"
    norms = tl_run(pair, tokens, POS, {})[0].y.norm(dim=-1)
    assert torch.allclose(norms, torch.full_like(norms, families.D_MODEL**0.5), rtol=1e-3), "gain not folded"


@pytest.mark.parametrize("kind", families.kinds_available())
def test_native_unit_gain_has_constant_norm_and_is_otherwise_raw(kind, tokens):
    pair = families.native_unit_gain(kind)
    errors = disagreement(pair, tokens, {"logit": SCALARS["logit"]})
    assert max(errors.values()) <= families.rtol(pair), errors
    norms = oracles.run_tokens(pair.hf, tokens).y.detach().norm(dim=-1)
    assert torch.allclose(norms, torch.full_like(norms, families.D_MODEL**0.5), rtol=1e-3)


# ----------------------------------------------------------------------------
# The oracles against each other
# ----------------------------------------------------------------------------
@pytest.mark.one_lens
@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("family", HERE)
def test_gradient_is_the_limit_of_central_differences(family, name, tokens):
    hf = reference(family)
    gradient = oracles.hf_gradient(hf, tokens, POS, SCALARS[name])
    # measured 1e-10 for GPT-2 (float64 throughout), 6e-5 elsewhere (float32 inside: rounding / step)
    step, rtol = (1e-5, 1e-8) if family == "gpt2" else (1e-3, 3e-4)
    for t in (0, 6, POS):
        generator = torch.Generator().manual_seed(t)
        direction = torch.randn(families.D_MODEL, generator=generator, dtype=torch.float64)
        slope = oracles.central_difference(hf, tokens, POS, SCALARS[name], t, direction, step)
        scale = float(gradient.norm() * direction.norm())
        assert abs(slope - float(gradient[t] @ direction)) <= rtol * scale


@pytest.mark.one_lens
@pytest.mark.parametrize("family", HERE)
def test_scores_are_zero_after_the_read_position_and_only_there(family, tokens):
    score = oracles.semantic(reference(family), tokens, 5, TARGET)
    assert (score[:6] > 0).all() and (score[6:] == 0).all()


@pytest.mark.one_lens
@pytest.mark.parametrize("family", HERE)
def test_scopes_are_rows_of_the_dense_jacobian(family, tokens):
    hf = reference(family)
    J = oracles.dense_jacobian(hf, tokens, POS)
    y = oracles.run_tokens(hf, tokens).y[POS].detach()
    A = oracles.read_out_jacobian(hf, y)
    rows = {
        "semantic": (A[TARGET], oracles.semantic(hf, tokens, POS, TARGET)),
        "contrast": (A[TARGET] - A[FOIL], oracles.contrast(hf, tokens, POS, TARGET, FOIL)),
        "temperature": (y / y.norm(), oracles.temperature(hf, tokens, POS)),
    }
    for name, (v, score) in rows.items():
        expected = torch.einsum("i,itd->td", v, J).norm(dim=-1)
        assert relative_error(score, expected) <= ALGEBRA_RTOL, name


@pytest.mark.one_lens
@pytest.mark.parametrize("family", HERE)
def test_read_out_is_the_unembedding_with_its_cap_and_scale(family, tokens):
    hf = reference(family)
    out = oracles.run_tokens(hf, tokens)
    y, z = out.y[POS].detach(), out.logits[POS].detach()
    assert relative_error(oracles.read_out(hf, y), z) <= 1e-12
    W = hf.get_output_embeddings().weight.detach()
    slope = {
        "gemma2": 1 - (z / 3.0) ** 2,  # cap·tanh(u/cap) with cap 3
        "granite": torch.full_like(z, 1 / 2.0),  # logits_scaling 2
        "cohere": torch.full_like(z, 0.5),  # logit_scale 0.5
    }.get(family, torch.ones_like(z))
    assert relative_error(oracles.read_out_jacobian(hf, y), slope[:, None] * W) <= 1e-12


@pytest.mark.one_lens
@pytest.mark.parametrize("family", HERE)
def test_fisher_is_symmetric_positive_and_the_hessian_of_the_kl_divergence(family, tokens):
    hf = reference(family)
    y = oracles.run_tokens(hf, tokens).y[POS]
    F = oracles.dense_fisher(hf, tokens, POS)
    eigenvalues = torch.linalg.eigvalsh(F)
    assert F.dtype == torch.float64 and relative_error(F, F.T) <= 1e-12
    assert float(eigenvalues[0]) > -1e-12 * float(eigenvalues[-1])
    assert relative_error(oracles.kl_hessian(hf, y), F) <= 1e-10


@pytest.mark.one_lens
@pytest.mark.parametrize("family", HERE)
def test_full_rank_fisher_is_the_total_information(family, tokens):
    hf = reference(family)
    largest = torch.linalg.eigvalsh(oracles.dense_fisher(hf, tokens, POS))[-1]
    full = oracles.fisher(hf, tokens, POS, rank=families.D_MODEL)
    assert relative_error(largest * full**2, oracles.total_information(hf, tokens, POS)) <= ALGEBRA_RTOL
    first = oracles.fisher(hf, tokens, POS, rank=1)
    assert (first <= full).all() and (first > 0).all()


@pytest.mark.one_lens
def test_total_information_is_the_curvature_of_the_kl_divergence_at_the_input(tokens):
    # Σ_axes 2·KL(x ‖ x ± s·e)/s², averaged over the sign (kills the cubic term), is tr(J_tᵀ F J_t) + O(s²)
    hf, t, step = reference("gpt2"), 3, 1e-3
    x = oracles.embeddings(hf, tokens)
    total = 0.0
    for axis in range(families.D_MODEL):
        for sign in (1, -1):
            changed = x.clone()
            changed[t, axis] += sign * step
            total += oracles.kl_divergence(hf, tokens, POS, changed) / step**2
    assert total == pytest.approx(float(oracles.total_information(hf, tokens, POS)[t]), rel=1e-4)


def test_oracles_work_with_gradients_switched_off_and_leave_the_model_as_it_was(tokens):
    hf = reference("gemma2")
    expected = oracles.total_information(hf, tokens, POS)
    with torch.no_grad():
        assert torch.equal(oracles.total_information(hf, tokens, POS), expected)
    assert not hf.get_output_embeddings()._forward_pre_hooks
    assert "forward" not in vars(hf.base_model)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in hf.parameters())


def main() -> None:
    """Print the measured disagreement that the tolerances in `families` are taken from."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for family, kind in PAIRS:
            runs = [
                disagreement(families.build(family, kind, dtype), families.prompt_tokens(length, seed))
                for seed, length in enumerate((12, 12, 20, 7))
            ]
            worst = {name: max(run[name] for run in runs) for name in runs[0]}
            cells = " ".join(f"{name} {error:.0e}" for name, error in worst.items())
            print(f"{str(dtype)[6:]:9s}{family:16s}{kind:7s} max {max(worst.values()):.0e} | {cells}")


if __name__ == "__main__":
    main()
