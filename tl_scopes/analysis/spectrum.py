"""Spectrum of the Fisher information: how many directions a next-token distribution really has.

``F = Σ_i λ_i u_i u_iᵀ`` at the final hidden state (:mod:`tl_scopes.numerics.fisher_information`). ``λ_i`` says how
strongly a unit step along ``u_i`` changes the distribution (KL = ½ λ_i ε²); ``Σ_{i≤r} λ_i / tr F`` is the share that the
Fisher Scope of rank r sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tl_scopes.directions.fisher import require_rank
from tl_scopes.kernel.calls import encode
from tl_scopes.kernel.options import RunOptions
from tl_scopes.kernel.read_out import read_outs
from tl_scopes.model.forward import Recording, forward_pass
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.lens import LensModel, residual_hooks
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import Prompt, pad_right, token_strings
from tl_scopes.model.state import model_state
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.precision import to_float64
from tl_scopes.numerics.progress import progress
from tl_scopes.results.spectrum import FisherSpectrum


@model_call
def fisher_spectrum(
    model: LensModel,
    prompt: Prompt,
    *,
    k: int | None = None,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    chat_options: Mapping[str, Any] | None = None,
    tol: float = 1e-4,
    n_directions: int = 8,
    n_tokens: int = 5,
) -> FisherSpectrum:
    """Eigenvalues of the Fisher information of next-token distributions, and the tokens each direction moves.

    ``F = Aᵀ(diag p − p pᵀ)A``, read at ``pos`` of each prompt; nats per squared unit of the final hidden state.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` with unprocessed weights.
        prompt: a string or tensor, or a list of them (a corpus: the frame gives mean and spread).
        k: leading eigenvalues; None is all of them, from the dense matrix.
        pos: position whose next-token distribution is looked at, or one per prompt.
        prepend_bos: put BOS before string prompts; None is the model's own default.
        chat_options: of a chat, as in :func:`tl_scopes.semantic_scope`.
        tol: relative residual of each eigenpair where the matrix is not built.
        n_directions: directions to describe by tokens.
        n_tokens: tokens on each side of a direction.

    Returns:
        A :class:`FisherSpectrum`; ``print`` it, ``.to_frame()``, ``.plot()``.

    Raises:
        ValueError: as :func:`tl_scopes.fisher_scope`; k out of range.

    Cost: one forward per prompt, no backward; the dense matrix (``d_vocab·d_model²``) for all eigenvalues.

    >>> spectrum = fisher_spectrum(model, "German: der Hund sieht die Katze. English: the", k=4)
    >>> bool((spectrum.share <= 1).all())
    True

    Reference: paper fig. 16 (appendix A.9).
    """
    model, prompts = encode(model, prompt, RunOptions(pos=pos, prepend_bos=prepend_bos, chat_options=chat_options))
    state = model_state(model)
    require_rank(state, state.cfg.d_model if k is None else k, tol, argument="k")
    integer("n_directions", n_directions, least=0)
    integer("n_tokens", n_tokens, least=1, most=int(state.cfg.d_vocab))
    # No gradient is taken before the read-out: the graph begins after the last block.
    last = residual_hooks(model)[-1]
    recording = Recording(last if last in model.hook_dict else "hook_embed")
    values, traces, entropies, moved = [], [], [], []
    row_squares = state.row_squares
    with differentiable(model):
        for i, text in enumerate(progress(prompts, unit="prompt")):
            tokens = pad_right([text])
            run = forward_pass(model, tokens, torch.tensor([text.pos]), recording)
            read = read_outs(model, run, [i])[0]
            fisher = read.fisher(row_squares)
            pairs = fisher.all_eigenpairs(full=True) if k is None else fisher.eigenpairs(k, tol)
            log_p = to_float64(read.logits).log_softmax(-1)
            values.append(pairs.values.cpu())
            traces.append(pairs.trace)
            entropies.append(-float((log_p.exp() * log_p).sum()))
            moved.append([_moved(model, fisher.moves(u), n_tokens) for u in pairs.vectors[:n_directions]])
    return FisherSpectrum(
        eigenvalues=torch.stack(values),
        trace=torch.tensor(traces, dtype=values[0].dtype),
        entropy=torch.tensor(entropies, dtype=values[0].dtype),
        moved=moved,
        prompts=["".join(p.str_tokens) for p in prompts],
    )


def _moved(model: LensModel, change: Float[Tensor, " d_vocab"], n: int) -> tuple[list[str], list[str]]:
    """Tokens whose probability rises and falls most."""
    return (
        token_strings(model, change.topk(n).indices.cpu()),
        token_strings(model, (-change).topk(n).indices.cpu()),
    )
