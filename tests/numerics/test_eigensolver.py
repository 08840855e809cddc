"""Invariant: on every shape of distribution the solver's leading pair is that of float64 `eigh`, within its tolerance.

Oracle and solver get the same numbers. The oracle is the plain covariance of the rows about the top token's row, whose
tail probabilities are exponentials of logit differences: it cancels nowhere, and shares no code with the package.

* relative residual ‖Fu − λu‖/λ ≤ tol;
* sin(u, u₁) ≤ 1.5·tol·λ₁/(λ₁ − λ₂);
* the reported residual is never lower than the true one.
"""

from __future__ import annotations

import pytest
import torch
from informations import information, searched
from torch import Tensor

pytestmark = pytest.mark.one_lens

SLACK = 1.5
D = 64


def rows(kind: str, V: int, d: int, seed: int) -> Tensor:
    """Unembedding rows ``[V, d]``: random, or with a mean offset and a power-law spectrum."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(V, d, generator=generator)
    if kind == "random":
        return W / d**0.5
    spectrum = torch.arange(1, d + 1).float() ** -0.7
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    return (W * spectrum) @ basis + 3 * torch.randn(d, generator=generator) / d**0.5


def logits(kind: str, W: Tensor, seed: int) -> Tensor:
    """Float64 logits ``[V]`` of one shape of distribution."""
    generator = torch.Generator().manual_seed(seed + 1)
    z = torch.randn(len(W), generator=generator, dtype=torch.float64)
    if kind == "flat":
        return 0.01 * z
    if kind == "softmax":
        return (W.double() @ W[int(len(W) // 2)].double()) * 4 / float(W.double().square().sum(1).mean())
    z *= 3
    z[len(W) // 3] = -torch.inf
    off = 10.0 ** -float(kind.removeprefix("1-1e-"))
    z[len(W) // 3] = z.logsumexp(0) + torch.log(torch.tensor((1 - off) / off, dtype=torch.float64))
    return z


def oracle(W: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F, eigenvalues and eigenvectors (rows), descending, float64."""
    z, W = z.double(), W.double()
    top = int(z.argmax())
    odds = (z - z[top]).exp()
    p = odds / odds.sum()
    p[top] = 0
    F, mean = torch.zeros(W.shape[1], W.shape[1], dtype=torch.float64), torch.zeros(W.shape[1], dtype=torch.float64)
    for part, q in zip((W - W[top]).split(16384), p.split(16384), strict=True):
        F += (part * q[:, None]).T @ part
        mean += q @ part
    F -= torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(F)
    return F, values.flip(0), vectors.flip(1).T


def check(W: Tensor, z: Tensor, tol: float, name: str) -> None:
    F, values, vectors = oracle(W, z)
    gap = float((values[0] - values[1]) / values[0])
    for pairs in (searched(information(W, z), 1, tol), information(W, z).eigenpairs(1, tol)):
        u, value = pairs.vectors[0].double(), float(pairs.values[0])
        true = float((F @ u - value * u).norm()) / value
        sine = float((u - (u @ vectors[0]) * vectors[0]).norm() / u.norm())
        reported = float(pairs.residual[0])
        seen = f"{name}, tol {tol:g}: true {true:.2e}, reported {reported:.2e}, sin {sine:.2e}, gap {gap:.2e}"
        assert true <= tol, seen
        assert reported >= true, seen
        assert reported <= tol, seen
        assert sine <= max(SLACK * tol / gap, 1e-6), seen


SHAPES = ["flat", "softmax", "1-1e-1", "1-1e-2", "1-1e-4", "1-1e-6", "1-1e-8"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", ["random", "power law"])
@pytest.mark.parametrize("V", [50, 4000])
def test_the_leading_pair_is_that_of_eigh(V: int, spread: str, shape: str) -> None:
    W = rows(spread, V, D if V > 50 else 24, V)
    z = logits(shape, W, V)
    for tol in (1e-2, 1e-4):
        check(W, z.float(), tol, f"float32 {spread} {shape} V={V}")
    check(W, z, 1e-6, f"float64 {spread} {shape} V={V}")


@pytest.mark.parametrize("closeness", [1e-1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("shape", ["flat", "1-1e-2", "1-1e-6"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_nearly_degenerate_pairs_are_not_mixed_up(seed: int, shape: str, closeness: float) -> None:
    W = rows("random", 4000, D, seed)
    z = logits(shape, W, seed)
    # the two leading directions get variances λ and (1 − closeness)·λ
    _, values, vectors = oracle(W, z)
    scale = torch.ones(D, dtype=torch.float64)
    scale[1] = (values[0] / values[1] * (1 - closeness)).sqrt()
    W = (W.double() @ (vectors.T @ torch.diag(scale) @ vectors)).float()
    for tol in (1e-2, 1e-4):
        check(W, z.float(), tol, f"float32 {shape} seed {seed} closeness {closeness:g}")
    check(W, z, 1e-6, f"float64 {shape} seed {seed} closeness {closeness:g}")


@pytest.mark.parametrize("shape", ["flat", "softmax", "1-1e-2"])
def test_a_search_ends_in_the_noise_of_float32_and_not_in_the_whole_space(shape: str) -> None:
    W = rows("power law", 4000, 256, 3)
    z = logits(shape, W, 3)
    F = oracle(W, z.float())[0]
    near, beyond = (searched(information(W, z.float()), 4, tol) for tol in (1e-4, 1e-9))
    U, values = beyond.vectors.double(), beyond.values.double()
    true = (U @ F - values[:, None] * U).norm(dim=1) / values
    assert bool((true <= beyond.residual).all())
    assert near.products <= beyond.products < 128, f"{near.products} products to 1e-4, {beyond.products} to noise"


def krylov_products(F: Tensor, tol: float) -> int:
    """Products that Lanczos from a random start takes in float64, with everything orthogonalised."""
    Q = torch.nn.functional.normalize(torch.randn(1, len(F), generator=torch.Generator().manual_seed(3)).double())
    while True:
        values, mix = torch.linalg.eigh(Q @ F @ Q.T)
        u = mix[:, -1] @ Q
        rest = F @ u - values[-1] * u
        if float(rest.norm()) <= tol * float(values[-1]):
            return len(Q)
        rest -= (Q @ rest) @ Q
        Q = torch.cat([Q, (rest / rest.norm())[None]])


@pytest.mark.parametrize("peak", [0.1, 0.5, 1.0])
def test_where_few_tokens_do_not_stand_for_all_a_search_takes_what_lanczos_takes(peak: float) -> None:
    """Eigenvalues of a flat distribution's restricted problem are far above its own, and so may none be that is reported."""
    W = rows("random", 20_000, 384, 7)
    z = peak * torch.randn(len(W), generator=torch.Generator().manual_seed(8))
    F, values, _ = oracle(W, z)
    pairs = searched(information(W, z), 1, 1e-4)
    assert float(pairs.residual[0]) <= 1e-4
    assert pairs.products <= 1.3 * krylov_products(F, 1e-4), pairs.products
    assert pairs.next_value == pytest.approx(float(values[1]), rel=1e-2)
    assert pairs.next_value <= float(pairs.values[0])


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", ["random", "power law"])
def test_the_leading_pair_is_that_of_eigh_on_a_large_vocabulary(spread: str, shape: str) -> None:
    W = rows(spread, 128_256, 96, 5)
    z = logits(shape, W, 5)
    for tol in (1e-2, 1e-4):
        check(W, z.float(), tol, f"float32 {spread} {shape} V=128256")
    check(W, z, 1e-6, f"float64 {spread} {shape} V=128256")
