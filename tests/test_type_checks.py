"""Invariant: in the tests every function of the package is held to its annotations, of shapes too (`conftest.py`)."""

from __future__ import annotations

import beartype
import jaxtyping
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.numerics.parts import even_parts
from tl_scopes.numerics.unembedding import times

pytestmark = pytest.mark.one_lens
checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)


@checked
def given(x: int, unreadable: NotThere = None, *, y: str = "") -> object:  # type: ignore[name-defined]  # noqa: F821
    return x


@checked
def returned(x: object) -> str:
    return x  # type: ignore[return-value]


@checked
def shaped(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> None:
    pass


def test_what_is_given_and_returned_is_checked() -> None:
    assert given(1, object(), y="a") == 1 and returned("a") == "a"
    for call in (lambda: given("a"), lambda: given(1, y=2), lambda: returned(1)):
        with pytest.raises(TypeError, match="violates type hint"):
            call()


def test_shapes_are_compared_between_arguments() -> None:
    shaped(torch.zeros(2), torch.zeros(2))
    with pytest.raises(TypeError):
        shaped(torch.zeros(2), torch.zeros(3))


def test_the_package_is_checked_so_and_as_users_have_it_where_asked(unchecked: None) -> None:
    assert returned(1) == 1
    shaped(torch.zeros(2), torch.zeros(3))
    for function in (even_parts, times):
        assert function.__wrapped__.__module__ == function.__module__
