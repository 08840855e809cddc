"""Directions inside the model: the direction and the hook of an SAE feature, for ``jacobian_scope``.

=====================  ===========================================  =======================================
``kind``               direction                                    explains
=====================  ===========================================  =======================================
``"encoder"``          ``W_enc[:, f]``                              how far the activation points along the encoder
``"pre_activation"``   ``∂ pre_f/∂h``, h the model's activation     the feature before its nonlinearity, in its units
``"decoder"``          ``W_dec[f]``                                 how much of the written direction is there
=====================  ===========================================  =======================================

The pre-activation of each architecture, with ``e_f = W_enc[:, f]`` and ``u = h − b_dec``, or ``u = h`` where the SAE does
not apply ``b_dec`` to its input (the gradient is the same); and when the feature itself, ``act_f``, is ``pre_f`` and not 0:

===========================================  ======================================  ====================================
``architecture``                             ``pre_f``                               ``act_f = pre_f`` where
===========================================  ======================================  ====================================
``standard``                                 ``⟨e_f, u⟩ + b_enc_f``                  ``pre_f > 0``
``jumprelu``                                 the same                                ``pre_f > max(threshold_f, 0)``
``topk``                                     the same, ``·‖W_dec[f]‖`` if rescaled   ``pre_f > 0`` is of the k largest
``batchtopk``, ``matryoshka_batchtopk``      the same                                as saved: ``topk`` or ``jumprelu``
``gated``                                    ``exp(r_mag_f)·⟨e_f, u⟩ + b_mag_f``     both it and ``⟨e_f, u⟩ + b_gate_f`` > 0
===========================================  ======================================  ====================================

So ``pre_f`` is explained, also where the feature is 0: there the score says what brings it nearer to firing, and the gradient
of ``act_f`` would be 0 everywhere. What other features do to it, by being among the k largest, is no part of it.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from torch import Tensor

from tl_scopes.directions.sae_files import StoredSAE, stored_sae
from tl_scopes.model.hooks import hook_of_module
from tl_scopes.numerics.arguments import public_call

IDENTITY = (None, False, True, "none", "expected_average_only_in")
"""Normalisations of ``sae_lens`` that leave the activation as it is at run time; once ``True`` was the name of the last."""
PLAIN = ("standard", "jumprelu", "jump_relu", "topk", "batchtopk", "matryoshka_batchtopk")
LINEAR = (None, "gated", *PLAIN, "transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
"""Architectures whose pre-activation is linear in the activation; None is told by the tensors."""


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
    sae: Any,
    feature: int,
    *,
    kind: Literal["encoder", "pre_activation", "decoder"] = "pre_activation",
    target_hook: str | None = None,
) -> Feature:
    """Direction and hook of one feature of a sparse autoencoder.

    ``pre_f(h) = scale·⟨W_enc[:, f], h⟩ + constant`` is linear in the model's activation h, so that its gradient is the
    encoder's column, times ``exp(r_mag_f)`` where the SAE is gated, and the decoder row's norm where it rescales by it. Its
    score is the influence of each input token on the feature, also where the feature is 0: the tables at the top of this
    file say of each architecture what ``pre_f`` is, and where the feature fires.

    Args:
        sae: a folder or file of ``sae_lens`` or Gemma Scope (safetensors, npz), read without either package; ``"demo"``, the
            bundled one; a mapping of tensors, settings under ``"cfg"``; or anything with ``W_enc`` ``[d_in, d_sae]``,
            ``W_dec`` ``[d_sae, d_out]`` and ``cfg``, as an SAE of ``sae_lens``.
        feature: index of the feature.
        kind: see the table at the top of this file; the pre-activation is what makes the feature fire.
        target_hook: where the SAE was trained; None is what its settings say: ``hook_name``, or the module of Gemma Scope 2.

    Returns:
        A :class:`Feature`, to be passed on: ``jacobian_scope(model, prompt, **sae_feature(sae, 7)._asdict())``.

    Raises:
        ValueError: no such feature or kind; no hook; a pre-activation that is not linear in the activation; no such file, a
            broken one, a pickle; tensors that are missing or do not fit each other.
        TypeError: not an SAE.

    Cost: of a safetensors file one column and one row are read, of an npz all of it.

    >>> attr = jacobian_scope(model, "German: der Hund", **sae_feature("demo", 3)._asdict())
    >>> attr.details["target_hook"]
    'blocks.2.hook_resid_post'

    Reference: this package; the encoder's column is the gradient that Marks et al. 2024 (arXiv 2403.19647) start from.
    """
    stored = stored_sae(sae)
    n = stored.shapes["W_enc"][1]
    if not 0 <= feature < n:
        raise ValueError(f"(feature={feature!r}): the features are 0..{n - 1}")
    names = ("hook_name_out", "hook_name", "hook_point") if kind == "decoder" else ("hook_name", "hook_point")
    hook = _hook(stored, *names) if target_hook is None else target_hook
    if kind == "decoder":
        return Feature(stored.row(feature), hook)
    direction = stored.column(feature)
    return Feature(direction if kind == "encoder" else direction * _scale(stored, feature), hook)


def _scale(sae: StoredSAE, feature: int) -> Tensor | float:
    """From ``⟨W_enc[:, f], h⟩`` to the pre-activation's units."""
    architecture, normalised = sae.setting("architecture"), sae.setting("normalize_activations")
    why = None
    if normalised not in IDENTITY:
        why = f"it normalises its input ({normalised!r})"
    elif architecture not in LINEAR:
        why = f"its architecture is {architecture!r}, not one of {', '.join(filter(None, LINEAR))}"
    if why is not None:
        raise ValueError(
            f"(kind='pre_activation'): this SAE's pre-activation is not one linear function of the activation: {why}. "
            "Use kind='encoder' for its direction alone"
        )
    if architecture == "gated" or "b_gate" in sae.shapes:
        if "r_mag" not in sae.shapes:
            raise ValueError("(sae=...): a gated SAE needs r_mag, the scale of its magnitudes; it has none")
        return sae.number("r_mag", feature).exp()
    return sae.row(feature).norm() if sae.setting("rescale_acts_by_decoder_norm") else 1.0


def _hook(sae: StoredSAE, *names: str) -> str:
    """The hook that the SAE was trained on (for a transcoder's decoder, the one it writes to)."""
    for name in names:
        found = sae.setting(name)
        if found is not None:
            return str(found)
    module = sae.setting("hf_hook_point_in")
    if module is not None and names[0] == "hook_name" and (hook := hook_of_module(str(module))) is not None:
        return hook
    raise ValueError(
        "(sae=...): its cfg names no hook (hook_name). Pass the one that it was trained on, "
        "target_hook='blocks.5.hook_resid_post'"
    )
