"""Random signs give the root of the sum of squares over positions: unbiased squares, intervals that cover, parallel or not.

Invariant: for crafted gradients of many positions, the mean of a probed score's square over generators is ``Σ_m w_m ‖g_m‖²``,
and the stated 95 % interval holds the true root in 90 to 98 % of draws with the default number of probes.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tl_scopes.directions.base import Rows
from tl_scopes.directions.fisher import Fisher
from tl_scopes.directions.joint import N_PROBES, joint
from tl_scopes.directions.logits import Semantic

pytestmark = pytest.mark.one_lens
POSITIONS, WIDTH, TOKENS = 100, 12, 3
DRAWS = 300


def gradients(kind: str) -> Tensor:
    """J of each position, [position, d, token, d]: a token's gradients along one line, in all directions, or one large."""
    generator = torch.Generator().manual_seed(3)
    J = torch.randn(POSITIONS, WIDTH, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    if kind == "parallel":
        line = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
        J = J[..., :1] * line
    if kind == "one large":
        J[0] *= 30
    return J


def parts(weights: Tensor | None = None) -> list[Rows]:
    generator = torch.Generator().manual_seed(4)
    V = torch.randn(POSITIONS, 1, WIDTH, generator=generator, dtype=torch.float64)
    ones = torch.ones(POSITIONS, dtype=torch.float64)
    return [
        Rows(v, one[None], relative_to=None if weights is None else float(w))
        for v, one, w in zip(V, ones, ones if weights is None else weights, strict=True)
    ]


def norms(V: Tensor, J: Tensor) -> Tensor:
    """‖Σ_m v_mᵀJ_m‖ of every row and token."""
    return torch.einsum("kmi,mitd->ktd", V, J).norm(dim=-1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parallel", "apart", "one large"])
def test_squares_are_unbiased_and_intervals_cover(kind: str) -> None:
    J, rows = gradients(kind), parts()
    true = torch.stack([norms(part.V[None], J[m : m + 1])[0] for m, part in enumerate(rows)]).square().sum(0)
    squares, covered, errors = [], [], []
    for seed in range(DRAWS):
        found = joint(Semantic((None,)), rows, "norm", None, lambda seed=seed: torch.Generator().manual_seed(seed))
        assert found.V.shape == (N_PROBES, POSITIONS, WIDTH)
        scored = found.score(norms(found.V, J))
        low, high = torch.tensor(scored.details["interval"], dtype=torch.float64)
        squares.append(scored.scores.square())
        covered.append((low <= true.sqrt()) & (true.sqrt() <= high))
        assert scored.stderr is not None
        errors.append(scored.stderr)
    table = torch.stack(squares)
    z = (table.mean(0) - true) / (table.std(0) / DRAWS**0.5)
    assert float(z.abs().max()) < 4
    share = float(torch.stack(covered).double().mean())
    assert 0.9 < share < 0.98, share
    spread = table.sqrt().std(0)
    assert float((torch.stack(errors).mean(0) / spread - 1).abs().max()) < 0.2


def test_few_positions_are_taken_one_by_one_and_without_an_error() -> None:
    J, rows = gradients("apart"), parts()[:5]
    found = joint(Semantic((None,)), rows, "norm", None, torch.Generator)
    scored = found.score(norms(found.V, J[:5]))
    each = torch.stack([norms(part.V[None], J[m : m + 1])[0] for m, part in enumerate(rows)])
    assert scored.stderr is None
    assert torch.allclose(scored.scores, each.square().sum(0).sqrt(), rtol=1e-12)
    probed = joint(Semantic((None,)), rows, "norm", 4, torch.Generator)
    assert len(probed.V) == 4


def test_weights_are_relative_to_the_sum_of_first_eigenvalues() -> None:
    J, weights = gradients("apart"), torch.linspace(0.1, 3, 5, dtype=torch.float64)
    rows = parts(torch.cat([weights, torch.ones(POSITIONS - 5)]))[:5]
    found = joint(Fisher(1, 1e-4), rows, None, None, torch.Generator)
    each = torch.stack([norms(part.V[None], J[m : m + 1])[0] for m, part in enumerate(rows)]).square()
    expected = ((weights[:, None] * each).sum(0) / weights.sum()).sqrt()
    assert torch.allclose(found.score(norms(found.V, J[:5])).scores, expected, rtol=1e-12)
