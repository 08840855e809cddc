"""Faithfulness: remove the tokens a method calls important and see what happens to the prediction.

For each passage, with the last token taken as the prediction's truth and read one position before it (of a pair, the tokens
of the answer, each read one position before it, and Σ log p):

    1  every method scores the tokens (the gradient methods from one shared forward);
    2  the top ⌊k·n⌋ (at least 1) of the n candidates are ablated at ``hook_embed``, for every k and method;
    3  Δ_k = log p_ablated(scored token) − log p(scored token), all ablated inputs of the passage in one batch;
    4  AOPC_i, see :mod:`tl_scopes.results.aopc`; mean and standard error over passages.

Two conventions were published. ``preset="text"`` is the paper's text: the true last token is explained and scored. This
is the default, with the tokenizer's BOS in front and special tokens neither ablated nor counted. ``preset="paper"`` is
the authors' released scripts:

* no BOS; n counts all tokens of the passage, the last included, whose influence is 0;
* Semantic, Input × Gradient and IG explain the true last token, but Δ scores the model's own top prediction;
* Input × Gradient takes the gradient of the cross-entropy, not of the logit;
* IG is ``x ⊙ (1/5) Σ_α α·∇CE(α x)`` over α = .2, .4, .6, .8, 1: their perturbation enters before the scaling;
* Random draws from all n positions.

Comprehensiveness (``−mean_k Δ_k``) and sufficiency are those of ERASER on log p.

Reference: paper section 5 and A.1; ERASER: DeYoung et al. 2020 (arXiv 1911.03429).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tl_scopes.evaluation.fingerprint import function_fingerprint, model_settings
from tl_scopes.evaluation.methods import chosen_methods
from tl_scopes.evaluation.protocol import (
    AOPC_METHODS,
    Beside,
    Method,
    Protocol,
    known_methods,
    measure_passage,
    shared_direction,
)
from tl_scopes.evaluation.questions import Passage, as_typed
from tl_scopes.evaluation.records import RecordStore, read_records, read_settings
from tl_scopes.evaluation.shares import Failed, Shard, Share, attempted, require_shared_folder, share_of
from tl_scopes.kernel.ablation import Ablation
from tl_scopes.kernel.options import check_batch_size
from tl_scopes.model.frozen import Frozen
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.soundness import refuse_wrong, require_causal
from tl_scopes.model.state import model_state
from tl_scopes.numerics.arguments import Seed, public_call
from tl_scopes.numerics.progress import progress
from tl_scopes.numerics.ranking import PAPER_FRACTIONS, require_fractions
from tl_scopes.results.aopc import AOPCTable, aopc_from_deltas
from tl_scopes.results.verdict import Unit

__all__ = ["AOPC_METHODS", "Method", "aopc", "aopc_from_deltas", "load_aopc"]
Preset = Literal["paper", "text"]


@model_call
def aopc(
    model: LensModel,
    prompts: Sequence[str | Tensor | tuple[str | Tensor, str]],
    methods: Sequence[str] | Mapping[str, Method | str] = AOPC_METHODS,
    *,
    fractions: Sequence[float] = PAPER_FRACTIONS,
    target: Literal["truth", "argmax"] = "truth",
    scored: Literal["truth", "argmax"] | None = None,
    ablation: Ablation = "zero",
    unit: Unit = "token",
    preset: Preset | None = None,
    beside: Sequence[Beside] = (),
    seed: Seed = 0,
    prepend_bos: bool | None = None,
    batch_size: int | None = None,
    out: str | Path | None = None,
    random_positions: Sequence[Sequence[Sequence[int]]] | None = None,
    frozen: Frozen = (),
    shard: Shard | None = None,
) -> AOPCTable:
    """How much the prediction suffers when the tokens a method calls important are removed.

    ``AOPC = Σ_i ½ (k_{i+1} − k_i)(Δ_{k_i} + Δ_{k_{i+1}})`` with ``Δ_k`` the change of the scored token's log p when the
    top ⌊k·n⌋ are removed, read one position before the passage's last token; nats, more negative is more faithful. One
    number per passage, then mean and standard error over passages.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompts: whole passages, as strings or 1-D tensors of token ids; the last token is what is predicted. Or pairs
            ``(prompt, answer)``: the answer, of one token or several, is what is predicted, and only the prompt is removed.
        methods: names (``"semantic"``, ``"fisher"``, ``"fisher@16"`` for rank 16, ``"temperature"``,
            ``"input_x_gradient"``, ``"gradient_norm"``, ``"integrated_gradients"``, ``"smoothgrad"``,
            ``"leave_one_out"``, ``"attention_rollout"``, ``"random"``), or ``{label: name or callable}``; a gradient's name
            may say what it holds constant, ``"semantic/all"``, ``"input_x_gradient/norms+attention"``, and
            ``"input_x_gradient/all:signed"`` ranks by signed sums, highest first; a callable
            is called as ``f(model, tokens, target=id, pos=pos)`` and returns an :class:`Attribution`; for an answer of
            several tokens with lists of ids and positions.
        fractions: shares of the candidates that are removed.
        target: the token that target-aware methods explain: the passage's own last, or the model's top prediction.
        scored: the token whose log-probability is measured; None is the explained one.
        ablation: what a removed embedding becomes: ``"zero"``, the passage's ``"mean"``, or ``"resample"``; that of the
            method ``"leave_one_out"``, too.
        unit: what is removed as a whole, and counted: ``"token"``, or a unit of :meth:`Attribution.by_unit` (``"word"``,
            ``"sentence"``, ...), whose score joins those of its tokens as there; Random draws units, whatever their size.
        preset: ``"text"`` or ``"paper"``, see the top of this module; it fixes target, scored, ablation and BOS.
        beside: also measure ``"sufficiency"`` (log p lost when *only* the top k stay) and ``"leave_one_out"`` (rank
            correlation and top-5 % overlap of the scores with each token's own measured |Δ log p|).
        seed: of Random and the resampling; the global RNG is not used.
        prepend_bos: put BOS before string passages; None is the model's own default. Not ablated, not counted.
        batch_size: ablated inputs per forward; None lets the package choose.
        out: a folder for the run. Every passage is on the disk before the next begins; the same call continues a run
            that was stopped. Under ``accelerate launch --multi_gpu`` each process takes every WORLD_SIZE-th passage; the
            result holds what all have written so far, and is whole in the last process to end or in :func:`load_aopc`.
        random_positions: ``[prompt][fraction]`` positions that Random removes, instead of drawing them.
        frozen: what all gradients hold constant that do not say it themselves, as in :func:`tl_scopes.semantic_scope`;
            names that are given in a list then say so.
        shard: ``(i, n)``: this call is job i of n (from 0) that share the folder ``out``.

    Returns:
        An :class:`AOPCTable`: ``print`` it, ``[method].mean``, ``.sem``, ``.per_prompt``, ``.to_frame()``,
        ``.comparisons()``, ``.curves()``, ``.plot()``. A passage that cannot be run is in ``.failures`` with its
        reason.

    Raises:
        ValueError: unknown method, fraction, ablation or preset; arguments that contradict the preset; a model on which
            a method is not defined, or in which a part cannot be held; ``out`` holding another run.
        TypeError: not a TransformerLens model, or ``prompts`` not a list.

    Cost: per passage one forward and one vector-Jacobian product per row of V for the scopes together, the other
    methods' own cost, and one batch of at most ``methods × fractions + 1`` rows with logits at one position each;
    ``"sufficiency"`` doubles that batch, ``"leave_one_out"`` adds a row per token.

    >>> passages = ["German: der Hund sieht die Katze. English: the dog", "Anna lives in Rome. Tom lives in Paris"]
    >>> table = aopc(model, passages, ["semantic", "random"])
    >>> table["semantic"].per_prompt.shape, table.complete
    ((2,), True)

    Reference: paper eq. 9, Table 1 and section A.1. Differs from the released code only as ``preset`` says.
    """
    model = require_lens_model(model)
    refuse_wrong(model)
    require_causal(model)  # a passage's last token is cut off
    if not prompts:
        raise ValueError("(prompts=[]): the list of passages is empty")
    require_shared_folder(shard, out)
    check_batch_size(batch_size)
    protocol = checked_protocol(fractions, target, scored, ablation, preset, beside, seed, prepend_bos)
    if protocol.paper and unit != "token":
        raise ValueError(f"(preset='paper'): contradicts unit={unit!r}; leave it out, or the preset")
    protocol = replace(protocol, unit=unit)
    chosen = chosen_methods(methods, frozen, known_methods(), model)
    for method in chosen.values():
        if isinstance(method, str) and (shared := shared_direction(model, method, [0], protocol)) is not None:
            shared.check(model_state(model))
    if any(isinstance(passage, tuple) for passage in prompts):
        _require_answers(protocol)
    if random_positions is not None and (
        len(random_positions) != len(prompts) or any(len(r) != len(protocol.fractions) for r in random_positions)
    ):
        raise ValueError(f"(random_positions=...): expected [prompt][fraction] for {len(prompts)} passages")

    share = share_of(shard) if out is not None else Share()
    settings = _settings(model, prompts, chosen, protocol, preset, random_positions, stored=out is not None)
    store = RecordStore(None if out is None else Path(out), settings, share.index)
    finished, mine = store.done(), share.mine(range(len(prompts)))
    todo = [i for i in mine if i not in finished]

    def measured(batch: Sequence[int]) -> list[dict[str, Any]]:
        given = ((i, None if random_positions is None else random_positions[i]) for i in batch)
        return [measure_passage(model, prompts[i], chosen, protocol, random, batch_size) for i, random in given]

    for i in progress(todo, unit="prompt", total=len(mine), initial=len(mine) - len(todo), leave=True):
        (found,) = attempted(measured, [i])
        store.append({"index": i, **({"error": found.reason} if isinstance(found, Failed) else found)})
    return _table(store.done(), settings)


@public_call
def load_aopc(folder: str | Path) -> AOPCTable:
    """The table of a run that :func:`aopc` wrote with ``out=``, all its shards merged, finished or not.

    Args:
        folder: the run's folder.

    Returns:
        An :class:`AOPCTable`; ``.complete`` says whether passages are missing.

    Raises:
        ValueError: the folder holds no run.

    Cost: reads the shards.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = aopc(model, ["German: der Hund sieht die Katze. English: the dog"], ["semantic"], out=folder)
    ...     load_aopc(folder).mean == table.mean
    True
    """
    path = Path(folder)
    settings = read_settings(path)
    return _table(read_records(path, settings), settings)


# -- what is computed ------------------------------------------------------------------------------


def checked_protocol(
    fractions: Sequence[float],
    target: Literal["truth", "argmax"],
    scored: Literal["truth", "argmax"] | None,
    ablation: Ablation,
    preset: Preset | None,
    beside: Sequence[Beside],
    seed: int,
    prepend_bos: bool | None = None,
) -> Protocol:
    """The arguments checked against each other and against the preset."""
    if preset is not None:
        fixed: dict[str, tuple[str, str]] = {"target": (target, "truth"), "ablation": (ablation, "zero")}
        fixed["scored"] = (scored or "", "argmax" if preset == "paper" else "truth")
        wrong = [f"{k}={given!r}" for k, (given, wanted) in fixed.items() if given not in ("", wanted)]
        if preset == "paper" and prepend_bos:
            wrong.append("prepend_bos=True")
        if wrong:
            raise ValueError(f"(preset={preset!r}): contradicts {', '.join(wrong)}; leave it out, or the preset")
    paper = preset == "paper"
    return Protocol(
        fractions=require_fractions(fractions),
        explained=target,
        scored="argmax" if paper else scored or target,
        ablation=ablation,
        seed=seed,
        paper=paper,
        beside=tuple(dict.fromkeys(beside)),
        prepend_bos=False if paper else prepend_bos,
    )


def _require_answers(protocol: Protocol) -> None:
    """Refuse what is not defined of an answer that follows its prompt.

    Raises:
        ValueError: a protocol that explains the last token or the top prediction.
    """
    if protocol.paper or "argmax" in (protocol.explained, protocol.scored):
        what = "preset='paper'" if protocol.paper else "'argmax'"
        raise ValueError(f"({what}): pairs of prompt and answer are measured by the answer itself; leave it out")


# -- settings and results --------------------------------------------------------------------------


def _settings(
    model: LensModel,
    prompts: Sequence[Passage],
    methods: Mapping[str, Method | str],
    protocol: Protocol,
    preset: str | None,
    random_positions: Sequence[Sequence[Sequence[int]]] | None,
    *,
    stored: bool,
) -> dict[str, Any]:
    """What defines the numbers of a run; a stored run with other settings is not continued."""
    digest = hashlib.sha256()
    for passage in prompts:
        digest.update(as_typed(passage).encode() + b"\0")
    return {
        "format": 2,
        "model": model_settings(model, stored=stored),
        "prompts": {"n": len(prompts), "sha256": digest.hexdigest()},
        "methods": {k: m if isinstance(m, str) else function_fingerprint(m, model) for k, m in methods.items()},
        "preset": preset,
        "protocol": {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in asdict(protocol).items()
            if (k, v) != ("unit", "token")  # as in the runs before units
        },
        "random_positions": None
        if random_positions is None
        else hashlib.sha256(repr(_lists(random_positions)).encode()).hexdigest()[:16],
    }


def _lists(positions: Sequence[Sequence[Sequence[int]]]) -> list[list[list[int]]]:
    """The same positions, whatever they were given in."""
    return [[list(removed) for removed in of_prompt] for of_prompt in positions]


def _table(records: Mapping[int, Mapping[str, Any]], settings: Mapping[str, Any]) -> AOPCTable:
    """Records in the order of the prompts."""
    ordered = [records[i] for i in sorted(records)]
    return AOPCTable(
        records=tuple(r for r in ordered if "error" not in r),
        failures={int(r["index"]): str(r["error"]) for r in ordered if "error" in r},
        methods=tuple(settings["methods"]),
        fractions=tuple(settings["protocol"]["fractions"]),
        settings=settings,
        total=int(settings["prompts"]["n"]),
    )
