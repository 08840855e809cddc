"""Invariant: shares of any number of processes and jobs are all pieces, each once; of a batch that fails, what fails alone is
named and the rest is done."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tl_scopes.cli.support import own_gpu
from tl_scopes.evaluation import shares
from tl_scopes.evaluation.shares import Failed, Share, attempted, launched, launched_alone, share_of

pytestmark = pytest.mark.one_lens
NAMES = [*(name for pair in shares._LAUNCHERS for name in pair), *shares._ON_THIS_MACHINE]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 40))
def test_jobs_and_their_processes_share_all_pieces_each_once(world: int, jobs: int, pieces: int) -> None:
    taken: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(world))
        for rank in range(world):
            patch.setenv("RANK", str(rank))
            for job in range(jobs):
                taken += share_of((job, jobs)).mine(range(pieces))
    assert sorted(taken) == list(range(pieces))


def test_every_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == share_of() == Share(0, 1)
    for rank, world in reversed(shares._LAUNCHERS):  # the first that is there counts
        monkeypatch.setenv(rank, "2")
        monkeypatch.setenv(world, "5")
        assert launched() == Share(2, 5)
        monkeypatch.setenv(rank, "0")
        monkeypatch.setenv(world, "9")


@pytest.mark.parametrize("name", [None, "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"])
def test_each_process_takes_the_gpu_of_its_number(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if name is not None:
        monkeypatch.setenv(name, "3")
    assert own_gpu() == (None if name is None else "cuda:3")


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_job_that_is_none_of_so_many_is_refused(shard: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"\(shard=.*expected \(i, n\), job i of n, with 0 <= i < n"):
        share_of(shard)


def test_accelerate_that_starts_one_of_several_is_seen() -> None:
    one_of_two = {"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}
    assert launched_alone(one_of_two)
    assert not launched_alone({**one_of_two, "RANK": "0", "WORLD_SIZE": "2"})
    assert not launched_alone({"ACCELERATE_USE_CPU": "True"})
    assert not launched_alone({"MASTER_PORT": "29500"})


@given(st.lists(st.integers(-3, 9), min_size=1))
def test_what_fails_alone_is_named_and_the_rest_is_done(batch: list[int]) -> None:
    def roots(numbers: Sequence[int]) -> list[float]:
        if any(n < 0 for n in numbers):
            raise ValueError(f"{min(numbers)} has no root")
        return [n**0.5 for n in numbers]

    assert attempted(roots, batch) == [Failed(f"ValueError: {n} has no root") if n < 0 else n**0.5 for n in batch]


def test_what_is_wrong_with_the_whole_run_is_raised() -> None:
    def wrong(batch: Sequence[int]) -> list[int]:
        raise TypeError("not a method")

    with pytest.raises(TypeError, match="not a method"):
        attempted(wrong, [1])
