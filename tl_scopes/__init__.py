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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
"""Names and their modules are in ``__init__.pyi``; each is imported on first use, so that ``--help`` need not load torch."""

__version__ = "0.2.0"
