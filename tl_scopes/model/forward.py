"""The hooked forward: what is captured in one run, and everything undone afterwards.

:func:`forward_pass` captures three things:

* the *source* ``x`` ``[batch, pos, d_model]``, by default at ``hook_embed``, where gradients end;
* the *final hidden state* ``y`` ``[read, d_model]`` at ``unembed.hook_in`` (after the final norm), cut out at the
  explained positions **before** the unembedding, so that logits exist only where they are read;
* any other activation that was asked for, as TransformerLens' cache would hold it.

With ``checkpoint`` the blocks keep only their inputs (:mod:`tl_scopes.model.checkpointing`). Hooks, ``requires_grad`` flags
and grad mode are the caller's again in ``finally``. Hook names are the same in both model classes; what differs between
classes is in :mod:`tl_scopes.model.lens`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.model.attention_plan import AttentionPlan, Path, planned
from tl_scopes.model.checkpointing import checkpointed_blocks
from tl_scopes.model.frozen import held
from tl_scopes.model.held_functions import Part, Valve
from tl_scopes.model.hooks import (
    RAW_LOGITS_HOOK,
    Y_HOOK,
    Hook,
    NamesFilter,
    attached,
    by_position,
    cache_names,
    cut_gradients,
    fires_again,
    require_hook,
    without_hooks,
)
from tl_scopes.model.lens import (
    LensModel,
    before_the_fork,
    blocks,
    eagerly,
    feeds_a_branch,
    forward_options,
    restore_patterns,
    source_device,
    whole,
)
from tl_scopes.model.lock import running
from tl_scopes.model.predictions import TABLE, Followed, Predictions, Table, Unembedded, followed
from tl_scopes.model.slopes import slopes_only
from tl_scopes.numerics.stopping import require_wanted

if TYPE_CHECKING:
    from transformer_lens import ActivationCache


PROBE_LENGTH = 5
"""Tokens of the prompt by which a model is looked at: enough for attention and positions to matter."""


class _Stop(Exception):
    """Ends a forward that has shown what was wanted."""


def run_with_hooks(
    model: LensModel,
    tokens: Int[Tensor, "batch pos"],
    hooks: Iterable[tuple[str, Hook]] = (),
    plan: AttentionPlan | None = None,
) -> Float[Tensor, "rows read d_vocab"]:
    """The model's logits for right-padded tokens; the hooks act on this run alone, and nothing of it stays on the model.

    Attention is computed by the plan, or by one for so many tokens.
    """
    tokens, points = tokens.to(source_device(model)), model.hook_dict
    plan = AttentionPlan(tokens.shape[1]) if plan is None else plan
    with (
        eagerly(),
        restore_patterns(blocks(model)),
        attached(points, hooks),
        planned(plan, points.values()),
        running(model),
    ):
        logits: Tensor = model(tokens, return_type="logits", **forward_options(model, tokens))
    return logits


def embedded(model: LensModel, tokens: Int[Tensor, "tokens pos"]) -> Float[Tensor, "tokens d_model"]:
    """What ``hook_embed`` holds for the last token of each row; no layer is run."""
    got: list[Tensor] = []

    def stop(activation: Tensor, hook: Any) -> None:
        got.append(activation[:, -1].clone())
        raise _Stop

    with torch.no_grad(), suppress(_Stop):
        run_with_hooks(model, tokens, [("hook_embed", stop)])
    return got[0]


def read_out_probe(
    model: LensModel,
) -> tuple[Float[Tensor, "1 pos d_final"], Float[Tensor, "1 pos d_vocab"], Float[Tensor, "1 pos d_vocab"]]:
    """y, the raw logits and the logits after every token of a short random prompt, without the hooks on the model."""
    got: dict[str, Tensor] = {}

    def keep(name: str) -> tuple[str, Hook]:
        return name, lambda activation, hook: got.__setitem__(name, activation.clone())

    with torch.no_grad(), without_hooks(model):
        logits = run_with_hooks(model, probe_tokens(model), [keep(Y_HOOK), keep(RAW_LOGITS_HOOK)])
    return got[Y_HOOK], got[RAW_LOGITS_HOOK], logits


def probe_tokens(model: LensModel) -> Int[Tensor, "1 pos"]:
    """A short random prompt, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.cfg.d_vocab, (1, min(PROBE_LENGTH, model.cfg.n_ctx)), generator=generator)


