"""Is a model what the scopes take it for: the Hugging Face model inside it, and causal? Asked once per model.

A ``TransformerBridge`` puts its own components in the place of the Hugging Face model's, some of which compute anew what
those did, and some wrongly (TransformerLens 4.3 on Falcon's new decoder). But it keeps each module that it replaced.
:func:`plain_twin` puts these back in a second tree of modules which shares every weight: Hugging Face's own computation,
without a copy of a tensor and without a change of the model.
"""

from __future__ import annotations

import functools
import inspect
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tl_scopes.model.forward import probe_tokens, read_out_probe, run_with_hooks
from tl_scopes.model.hooks import without_hooks
from tl_scopes.model.lens import (
    LensModel,
    all_modules,
    architecture,
    blocks,
    class_kind,
    eagerly,
    source_device,
    transformer_lens_version,
    whole,
)
from tl_scopes.model.state import ModelState, model_state, refuse_unusable
from tl_scopes.numerics.precision import to_float64

TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.05}
"""Largest accepted difference of logits, as a share of their spread. What rounding does stays far below; a wrong mask, a
wrong split of weights or a wrong rotation changes them by more than a tenth."""
READ_OUT_TOLERANCE, READ_OUT_SAMPLE = 2e-3, 256
"""Largest accepted relative error of raw logits, where the dtype rounds to less; and columns of ``W_U`` looked at."""
T = TypeVar("T")


def once_per_model(measure: Callable[[LensModel], T]) -> Callable[[LensModel], T]:
    """Measured once for the weights that :func:`tl_scopes.model.state.model_state` knows the model by."""
    found: weakref.WeakKeyDictionary[ModelState, T] = weakref.WeakKeyDictionary()

    @functools.wraps(measure)
    def call(model: LensModel) -> T:
        state = model_state(model)
        if state not in found:
            found[state] = measure(model)
        return found[state]

    return call


def refuse_wrong(model: LensModel) -> None:
    """Refuse what cannot be explained, and a bridge whose logits are not its model's.

    Where the two cannot be compared nothing is refused; ``check_model`` says why they could not.

    Raises:
        ValueError: the logits differ; or as :func:`refuse_unreadable`.

    Cost: the first time two forwards on 5 tokens, and no memory beside theirs.
    """
    refuse_unreadable(model)
    difference = disagreement(model)
    if isinstance(difference, float) and not within_rounding(model, difference):
        raise ValueError(refusal(model, difference))


def refuse_unreadable(model: LensModel) -> None:
    """Refuse what :func:`tl_scopes.model.state.refuse_unusable` refuses, and an unembedding that is not ``y W_U + b_U``.

    Every direction is made of the rows of ``W_U`` that TransformerLens shows: of a quantised head, or one that an adapter
    was put on, these are not what it multiplies with.

    Raises:
        ValueError: a model that is unusable, or whose raw logits are others than its ``W_U`` gives.
    """
    refuse_unusable(model)
    try:
        if model.W_U.device == torch.device("meta"):
            raise ValueError(
                "the weights of this model's unembedding are not in memory (offloaded by device_map). Directions are made of "
                "them: give lm_head, embed_tokens and the final norm a device in device_map; blocks may be offloaded"
            )
        dtype = model.W_U.dtype
    except NotImplementedError as why:  # packages that quantise have tensors of their own kind
        raise ValueError(f"TransformerLens shows no weights W_U of this model's unembedding. {_WHOLE_HEAD}") from why
    readable = dtype.is_floating_point and dtype.itemsize > 1
    away = read_out_error(model) if readable else math.inf
    if away > max(READ_OUT_TOLERANCE, 4 * torch.finfo(dtype).eps if readable else 0.0):
        shown = f"give logits that differ by {away:.0%}" if readable else f"are {dtype}".replace("torch.", "")
        raise ValueError(
            f"the unembedding does not multiply with the weights W_U that TransformerLens shows, which {shown}. {_WHOLE_HEAD}"
        )


