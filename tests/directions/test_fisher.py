"""Fisher information of the next-token distribution, matrix-free, is the dense matrix in float64.

Invariant: `product`, `trace`, `dense` and the eigenpairs are those of F = Aᵀ(diag p − p pᵀ)A built plainly in float64
from the same numbers, for any shape of distribution, in float32 as in float64. F is a covariance: it does not change
when one vector is added to every row of A or one number to every logit.

Tolerances. float64: 1e-10, sums of a few hundred terms, divided by a tail mass of 1e-2. float32: 1e-5, two digits above
the 1e-7 (u_1) and 2e-6 (trace) that the centred formula reaches, and four below the plain formula's error at
p_top = 0.9999. The reference itself loses 1e-16/(1 − p_top), 1e-8 at the sharpest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import families
import oracles
import pytest
import torch
from families import Pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from informations import information, searched
from oracles import relative_error
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tl_scopes as tls
from tl_scopes.directions import fisher as directions_fisher
from tl_scopes.numerics import fisher_information as fisher
from tl_scopes.numerics import precision, unembedding
from tl_scopes.numerics.fisher_information import FisherInformation
from tl_scopes.numerics.unembedding import RowSquares

FLOAT64_RTOL = 1e-10
FLOAT32_RTOL = 1e-5
N_VOCAB, N_UNITS = 300, 24
few = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Case:
    """Unembedding rows W, logits z and slope (or None) of one distribution, in one dtype."""

    W: Tensor
    z: Tensor
    slope: Tensor | None

    def information(self) -> FisherInformation:
        return information(self.W, self.z, self.slope)

    def plain(self) -> Tensor:
        """F by its definition, float64."""
        A = self.W.double() if self.slope is None else self.W.double() * self.slope.double()[:, None]
        p = self.z.double().softmax(-1)
        return A.T @ (torch.diag(p) - torch.outer(p, p)) @ A

    def to(self, dtype: torch.dtype) -> Case:
        return Case(self.W.to(dtype), self.z.to(dtype), None if self.slope is None else self.slope.to(dtype))


def case(
    off_top: float = 0.5, *, seed: int = 0, slope: bool = False, offset: float = 0.0, d: int = N_UNITS, V: int = N_VOCAB
) -> Case:
    """Random float64 rows with a mean of `offset`, and logits whose top token has all but `off_top` of the mass."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(V, d, generator=generator, dtype=torch.float64) + offset
    W[:, 0] *= 3  # a leading direction
    z = 1.5 * torch.randn(V, generator=generator, dtype=torch.float64)
    top = V // 3
    z[top] = -torch.inf
    z[top] = z.logsumexp(0) + torch.tensor((1 - off_top) / off_top, dtype=torch.float64).log()
    gains = 0.2 + torch.rand(V, generator=generator, dtype=torch.float64)
    return Case(W, z, gains if slope else None)


def angle(u: Tensor, v: Tensor) -> float:
    """Sine of the angle between two directions."""
    u, v = u.double() / u.double().norm(), v.double() / v.double().norm()
    return float((u - (u @ v) * v).norm())


