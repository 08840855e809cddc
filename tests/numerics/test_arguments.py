"""Invariant: the name of the call that a user typed stands before an error once, and nothing else of the error changes."""

from __future__ import annotations

import inspect
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import tl_scopes as tls
from tl_scopes import timeseries
from tl_scopes.numerics import arguments
from tl_scopes.numerics.arguments import call_name, integer, public_call
from tl_scopes.numerics.values import choice

pytestmark = pytest.mark.one_lens


@public_call
def inner(rank: int) -> int:
    return integer("rank", rank, least=1, most=4)


@public_call
def outer(rank: int) -> int:
    if rank == 7:
        raise ValueError("seven is not allowed")
    return inner(rank)


def test_the_argument_or_the_rule_follows_the_name() -> None:
    with pytest.raises(ValueError, match=r"^inner\(rank=5\): expected an integer of at least 1 and at most 4$"):
        inner(5)
    with pytest.raises(ValueError, match=r"^outer: seven is not allowed$"):
        outer(7)


def test_of_calls_inside_each_other_the_one_that_raised_is_named_once() -> None:
    with pytest.raises(ValueError, match=r"^inner\(rank=0\): expected an integer of at least 1 and at most 4$"):
        outer(0)


def test_errors_of_other_classes_keep_their_message_and_arguments() -> None:
    class Own(ValueError):
        pass

    @public_call
    def fails(error: Exception) -> None:
        raise error

    for error in (Own("theirs"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), KeyError("k"), OSError(2, "no file")):
        with pytest.raises(type(error)) as caught:
            fails(error)
        assert caught.value is error
        assert not str(caught.value).startswith("fails")


def test_a_wrong_signature_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match=r"^inner\(\) missing 1 required positional argument"):
        inner()  # type: ignore[call-arg]


def test_the_name_is_gone_after_the_call_and_each_thread_has_its_own() -> None:
    seen: list[str | None] = []

    @public_call
    def looks() -> None:
        thread = threading.Thread(target=lambda: seen.append(call_name()))
        thread.start()
        thread.join()
        seen.append(call_name())

    looks()
    assert seen == [None, "looks"]
    assert call_name() is None


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), 3])
def test_whole_numbers_of_any_type_are_integers(value: Any) -> None:
    assert integer("k", value) == 3
    assert type(integer("k", value)) is int


@pytest.mark.parametrize("value", [3.0, True, "3", None, [3]])
def test_what_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^\(k=.*\): expected an integer"):
        integer("k", value)


def test_a_choice_names_all_it_could_be() -> None:
    choice("kind", "a", ("a", "b", None))
    with pytest.raises(ValueError, match=r"^\(kind='c'\): expected 'a', 'b' or None$"):
        choice("kind", "c", ("a", "b", None))


FUNCTIONS = {
    name: function
    for module in (tls, timeseries)
    for name in module.__all__
    if inspect.isroutine(function := getattr(module, name)) or hasattr(function, "__wrapped__")
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_public_function_names_itself_in_errors_and_shows_its_keywords(name: str, monkeypatch: Any) -> None:
    function, entered = FUNCTIONS[name], []
    monkeypatch.setattr(arguments, "_CALL", Noting(entered))
    with suppress(Exception):
        function(no_such_keyword=1)
    with suppress(Exception):
        inspect.unwrap(function, stop=lambda f: f.__code__.co_filename.endswith("arguments.py"))(no_such_keyword=1)
    assert name in entered
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    if name != "load_model":
        assert inspect.Parameter.VAR_KEYWORD not in kinds, "a keyword that help() does not show"


class Noting:
    """Stands for the variable that holds the running call's name."""

    def __init__(self, entered: list[str]) -> None:
        self.entered = entered

    def set(self, name: str) -> None:
        self.entered.append(name)

    def get(self) -> None:
        return None

    def reset(self, outer: object) -> None:
        pass


def test_shared_keywords_are_shown_and_explained_wherever_they_are_taken(unchecked: None) -> None:
    shown = inspect.signature(tls.fisher_scope).parameters
    assert list(shown)[:4] == ["model", "prompt", "rank", "tol"]
    assert shown["pos"].default == -1
    assert shown["at"].default == "hook_embed"
    assert "hook of the source" in (tls.semantic_scope.__doc__ or "")
    assert "combine" not in inspect.signature(tls.total_information).parameters
    with pytest.raises(TypeError, match=r"^total_information\(\) got an unexpected keyword argument 'combine'"):
        tls.total_information(None, "x", combine="sum")  # type: ignore[arg-type]
