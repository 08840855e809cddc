"""Scopes of the whole distribution beyond one direction: total information, and moments of a numeric forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from tl_scopes.directions.moments import Moment, number_tokens
from tl_scopes.directions.total_information import TotalInformation
from tl_scopes.kernel.calls import encode, one_or_many
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import capture_options
from tl_scopes.model.hooks import NamesFilter
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Prompt
from tl_scopes.results.attribution import Attribution


@one_or_many
def total_information(
    model: LensModel,
    prompt: Prompt,
    *,
    method: Literal["sampled", "exact", "low_rank"] = "sampled",
    rank: int = 8,
    n_samples: int = 64,
    rtol: float | None = 0.05,
    seed: int = 0,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
    checkpoint: bool | None = None,
    memory_budget: int | None = None,
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
        model, prompt, pos, prepend_bos, at, batch_size, checkpoint, memory_budget: as in
            :func:`tl_scopes.semantic_scope`.

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
    call = "total_information"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    what = TotalInformation(method, rank, n_samples, rtol, seed)
    capture = capture_options(
        at=at,
        batch_size=batch_size,
        cache=None,
        grads_at=(),
        keep_gradient=False,
        call=call,
        checkpoint=checkpoint,
        memory_budget=memory_budget,
    )
    return [r[0] for r in explain(model, prompts, [what], capture, call)]


@one_or_many
def moment_scope(
    model: LensModel,
    prompt: Prompt,
    *,
    moment: Literal["mean", "variance"] = "mean",
    values: Mapping[int, float] | None = None,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    at: str = "hook_embed",
    batch_size: int | None = None,
    cache: NamesFilter = None,
    grads_at: str | Sequence[str] = (),
    keep_gradient: bool = False,
    checkpoint: bool | None = None,
    memory_budget: int | None = None,
) -> list[Attribution]:
    """Influence of each input token on the mean or the variance of a numeric forecast.

    ``score_t = ‖∂m/∂x_t‖₂`` with ``m = Σ_i q_i n_i`` (or the variance ``s²``), ``q`` the next-token distribution
    renormalised over number tokens; units of the number (or its square) per unit of embedding.

    Args:
        moment: ``"mean"`` explains the forecast value, ``"variance"`` its spread.
        values: ``{token id: number}``; None is every token of the vocabulary whose text is a whole number.
        model, prompt, pos, prepend_bos, at, batch_size, cache, grads_at, keep_gradient,
            checkpoint, memory_budget: as in :func:`tl_scopes.semantic_scope`.

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
    call = "moment_scope"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    what = Moment(moment, number_tokens(model) if values is None else dict(values), values is not None)
    capture = capture_options(
        at=at, batch_size=batch_size, cache=cache, grads_at=grads_at, keep_gradient=keep_gradient, call=call,
        checkpoint=checkpoint, memory_budget=memory_budget,
    )  # fmt: skip
    return [r[0] for r in explain(model, prompts, [what], capture, call)]
