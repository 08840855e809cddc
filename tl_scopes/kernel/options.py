"""The keywords that calls share: declared, documented and checked once.

A call takes those that it names in its signature, ``**options: Unpack[RunKeywords]`` or one of the smaller sets;
:mod:`tl_scopes.kernel.calls` shows them to users as ordinary keywords.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor
from typing_extensions import TypedDict, Unpack

from tl_scopes.directions.base import Combine
from tl_scopes.directions.by_name import RowKeywords, ScopeKeywords
from tl_scopes.model.forward import Recording
from tl_scopes.model.frozen import Frozen, frozen_parts
from tl_scopes.model.held_functions import Part
from tl_scopes.model.hooks import Y_HOOK, NamesFilter
from tl_scopes.model.lens import LensModel
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import Held
from tl_scopes.model.prompts import Position
from tl_scopes.numerics.arguments import integer

Joined = Literal["score", "one row", "if one row", "first"]
"""How what a probe measured of several rows of V becomes one number per place; see :class:`GradientProbe`."""
DEFAULT_BATCH = 16
"""Prompts per forward where the caller names no batch size."""


class PromptKeywords(TypedDict, total=False):
    """How prompts are read."""

    pos: int | Sequence[int | Sequence[int]]
    prepend_bos: bool | None
    chat_options: Mapping[str, Any] | None


class BatchKeywords(PromptKeywords, total=False):
    """… and how many run together."""

    batch_size: int | None


class PlacedKeywords(PromptKeywords, total=False):
    """… and where the source lies."""

    at: str


class SourceKeywords(PlacedKeywords, BatchKeywords, total=False):
    """… both."""


class MemoryKeywords(TypedDict, total=False):
    """How a run is made to fit."""

    checkpoint: bool | None
    memory_budget: int | None


class FrozenKeywords(TypedDict, total=False):
    """Which linearisation a gradient is of."""

    frozen: Frozen


class FrozenSourceKeywords(SourceKeywords, FrozenKeywords, total=False):
    """… and where it is taken."""


class FittingKeywords(FrozenSourceKeywords, MemoryKeywords, total=False):
    """Source and memory together: what a run takes whose gradients nobody may keep."""


class JoinedKeywords(SourceKeywords, MemoryKeywords, total=False):
    """… and how several predictions are explained together, and whether the gradient is kept."""

    combine: Combine | None
    n_probes: int | None
    keep_gradient: bool


class KeptKeywords(FittingKeywords, total=False):
    """… and what is kept of it."""

    cache: NamesFilter
    grads_at: str | Sequence[str]
    keep_gradient: bool


class RunKeywords(JoinedKeywords, KeptKeywords, total=False):
    """Everything that a run may be asked for."""


class MatrixKeywords(RowKeywords, MemoryKeywords, FrozenKeywords, total=False):
    """What a matrix takes, whose targets are the text's own tokens."""

    prepend_bos: bool | None
    chat_options: Mapping[str, Any] | None
    at: str


class ChainKeywords(MatrixKeywords, total=False):
    """… and how the predictions of one unit of a text are explained together."""

    combine: Combine | None
    n_probes: int | None


class NamedRunKeywords(ScopeKeywords, RunKeywords, total=False):
    """… of scopes chosen by name."""


class NamedJoinedKeywords(ScopeKeywords, JoinedKeywords, total=False):
    """… whose linearisations the call chooses."""


