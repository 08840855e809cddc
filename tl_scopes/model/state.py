"""What the scopes must know of a model's weights, and which models are refused."""

from __future__ import annotations

import math
import weakref
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tl_scopes import __version__
from tl_scopes.model.forward import read_out_probe
from tl_scopes.model.lens import LensModel, all_modules, class_kind, transformer_lens_version, weights, whole
from tl_scopes.numerics.precision import compute_dtype, to_float64
from tl_scopes.numerics.unembedding import RowSquares

# -- state of the model --------------------------------------------------------------------------


class ModelState:
    """What the scopes must know of a model's weights; computed once for the weights that it was made with."""

    def __init__(self, model: LensModel) -> None:
        self.kind = class_kind(model)
        self.cfg = model.cfg
        self._model = weakref.ref(model)
        self._row_squares: dict[str, Tensor] = {}

    @property
    def model(self) -> LensModel:
        """The model itself, held weakly."""
        model = self._model()
        assert model is not None
        return model

    @cached_property
    def final_norm(self) -> tuple[Tensor, Tensor | None] | None:
        """Effective gain and bias of the final norm; None where there is no norm or it cannot be read."""
        norm = getattr(self.model, "ln_final", None)
        if self.cfg.normalization_type is None or norm is None:
            return None
        if self.kind == "HookedTransformer":
            gain, bias = getattr(norm, "w", None), getattr(norm, "b", None)
        else:
            # ln_final.w is a stale copy after a bare process_weights(); the component itself is not.
            component = getattr(norm, "original_component", None) or norm
            gain, bias = getattr(component, "weight", None), getattr(component, "bias", None)
            if gain is not None and getattr(self.cfg, "rmsnorm_uses_offset", False):
                gain = 1 + gain
        if gain is None:
            gain = torch.ones(1)
        return gain.detach(), None if bias is None else bias.detach()

    @cached_property
    def constant_norm(self) -> bool:
        """Is ``‖y‖₂`` the constant ``√d_model``·gain, because the final norm has one gain for all units?

        Where that norm goes by another name ``‖y‖₂`` is measured on a few tokens.
        """
        if self.final_norm is None:
            norms = torch.linalg.vector_norm(to_float64(read_out_probe(self.model)[0]), dim=-1)
            return float(norms.std(correction=0) / norms.mean()) < max(1e-4, torch.finfo(self.model.W_U.dtype).eps)
        gain, bias = (None if t is None else to_float64(t) for t in self.final_norm)
        assert gain is not None
        spread = float(gain.abs().std(correction=0) / gain.abs().mean().clamp_min(1e-30))
        flat_bias = bias is None or float(bias.norm()) < 1e-4 * float(gain.norm())
        return spread < 1e-4 and flat_bias

    @cached_property
    def folded_norm(self) -> bool:
        """Was the final norm's gain folded into ``W_U`` (as opposed to a model that never had one)?"""
        if not self.constant_norm:
            return False
        if self.kind == "HookedTransformer":
            pre = self.cfg.normalization_type in ("LNPre", "RMSPre")
            return bool(pre and getattr(self.cfg, "original_architecture", None) is not None)
        return bool(
            getattr(self.model, "_weights_processed", False) or getattr(self.model, "compatibility_mode", False)
        )

    @cached_property
    def centred_unembedding(self) -> bool:
        """Has ``W_U`` zero mean over the vocabulary (``center_unembed``)?"""
        W = self.model.W_U.detach()
        mean = W.mean(dim=1, dtype=compute_dtype(W.dtype))
        column = torch.linalg.vector_norm(W, dim=0, dtype=compute_dtype(W.dtype)).mean()
        return float(mean.norm() / column.clamp_min(1e-30)) < 0.05 / math.sqrt(W.shape[1])

    @property
    def row_squares(self) -> RowSquares:
        """``‖w_i‖²`` of every unembedding row; to be asked for once a call, for all its positions."""
        return RowSquares(self.model.W_U.detach().T, self._row_squares)

    @property
    def unembedding_bias(self) -> bool:
        """Is there a non-zero ``b_U``?"""
        return bool((self.model.b_U != 0).any())

    def provenance(self) -> dict[str, Any]:
        """What is saved with every result."""
        return {
            "model_class": self.kind,
            "model_name": str(getattr(self.cfg, "model_name", "")).rsplit("/", 1)[-1],
            "dtype": str(self.model.W_U.dtype).removeprefix("torch."),
            "folded_norm": self.folded_norm,
            "constant_norm": self.constant_norm,
            "centred_unembedding": self.centred_unembedding,
            "tl_scopes": __version__,
            "transformer_lens": transformer_lens_version(),
            "torch": torch.__version__,
        }


