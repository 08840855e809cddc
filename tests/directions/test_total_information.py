"""Invariant: total information and moments equal their dense definitions; what is sampled is unbiased and says its error."""

from __future__ import annotations

import families
import oracles
import pytest
import torch
from informations import information

import tl_scopes as tls
from tl_scopes.directions.moments import number_tokens

PAIRS = families.PAIRS
TOKENS = families.prompt_tokens(8)
SQUARED = 2
"""The score is quadratic in J: twice the relative error of a scope."""


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return oracles.relative_error(actual, expected)


def test_exact_total_information_equals_the_dense_trace(pair: families.Pair) -> None:
    expected = oracles.total_information(pair.hf, TOKENS, 5)
    got = tls.total_information(pair.model, TOKENS, method="exact", pos=5)
    # Rows are pulled back in vmapped chunks, which reorders the float32 sums inside the RMSNorm families.
    assert relative(got.scores, expected) <= SQUARED * families.FLOAT64_RTOL[pair.family]
    assert got.stderr is None
    assert got.details["explained_share"] == pytest.approx(1)


@pytest.mark.parametrize("kind", families.kinds_available())
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_total_information_does_not_change_under_weight_processing(family: str, kind: str) -> None:
    raw = tls.total_information(families.build(family, kind).model, TOKENS, method="exact").scores
    processed = tls.total_information(families.processed(family, kind).model, TOKENS, method="exact").scores
    assert relative(processed, raw) <= SQUARED * families.PROCESSED_RTOL


def test_full_rank_fisher_is_the_root_of_total_information_over_the_leading_eigenvalue() -> None:
    model = families.build("gpt2", "bridge").model
    fisher = tls.fisher_scope(model, TOKENS, rank=families.D_MODEL)
    total = tls.total_information(model, TOKENS, method="exact")
    assert relative(fisher.scores.square() * fisher.details["eigenvalues"][0], total.scores) < 1e-9
    assert total.details["trace"] == pytest.approx(sum(fisher.details["eigenvalues"]))


def test_low_rank_is_a_lower_bound_that_grows_to_the_whole() -> None:
    model = families.build("gpt2", "bridge").model
    exact = tls.total_information(model, TOKENS, method="exact").scores
    last = torch.zeros_like(exact)
    for rank in (1, 4, 16, families.D_MODEL):
        got = tls.total_information(model, TOKENS, method="low_rank", rank=rank)
        assert bool((got.scores >= last - 1e-12).all())
        assert bool((got.scores <= exact * (1 + 1e-9)).all())
        last = got.scores
    assert relative(last, exact) < 1e-9


def test_expected_kl_under_isotropic_noise_is_the_trace() -> None:
    """Paper eq. 16 by Monte Carlo with antithetic pairs, float64; 4 standard errors."""
    pair = families.build("gpt2", "bridge")
    trace = tls.total_information(pair.model, TOKENS, method="exact").scores
    x = oracles.embeddings(pair.hf, TOKENS)
    generator = torch.Generator().manual_seed(0)
    t, epsilon, d = 3, 1e-3, families.D_MODEL
    values = []
    for _ in range(60):
        u = torch.randn(d, generator=generator, dtype=torch.float64)
        both = []
        for sign in (1, -1):
            moved = x.clone()
            moved[t] += sign * epsilon * u / u.norm()
            both.append(oracles.kl_divergence(pair.hf, TOKENS, len(TOKENS) - 1, moved))
        values.append(sum(both) / 2)
    kl = torch.tensor(values, dtype=torch.float64)
    expected = epsilon**2 / (2 * d) * float(trace[t])
    assert abs(float(kl.mean()) - expected) < 4 * float(kl.std()) / len(kl) ** 0.5 + 1e-3 * expected