@dataclass(frozen=True)
class RunOptions:
    """What a call may ask of its run, with the defaults.

    Attributes:
        pos: position whose next-token prediction is explained; -1 is the token after the prompt. A range or list of
            positions of one prompt: all of them together, each for the token that follows it in the text (the last
            token's: for the model's top prediction). A list of prompts takes one entry each.
        prepend_bos: put BOS before a string prompt; None is the model's own default. False where the text has its own,
            as a rendered chat template has. A chat has what its template writes; True puts one where it writes none.
        chat_options: of a prompt that is a list of messages, what ``tokenizer.apply_chat_template`` takes besides:
            ``tools``, ``documents``, ``chat_template``, ``add_generation_prompt`` (True unless a message is continued), …
        at: hook of the source, any ``[batch, pos, d_model]`` activation.
        batch_size: prompts per forward; None lets the package choose. Numbers do not depend on it.
        cache: TransformerLens names filter (or True): the run's ``ActivationCache`` comes back as ``.cache``.
            ``unembed.hook_out`` in it holds the explained position only.
        grads_at: hooks whose gradient of the explained scalar joins the cache as ``name + "_grad"``.
        keep_gradient: keep the signed ``[pos, d_model]`` gradient as ``.gradient``.
        checkpoint: keep only the inputs of the blocks and compute their insides again in the backward, which changes no
            number; None does so where the run does not fit otherwise.
        memory_budget: bytes that the run may take beside the weights; None is what is free. Batches shrink until they
            fit, and a run that cannot fit is refused before it starts.
        combine: how several explained positions join: ``"sum"``, the gradient of the sum, one vector-Jacobian product;
            ``"norm"``, the root of the sum of squares over positions. None is the scope's own, ``"sum"`` but for Fisher.
        n_probes: of ``"norm"``: rows of random signs, with a standard error, where there are more rows than that (None:
            32).
        frozen: what the gradient holds constant, one or several of ``"norms"`` (their scales), ``"attention"`` (where each
            head looks) and ``"activations"`` (each a factor), or ``"all"``: another linearisation of the same forward,
            which is not changed. With all of it the signed products of embeddings and gradient, with those of positions
            and biases, add up to the explained logit.
        target_hook: hook where V lives.
    """

    pos: Position | Sequence[Position] = -1
    prepend_bos: bool | None = None
    chat_options: Mapping[str, Any] | None = None
    at: str = "hook_embed"
    batch_size: int | None = None
    cache: NamesFilter = None
    grads_at: tuple[str, ...] = ()
    keep_gradient: bool = False
    checkpoint: bool | None = None
    memory_budget: int | None = None
    combine: Combine | None = None
    n_probes: int | None = None
    frozen: tuple[Part, ...] = ()
    target_hook: str = Y_HOOK

    @property
    def linearisation(self) -> dict[str, Any]:
        """What is held constant, as an entry of a result's details; nothing where nothing is."""
        return {"frozen": list(self.frozen)} if self.frozen else {}

    @property
    def wants_cache(self) -> bool:
        """Is an ``ActivationCache`` to be returned?"""
        return bool(self.grads_at) or (self.cache is not None and self.cache is not False)

    @property
    def wants_gradient(self) -> bool:
        """Is the gradient itself to be kept, at the source or elsewhere?"""
        return self.keep_gradient or bool(self.grads_at)

    def recording(self, probes: Sequence[GradientProbe] = ()) -> Recording:
        """The hooks whose activations and gradients are wanted."""
        names = (*self.grads_at, *(probe.name for probe in probes))
        return Recording(self.at, self.target_hook, names, self.cache, self.frozen)

    def memory(
        self,
        model: LensModel,
        probes: Sequence[GradientProbe] = (),
        *,
        written_out: bool = False,
        held: Held | None = None,
    ) -> Memory:
        """What decides how to run the model so that it fits.

        ``written_out`` where attention is as the model writes it, ``held`` where all logits are looked at.
        """
        recording, budget = self.recording(probes), self.memory_budget
        return Memory(model, recording, checkpoint=self.checkpoint, budget=budget, written_out=written_out, held=held)


@dataclass(frozen=True, eq=False)
class GradientProbe:
    """A hook inside the model, and what is kept there of the gradients that pass it.

    Attributes:
        name: hook; its activation is ``[batch, pos, ...]``.
        reduce: ``(gradients [rows, batch, pos, ...], activation [batch, pos, ...])`` to ``[rows, batch, pos, ...]``.
        joined: how rows of V become one number: ``"score"`` as in the score, by weighted squares; ``"one row"``: there
            must be one only, for signed numbers; ``"if one row"``: NaN where there are several; ``"first"``: they are all
            the same.
    """

    name: str
    reduce: Callable[[Tensor, Tensor], Tensor]
    joined: Joined = "score"


def check_batch_size(batch_size: int | None) -> None:
    """Refuse what is no number of rows."""
    if batch_size is not None:
        integer("batch_size", batch_size, least=1)


def run_options(target_hook: str = Y_HOOK, **keywords: Unpack[RunKeywords]) -> RunOptions:
    """The keywords of a call, checked; those that are not given have their defaults."""
    given: dict[str, Any] = dict(keywords)
    names = given.pop("grads_at", ())
    options = RunOptions(
        target_hook=target_hook,
        grads_at=(names,) if isinstance(names, str) else tuple(names),
        frozen=frozen_parts(given.pop("frozen", ())),
        **given,
    )
    if options.memory_budget is not None:
        integer("memory_budget", options.memory_budget, least=1)
    if options.n_probes is not None:
        integer("n_probes", options.n_probes, least=2)
    check_batch_size(options.batch_size)
    return options


def split_keywords(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], RunKeywords]:
    """The scopes' own keywords, and those of the run."""
    own = {name: value for name, value in keywords.items() if name not in RunKeywords.__annotations__}
    options = {name: value for name, value in keywords.items() if name in RunKeywords.__annotations__}
    return own, cast(RunKeywords, options)