_STATES: weakref.WeakKeyDictionary[Any, tuple[list[Any], ModelState]] = weakref.WeakKeyDictionary()
SAMPLE = (16, 256)
"""Rows and columns of ``W_U`` that are compared."""


def model_state(model: LensModel) -> ModelState:
    """The model's :class:`ModelState`, renewed when its unembedding or final norm changed.

    Their contents are compared, because a write through ``.data`` or in inference mode leaves no other trace: the final norm
    whole, the unembedding by a sample, which is enough for what holds of it as a whole.
    """
    norm = ModelState(model).final_norm
    W = model.W_U.detach()
    rows, columns = (max(1, n // most) for n, most in zip(W.shape, SAMPLE, strict=True))
    now = [bool(getattr(model, "compatibility_mode", False)), *(norm or ()), W[::rows, ::columns]]
    held = _STATES.get(model)
    if held is None or not all(map(_same, held[0], now)):
        held = ([t.clone() if isinstance(t, Tensor) else t for t in now], ModelState(model))
        _STATES[model] = held
    return held[1]


def _same(a: Any, b: Any) -> bool:
    """Are these the same numbers of the same dtype?"""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    return a is b


def refuse_unusable(model: LensModel) -> None:
    """Refuse, before any work, a model whose gradients would be random or wrong.

    Raises:
        ValueError: dropout is active (training mode with a rate above 0), or the class is known to compute
            this architecture wrongly.
    """
    inside = all_modules(whole(model))
    if model.training or any(part.training for part in inside):
        active = _active_dropout(model)
        if active:
            what, off = ("the model", "model.eval()")
            if not model.training:
                what, off = "a part of the model", "eval() of that part, or model.original_model.eval(),"
            raise ValueError(
                f"{what} is in training mode and {active} is active, so attributions would be random. Call {off} first"
            )
    if any(p.is_inference() for p in weights(model)):
        raise ValueError(
            "the model was built inside torch.inference_mode(), so nothing can be differentiated through its "
            "weights. Build it outside; calling the scopes inside inference_mode() is fine"
        )
    architecture = str(getattr(model.cfg, "architecture", "") or "")
    if (
        class_kind(model) == "TransformerBridge"
        and transformer_lens_version().startswith("3.")
        and architecture.startswith("Cohere")
    ):
        raise ValueError(
            f"TransformerLens {transformer_lens_version()}'s bridge computes {architecture} with wrong "
            "rotary pairs (logits off by about 14 %). Upgrade to transformer_lens>=4.3"
        )


def _active_dropout(model: LensModel) -> str | None:
    """A dropout that is on: a module with a rate above 0, or a rate that its parent passes on."""
    for module in all_modules(model):
        if not module.training:
            continue
        if isinstance(module, nn.modules.dropout._DropoutNd):
            if module.p > 0:
                return f"{type(module).__name__}(p={module.p})"
            continue
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float) and value > 0:
                return f"{type(module).__name__}.{name}={value}"
    return None


def require_temperature(state: ModelState) -> None:
    """Refuse a model whose ``‖y‖`` is constant: its gradient is rounding noise."""
    if not state.constant_norm:
        return
    if state.folded_norm:
        raise ValueError(
            f"this model's final norm is folded into the unembedding, so ‖y‖ is the constant √d_model "
            f"and the Temperature Scope would be rounding noise. {_unprocessed(state)}"
        )
    raise ValueError(
        "the final norm of this model has the same gain for every unit, so ‖y‖ is constant and its "
        "gradient is rounding noise: this model has no Temperature Scope. Use fisher_scope or total information"
    )


def require_fisher(state: ModelState) -> None:
    """Refuse a processed model: folding changes the metric on y and with it the eigenvectors of F."""
    if state.folded_norm:
        raise ValueError(
            f"this model's final norm is folded into the unembedding, which changes the leading Fisher "
            f"direction. {_unprocessed(state)}"
        )


def _unprocessed(state: ModelState) -> str:
    """How to load the model instead."""
    if state.kind == "HookedTransformer":
        return "Load it with HookedTransformer.from_pretrained_no_processing(name), or tl_scopes.load_model(name)"
    return (
        "Load it with TransformerBridge.boot_transformers(name), without enable_compatibility_mode() or "
        "process_weights(), or with tl_scopes.load_model(name)"
    )
