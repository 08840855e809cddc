"""Where in the model the influence runs: by layer, and through each attention head.

Legend: ``y`` final hidden state at the explained position, ``V`` the scope's rows there (one row ``v`` unless said
otherwise), ``r_l`` ``[pos, d_model]`` the residual stream before block l, ``r_L`` after the last one, ``z_{l,h}``
``[pos, d_head]`` the output of head h before its output projection.

    layer influence       ‖vᵀ ∂y/∂r_{l,t}‖₂                     [n_layers + 1, pos]
    head influence        ⟨∂(vᵀy)/∂z_{l,h,s}, z_{l,h,s}⟩        [layer, head, pos], s the head's query position
    head sensitivity      ‖∂(vᵀy)/∂z_{l,h,s}‖₂

All of them come out of the scope's own backward: one forward and one vector-Jacobian product per row of V, in which the
gradient is read off at more places. Several rows are joined as the score joins them (root of weighted squares).

Example::

    import tl_scopes as tls

    model = tls.load_model()
    layers = tls.layer_influence(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    layers.plot()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.directions.base import Direction
from tl_scopes.directions.by_name import SCOPES
from tl_scopes.kernel.calls import asked, prompt_call
from tl_scopes.kernel.explain import explain_inside
from tl_scopes.kernel.options import (
    GradientProbe,
    Joined,
    NamedJoinedKeywords,
    NamedRunKeywords,
    RunOptions,
    run_options,
    split_keywords,
)
from tl_scopes.kernel.pulled_rows import norm_of_gradient
from tl_scopes.model.attention import (
    OUTPUT,
    attention_layers,
    attention_notes,
    by_head,
    head_counts,
    require_equal_heads,
)
from tl_scopes.model.hooks import Y_HOOK, required_residual_hooks
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, Prompt
from tl_scopes.numerics.norms import inner_products, row_norms
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.influence import HeadInfluence, LayerInfluence


def _size(gradient: Float[Tensor, "rows *place d"], activation: Float[Tensor, "*place d"]) -> Tensor:
    """``‖r‖`` of the activation itself, for every row alike."""
    return row_norms(activation).expand(gradient.shape[:-1])


@prompt_call
def layer_influence(
    model: LensModel,
    prompt: Prompt,
    *,
    method: str = "semantic",
    relative: bool = False,
    target_hook: str = Y_HOOK,
    **keywords: Unpack[NamedRunKeywords],
) -> list[LayerInfluence]:
    """Influence of each position's residual stream, layer by layer, on what a scope explains.

    ``scores[l, t] = ‖vᵀ ∂y/∂r_{l,t}‖₂`` at ``blocks.l.hook_resid_pre`` for every layer and, as the last row, at the last
    block's ``hook_resid_post``; units of the scope's scalar per unit of the residual stream. Row 0 is the scope with
    ``at="blocks.0.hook_resid_pre"``; it equals the scope at ``hook_embed`` wherever nothing but position embeddings comes
    between and nothing reads the embeddings beside the stream; otherwise ``.notes`` says by how much they differ. The last
    row is the final norm's own derivative: 0 except at ``pos``.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: a string, a 1-D or ``[1, pos]`` tensor of token ids, what a tokenizer returned (without the padding that
            its mask names), a chat as a list of messages, or what :func:`tl_scopes.generate` gave; a list of these, a
            ``[batch, pos]`` tensor, or what a tokenizer returned for several texts, gives a list of results.
        method: which scope: ``"semantic"``, ``"contrast"``, ``"fisher"``, ``"temperature"``, ``"total_information"``,
            ``"moment"`` or ``"jacobian"``.
        relative: multiply by ``‖r_{l,t}‖``: the norm of the stream grows with depth, so raw rows are not comparable with
            each other; relative ones are changes per relative change of the stream.
        target_hook: where ``direction`` lives; goes with ``method="jacobian"``.
        keywords: of the scope that reads them; another scope's keyword is refused.
        options: of the run.

    Returns:
        One :class:`LayerInfluence` for one prompt, a list for a list: ``.scores`` ``[n_layers + 1, pos]``, 0 after
        ``pos``; ``.attribution``, the scope's own result from the same run, with its source ``at``; ``.cache``, its
        ``ActivationCache``.

    Raises:
        ValueError: as the scope; a keyword that the method does not read.

    Cost: as the scope (one forward, one vector-Jacobian product per row of V); the gradients of ``n_layers + 1`` residual
    streams exist at once, for 8 rows at a time.

    >>> layers = layer_influence(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> layers.scores.shape == (model.cfg.n_layers + 1, len(layers.tokens))
    True
    >>> bool(torch.allclose(layers.scores[0], layers.attribution.scores, rtol=1e-5))
    True

    Reference: this package; paper eq. 1 with the source moved to every residual stream.
    """
    model, prompts, direction, options = asked_by_name(model, prompt, method, target_hook, keywords)
    hooks = required_residual_hooks(model)
    probes = [GradientProbe(name, norm_of_gradient) for name in hooks] + [
        GradientProbe(name, _size, joined="first") for name in hooks
    ]
    probes += [GradientProbe(Y_HOOK, norm_of_gradient)] if target_hook == Y_HOOK else []
    results = []
    for ((attribution, measured),) in explain_inside(model, prompts, [direction], probes, options):
        scores, sizes = (torch.stack(m) for m in (measured[: len(hooks)], measured[len(hooks) : 2 * len(hooks)]))
        # the square of a stream's norm where scores are sums of squares themselves
        factor = sizes.square() if SCOPES[method].additive else sizes
        results.append(
            LayerInfluence(
                scores=scores * factor if relative else scores,
                hooks=hooks,
                residual_norms=sizes,
                read_out_norm=_joined(measured[-1], attribution, method) if target_hook == Y_HOOK else None,
                relative=relative,
                attribution=attribution.without("special"),
                notes=_away_from_the_scope(model, scores[0], attribution) if options.at == RunOptions.at else (),
            )
        )
    return results


def _joined(norms: Float[Tensor, " pos"], attribution: Attribution, method: str) -> float:
    """What stands at the explained positions, as scores of several places are joined."""
    ends = norms[list(attribution.span or (attribution.pos,))]
    if len(ends) == 1:
        return float(ends[0])
    return float(ends.sum() if SCOPES[method].additive else torch.linalg.vector_norm(ends))


def _away_from_the_scope(model: LensModel, row: Float[Tensor, " pos"], attribution: Attribution) -> tuple[str, ...]:
    """How far row 0 is from the scope at the embeddings, where it is by more than rounding."""
    largest = float(attribution.scores.max())
    off = float((row - attribution.scores).abs().max())
    if off <= 8 * torch.finfo(model.W_U.dtype).eps * largest:
        return ()
    return (
        f"Row 0_pre is not the scope's own scores at {RunOptions.at} (the difference is up to {off / largest:.2g} times the "
        "largest of them): something acts on the embeddings before the first block (a norm, a multiplier), or later blocks "
        "read them beside the residual stream. Each is right where it is measured.",
    )


@prompt_call
def head_influence(
    model: LensModel,
    prompt: Prompt,
    *,
    method: str = "semantic",
    kind: Literal["signed", "sensitivity"] = "signed",
    target_hook: str = Y_HOOK,
    **keywords: Unpack[NamedRunKeywords],
) -> list[HeadInfluence]:
    """Influence through each attention head's output, at each query position, on what a scope explains.

    ``scores[l, h, s] = ⟨∂(vᵀy)/∂z_{l,h,s}, z_{l,h,s}⟩`` (``"signed"``): to first order, replacing ``z_{l,h,s}`` by
    ``(1 − ε) z_{l,h,s}`` changes ``vᵀy`` by ``−ε·scores[l, h, s]``; positive: the head at s speaks for the explained
    quantity. In units of ``vᵀy`` (logits for ``"semantic"``). ``"sensitivity"`` is ``‖∂(vᵀy)/∂z_{l,h,s}‖₂``.

    Args:
        kind: ``"signed"`` needs one row of V; ``"sensitivity"`` joins several as the score does.
        method, target_hook and all other keywords: as in :func:`layer_influence`. Under ``"fisher"`` positive means towards
            the top prediction.

    Returns:
        One :class:`HeadInfluence` for one prompt, a list for a list: ``.scores`` ``[layer, head, pos]``, 0 after
        ``pos``; query heads under grouped-query attention too; of the layers that have attention, ``.layers``. In the
        last layer only ``pos`` is not 0.

    Raises:
        ValueError: as :func:`layer_influence`; ``"signed"`` with several rows of V; a model without attention, or whose
            attention TransformerLens does not show.

    Cost: as the scope; the gradients of all heads' outputs exist at once.

    >>> heads = head_influence(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> heads.scores.shape == (model.cfg.n_layers, model.cfg.n_heads, len(heads.tokens))
    True

    Reference: this package; gradient × activation at ``attn.hook_z`` (Michel et al. 2019, arXiv 1905.10650).
    """
    model, prompts, direction, options = asked_by_name(model, prompt, method, target_hook, keywords)
    layers = attention_layers(model, OUTPUT)
    reduce = inner_products if kind == "signed" else norm_of_gradient
    with head_counts(model, layers) as counts:
        joined: Joined = "one row" if kind == "signed" else "score"
        probes = [head_probe(layer, reduce, counts, joined) for layer in layers]
        explained = explain_inside(model, prompts, [direction], probes, options)
    require_equal_heads(model, {layer: m.shape[1] for layer, m in zip(layers, explained[0][0][1], strict=True)})
    return [
        HeadInfluence(
            scores=torch.stack([m.T for m in measured]),
            kind=kind,
            attribution=attribution.without("special"),
            layers=layers,
            notes=attention_notes(model, layers),
        )
        for ((attribution, measured),) in explained
    ]


def head_probe(
    layer: int, reduce: Callable[[Tensor, Tensor], Tensor], counts: Mapping[int, int], joined: Joined = "score"
) -> GradientProbe:
    """What of the gradient at the outputs of a layer's heads; ``counts`` are known once the layer has run."""

    def measure(gradient: Tensor, output: Tensor) -> Tensor:
        heads = counts.get(layer)
        return reduce(by_head(gradient, 3, heads), by_head(output, 2, heads))

    return GradientProbe(f"blocks.{layer}.{OUTPUT}", measure, joined)


def asked_by_name(
    model: LensModel, prompt: Prompt, method: str, target_hook: str, keywords: NamedRunKeywords | NamedJoinedKeywords
) -> tuple[LensModel, list[EncodedPrompt], Direction, RunOptions]:
    """The model, the prompts and the direction; only one's own directions move the target hook."""
    own, given = split_keywords(keywords)
    options = run_options(target_hook, **given)
    model, prompts, (direction,) = asked(model, prompt, [method], own, options, argument="method")
    if target_hook != Y_HOOK and "direction" not in SCOPES[method].keywords:
        raise ValueError(
            f"(target_hook={target_hook!r}): method {method!r} explains the final hidden state; only "
            "method='jacobian' takes another hook, with direction="
        )
    return model, prompts, direction, options