_WHOLE_HEAD = (
    "Directions are made of them: leave the head out of a quantisation (lm_head among the modules that are not converted, "
    "the default of bitsandbytes and torchao); with an adapter on it call merge_and_unload() first"
)


def refusal(model: LensModel, difference: float) -> str:
    """What is wrong with a bridge whose logits are not its model's."""
    again = _difference(read_out_probe(model)[2], _probed(model)[2])
    if not within_rounding(model, again):
        return (
            f"two runs of {architecture(model)} on the same tokens give logits that differ by {again:.0%} of their spread: "
            "it draws random numbers in its forward (as Raven its first state), so there is no one model to explain. Put "
            "something fixed in their place"
        )
    adapted = any(type(module).__module__.startswith("peft.") for module in all_modules(whole(model)))
    remedy = "Try another version of TransformerLens"
    if adapted:
        remedy = (
            "A bridge splits fused weights and leaves what peft adds to them out: call merge_and_unload() before it"
        )
    return (
        f"TransformerLens {transformer_lens_version()}'s bridge computes {architecture(model)} otherwise than the Hugging "
        f"Face model inside it: its logits differ by {difference:.0%} of their spread, so attributions would be of another "
        f"model. {remedy}; tl_scopes.check_model(model) measures the difference"
    )


@runtime_checkable
class ExplainedPrompt(Protocol):
    """Tokens, and the positions whose predictions are explained."""

    @property
    def tokens(self) -> Tensor:
        """``[pos]``."""
        ...

    @property
    def pos(self) -> int:
        """The last of them, non-negative."""
        ...

    @property
    def span(self) -> tuple[int, ...]:
        """All of them, where they are several."""
        ...


def refuse_unseen_future(model: LensModel, prompts: Sequence[ExplainedPrompt]) -> None:
    """Refuse to cut prompts after their explained positions and to pad them to one length, where a model would notice.

    Raises:
        ValueError: the model is not causal, and there is something to cut or to pad, or earlier positions are explained.
    """
    cut = len({prompt.pos for prompt in prompts}) > 1 or any(p.pos + 1 < len(p.tokens) for p in prompts)
    if cut or any(len(p.span) > 1 for p in prompts):
        require_causal(model)


def require_causal(model: LensModel) -> None:
    """Refuse a model whose predictions depend on what stands behind them.

    Raises:
        ValueError: they do.
    """
    if not within_rounding(model, foresight(model)):
        raise ValueError(NOT_CAUSAL)


NOT_CAUSAL = (
    "what stands behind the explained token, in a batch also the padding of shorter prompts, influences its prediction: this "
    "model is not causal, and Jacobian Scopes explain causal language models. Only the last position of one prompt at a "
    "time can be explained"
)


def within_rounding(model: LensModel, difference: float) -> bool:
    """Is this difference of logits no more than rounding?"""
    return difference <= TOLERANCE.get(model.W_U.dtype, 0.3)


