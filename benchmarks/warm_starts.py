"""Would a Fisher search start better from the position before it? ``python benchmarks/warm_starts.py``.

At every position of the demo model's prompts the leading eigenvector of F is searched for from the restricted problem's
(as the package does), and from that and the eigenvector found one position earlier. Printed: exact products with F to a
relative residual of 1e-4, and how alike the eigenvectors of neighbouring positions are. A product is what a search costs on
a large vocabulary, so a start that does not save one is not worth its own.
"""

from __future__ import annotations

import statistics

import torch

import tl_scopes as tls
from tl_scopes.demo import DEMO_PROMPTS
from tl_scopes.numerics import eigensolver
from tl_scopes.numerics import fisher_information as fisher
from tl_scopes.numerics.eigensolver import RitzPairs
from tl_scopes.numerics.fisher_information import FisherInformation
from tl_scopes.numerics.unembedding import RowSquares

TOL = 1e-4


def products(information: FisherInformation, nearby: RitzPairs, start: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Exact products that a search from ``start`` ``[n, d_model]`` needs, and the eigenvector."""
    basis: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    new = list(start)
    while True:
        for direction in new:
            q = eigensolver._orthogonal_to(direction, basis)
            basis.append(q / q.norm())
            images.append(information.product(basis[-1].to(information.tail)).double())
        found = eigensolver._rayleigh_ritz(torch.stack(basis), torch.stack(images), 1)
        if float(found.residual[0]) <= TOL or len(basis) == information.d_model:
            return len(basis), found.vectors[0]
        new = [eigensolver._correction(nearby, found, 0)]


@torch.no_grad()
def main() -> None:
    """Print both counts for several sizes of the restricted problem."""
    model = tls.load_model()
    W = model.W_U.T.float()
    squares = RowSquares(W)
    logits = [model(model.to_tokens(shown.prompt))[0].float() for shown in DEMO_PROMPTS.values()]
    print(f"demo model, {len(logits)} prompts, {sum(map(len, logits))} positions, d_vocab {len(W)}, tol {TOL:.0e}")
    for size in (64, 256, 1024):
        fisher.FEW_TOKENS = size
        own: list[int] = []
        warm: list[int] = []
        alike: list[float] = []
        for of_prompt in logits:
            before = None
            for z in of_prompt:
                information = FisherInformation(W, z, None, squares)
                _, nearby = information._search(1, TOL)
                n, u = products(information, nearby, nearby.vectors[:1])
                if before is not None:
                    own.append(n)
                    warm.append(products(information, nearby, torch.stack([nearby.vectors[0], before]))[0])
                    alike.append(float((u @ before).abs()))
                before = u
        print(
            f"restricted to {size:5d} tokens: {statistics.mean(own):.2f} products from its own start, "
            f"{statistics.mean(warm):.2f} with the neighbour's eigenvector; |cos| between neighbours: median "
            f"{statistics.median(alike):.2f}"
        )


if __name__ == "__main__":
    main()
