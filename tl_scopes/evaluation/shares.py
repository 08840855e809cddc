"""Which pieces of a run are this process's, and what becomes of a piece that cannot be done.

    share of process i of n    pieces i, i + n, i + 2n, … of those that the run has

Processes do not talk to each other: each knows its number, from ``accelerate launch``, ``torchrun`` or ``mpirun`` and from
``shard=(i, n)``, of an array of jobs, and finds in the run's folder what others have done. With both, each job's processes
divide the job's share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from tl_scopes.numerics.arguments import name_call

P = TypeVar("P")
R = TypeVar("R")
Shard = tuple[int, int]
"""``(i, n)``: job i of n, counted from 0."""
_LAUNCHERS = (("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
"""Where ``accelerate launch`` and ``torchrun``, Open MPI, and MPICH and Intel MPI say which process this is."""
_ON_THIS_MACHINE = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
"""And which of those of this machine, in the same order."""


@dataclass(frozen=True)
class Share:
    """Every ``of``-th piece, from number ``index`` on."""

    index: int = 0
    of: int = 1

    def mine(self, pieces: Sequence[P]) -> Sequence[P]:
        """The pieces of this process."""
        return pieces[self.index :: self.of]


@dataclass(frozen=True)
class Failed:
    """A piece that could not be done, and why."""

    reason: str


def launched() -> Share:
    """This process's number and how many there are, as its launcher says; alone where there is none."""
    for rank, world in _LAUNCHERS:
        if world in os.environ:
            return Share(int(os.environ.get(rank, "0")), int(os.environ[world]))
    return Share()


def number_on_this_machine() -> int | None:
    """This process's number among those of its machine; None where no launcher says it."""
    return next((int(os.environ[name]) for name in _ON_THIS_MACHINE if name in os.environ), None)


def share_of(shard: Shard | None = None) -> Share:
    """The share of this process, of the job ``shard`` of an array where there is one.

    Raises:
        ValueError: a job that is none of so many.
    """
    process = launched()
    if shard is None:
        return process
    job, jobs = shard
    if not 0 <= job < jobs:
        raise ValueError(f"(shard={shard}): expected (i, n), job i of n, with 0 <= i < n")
    return Share(job * process.of + process.index, jobs * process.of)


def require_shared_folder(shard: Shard | None, out: object) -> None:
    """Refuse a job of an array that has nothing to share a run by."""
    if shard is not None and out is None:
        raise ValueError(f"(shard={shard}): jobs share a run through its folder; give out=")


def launched_alone(environment: Mapping[str, str]) -> bool:
    """Was ``accelerate launch`` asked for several processes and started one?

    It does so without ``--multi_gpu`` where it finds fewer than two GPUs, and with ``--cpu`` always, unless a
    ``--mpirun_hostfile`` is given: then it starts the program itself, and several only in words.
    """
    several = "ACCELERATE_USE_CPU" in environment and "MASTER_PORT" in environment
    return several and not any(world in environment for _, world in _LAUNCHERS)


def attempted(do: Callable[[Sequence[P]], Iterable[R]], batch: Sequence[P]) -> list[R | Failed]:
    """One result for each of a batch; where it fails, each is done by itself, and what fails alone gives its reason.

    What is wrong with one piece is a ``ValueError``, or a run that does not fit the memory; any other error is one of the
    whole run, and is raised.
    """
    try:
        return list(do(batch))
    except Exception as error:
        if not isinstance(error, (ValueError, torch.OutOfMemoryError)):
            raise
        if len(batch) == 1:
            return [Failed(f"{type(error).__name__}: {name_call(error)}")]
    return [result for one in batch for result in attempted(do, [one])]