@once_per_model
def _probed(model: LensModel) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`tl_scopes.model.forward.read_out_probe` gives: small."""
    return read_out_probe(model)


@once_per_model
def read_out_error(model: LensModel) -> float:
    """Largest ``‖y W_U + b_U − z‖ / ‖z‖`` over a few tokens, z the raw logits; on a sample of the vocabulary."""
    y, raw, _ = _probed(model)
    W, columns = model.W_U.detach(), slice(None, None, max(1, model.W_U.shape[1] // READ_OUT_SAMPLE))
    z = to_float64(raw[0, :, columns])
    ours = to_float64(y[0]).to(W.device) @ to_float64(W[:, columns]) + to_float64(model.b_U.detach()[columns])
    return float(((ours.to(z.device) - z).norm(dim=1) / z.norm(dim=1).clamp_min(1e-30)).max())


@once_per_model
def disagreement(model: LensModel) -> float | str:
    """``‖z − z'‖ / ‖z'‖`` of the bridge's logits and its Hugging Face model's, each less its mean over the vocabulary.

    The largest over the positions of a random prompt; or why it cannot be had.
    """
    if class_kind(model) != "TransformerBridge" or class_kind(whole(model)) is not None:
        return "this class holds no Hugging Face model"
    if getattr(model, "_weights_processed", False) or getattr(model, "compatibility_mode", False):
        return "the weights are processed, and the Hugging Face model inside no longer whole"
    tokens = probe_tokens(model).to(source_device(model))
    try:
        with torch.no_grad(), eagerly(), without_hooks(model):
            plain = plain_twin(whole(model))
            cache = {"use_cache": False} if "use_cache" in inspect.signature(plain.forward).parameters else {}
            difference = _difference(_probed(model)[2], plain(tokens, **cache).logits)
        if not math.isfinite(difference):
            return "the logits are not finite"
        edited = not within_rounding(model, difference) and _edited(model)
        return "its projections were edited after the bridge had split them" if edited else difference
    except Exception as error:  # a model whose parts do not run like this is not thereby a wrong one
        return f"{type(error).__name__}: {error}"


@once_per_model
def foresight(model: LensModel) -> float:
    """How far other tokens behind it change a position's logits, as a share of their spread; the largest of a few."""
    tokens = probe_tokens(model)
    half = tokens.shape[1] // 2
    other = torch.cat([tokens[:, :half], (tokens[:, half:] + 1) % model.cfg.d_vocab], dim=1)
    with torch.no_grad(), without_hooks(model):
        before, after = (run_with_hooks(model, t)[:, :half] for t in (tokens, other))
    return _difference(after, before)


def _difference(ours: Float[Tensor, "1 pos d_vocab"], theirs: Float[Tensor, "1 pos d_vocab"]) -> float:
    """Of the logits less their mean, which no probability depends on; largest over the positions."""
    a, b = (to_float64(z[0]) for z in (ours, theirs))
    a, b = (z - z.mean(dim=1, keepdim=True) for z in (a, b))
    return float(((a - b).norm(dim=1) / b.norm(dim=1).clamp_min(1e-30)).max())


def plain_twin(module: nn.Module) -> nn.Module:
    """The module as it was before a bridge took it: each part that the bridge put in is again the one it replaced.

    The twin has the same parameters and buffers, and modules of its own, without hooks. Nothing is copied.
    """
    return _twin(module, {})


def _twin(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module's twin; the same one at each place where the module stands."""
    while (replaced := module._modules.get("_original_component")) is not None:
        module = replaced
    if module not in made:
        twin = made[module] = object.__new__(type(module))
        own: dict[str, Any] = dict(module.__dict__)
        own.pop("forward", None)  # put on the instance by a bridge, bound to the module of before
        own["_compiled_call_impl"] = None
        own |= {name: OrderedDict() for name in own if name.endswith("_hooks")}
        own["_buffers"] = dict(module._buffers)
        parts = module._modules.items()
        own["_modules"] = {name: None if part is None else _twin(part, made) for name, part in parts}
        twin.__dict__.update(own)
    return made[module]


def _edited(model: LensModel) -> bool:
    """Were the projections edited that a bridge split from fused weights? The module that it keeps does not know of it."""
    for block in blocks(model):
        attn: Any = getattr(block, "attn", None)
        split = getattr(attn, "split_qkv_matrix", None)
        if split is None:
            continue
        with torch.random.fork_rng(range(torch.cuda.device_count())):  # it draws the weights that it then overwrites
            parts = split(attn.original_component)
        for name, fresh in zip("qkv", parts, strict=True):
            now = getattr(attn, name).original_component.state_dict()
            if any(not torch.equal(now[key], value) for key, value in fresh.state_dict().items()):
                return True
    return False
