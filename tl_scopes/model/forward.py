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
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.model.attention_plan import AttentionPlan, planned
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
    has_hooks,
    restore_patterns,
    source_device,
    whole,
)
from tl_scopes.model.lock import running
from tl_scopes.model.predictions import TABLE, Predictions
from tl_scopes.model.recorder import Recorder
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
        table: all logits as the model makes them, whatever their number; False where nothing is asked of them, None where
            they are few.
    """

    source: str = "hook_embed"
    target: str = Y_HOOK
    grads: tuple[str, ...] = ()
    cache: NamesFilter = None
    frozen: tuple[Part, ...] = ()
    table: bool | None = None


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
        tokens: of all rows, padded.
        places: (row, position) of each explained position.
    """

    source: Float[Tensor, "batch pos d_model"]
    y: Float[Tensor, "read d_final"]
    hidden: Tensor
    predictions: Predictions
    activations: dict[str, Tensor]
    tokens: Int[Tensor, "batch pos"]
    places: Sequence[tuple[int, int]]

    @property
    def logits(self) -> Float[Tensor, "read d_vocab"]:
        """What the model returns, as a table."""
        return self.predictions.logits

    @property
    def slope(self) -> Float[Tensor, "read d_vocab"] | None:
        """Derivative of each logit by its raw value ``y W_U + b_U`` (soft cap, scale), as a table; None where it is 1."""
        return self.predictions.slope


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
    """
    require_wanted()
    few = len(read) * model.cfg.d_vocab <= TABLE if recording.table is None else recording.table
    table = few or valve is not None or makes_table(model, recording)
    run = _run(model, tokens, read, recording, rows, checkpoint, (valve, plan), table)
    if run is None:
        run = _run(model, tokens, read, recording, rows, checkpoint, (valve, plan), table=True)
        _WITH_TABLES.add(model)
    assert run is not None
    return run


def _run(
    model: LensModel,
    tokens: Int[Tensor, "batch pos"],
    read: Int[Tensor, " read"],
    recording: Recording,
    rows: Int[Tensor, " read"] | None,
    checkpoint: bool,
    how: tuple[Valve | None, AttentionPlan | None],
    table: bool,
) -> ForwardPass | None:
    """The run, with a table of its logits or without; None where it does not go without."""
    valve, plan = how
    points, source, target = model.hook_dict, recording.source, recording.target
    for argument, names in (("at", [source]), ("target_hook", [target]), ("grads_at", recording.grads)):
        for name in names:
            require_hook(model, points, name, argument)
    cached, explicit = cache_names(points, recording.cache)
    for name in explicit:
        require_hook(model, points, name, "cache")

    device = source_device(model)
    own_rows = torch.arange(len(tokens), device=device) if rows is None else rows.to(device)
    recorder = Recorder(own_rows, read.to(device), table)
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
        try:
            logits = run_with_hooks(model, tokens, [*hooks, *cut_gradients(model)], chosen)
        except Exception:
            if table or "raw_logits" not in recorder.picked:
                raise
            return None  # no logits at all may be too few: they have no largest

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
        return None
    return ForwardPass(
        source=x,
        y=recorder.picked["y"],
        hidden=recorder.picked.get("hidden", recorder.picked["y"]),
        predictions=predictions,
        activations={
            name: activation for name, activation in recorder.got.items() if name not in above or name in cached
        },
        tokens=tokens,
        places=list(zip(own_rows.tolist(), read.tolist(), strict=True)),
    )


_WITH_TABLES: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models whose logits are no elementwise function of the raw ones, as was seen of them without a hook on the way."""


def makes_table(model: LensModel, recording: Recording) -> bool:
    """Does the model make all logits, whatever their number: such as somebody sees, or such as only the model can make?

    Where functions are held constant, the slope of a cap is that of its secant, which is looked for in the run.
    """
    points, unembed = model.hook_dict, model.unembed
    raw, cached = points[RAW_LOGITS_HOOK], cache_names(points, recording.cache)[0]
    seen = any(points.get(name) is raw for name in (recording.source, recording.target, *recording.grads, *cached))
    inner = getattr(unembed, "original_component", None)
    on_the_way = {part for part in (raw, unembed, inner, whole(model), model) if isinstance(part, torch.nn.Module)}
    return seen or bool(recording.frozen) or model in _WITH_TABLES or has_hooks(model, on_the_way)


def _gradient_hooks(
    model: LensModel, recorder: Recorder, names: Sequence[str]
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


def activation_cache(model: LensModel, activations: dict[str, Tensor]) -> ActivationCache:
    """TransformerLens' own ``ActivationCache`` over detached activations and gradients."""
    from transformer_lens import ActivationCache

    return ActivationCache({k: v.detach() for k, v in activations.items()}, model)
