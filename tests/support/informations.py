"""Fisher information of given rows and logits, and its eigenpairs by the search that large vocabularies take."""

from __future__ import annotations

from unittest import mock

from torch import Tensor

from tl_scopes.numerics import fisher_information
from tl_scopes.numerics.fisher_information import Eigenpairs, FisherInformation
from tl_scopes.numerics.unembedding import RowSquares


def information(W: Tensor, z: Tensor, slope: Tensor | None = None) -> FisherInformation:
    """F of rows ``W`` and logits ``z``."""
    return FisherInformation(W, z, slope, RowSquares(W))


def searched(of: FisherInformation, rank: int, tol: float) -> Eigenpairs:
    """Its eigenpairs, never building F, however small it is."""
    with mock.patch.object(fisher_information, "DENSE_COST", 0):
        return of.eigenpairs(rank, tol)