@dataclass(frozen=True)
class Recording:
    """What is wanted of a run.

    Attributes:
        source: hook whose gradient is wanted, the leaf of the graph.
        target: hook where directions live.
        grads: further hooks whose gradient is wanted.
        cache: further hooks whose activation is wanted.
        frozen: what gradients hold constant (:mod:`tl_scopes.model.frozen`).
    """

    source: str = "hook_embed"
    target: str = Y_HOOK
    grads: tuple[str, ...] = ()
    cache: NamesFilter = None
    frozen: tuple[Part, ...] = ()


RECORDING = Recording()


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """One hooked run; ``read`` counts the explained (row, position) pairs.

    Attributes:
        source: the activation at the source hook, ``[batch, pos, d_model]``.
        y: what enters the unembedding, after the final norm; ``d_final`` is ``d_model`` on all but some small OPT models.
        hidden: activation at the target hook, ``[read, ...]``; ``y`` by default.
        predictions: of the model at each explained position.
        activations: every other captured activation, by the name it was asked for.
    """

    source: Float[Tensor, "batch pos d_model"]
    y: Float[Tensor, "read d_final"]
    hidden: Tensor
    predictions: Predictions
    activations: dict[str, Tensor]

    @property
    def logits(self) -> Float[Tensor, "read d_vocab"]:
        """What the model returns, as a table."""
        return self.predictions.logits

    @property
    def slope(self) -> Float[Tensor, "read d_vocab"] | None:
        """Derivative of each logit by its raw value ``y W_U + b_U`` (soft cap, scale), as a table; None where it is 1."""
        return self.predictions.slope


class _Recorder:
    """The hooks of one run at the explained (row, column) pairs, and what they record.

    Hooks hold the dictionaries they write, never the object that holds the hooks: such a cycle would keep a graph alive
    until the garbage collector runs.
    """

    def __init__(self, rows: Int[Tensor, " read"], columns: Int[Tensor, " read"], table: bool) -> None:
        self.rows, self.columns, self.table = rows, columns, table
        self.got: dict[str, Tensor] = {}
        self.picked: dict[str, Tensor] = {}
        self.repeated: set[str] = set()
        self._leaves: dict[str, Tensor] = {}
        self._stand_ins: dict[Hook, Hook] = {}

    def observe(self, name: str, once: bool) -> Hook:
        """Record the activation, and whether there is a second one where there must be one only."""
        got, repeated = self.got, self.repeated

        def hook(activation: Tensor, hook: Any) -> None:
            repeated.update({name} & got.keys() if once else ())
            got.setdefault(name, activation)

        self._stand_ins[hook] = lambda activation, hook: None
        return hook

    def differentiate(self, name: str, whole: bool = False) -> Hook:
        """Record the activation on the graph; begin the graph here if there is none yet.

        What is recorded is what goes on from this hook, and not what a branch beside it takes; ``whole`` records both.
        """
        got, leaves, repeated = self.got, self._leaves, self.repeated

        def hook(activation: Tensor, hook: Any) -> Tensor:
            repeated.update({name} & got.keys())
            if not activation.requires_grad:
                # A copy goes on, so that a user's in-place edit further down never meets a leaf.
                got[name] = leaves[name] = activation.detach().requires_grad_(True)
                return leaves[name].clone()
            mine = activation if whole else activation.view_as(activation)
            got.setdefault(name, mine)
            return mine  # on the bridge, q/k/v/z are off the path unless the hook returns them

        self._stand_ins[hook] = lambda activation, hook: leaves[name].clone() if name in leaves else activation
        return hook

    def pick(self, name: str, check: Callable[[Tensor], None]) -> Hook:
        """Record the explained positions of the activation, once ``check`` lets it pass."""
        at, picked, repeated = _index(self.rows, self.columns), self.picked, self.repeated

        def hook(activation: Tensor, hook: Any) -> Tensor:
            check(activation)
            repeated.update({name} & picked.keys())
            picked.setdefault(name, at(activation))
            return activation

        def same(activation: Tensor, hook: Any) -> Tensor:
            at(activation)
            return activation

        self._stand_ins[hook] = same
        return hook

    def read_out(self, activation: Tensor, hook: Any) -> Tensor:
        """Record y, and let nothing else go on to the unembedding."""
        y = _index(self.rows, self.columns)(activation)
        self.picked["y"] = y
        return y[None] if self.table else y[None, :0].detach()

    def raw(self, activation: Tensor, hook: Any) -> Tensor:
        """Record ``y W_U + b_U``, or follow what becomes of it."""
        self.picked["raw_logits"] = activation
        return activation if self.table else followed(activation)

    def predictions(self, model: LensModel, logits: Tensor, attention: tuple[Path, ...]) -> Predictions | None:
        """Of what the model returned; None where it is no elementwise function of the raw logits."""
        W_U = model.W_U.detach()
        if self.table:
            slope = _read_out_slope(self.picked["raw_logits"], logits)
            table = logits[0].detach().to(W_U.device)
            return Predictions.all_of(Table(table, None if slope is None else slope.to(W_U.device), W_U), attention)
        if not isinstance(logits, Followed) or logits.steps is None:
            return None
        y = self.picked["y"].detach().to(W_U.device)
        return Predictions.all_of(Unembedded(y, W_U, model.b_U.detach(), logits.steps), attention)

    def replay(self, hook: Hook) -> Hook:
        """A hook that does to the graph what ``hook`` did, for a block computed again.

        It records nothing and refers to no tensor of the graph (leaves have no history), so that the graph is not
        kept alive by what it holds.
        """
        return self._stand_ins[hook]


