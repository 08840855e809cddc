"""Jacobian Scopes: one call, one direction, one score per input token.

Legend: ``x_t`` the activation of token t at the source hook (its embedding by default); ``y`` the final hidden
state at the explained position, after the final norm; ``J_t = ∂y/∂x_t``. Every scope is

    score_t = ‖vᵀ J_t‖₂

for its own direction ``v``, from one forward and one vector-Jacobian product for all tokens at once. The score is
the largest first-order change of ``vᵀy`` that a perturbation of ``x_t`` of unit norm can cause (appendix A.7).

Reference: *Jacobian Scopes: token-level causal attributions in LLMs*, arXiv 2601.16407.

Example::

    import tl_scopes as tls

    model = tls.load_model()
    attr = tls.semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    attr.top(3)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.directions.by_name import DEFAULT_METHODS
from tl_scopes.directions.logits import Of
from tl_scopes.kernel.calls import asked, explain_scope, prompt_call
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import NamedRunKeywords, RunKeywords, run_options, split_keywords
from tl_scopes.model.hooks import Y_HOOK
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Prompt, Target
from tl_scopes.results.attribution import Attribution


@prompt_call
def semantic_scope(
    model: LensModel,
    prompt: Prompt,
    *,
    target: Target = None,
    of: Of | None = None,
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Influence of each input token on one token's logit, or on a whole answer.

    ``score_t = ‖∂z_target/∂x_t‖₂ = ‖a_targetᵀ J_t‖₂`` with ``a = ∂z/∂y`` the model's real read-out (soft cap and
    scale included), read at ``pos``; logit per unit of embedding. An answer of several tokens is put behind the prompt,
    and what is explained is ``Σ_m log p(a_m | prompt, a_<m)``: ``score_t = ‖Σ_m ∂ log p(a_m)/∂x_t‖₂``, nats per unit.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: a string, a 1-D or ``[1, pos]`` tensor of token ids, what a tokenizer returned (without the padding that
            its mask names), a chat as a list of messages, or what :func:`tl_scopes.generate` gave; a list of these, a
            ``[batch, pos]`` tensor, or what a tokenizer returned for several texts, gives a list of results.
        target: the token whose logit is explained, as text (``" dog"``: the leading space matters) or id; a list
            gives one per prompt. None: the model's own top prediction, and the result says so. A text of several
            tokens is an answer, explained as a whole: its tokens are in ``.answer``.
        of: ``"logit"``, or ``"log_prob"``; None is the logit of one token and the log-probability of an answer.
        options: of the run.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list; scores are 0 after ``pos``.

    Raises:
        ValueError: what the caller can mend (target that is not one token, position, length, training mode, ...).
        TypeError: not a TransformerLens model, or an argument of the wrong type.

    Cost: one forward without full-vocabulary logits and one backward to the source per batch.

    >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> attr.target_str, len(attr) == len(attr.scores)
    (' dog', True)

    Reference: paper eq. 3, 4 (section 4.1).
    """
    return explain_scope(model, prompt, "semantic", {"target": target, "of": of}, run_options(**options))


