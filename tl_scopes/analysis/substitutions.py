"""Token substitution: which token in the place of another would change what is explained most, and does it really.

Legend: ``x_t`` the embedding of token t, ``E(w)`` what the model's embedding module makes of token w, ``g_t = ∂s/∂x_t``:

    predicted(w) = ⟨g_t, E(w) − x_t⟩      measured(w) = s(prompt with w at t) − s(prompt)

``E(w)`` is read at ``hook_embed`` of the model itself, so that scaled embeddings are as the model sees them; additive
position embeddings are the same for both tokens and cancel. A swap is no small step: the measured column is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from tl_scopes.analysis.explained_scalar import explained_by, linearise, prompt_of
from tl_scopes.kernel.ablation import Reading
from tl_scopes.kernel.interventions import rows_per_forward, run_changed
from tl_scopes.model.forward import embedded
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.prompts import token_strings
from tl_scopes.model.state import refuse_unusable
from tl_scopes.numerics.precision import wide
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.substitutions import Substitutions

CHUNK = 4096
"""Tokens whose embeddings are compared at once."""


def substitutions(
    model: LensModel,
    attribution: Attribution,
    *,
    position: int | None = None,
    k: int = 10,
    candidates: Sequence[int] | None = None,
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
        candidates: ids that may be put in; None is the vocabulary without special tokens.
        batch_size: swaps per forward; None lets the package choose.

    Returns:
        A :class:`Substitutions`; print it, ``.to_frame()``, ``.plot()``, ``.html()``.

    Raises:
        ValueError: as :func:`verify` for the attribution; position, k or candidates out of range.
        TypeError: not a TransformerLens model.

    Cost: two forwards and one vector-Jacobian product, the embeddings of all candidates (no layers), and one
        forward per ``batch_size`` swaps.

    >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> result = substitutions(model, attr, k=3)
    >>> result.token, len(result.to_frame())
    (' Hund', 3)

    Reference: this package; first-order token swaps: Ebrahimi et al. 2018 (arXiv 1712.06751).
    """
    call = "substitutions"
    model = require_lens_model(model, call)
    refuse_unusable(model, call)
    prompt = prompt_of(attribution, call)
    t = _position(attribution, position, call)
    ids = _candidates(model, candidates, int(prompt.tokens[t]), call)
    if isinstance(k, bool) or not 1 <= k <= len(ids):
        raise ValueError(f"{call}(k={k!r}): k must be in 1..{len(ids)}, the number of candidates")
    explained = explained_by(model, attribution, call)
    line = linearise(model, prompt, explained, "hook_embed", call)
    size = rows_per_forward(model, [prompt], batch_size, call)
    G, x = wide(line.G[:, t]), wide(line.x[t])
    slopes = torch.cat([(G @ (embedded(model, part).to(G) - x).T).cpu() for part in torch.split(ids, CHUNK)], dim=1)
    predicted = line.predicted(slopes)
    best = predicted.abs().topk(k).indices
    swapped = prompt.tokens.repeat(k + 1, 1)
    swapped[1:, t] = ids[best]
    runs = [
        run_changed(model, part, torch.full((len(part),), prompt.pos), target_hook=explained.target_hook, call=call)
        for part in torch.split(swapped, size)
    ]
    logits, hidden = torch.cat([r.logits for r in runs]), torch.cat([r.hidden for r in runs])
    measured = explained.measured(Reading(logits[:1], hidden[:1]), Reading(logits[1:], hidden[1:]))
    z, log_p = logits[:, explained.target].cpu(), logits.log_softmax(-1)[:, explained.target].cpu()
    return Substitutions(
        attribution=attribution,
        pos=t,
        token=attribution.str_tokens[t],
        tokens=ids[best],
        str_tokens=tuple(token_strings(model, ids[best])),
        predicted=predicted[best].to(logits.dtype),
        measured=measured.to(logits.dtype),
        delta_logit=z[1:] - z[0],
        delta_log_prob=log_p[1:] - log_p[0],
        scalar=explained.name,
        unit=explained.unit,
    )


def _position(attribution: Attribution, position: int | None, call: str) -> int:
    """The position of the token to be replaced, non-negative."""
    if position is None:
        shown = attribution.without("special").top(1)
        if not shown:
            raise ValueError(f"{call}(attribution=...): every token is special or hidden; name a position")
        return shown[0].pos
    n = len(attribution)
    t = position % n if -n <= position < n else n
    if t > attribution.pos:
        raise ValueError(f"{call}(position={position}): expected a position up to the explained one, {attribution.pos}")
    return t


def _candidates(model: LensModel, candidates: Sequence[int] | None, own: int, call: str) -> Int[Tensor, " candidates"]:
    """Ids that may be put in, without the token itself."""
    d_vocab = int(model.cfg.d_vocab)
    if candidates is None:
        left_out = {own, *(getattr(model.tokenizer, "all_special_ids", None) or ())}
        chosen = [i for i in range(d_vocab) if i not in left_out]
    else:
        chosen = [i for i in dict.fromkeys(int(i) for i in candidates) if i != own]
        outside = [i for i in chosen if not 0 <= i < d_vocab]
        if outside or not chosen:
            raise ValueError(
                f"{call}(candidates=...): expected ids in 0..{d_vocab - 1} other than {own}; got {outside}"
            )
    return torch.tensor(chosen, dtype=torch.int64)
