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

from importlib.metadata import version

from tl_scopes.attribution import Attribution, TokenScore
from tl_scopes.check import ModelReport, check_model
from tl_scopes.loading import load_model
from tl_scopes.scopes import (
    contrast_scope,
    fisher_scope,
    jacobian_scope,
    scopes,
    semantic_scope,
    temperature_scope,
)

__version__ = version("tl_scopes")

__all__ = [
    "Attribution",
    "ModelReport",
    "TokenScore",
    "__version__",
    "check_model",
    "contrast_scope",
    "fisher_scope",
    "jacobian_scope",
    "load_model",
    "scopes",
    "semantic_scope",
    "temperature_scope",
]