@prompt_call
def contrast_scope(
    model: LensModel,
    prompt: Prompt,
    *,
    foil: Target,
    target: Target = None,
    of: Of | None = None,
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Influence of each input token on the preference for ``target`` over ``foil``.

    ``score_t = ‖∂(z_target − z_foil)/∂x_t‖₂``, read at ``pos``; nats of log-odds per unit of embedding. Unlike a
    single logit, the difference does not change under weight processing.

    Args:
        foil: the token that was *not* predicted, as text or id; a list gives one per prompt. A text of several tokens is an
            answer: each answer is put behind the prompt and run, and ``log p(target) − log p(foil)`` is explained, by the
            tokens of the prompt alone.
        target: the token it is compared with; None is the model's own top prediction.
        of: ``"logit"`` or ``"log_prob"``, which is the same for two tokens; two answers have log-probabilities only.
        model, prompt, options: as in :func:`semantic_scope`.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; target and foil are the same token.

    Cost: one forward and one backward per batch.

    >>> attr = contrast_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog", foil=" cat")
    >>> attr.details["logit_difference"] > 0
    True

    Reference: this package; the direction is the difference of two rows of paper eq. 3.
    """
    return explain_scope(model, prompt, "contrast", {"target": target, "foil": foil, "of": of}, run_options(**options))


@prompt_call
def temperature_scope(
    model: LensModel,
    prompt: Prompt,
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Influence of each input token on the model's confidence.

    ``score_t = ‖ŷᵀ J_t‖₂ = ‖∂‖y‖₂/∂x_t‖₂`` with ``ŷ = y/‖y‖₂``, read at ``pos``. ``β = ‖y‖₂`` is the effective
    inverse temperature: ``z = β·(W ŷ)``, larger is more peaked. With a soft cap, a scale or a bias in the read-out it
    is so only approximately, and the result says it.

    Args:
        model, prompt, options: as in :func:`semantic_scope`.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list; ``details["beta"]`` is ``‖y‖₂``.

    Raises:
        ValueError: as :func:`semantic_scope`; the final norm is folded or has one gain for all units, so that
            ``‖y‖`` is constant and its gradient rounding noise.

    Cost: one forward and one backward per batch.

    >>> attr = temperature_scope(model, "German: der Hund sieht die Katze. English: the")
    >>> attr.target is None and attr.details["beta"] > 0
    True

    Reference: paper eq. 8 (section 4.3).
    """
    return explain_scope(model, prompt, "temperature", {}, run_options(**options))


@prompt_call
def fisher_scope(
    model: LensModel,
    prompt: Prompt,
    *,
    rank: int = 1,
    tol: float = 1e-4,
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Influence of each input token on the whole next-token distribution.

    ``score_t = sqrt(Σ_{i≤rank} (λ_i/λ_1) ‖u_iᵀ J_t‖₂²)`` over the leading eigenpairs of the Fisher information
    ``F = Aᵀ(diag p − p pᵀ)A``, read at ``pos``: the paper's Fisher Scope at rank 1, ``sqrt(tr(J_tᵀFJ_t)/λ_1)`` at full
    rank. ``λ_1`` is the same for all tokens of one prediction, but not between predictions; it is in ``details``.
    Eigenvectors have no sign and the score does not need one; kept gradients are of ``u`` turned so that a step along it
    raises the top prediction's probability.

    Args:
        rank: number of eigenpairs; each costs one vector-Jacobian product.
        tol: largest accepted relative residual ``‖F u − λ u‖/λ``.
        model, prompt, options: as in :func:`semantic_scope`.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list. ``details``: ``eigenvalues``, ``trace``,
        ``explained_share``, ``relative_residual``, ``eigengap``, ``sin_estimate`` (estimated error of ``u_1``).

    Raises:
        ValueError: as :func:`semantic_scope`; the final norm is folded; the distribution is one-hot to the
            precision at hand; rank or tol out of range.

    Cost: one forward, ``rank`` vector-Jacobian products, and per prompt the eigenpairs: a dense ``d_model²`` matrix on
    small models, on others a few products with the unembedding (``details["products"]``), shared by up to 28 prompts.

    >>> attr = fisher_scope(model, "German: der Hund sieht die Katze. English: the")
    >>> 0 < attr.details["explained_share"] <= 1
    True

    Reference: paper eq. 5, 6 and 18. Differs from the released code, which decomposes the dense matrix.
    """
    return explain_scope(model, prompt, "fisher", {"rank": rank, "tol": tol}, run_options(**options))


@prompt_call
def jacobian_scope(
    model: LensModel,
    prompt: Prompt,
    *,
    direction: Tensor,
    target_hook: str = Y_HOOK,
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Influence of each input token along any direction at any later hook point.

    ``score_t = sqrt(Σ_i ‖v_iᵀ ∂h/∂x_t‖₂²)`` with ``h`` the activation at ``target_hook``, read at ``pos``: an SAE
    decoder row, a probe, a steering vector, an unembedding row. Several rows are one joint subspace; the score of
    each is in ``details["row_scores"]``.

    Args:
        direction: ``[d_model]`` or ``[k, d_model]``; at a hook of another shape, one activation's shape or k of them.
        target_hook: where the direction lives; ``unembed.hook_in`` is the final hidden state after the final norm.
        model, prompt, options: as in :func:`semantic_scope`.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list; linear in the length of ``direction``.

    Raises:
        ValueError: as :func:`semantic_scope`; the direction does not fit the hook; nothing flows from ``at`` to it.

    Cost: one forward and k vector-Jacobian products per batch.

    >>> v = model.W_U[:, model.to_tokens(" dog", prepend_bos=False)[0, 0]]
    >>> attr = jacobian_scope(model, "German: der Hund sieht die Katze. English: the", direction=v)
    >>> attr.method
    'jacobian'

    Reference: paper eq. 1, 2.
    """
    return explain_scope(model, prompt, "jacobian", {"direction": direction}, run_options(target_hook, **options))


@prompt_call
def scopes(
    model: LensModel,
    prompt: Prompt,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    **keywords: Unpack[NamedRunKeywords],
) -> list[dict[str, Attribution]]:
    """Several scopes on one prompt from one forward.

    Args:
        methods: any of ``"semantic"``, ``"contrast"`` (needs ``foil``), ``"fisher"``, ``"temperature"``,
            ``"total_information"``, ``"moment"``, ``"jacobian"`` (needs ``direction``).
        keywords: of the scopes that read them; one that none of ``methods`` reads is refused.
        model, prompt, options: as in :func:`semantic_scope`.

    Returns:
        ``{method: Attribution}`` for one prompt, a list of them for a list; the same numbers as separate calls.

    Raises:
        ValueError: an unknown or repeated method; a keyword that no method reads; as the scopes themselves.

    Cost: one forward per batch, and one vector-Jacobian product per row of V (``rank`` rows for Fisher).

    >>> both = scopes(model, "German: der Hund sieht die Katze. English: the", methods=("semantic", "temperature"))
    >>> list(both)
    ['semantic', 'temperature']
    """
    own, options = split_keywords(keywords)
    checked = run_options(**options)
    model, prompts, directions = asked(model, prompt, methods, own, checked)
    return [dict(zip(methods, found, strict=True)) for found in explain(model, prompts, directions, checked)]