def peaked(entropy: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """W ``[400, 24]`` and logits whose softmax has the given entropy in nats."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(400, 24, generator=generator, dtype=torch.float64)
    z = torch.randn(400, generator=generator, dtype=torch.float64)
    low, high = 0.0, 200.0
    for _ in range(80):
        scale = (low + high) / 2
        p = (scale * z).softmax(0)
        h = -(p * (scale * z).log_softmax(0)).sum()
        low, high = (scale, high) if h > entropy else (low, scale)
    return W, scale * z


@pytest.mark.one_lens
@pytest.mark.parametrize("entropy", [0.01, 1.0, 4.0, 5.9])
def test_probes_have_the_fisher_matrix_as_covariance(entropy: float) -> None:
    fisher = information(*peaked(entropy, 1))
    V = fisher.gaussian_probes(10_000, torch.Generator().manual_seed(2))
    F = fisher.dense()
    # Relative error of a sample covariance in Frobenius norm: about sqrt((tr F)² + ‖F‖²)/(‖F‖ sqrt(n)).
    bound = 4 * float((F.trace() ** 2 + F.norm() ** 2).sqrt() / F.norm()) / 100
    assert float((V.T @ V / len(V) - F).norm() / F.norm()) < bound


@pytest.mark.one_lens
@pytest.mark.parametrize("entropy", [0.01, 1.0, 5.9])
@pytest.mark.parametrize("rank", [1, 4, 24])
def test_the_leading_part_and_the_covariance_of_the_rest_are_f_whatever_the_vectors(rank: int, entropy: float) -> None:
    """The search's tolerance costs no bias: U is random here, as far from eigenvectors as can be."""
    from tl_scopes.directions.total_information import LeadingPart

    F = information(*peaked(entropy, 1)).dense()
    U = torch.linalg.qr(torch.randn(24, rank, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0].T
    part = LeadingPart(U, U @ F)
    leading = torch.einsum("k,ki,kj->ij", part.values, part.vectors, part.vectors)
    R = part.rest(torch.eye(24, dtype=torch.float64)).T
    assert (
        float((leading + R @ F @ R.T - F).norm() / F.norm()) < 1e-7
    )  # the root of rounding, where F is all but singular
    assert float(torch.linalg.eigvalsh(F - leading)[0]) > -1e-7 * float(F.trace())


@pytest.mark.slow
@pytest.mark.one_lens
@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("entropy", [0.01, 1.0, 4.0, 5.9])
def test_intervals_cover_the_exact_value_at_their_nominal_rate(entropy: float, rank: int) -> None:
    """200 seeded runs; nominal 95 % must cover in 90-98 %. J is a fixed random matrix per token."""
    from tl_scopes.directions.total_information import LeadingPart, Probes, SampledRows

    fisher = information(*peaked(entropy, 1))
    J = torch.randn(5, 24, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    exact = torch.einsum("tij,ik,tkj->t", J, fisher.dense(), J)
    pairs = fisher.eigenpairs(4, 1e-6)
    U, values = pairs.vectors[:rank], pairs.values[:rank]
    part = LeadingPart(U, pairs.images[:rank]) if rank else None
    covered = []
    for seed in range(200):
        probes = Probes(fisher, part, torch.Generator().manual_seed(seed))
        V = torch.cat([U, probes.draw(32)])
        rows = SampledRows(V, values, None, {}, (), probes, 32, None)
        scored = rows.score(torch.einsum("ki,tij->ktj", V, J).norm(dim=-1))
        half_width = scored.details["t_quantile"] * scored.stderr
        # Where four eigenpairs hold all of a peaked F, the interval is narrower than float64 rounding.
        covered.append((scored.scores - exact).abs() <= half_width + 1e-12 * exact)
    if rank == 4 and entropy == 0.01:
        assert bool(torch.stack(covered).all())
        return
    assert 0.90 <= float(torch.stack(covered).double().mean()) <= 0.98


def test_sampling_is_seeded_and_agrees_with_the_exact_value() -> None:
    model = families.build("gpt2", "bridge").model
    exact = tls.total_information(model, TOKENS, method="exact").scores
    one = tls.total_information(model, TOKENS, seed=1, n_samples=64, rtol=None)
    again = tls.total_information(model, TOKENS, seed=1, n_samples=64, rtol=None)
    other = tls.total_information(model, TOKENS, seed=2, n_samples=64, rtol=None)
    assert torch.equal(one.scores, again.scores)
    assert not torch.equal(one.scores, other.scores)
    assert one.details["n_samples"] == 64
    assert bool(((one.scores - exact).abs() <= 5 * one.stderr + 1e-12).all())


def test_the_stopping_rule_spends_no_more_than_it_needs() -> None:
    model = families.build("gpt2", "bridge").model
    loose = tls.total_information(model, TOKENS, rtol=0.5, n_samples=256)
    tight = tls.total_information(model, TOKENS, rtol=0.02, n_samples=256)
    assert loose.details["n_samples"] == 16
    assert tight.details["n_samples"] > loose.details["n_samples"]
    matters = tight.scores > 0.01 * tight.scores.max()
    if tight.details["n_samples"] < 256:
        assert bool((tight.stderr <= 0.02 * tight.scores)[matters].all())


def test_a_batch_equals_single_prompts_even_when_they_stop_at_different_times() -> None:
    model = families.build("gpt2", "bridge").model
    prompts = [families.prompt_tokens(n, seed=n) for n in (3, 9, 6)]
    together = tls.total_information(model, prompts, rtol=0.05, n_samples=128)
    for prompt, got in zip(prompts, together, strict=True):
        alone = tls.total_information(model, prompt, rtol=0.05, n_samples=128)
        assert got.details["n_samples"] == alone.details["n_samples"]
        assert relative(got.scores, alone.scores) < 1e-9
    longest = families.prompt_tokens(9, seed=9)
    matrix = tls.attribution_matrix(model, longest, method="total_information", n_samples=32)
    alone = tls.total_information(model, longest, rtol=None, n_samples=32)
    assert relative(matrix.scores[-1], alone.scores) < 1e-9


@pytest.mark.parametrize("moment", ["mean", "variance"])
@pytest.mark.parametrize(("family", "kind"), [p for p in PAIRS if p[0] in ("gpt2", "gemma2", "granite")])
def test_moment_scope_is_the_gradient_of_the_moment(family: str, kind: str, moment: str) -> None:
    pair = families.build(family, kind)
    values = {i: float(t.strip()) for t, i in families.VOCAB.items() if t.strip().isdigit()}
    ids = torch.tensor(list(values))
    n = torch.tensor(list(values.values()), dtype=torch.float64)

    def scalar(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        q = z[ids].softmax(0)
        mean = (q * n).sum()
        return mean if moment == "mean" else (q * (n - mean).square()).sum()

    expected = oracles.hf_gradient(pair.hf, TOKENS, 6, scalar).norm(dim=-1)
    got = tls.moment_scope(pair.model, TOKENS, moment=moment, values=values, pos=6)
    assert relative(got.scores, expected) <= families.rtol(pair)
    z = oracles.run_tokens(pair.hf, TOKENS).logits[6].detach()
    assert got.details[moment] == pytest.approx(float(scalar(z, z)), rel=1e-6)


def test_number_tokens_are_found_in_the_vocabulary(demo_model) -> None:
    values = number_tokens(demo_model)
    texts = {demo_model.to_single_str_token(i): v for i, v in values.items()}
    assert all(texts[str(v)] == v for v in range(10, 100))


def test_little_mass_on_numbers_is_noted(demo_model) -> None:
    attr = tls.moment_scope(demo_model, "German: der Hund sieht die Katze. English: the")
    assert attr.details["probability_on_numbers"] < 0.5
    assert "number tokens" in attr.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nonsense"}, "expected 'sampled', 'exact' or 'low_rank'"),
        ({"method": "low_rank", "rank": 0}, "rank must be in 1"),
        ({"rank": families.D_MODEL + 1}, "rank must be in 0"),
        ({"n_samples": 1}, "at least 2 probes"),
        ({"rtol": 0.0}, "positive relative error"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_requests_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        tls.total_information(families.build("gpt2", "bridge").model, TOKENS, **options)


@pytest.mark.usefixtures("unchecked")
def test_moments_of_nothing_are_refused() -> None:
    model = families.build("gpt2", "bridge").model
    with pytest.raises(ValueError, match="at least 2 different numbers"):
        tls.moment_scope(model, TOKENS, values={3: 1.0})
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tls.moment_scope(model, TOKENS, values={3: 1.0, 10_000: 2.0})
    with pytest.raises(ValueError, match="expected 'mean' or 'variance'"):
        tls.moment_scope(model, TOKENS, moment="skew")
