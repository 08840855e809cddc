"""Directions inside the model: the direction and the hook of an SAE feature, for ``jacobian_scope``.

=====================  ===========================================  =======================================
``kind``               direction                                    explains
=====================  ===========================================  =======================================
``"encoder"``          ``W_enc[:, f]``                              how far the activation points along the encoder
``"pre_activation"``   ``∂ pre_f/∂h``, h the model's activation     the feature before its nonlinearity, in its units
``"decoder"``          ``W_dec[f]``                                 how much of the written direction is there
=====================  ===========================================  =======================================

SAEs are told by what they have (``W_enc`` ``[d_in, d_sae]``, ``W_dec`` ``[d_sae, d_out]``, ``cfg``), as those of
``sae_lens``; nothing is imported.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from torch import Tensor

from tl_scopes.numerics.arguments import public_call

IDENTITY = (None, "none", "expected_average_only_in")
"""Normalisations of ``sae_lens`` that leave the activation as it is at run time."""


class Feature(NamedTuple):
    """What ``jacobian_scope`` needs: ``jacobian_scope(model, prompt, **feature._asdict())``.

    Attributes:
        direction: ``[d_in]``; at ``attn.hook_z`` all heads in one row.
        target_hook: where it lives.
    """

    direction: Tensor
    target_hook: str


@public_call
def sae_feature(
    sae: Any, feature: int, *, kind: Literal["encoder", "pre_activation", "decoder"] = "pre_activation"
) -> Feature:
    """Direction and hook of one feature of a sparse autoencoder.

    ``pre_f(h) = scale·(⟨W_enc[:, f], h − b_dec⟩ + b_f)`` is linear in the model's activation h, so that its gradient is the
    encoder's column, times the decoder row's norm where the SAE rescales by it. Its score is the influence of each
    input token on the feature.

    Args:
        sae: anything with ``W_enc`` ``[d_in, d_sae]``, ``W_dec`` ``[d_sae, d_out]`` and a ``cfg`` that names the hook.
        feature: index of the feature.
        kind: see the table at the top of this file; the pre-activation is what makes the feature fire.

    Returns:
        A :class:`Feature`, to be passed on: ``jacobian_scope(model, prompt, **sae_feature(sae, 7)._asdict())``.

    Raises:
        ValueError: no such feature or kind; no hook in ``cfg``; a pre-activation that is not linear in the activation.
        TypeError: not an SAE.

    Cost: none.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> where = SimpleNamespace(hook_name="blocks.1.hook_resid_post")
    >>> d = model.cfg.d_model
    >>> sae = SimpleNamespace(W_enc=torch.eye(d), W_dec=torch.eye(d), cfg=SimpleNamespace(metadata=where))
    >>> attr = jacobian_scope(model, "German: der Hund", **sae_feature(sae, 3)._asdict())
    >>> attr.details["target_hook"]
    'blocks.1.hook_resid_post'

    Reference: this package; the encoder's column is the gradient that Marks et al. 2024 (arXiv 2403.19647) start from.
    """
    W_enc, W_dec, cfg = (getattr(sae, name, None) for name in ("W_enc", "W_dec", "cfg"))
    if not isinstance(W_enc, Tensor) or not isinstance(W_dec, Tensor) or cfg is None:
        raise TypeError(
            f"(sae=...): expected an SAE with W_enc [d_in, d_sae], W_dec [d_sae, d_out] and cfg, got "
            f"{type(sae).__name__}"
        )
    n = W_enc.shape[1]
    if not 0 <= feature < n:
        raise ValueError(f"(feature={feature!r}): the features are 0..{n - 1}")
    if kind == "decoder":
        return Feature(W_dec[feature].detach(), _hook(cfg, "hook_name_out", "hook_name"))
    if kind == "encoder":
        return Feature(W_enc[:, feature].detach(), _hook(cfg, "hook_name"))
    normalised, gated = _setting(cfg, "normalize_activations"), hasattr(sae, "b_gate")
    if normalised not in IDENTITY or gated:
        why = "it is gated" if gated else f"it normalises its input ({normalised!r})"
        raise ValueError(
            f"(kind='pre_activation'): this SAE's pre-activation is not one linear function of the activation: {why}. "
            "Use kind='encoder' for its direction alone"
        )
    direction = W_enc[:, feature].detach()
    if _setting(cfg, "rescale_acts_by_decoder_norm"):
        direction = direction * W_dec[feature].detach().norm()
    return Feature(direction, _hook(cfg, "hook_name"))


def _setting(cfg: Any, name: str) -> Any:
    """An entry of ``cfg``, or of its ``metadata`` or ``meta``; an object or a mapping."""
    for holder in (cfg, *(getattr(cfg, m, None) for m in ("metadata", "meta"))):
        value = holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)
        if value is not None:
            return value
    return None


def _hook(cfg: Any, *names: str) -> str:
    """The hook that the SAE was trained on (for a transcoder's decoder, the one it writes to)."""
    for name in names:
        found = _setting(cfg, name)
        if found is not None:
            return str(found)
    raise ValueError(f"(sae=...): its cfg names no hook ({names[-1]}); pass W_enc or W_dec to jacobian_scope yourself")
