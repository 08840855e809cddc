"""Which input tokens caused this prediction, and how far to trust that answer.

Jacobian Scopes (arXiv 2601.16407) for TransformerLens, on ``HookedTransformer`` and ``TransformerBridge``::

    prompt → tokens → hooked forward → (x, y) → V → VJP → scores → Attribution → views

A *scope* is a choice of the direction v at the final hidden state y;
the score of token t is ``‖vᵀ ∂y/∂x_t‖₂``.

    import tl_scopes as tls

    model = tls.load_model()                      # the bundled demo model; or a Hub name, or a local folder
    attr = tls.semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    print(attr)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_scopes import timeseries
    from tl_scopes.attribution import Attribution, TokenScore
    from tl_scopes.baselines import gradient_norm, input_x_gradient, integrated_gradients, smoothgrad
    from tl_scopes.benchmark import GoldAlignment, gold_alignment
    from tl_scopes.check import ModelReport, check_model
    from tl_scopes.controls import attention_rollout, leave_one_out, random_attribution
    from tl_scopes.distribution_scopes import moment_scope, total_information
    from tl_scopes.every_target import attribution_matrix
    from tl_scopes.faithfulness import aopc, load_aopc
    from tl_scopes.features import sae_feature
    from tl_scopes.inside import HeadInfluence, LayerInfluence
    from tl_scopes.jacobian_scopes import (
        contrast_scope,
        fisher_scope,
        jacobian_scope,
        scopes,
        semantic_scope,
        temperature_scope,
    )
    from tl_scopes.layers import head_influence, layer_influence
    from tl_scopes.loading import load_model
    from tl_scopes.matrix import AttributionMatrix
    from tl_scopes.passages import load_passages
    from tl_scopes.patch_result import PatchTop
    from tl_scopes.patching import patch_top
    from tl_scopes.paths import IGPath, ig_path
    from tl_scopes.perturbation import AOPC, AOPCTable, aopc_from_deltas
    from tl_scopes.sink_result import AttentionSinks, PositionalBaseline
    from tl_scopes.sinks import attention_sinks, positional_baseline
    from tl_scopes.spectrum import FisherSpectrum, fisher_spectrum
    from tl_scopes.substitution import Substitutions, substitutions
    from tl_scopes.verification import Verification, verify

    __version__: str

_HOME = {
    "sae_feature": "features",
    "PatchTop": "patch_result",
    "patch_top": "patching",
    "Substitutions": "substitution",
    "substitutions": "substitution",
    "Verification": "verification",
    "verify": "verification",
    "AttentionSinks": "sink_result",
    "PositionalBaseline": "sink_result",
    "attention_sinks": "sinks",
    "positional_baseline": "sinks",
    "HeadInfluence": "inside",
    "LayerInfluence": "inside",
    "head_influence": "layers",
    "layer_influence": "layers",
    "load_passages": "passages",
    "AOPCTable": "perturbation",
    "AOPC": "perturbation",
    "aopc_from_deltas": "perturbation",
    "load_aopc": "faithfulness",
    "aopc": "faithfulness",
    "IGPath": "paths",
    "ig_path": "paths",
    "random_attribution": "controls",
    "attention_rollout": "controls",
    "leave_one_out": "controls",
    "gradient_norm": "baselines",
    "smoothgrad": "baselines",
    "integrated_gradients": "baselines",
    "input_x_gradient": "baselines",
    "FisherSpectrum": "spectrum",
    "fisher_spectrum": "spectrum",
    "GoldAlignment": "benchmark",
    "gold_alignment": "benchmark",
    "Attribution": "attribution",
    "TokenScore": "attribution",
    "ModelReport": "check",
    "AttributionMatrix": "matrix",
    "attribution_matrix": "every_target",
    "check_model": "check",
    "load_model": "loading",
    "moment_scope": "distribution_scopes",
    "total_information": "distribution_scopes",
    "contrast_scope": "jacobian_scopes",
    "fisher_scope": "jacobian_scopes",
    "jacobian_scope": "jacobian_scopes",
    "scopes": "jacobian_scopes",
    "semantic_scope": "jacobian_scopes",
    "temperature_scope": "jacobian_scopes",
    "timeseries": "timeseries",
}
"""Module of each public name; imported on first use, so that ``tl-scopes --help`` need not load torch."""

__all__ = [
    "AOPC",
    "AOPCTable",
    "AttentionSinks",
    "Attribution",
    "AttributionMatrix",
    "FisherSpectrum",
    "GoldAlignment",
    "HeadInfluence",
    "IGPath",
    "LayerInfluence",
    "ModelReport",
    "PatchTop",
    "PositionalBaseline",
    "Substitutions",
    "TokenScore",
    "Verification",
    "__version__",
    "aopc",
    "aopc_from_deltas",
    "attention_rollout",
    "attention_sinks",
    "attribution_matrix",
    "check_model",
    "contrast_scope",
    "fisher_scope",
    "fisher_spectrum",
    "gold_alignment",
    "gradient_norm",
    "head_influence",
    "ig_path",
    "input_x_gradient",
    "integrated_gradients",
    "jacobian_scope",
    "layer_influence",
    "leave_one_out",
    "load_aopc",
    "load_model",
    "load_passages",
    "moment_scope",
    "patch_top",
    "positional_baseline",
    "random_attribution",
    "sae_feature",
    "scopes",
    "semantic_scope",
    "smoothgrad",
    "substitutions",
    "temperature_scope",
    "timeseries",
    "total_information",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tl_scopes")
    if name not in _HOME:
        raise AttributeError(f"module 'tl_scopes' has no attribute {name!r}")
    module = import_module(f"tl_scopes.{_HOME[name]}")
    value = module if name == _HOME[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