def _index(rows: Tensor, columns: Tensor) -> Callable[[Tensor], Tensor]:
    """Cuts (row, column) pairs out of an activation, wherever it lives."""
    return lambda activation: activation[rows.to(activation.device), columns.to(activation.device)]


def _of_block(i: int, hooks: Sequence[tuple[str, Hook]]) -> list[tuple[str, Hook]]:
    """Those inside the i-th block."""
    return [(name, hook) for name, hook in hooks if name.startswith(f"blocks.{i}.")]


def forward_pass(
    model: LensModel,
    tokens: Int[Tensor, "batch pos"],
    read: Int[Tensor, " read"],
    recording: Recording = RECORDING,
    *,
    rows: Int[Tensor, " read"] | None = None,
    checkpoint: bool = False,
    valve: Valve | None = None,
    plan: AttentionPlan | None = None,
    table: bool = False,
) -> ForwardPass:
    """Run the model once with gradients ending at ``recording.source``; call inside :func:`differentiable`.

    The first hook among its ``source`` and ``grads`` to fire on a path becomes the leaf of the graph: everything
    before it runs without one.

    Args:
        tokens: right-padded.
        read: the explained positions.
        recording: hooks whose activations and gradients are wanted.
        rows: the row of the batch each of them is in; None is one position per row, in order.
        checkpoint: keep only the inputs of the blocks and compute their insides again in each backward.
        valve: to stand on the way back through patterns of attention.
        plan: how attention is computed; None is by the number of tokens.
        table: let the model make all logits, whatever their number.
    """
    require_wanted()
    points, source, target = model.hook_dict, recording.source, recording.target
    for argument, names in (("at", [source]), ("target_hook", [target]), ("grads_at", recording.grads)):
        for name in names:
            require_hook(model, points, name, argument)
    cached, explicit = cache_names(points, recording.cache)
    for name in explicit:
        require_hook(model, points, name, "cache")

    device = source_device(model)
    own_rows = torch.arange(len(tokens), device=device) if rows is None else rows.to(device)
    table = table or valve is not None or _needs_table(model, recording, cached, len(read))
    recorder = _Recorder(own_rows, read.to(device), table)
    differentiated = dict.fromkeys((source, *recording.grads))
    hooks, above = _gradient_hooks(model, recorder, list(differentiated))
    taken = {name for name, _ in hooks}
    once = set(explicit)
    hooks += [(name, recorder.observe(name, name in once)) for name in dict.fromkeys(cached) if name not in taken]
    if target != Y_HOOK:
        hooks.append((target, recorder.pick("hidden", by_position(tokens.shape, target))))
    hooks += [(Y_HOOK, recorder.read_out), (RAW_LOGITS_HOOK, recorder.raw)]
    chosen = AttentionPlan(tokens.shape[1]) if plan is None else plan
    with ExitStack() as stack:
        if checkpoint:
            again = [(name, recorder.replay(hook)) for name, hook in hooks if name.startswith("blocks.")]
            stack.enter_context(
                checkpointed_blocks(
                    model, lambda i: attached(points, _of_block(i, again)), recording.frozen, valve, chosen
                )
            )
        else:
            stack.enter_context(slopes_only(blocks(model)))
        stack.enter_context(held(recording.frozen, [whole(model), model], valve))
        logits = run_with_hooks(model, tokens, [*hooks, *cut_gradients(model)], chosen)

    silent = [n for n in (*differentiated, *explicit) if n not in recorder.got]
    silent += [target] if target != Y_HOOK and "hidden" not in recorder.picked else []
    if silent:
        raise ValueError(f"hook point {silent[0]!r} exists but did not fire in this model's forward; choose another")
    if recorder.repeated:
        name = min(recorder.repeated)
        name, argument = (target, "target_hook") if name == "hidden" else (name, "cache")
        argument = "at" if name == source else "grads_at" if name in recording.grads else argument
        raise fires_again(name, argument)
    x = recorder.got[source]
    if x.ndim != 3 or x.shape[:2] != tokens.shape or x.shape[2] != model.cfg.d_model:
        others, without = "'hook_embed' or a residual-stream hook such as ", ""
        if source == "hook_embed":
            others, without = "", "; a call that takes no at= has no answer on this model"
        raise ValueError(
            f"(at={source!r}): the activation there is {list(x.shape)}, not [batch, pos, d_model] = "
            f"{[*tokens.shape, model.cfg.d_model]}. Use {others}'blocks.0.hook_resid_pre'{without}"
        )
    predictions = recorder.predictions(model, logits, tuple(chosen.chosen))
    if predictions is None:
        _WITH_TABLES.add(model)
        return forward_pass(
            model, tokens, read, recording, rows=rows, checkpoint=checkpoint, valve=valve, plan=plan, table=True
        )
    return ForwardPass(
        source=x,
        y=recorder.picked["y"],
        hidden=recorder.picked.get("hidden", recorder.picked["y"]),
        predictions=predictions,
        activations={
            name: activation for name, activation in recorder.got.items() if name not in above or name in cached
        },
    )