def leading(F: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors (rows), descending."""
    values, vectors = torch.linalg.eigh(F)
    return values.flip(0), vectors.flip(1).T


# -- against the definition --------------------------------------------------------------------------


@few
@given(
    seed=st.integers(0, 1000),
    off_top=st.sampled_from([0.9, 0.5, 0.01]),
    slope=st.booleans(),
    offset=st.sampled_from([0.0, 3.0]),
)
def test_product_trace_and_dense_are_the_definition(seed: int, off_top: float, slope: bool, offset: float) -> None:
    given_case = case(off_top, seed=seed, slope=slope, offset=offset)
    F, found = given_case.plain(), given_case.information()
    a = torch.randn(N_UNITS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert relative_error(found.dense(), F) < FLOAT64_RTOL
    assert relative_error(found.product(a), F @ a) < FLOAT64_RTOL
    assert found.trace() == pytest.approx(float(F.trace()), rel=FLOAT64_RTOL)


@pytest.mark.on_families("gpt2", "gemma2", "granite", "llama")
def test_fisher_information_is_the_hessian_of_the_kl_divergence(pair: Pair) -> None:
    y = oracles.run_tokens(pair.hf, families.prompt_tokens()).y[-1].detach()
    point = y.clone().requires_grad_(True)
    z = oracles.read_out(pair.hf, point).double()
    raw = pair.model.W_U.detach().T.double()
    A = oracles.read_out_jacobian(pair.hf, y).double()
    slope = (A * raw).sum(1) / raw.square().sum(1)
    found = information(raw, z.detach(), slope)
    assert relative_error(found.dense(), oracles.kl_hessian(pair.hf, y)) < 1e-6  # two derivatives, float32 head


def test_chunks_of_the_vocabulary_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    given_case = case(slope=True)
    F, trace = given_case.information().dense(), given_case.information().trace()
    for module in (fisher, unembedding):
        monkeypatch.setattr(module, "CHUNK", 37)
    assert relative_error(given_case.information().dense(), F) < FLOAT64_RTOL
    assert given_case.information().trace() == pytest.approx(trace, rel=FLOAT64_RTOL)
    for n in (1, 3, 12):
        a = torch.randn(n, N_UNITS, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        assert relative_error(fisher.products([given_case.information()] * n, a), a @ F) < FLOAT64_RTOL


# -- peaked distributions in float32 -----------------------------------------------------------------


@pytest.mark.parametrize("slope", [False, True], ids=["raw", "capped"])
@pytest.mark.parametrize("exponent", [2, 3, 4, 5, 6, 7, 8])
def test_float32_is_right_when_p_is_peaked(exponent: int, slope: bool) -> None:
    single = case(10.0**-exponent, seed=exponent, slope=slope, offset=1.0).to(torch.float32)
    exact = single.plain()  # the same float32 numbers, in float64 arithmetic
    values, vectors = leading(exact)
    found = single.information()
    assert found.tail_mass == pytest.approx(10.0**-exponent, rel=1e-2)
    assert float(values[1] / values[0]) < 0.8, "u_1 is well defined"
    assert found.trace() == pytest.approx(float(exact.trace()), rel=FLOAT32_RTOL)
    for pairs in (found.eigenpairs(2, 1e-6), searched(found, 2, 1e-6)):
        assert pairs.vectors.dtype == torch.float32
        assert angle(pairs.vectors[0], vectors[0]) < FLOAT32_RTOL
        assert float(pairs.values[0]) == pytest.approx(float(values[0]), rel=FLOAT32_RTOL)
        assert pairs.trace == pytest.approx(float(exact.trace()), rel=FLOAT32_RTOL)


@pytest.mark.parametrize("exponent", [1, 2, 3, 6])
@pytest.mark.parametrize("tol", [1e-7, 1e-9, 1e-12])
def test_a_tolerance_that_float32_cannot_reach_ends_with_the_true_residual(exponent: int, tol: float) -> None:
    single = case(10.0**-exponent, seed=exponent, offset=1.0).to(torch.float32)
    F = single.information().dense()
    pairs = searched(single.information(), 2, tol)
    u, value = pairs.vectors[0].double(), float(pairs.values[0])
    true = float((F @ u - value * u).norm()) / value
    assert true <= float(pairs.residual[0]) < 1e-4


def test_the_plain_formula_would_fail_that_test() -> None:
    single = case(1e-6, seed=6, offset=1.0).to(torch.float32)
    p = single.z.softmax(-1)
    plain = single.W.T @ (p[:, None] * single.W) - torch.outer(single.W.T @ p, single.W.T @ p)
    assert abs(float(plain.trace() / single.plain().trace()) - 1) > 100 * FLOAT32_RTOL


def test_a_tail_far_below_float32_epsilon_still_has_a_direction() -> None:
    sharp = case(1e-25, offset=1.0)
    expected = sharp.information()
    single = sharp.to(torch.float32).information()
    assert angle(single.eigenpairs(1, 1e-6).vectors[0], expected.eigenpairs(1, 1e-9).vectors[0]) < 1e-4
    # logits of 60 are rounded to 4e-6 in float32, and with them the tail


def test_a_one_hot_distribution_is_refused_with_the_way_out() -> None:
    given_case = case(offset=1.0).to(torch.float32)
    given_case.z[7] = 200.0
    with pytest.raises(ValueError, match=r"one-hot to torch.float32 precision.*semantic_scope.*float64"):
        given_case.information()
    assert given_case.to(torch.float64).information().trace() > 0


def test_two_equal_top_tokens_are_no_special_case() -> None:
    tied = case()
    tied.z[5] = tied.z.max()
    assert relative_error(tied.information().dense(), tied.plain()) < FLOAT64_RTOL


# -- a covariance --------------------------------------------------------------------------------------


@few
@given(seed=st.integers(0, 1000), off_top=st.sampled_from([0.9, 0.3, 1e-3]))
def test_information_is_symmetric_and_positive_semidefinite(seed: int, off_top: float) -> None:
    information = case(off_top, seed=seed, slope=bool(seed % 2)).information()
    a, b = torch.randn(2, N_UNITS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, right = float(a @ information.product(b)), float(b @ information.product(a))
    scale = information.trace() * float(a.norm() * b.norm())
    assert abs(left - right) < FLOAT64_RTOL * scale
    assert float(a @ information.product(a)) > 0
    values = torch.linalg.eigvalsh(information.dense())
    assert float(values[0]) > -1e-14 * float(values[-1])


@few
@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50))
def test_information_ignores_a_vector_added_to_every_row_and_a_number_added_to_every_logit(
    seed: int, shift: float
) -> None:
    base = case(0.2, seed=seed)
    row = shift * torch.randn(N_UNITS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = information(base.W + row, base.z + shift)
    # rows of size 50 are rounded 50 times more coarsely
    assert relative_error(moved.dense(), base.information().dense()) < FLOAT64_RTOL * 100
    assert moved.trace() == pytest.approx(base.information().trace(), rel=FLOAT64_RTOL * 100)


@pytest.mark.on_families("gpt2", "llama")
def test_total_information_does_not_change_under_weight_processing(pair: Pair) -> None:
    # the scope is refused there because u_1 changes; tr(J_tᵀFJ_t) must not
    tokens = families.prompt_tokens()
    model = families.processed(pair.family, pair.kind).model
    probe = tls.semantic_scope(model, tokens, cache=["unembed.hook_in", "unembed.hook_out"])
    z = probe.cache["unembed.hook_out"][0, -1]
    pairs = information(model.W_U.detach().T, z).eigenpairs(families.D_MODEL, 1e-9)
    rows = pairs.values.sqrt()[:, None] * pairs.vectors
    scores = tls.jacobian_scope(model, tokens, direction=rows).scores
    expected = oracles.total_information(pair.hf, tokens, 11)
    assert relative_error(scores.square(), expected) < 2 * families.PROCESSED_RTOL


# -- eigenpairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, N_UNITS])
def test_eigenpairs_are_orthonormal_descending_and_complete(rank: int) -> None:
    given_case = case(0.3, slope=True)
    values, vectors = leading(given_case.plain())
    pairs = given_case.information().eigenpairs(rank, 1e-6)
    assert pairs.products == 0, "small: the dense path"
    assert relative_error(pairs.values, values[:rank]) < FLOAT64_RTOL
    assert relative_error(pairs.vectors @ pairs.vectors.T, torch.eye(rank)) < FLOAT64_RTOL
    assert max(angle(u, v) for u, v in zip(pairs.vectors, vectors, strict=False)) < 1e-6
    following = float(values[rank]) if rank < N_UNITS else 0.0
    assert pairs.next_value == pytest.approx(following, rel=1e-9)
    assert float(pairs.residual.max()) < 1e-9


@pytest.mark.parametrize("most_probable", [16, 2048], ids=["poor_start", "exact_start"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_solver_meets_its_tolerance_and_reports_no_less_than_the_true_residual(
    rank: int, tol: float, dtype: torch.dtype, most_probable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher, "FEW_TOKENS", most_probable)
    rounding = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    for off_top in (0.9, 1e-3):
        given_case = case(off_top, seed=rank, slope=True, d=40).to(dtype)
        F = given_case.plain()
        values, vectors = leading(F)
        pairs = searched(given_case.information(), rank, tol)
        assert 0 < pairs.products <= 40
        assert pairs.vectors.shape == (rank, 40)
        assert pairs.vectors.dtype == dtype
        U, found = pairs.vectors.double(), pairs.values.double()
        true = (U @ F - found[:, None] * U).norm(dim=1) / found
        assert float(pairs.residual.max()) <= tol + rounding
        assert bool((true <= pairs.residual.double() + rounding).all())
        # a residual r puts an eigenvalue within r·λ of each Ritz value: it must be the leading ones
        assert relative_error(found, values[:rank]) < tol + rounding
        gap = float((values[0] - values[1]) / values[0])
        assert angle(pairs.vectors[0], vectors[0]) < 2 * tol / gap + rounding


def precisions() -> tuple[str, str]:
    """What products of float32 matrices are computed in, on a GPU and on a CPU."""
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


class ProductsOverTheVocabulary(TorchDispatchMode):
    """The precisions in force at every matrix product of float32 over the vocabulary."""

    def __init__(self, d_vocab: int) -> None:
        super().__init__()
        self.d_vocab, self.used = d_vocab, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        product = func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.mv, torch.ops.aten.bmm)
        if product and any(self.d_vocab in tensor.shape and tensor.dtype == torch.float32 for tensor in args):
            self.used.append(precisions())
        return func(*args, **kwargs or {})


@pytest.fixture
def switches() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for setting in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends):
        setting.fp32_precision = "none"


def one_switch() -> None:
    torch.set_float32_matmul_precision("medium")


def one_device() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def every_device() -> None:
    torch.backends.fp32_precision = "tf32"


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="an older torch has one switch")
@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("allow", [one_switch, one_device, every_device])
def test_products_are_in_float32_where_the_user_allows_less(
    allow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher, "DENSE_COST", 0)
    monkeypatch.setattr(fisher, "FEW_TOKENS", 8)
    allow()
    before = precisions()
    assert set(before) != {"ieee"}
    information = case().to(torch.float32).information()
    with ProductsOverTheVocabulary(len(information.tail)) as seen:
        pairs = information.eigenpairs(1, 1e-4)
        assert len(seen.used) >= 2 * pairs.products
        so_far = len(seen.used)
        information.gaussian_probes(2, torch.Generator())
        assert len(seen.used) > so_far
        so_far = len(seen.used)
        information.moves(pairs.vectors[0])
        assert len(seen.used) > so_far
    assert set(seen.used) == {("ieee", "ieee")}
    assert precisions() == before
    if allow is every_device:  # and what follows the general switch still does
        torch.backends.fp32_precision = "ieee"
        assert precisions() == ("ieee", "ieee")


def test_an_older_torch_has_one_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "matmul", object())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with precision.full_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_search_starts_near_what_a_long_tail_of_rare_tokens_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher, "FEW_TOKENS", 256)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0)).double()
    W = case(d=40, V=3000).W
    W[order >= 256, 1] += 6  # what they have in common, a quarter of the mass together
    tailed = Case(W, -(1 + order).log(), None)
    values, vectors = leading(tailed.plain())
    _, start = tailed.information()._search(1, 1e-4)
    assert angle(start.vectors[0], vectors[0]) < 0.1, "0.6 from the 256 most probable alone"
    found = searched(tailed.information(), 1, 1e-3)
    assert found.products <= 3, "5 from the 256 most probable alone"
    assert relative_error(found.values, values[:1]) < 1e-5


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("half", [False, True])
def test_searches_side_by_side_share_their_passes_and_find_what_each_finds_alone(
    rank: int, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher, "DENSE_COST", 0)
    monkeypatch.setattr(fisher, "FEW_TOKENS", 8)
    W = case(0.5, d=40, offset=1.0).W.to(torch.bfloat16 if half else torch.float64)
    cases = [Case(W, c.z, c.slope) for c in (case(0.9), case(1e-3, seed=1, slope=True), case(0.3, seed=2), case(1e-6))]
    passes = []
    real = unembedding.times
    monkeypatch.setattr(unembedding, "times", lambda W, a, room=0: passes.append(len(a)) or real(W, a, room))
    alone, rounds = [], []
    for c in cases:
        passes.clear()
        alone.append(c.information().eigenpairs(rank, 1e-6))
        rounds.append(len(passes))
        assert len(passes) <= 1 + alone[-1].products - rank, "the first vectors share a pass"
    passes.clear()
    squares = RowSquares(W)
    informations = [FisherInformation(W, c.z, c.slope, squares) for c in cases]
    together = fisher.leading_eigenpairs(informations, rank, 1e-6)
    for one, same, c in zip(alone, together, cases, strict=True):
        assert same.products == one.products
        assert relative_error(same.values, one.values) < FLOAT64_RTOL
        assert relative_error(same.values, leading(c.plain())[0][:rank]) < 1e-6
        assert same.trace == pytest.approx(one.trace, rel=FLOAT64_RTOL)
        assert angle(same.vectors[0], one.vectors[0]) < 1e-7
    assert max(rounds) <= len(passes) <= max(rounds) + 1, "close eigenvalues begin with another pass"
    assert sum(passes) == 1 + sum(p.products for p in alone), "and a look at W"
    assert passes[0] >= rank * len(cases)


def test_the_solver_at_full_rank_is_the_dense_path() -> None:
    small = case(0.3, d=12).information()
    dense, found = small.eigenpairs(12, 1e-9), searched(small, 12, 1e-9)
    assert relative_error(found.values, dense.values) < FLOAT64_RTOL
    assert found.next_value == pytest.approx(0, abs=FLOAT64_RTOL)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_solver_survives_an_information_of_low_rank(rank: int) -> None:
    # four tokens that matter: rank 3 in 24 units, so the Krylov space ends early
    low = case(0.5)
    low.z[:4] = torch.tensor([1.0, 0.5, 0.0, -0.5])
    low.z[4:] = -1e4
    pairs = searched(low.information(), rank, 1e-6)
    values = leading(low.plain())[0]
    assert relative_error(pairs.values, values[:rank]) < 1e-6
    assert pairs.next_value == pytest.approx(float(values[rank]), abs=1e-9 * float(values[0]))


@pytest.mark.on_families("gpt2", "gemma2")
def test_fisher_scope_by_the_solver_is_the_oracle(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher, "DENSE_COST", 0)
    tokens = families.prompt_tokens()
    for rank in (1, 4):
        attr = tls.fisher_scope(pair.model, tokens, rank=rank, tol=1e-8)
        assert attr.details["products"] > 0
        assert max(attr.details["relative_residual"]) <= 1e-8
        # vectors are good to tol / relative gap, and gaps here are above 1e-2
        assert relative_error(attr.scores, oracles.fisher(pair.hf, tokens, 11, rank)) < 5e-6


# -- what the result says of its own error -----------------------------------------------------------


def test_a_nearly_degenerate_direction_is_said_and_a_clear_one_is_not(kind: str) -> None:
    pair = families.build("gpt2", kind)
    seen = {True: 0, False: 0}
    for seed in range(6):
        tokens = families.prompt_tokens(seed=seed)
        values = leading(oracles.dense_fisher(pair.hf, tokens, 11))[0]
        for rank in range(1, 12):
            ratio = float(values[rank] / values[rank - 1])
            degenerate = ratio > 0.95
            if seen[degenerate] >= 3 or 0.94 < ratio < 0.96:
                continue
            seen[degenerate] += 1
            notes = tls.fisher_scope(pair.model, tokens, rank=rank).notes
            said = [note for note in notes if f"λ_{rank + 1}/λ_{rank} = {ratio:.3f}" in note and "ill-defined" in note]
            assert bool(said) is degenerate, (seed, rank, notes)
    assert min(seen.values()) > 0


def test_a_tolerance_below_the_precision_is_said(kind: str) -> None:
    model = families.build("gpt2", kind, torch.float32).model
    tokens = families.prompt_tokens()
    assert not any("residual" in note for note in tls.fisher_scope(model, tokens).notes)
    notes = tls.fisher_scope(model, tokens, tol=1e-12).notes
    assert any("above tol=1e-12: the precision of torch.float32 does not allow more" in note for note in notes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("iterative", [False, True], ids=["dense", "iterative"])
def test_directions_below_the_rounding_of_the_first_stay_finite(iterative: bool, dtype: torch.dtype) -> None:
    # three tokens carry everything: eigenvalues from the third on are 0 or rounding noise
    flat = case(0.5).to(dtype)
    flat.z[3:] -= 2000.0
    pairs = searched(flat.information(), 6, 1e-4) if iterative else flat.information().eigenpairs(6, 1e-4)
    for name in ("values", "vectors", "residual"):
        assert bool(torch.isfinite(getattr(pairs, name)).all()), name
    assert bool((pairs.values >= 0).all())


@pytest.mark.parametrize(("rank", "vectors", "largest"), [(1, 100, 4), (2, 7, 3), (3, 7, 2), (3, 2, 1)])
def test_so_many_searches_share_passes_as_their_vectors_may_take_room(
    kind: str, rank: int, vectors: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = families.build("gpt2", kind).model, families.prompt_tokens()
    alone = tls.attribution_matrix(model, tokens, method="fisher", rank=rank)
    real, sizes = directions_fisher.leading_eigenpairs, []
    monkeypatch.setattr(directions_fisher, "TOGETHER", 4)
    monkeypatch.setattr(directions_fisher, "VECTORS", vectors)
    monkeypatch.setattr(
        directions_fisher, "leading_eigenpairs", lambda f, *rest: sizes.append(len(f)) or real(f, *rest)
    )
    again = tls.attribution_matrix(model, tokens, method="fisher", rank=rank)
    assert len(sizes) == -(-len(alone) // largest) and max(sizes) <= largest and sum(sizes) == len(alone)
    assert relative_error(again.scores, alone.scores) < FLOAT32_RTOL
