"""Token substitution: which token in the place of another would change what is explained most, and does it really.

Legend: ``x_t`` the embedding of token t, ``E(w)`` what the model's embedding module makes of token w, ``g_t = ∂s/∂x_t``:

    predicted(w) = ⟨g_t, E(w) − x_t⟩      measured(w) = s(prompt with w at t) − s(prompt)

``E(w)`` is read at ``hook_embed`` of the model itself, so that scaled embeddings are as the model sees them; additive
position embeddings are the same for both tokens and cancel. A swap is no small step: the measured column is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.analysis.explained_scalar import base_run, prompt_of
from tl_scopes.kernel.batching import rows_per_forward
from tl_scopes.kernel.interventions import run_changed
from tl_scopes.model.forward import Recording, embedded
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import Token, token_strings
from tl_scopes.model.targets import encode_targets
from tl_scopes.numerics.precision import to_float64
from tl_scopes.numerics.progress import progress
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.substitutions import Substitutions

CHUNK = 4096
"""Tokens whose embeddings are compared at once."""
NEAR = 1e-2
"""Share of an embedding that rounding may change."""


@model_call
def substitutions(
    model: LensModel,
    attribution: Attribution,
    *,
    position: int | None = None,
    k: int = 10,
    candidates: Sequence[Token] | None = None,
    batch_size: int | None = None,
) -> Substitutions:
    """Tokens whose swap at one position would change the explained scalar most to first order, really swapped.

    ``predicted(w) = ⟨∂s/∂x_t, E(w) − x_t⟩`` over the vocabulary, ranked by size; ``measured(w)`` from a run of the prompt
    with w in the place of token t, in units of the explained scalar s.

    Args:
        model: the model that made the attribution.
        attribution: of any scope or baseline; it says which scalar is explained.
        position: of the token to be replaced, not after the explained one; None is the token with the highest score
            that is neither special nor hidden.
        k: swaps to be run.
        candidates: tokens that may be put in, as ids or as text; None is the vocabulary without special tokens.
        batch_size: swaps per forward; None lets the package choose.

    Returns:
        A :class:`Substitutions`; print it, ``.to_frame()``, ``.plot()``, ``.html()``.

    Raises:
        ValueError: as :func:`verify` for the attribution; position, k or candidates out of range.
        TypeError: not a TransformerLens model.

    Cost: one forward and one vector-Jacobian product, the embeddings of all candidates (no layers), and one
        forward per ``batch_size`` swaps.

    >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> result = substitutions(model, attr, k=3)
    >>> result.token, len(result.to_frame())
    (' Hund', 3)

    Reference: this package; first-order token swaps: Ebrahimi et al. 2018 (arXiv 1712.06751).
    """
    model, prompt = require_lens_model(model), prompt_of(attribution)
    t = _position(attribution, position)
    ids = _candidates(model, candidates, int(prompt.tokens[t]))
    if not 1 <= k <= len(ids):
        raise ValueError(f"(k={k!r}): k must be in 1..{len(ids)}, the number of candidates")
    base = base_run(model, attribution, at="hook_embed")
    scalar = base.question
    size = rows_per_forward(model, [prompt], batch_size)
    G, x = to_float64(base.G[:, t]), to_float64(base.x[t])
    slopes = torch.cat([(G @ (e.to(G) - x).T).cpu() for e in _embeddings(model, prompt.tokens[: t + 1], ids, x)], dim=1)
    predicted = base.predicted(slopes)
    best = predicted.abs().topk(k).indices
    swapped = prompt.tokens.repeat(k, 1)
    swapped[:, t] = ids[best]
    changes, parts = [], torch.split(swapped, size)
    for part in progress(parts, unit="batch"):
        read = torch.tensor([p for _, p in prompt.positions]).repeat(len(part))
        run = run_changed(model, part, read, at=Recording(target=base.question.target_hook))
        changes.append((base.measured(run.readings), *base.target_changes(run.readings)))
        del run  # before the next is made
    measured, delta_logit, delta_log_prob = map(torch.cat, zip(*changes, strict=True))
    return Substitutions(
        attribution=attribution,
        pos=t,
        token=attribution.str_tokens[t],
        tokens=ids[best],
        str_tokens=tuple(token_strings(model, ids[best])),
        predicted=predicted[best].to(base.readings[0].predictions.dtype),
        measured=measured.to(base.readings[0].predictions.dtype),
        delta_logit=delta_logit,
        delta_log_prob=delta_log_prob,
        scalar=scalar.name,
        unit=scalar.unit,
    )


def _embeddings(
    model: LensModel, before: Int[Tensor, " pos"], ids: Int[Tensor, " candidates"], x: Float[Tensor, " d_model"]
) -> Iterator[Float[Tensor, "part d_model"]]:
    """``E(w)`` of every candidate in the place of the last token, whose own is x.

    A token alone is enough where its embedding does not depend on its place, as it does where the embedding module adds
    positions itself (BERT).
    """
    alone = embedded(model, before[-1:, None])[0].to(x)
    prefix = before[:0] if bool((alone - x).norm() <= NEAR * x.norm()) else before[:-1]
    for part in torch.split(ids, max(1, CHUNK // (len(prefix) + 1))):
        yield embedded(model, torch.cat([prefix.expand(len(part), -1), part[:, None]], dim=1))


def _position(attribution: Attribution, position: int | None) -> int:
    """The position of the token to be replaced, non-negative."""
    if position is None:
        shown = attribution.without("special").top(1)
        if not shown:
            raise ValueError("(attribution=...): every token is special or hidden; name a position")
        return shown[0].pos
    n = len(attribution)
    t = position % n if -n <= position < n else n
    if t > attribution.pos:
        raise ValueError(f"(position={position}): expected a position up to the explained one, {attribution.pos}")
    return t


def _candidates(model: LensModel, candidates: Sequence[Token] | None, own: int) -> Int[Tensor, " candidates"]:
    """Ids that may be put in, without the token itself."""
    d_vocab = int(model.cfg.d_vocab)
    if candidates is None:
        left_out = {own, *(getattr(model.tokenizer, "all_special_ids", None) or ())}
        chosen = [i for i in range(d_vocab) if i not in left_out]
    else:
        named = [encode_targets(model, c, 1, argument="candidates")[0] if isinstance(c, str) else c for c in candidates]
        chosen = [i for i in dict.fromkeys(i for i in named if i is not None) if i != own]
        outside = [i for i in chosen if not 0 <= i < d_vocab]
        if outside or not chosen:
            raise ValueError(f"(candidates=...): expected ids in 0..{d_vocab - 1} other than {own}; got {outside}")
    return torch.tensor(chosen, dtype=torch.int64)
