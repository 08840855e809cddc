"""Scopes of the whole distribution beyond one direction: total information, and moments of a numeric forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from typing_extensions import Unpack

from tl_scopes.directions.total_information import RTOL, TotalInformation
from tl_scopes.kernel.calls import encode, explain_scope, prompt_call
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import KeptKeywords, RunKeywords, run_options
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Prompt
from tl_scopes.numerics.arguments import Seed
from tl_scopes.results.attribution import Attribution


@prompt_call
def total_information(
    model: LensModel,
    prompt: Prompt,
    *,
    method: Literal["sampled", "exact", "low_rank"] = "sampled",
    rank: int = 8,
    n_samples: int = 64,
    rtol: float | None = RTOL,
    seed: Seed = 0,
    **options: Unpack[KeptKeywords],
) -> list[Attribution]:
    """Information that each input token carries about the next-token distribution.

    ``score_t = tr(J_tᵀ F J_t) = Σ_i λ_i ‖u_iᵀ J_t‖²``, read at ``pos``; nats per squared unit of embedding.
    ``ε²/(2 d_model)·score_t`` is the expected KL divergence under an isotropic perturbation of norm ε. Invariant to
    folding of the final norm and to centring of the unembedding, hence valid on processed models too.

    Args:
        method: ``"sampled"``: leading eigenpairs exactly, the rest by Gaussian probes, unbiased; ``"exact"``: all
            eigenpairs; ``"low_rank"``: the leading ones only, biased downwards.
        rank: leading eigenpairs taken exactly (``sampled``, ``low_rank``).
        n_samples: most probes of ``sampled``.
        rtol: stop sampling when every token that matters (above 1 % of the highest) has a relative standard error of at
            most this, 16 probes at the earliest; None draws all ``n_samples``.
        seed: of the probes; the global RNG is not used.
        model, prompt, options: as in :func:`tl_scopes.semantic_scope`.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list. Sampled: ``.stderr`` per token,
        ``details["n_samples"]`` and Student's ``details["t_quantile"]``: the 95 % interval is
        ``scores ± t_quantile·stderr``. Low rank: ``details["explained_share"]``, the share of ``tr F``.

    Raises:
        ValueError: as :func:`tl_scopes.semantic_scope`; a one-hot distribution; numbers out of range.

    Cost: one forward; ``rank + n_samples`` vector-Jacobian products at most, or the numerical rank of F for ``exact``.

    >>> attr = total_information(model, "German: der Hund sieht die Katze. English: the", rank=4, n_samples=16)
    >>> bool((attr.stderr >= 0).all())
    True

    Reference: paper v1 eq. 6; v3 eq. 16-18.
    """
    chosen = run_options(**options)
    model, prompts = encode(model, prompt, chosen, spans=True)
    apart = method == "sampled" and any(len(one.positions) > 1 for one in prompts)
    direction = TotalInformation(method, 0 if apart else rank, n_samples, rtol, seed)
    return [found for (found,) in explain(model, prompts, [direction], chosen)]


@prompt_call
def moment_scope(
    model: LensModel,
    prompt: Prompt,
    *,
    moment: Literal["mean", "variance"] = "mean",
    values: Mapping[int, float] | None = None,
    **options: Unpack[RunKeywords],
) -> list[Attribution]:
    """Influence of each input token on the mean or the variance of a numeric forecast.

    ``score_t = ‖∂m/∂x_t‖₂`` with ``m = Σ_i q_i n_i`` (or the variance ``s²``), ``q`` the next-token distribution
    renormalised over number tokens; units of the number (or its square) per unit of embedding.

    Args:
        moment: ``"mean"`` explains the forecast value, ``"variance"`` its spread.
        values: ``{token id: number}``; None is every token of the vocabulary whose text is a whole number.
        model, prompt, options: as in :func:`tl_scopes.semantic_scope`.

    Returns:
        One :class:`Attribution` for one prompt, a list for a list; ``details`` has ``mean``, ``variance`` and
        ``probability_on_numbers``, with a note where that is below one half.

    Raises:
        ValueError: as :func:`tl_scopes.semantic_scope`; fewer than two different numbers.

    Cost: one forward and one backward per batch.

    >>> attr = moment_scope(model, "29,61,40,73,55,29,61,")
    >>> 10 <= attr.details["mean"] <= 99
    True

    Reference: this package; a direction of the family of paper eq. 1.
    """
    return explain_scope(model, prompt, "moment", {"moment": moment, "values": values}, run_options(**options))