_WITH_TABLES: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models whose logits are no elementwise function of the raw ones, as was seen of them."""


def _needs_table(model: LensModel, recording: Recording, cached: Iterable[str], n: int) -> bool:
    """Does the model make all logits: few, such as somebody sees, or such as only the model can make?

    Where functions are held constant, the slope of a cap is that of its secant, which is looked for in the run.
    """
    points = model.hook_dict
    raw = points[RAW_LOGITS_HOOK]
    seen = any(points[name] is raw for name in (recording.source, recording.target, *recording.grads, *cached))
    hooked = bool(raw._forward_hooks or raw._backward_hooks or raw._forward_pre_hooks or raw._backward_pre_hooks)
    few = n * model.cfg.d_vocab <= TABLE
    return few or seen or hooked or bool(recording.frozen) or model in _WITH_TABLES


def _gradient_hooks(
    model: LensModel, recorder: _Recorder, names: Sequence[str]
) -> tuple[list[tuple[str, Hook]], list[str]]:
    """Hooks that record these names on the graph, and the names of those that only begin it.

    Where a bridge's stream forks before its hook, the graph begins further up, or it would miss the other branch. These hooks
    come first: another name of the same hook point would let a branch go on.
    """
    whole = [name for name in names if feeds_a_branch(model, name)]
    for name in whole:
        if model.hook_dict[name].fwd_hooks:
            raise ValueError(
                f"(grads_at={name!r}): a hook of yours stands there, and what it gives back goes to the MLP alone. "
                "Remove it with model.reset_hooks(), or put it on hook_resid_pre"
            )
    above = [name for name in map(before_the_fork, whole) if name not in names]
    others = [name for name in names if name not in whole]
    hooks = [(name, recorder.differentiate(name, whole=True)) for name in whole]
    return hooks + [(name, recorder.differentiate(name)) for name in (*others, *above)], above


def _read_out_slope(
    raw: Float[Tensor, "1 read d_vocab"], logits: Float[Tensor, "1 read d_vocab"]
) -> Float[Tensor, "read d_vocab"] | None:
    """Derivative of the returned logits by the raw ones; None where it is 1 everywhere.

    A cap or a scale acts on each logit by itself, so one backward through it gives the whole diagonal.
    """
    if logits is raw or not raw.requires_grad:
        return None
    (slope,) = torch.autograd.grad(logits.sum(), raw, retain_graph=True)
    return None if bool((slope == 1).all()) else slope[0]


def activation_cache(model: LensModel, activations: dict[str, Tensor]) -> ActivationCache:
    """TransformerLens' own ``ActivationCache`` over detached activations and gradients."""
    from transformer_lens import ActivationCache

    return ActivationCache({k: v.detach() for k, v in activations.items()}, model)
