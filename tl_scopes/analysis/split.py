"""Carried, or looked at: a prediction's influence exact, with attention frozen, and the difference of the two.

Legend: ``s`` what a scope explains, ``x`` the embeddings, ``A(x)`` all patterns of attention, ``s = f(x, A(x))``.

    exact         g        = ∂f/∂x + (∂f/∂A)(dA/dx)      every way from x to s
    frozen        g_frozen = ∂f/∂x                        ways that pass through no pattern: what is carried through values
    difference    d        = (∂f/∂A)(dA/dx)               ways that pass through one pattern at least: where the model looks

The same at every residual stream and at every head's output. One forward and two backwards of the same graph, in the second
of which no gradient passes a pattern (:class:`tl_scopes.model.held_functions.Valve`), with the same rows of V.

Example::

    import tl_scopes as tls

    model = tls.load_model()
    tls.split(model, "German: der Hund sieht die Katze. English: the", target=" dog").plot()
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.analysis.layers import asked_by_name, head_probe
from tl_scopes.kernel.calls import prompt_call
from tl_scopes.kernel.explain import Measured, explain_inside
from tl_scopes.kernel.options import GradientProbe, NamedJoinedKeywords
from tl_scopes.kernel.pulled_rows import norm_of_gradient
from tl_scopes.model.attention import (
    OUTPUT,
    attention_layers,
    attention_notes,
    head_counts,
    require_equal_heads,
)
from tl_scopes.model.completeness import refuse_unfrozen
from tl_scopes.model.hooks import Y_HOOK, require_hook, required_residual_hooks
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import Prompt
from tl_scopes.model.state import model_state
from tl_scopes.numerics.norms import inner_products
from tl_scopes.results.split import Split


@prompt_call
def split(
    model: LensModel,
    prompt: Prompt,
    *,
    method: str = "semantic",
    target_hook: str = Y_HOOK,
    **keywords: Unpack[NamedJoinedKeywords],
) -> list[Split]:
    """How much of an influence is carried through values, and how much goes through where the model looks.

    ``g = g_frozen + d`` as vectors: ``g`` the scope's gradient, ``g_frozen`` the same with attention frozen, ``d`` all that
    passes through a pattern of attention. Scores are their norms ``‖g‖``, ``‖g_frozen‖``, ``‖d‖``, which do not add: two
    parts at a right angle are each shorter than the whole, two that oppose each other may both be longer. What has a sign
    adds: products ``⟨x_t, g_t⟩`` by token and by head, and the shares ``⟨g, g_frozen⟩/‖g‖² + ⟨g, d⟩/‖g‖² = 1``.

    By layer: ``d`` at a residual stream is what goes from there through patterns of this block and later ones. By head, as in
    :func:`head_influence`: ``d`` at a head's output is what later heads look at because of it; 0 in the last layer.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        prompt: a string, a 1-D or ``[1, pos]`` tensor of token ids, what a tokenizer returned (without the padding that
            its mask names), a chat as a list of messages, or what :func:`tl_scopes.generate` gave; a list of these, a
            ``[batch, pos]`` tensor, or what a tokenizer returned for several texts, gives a list of results.
        method: which scope: ``"semantic"``, ``"contrast"``, ``"fisher"``, ``"temperature"``, ``"total_information"``,
            ``"moment"`` or ``"jacobian"``.
        target_hook: where ``direction`` lives; goes with ``method="jacobian"``.
        keywords: of the scope that reads them; another scope's keyword is refused.
        options: of the run.

    Returns:
        One :class:`Split` for one prompt, a list for a list: ``.exact``, ``.frozen``, ``.difference``, each an attribution
        of the scope; ``.signed``; ``.by_layer`` and ``.by_head``, the three as results of those calls; ``.share_carried``.
        With ``keep_gradient`` all three have theirs, ``.difference.gradient`` is ``d``.
        Several rows of V (``rank=3``, ``combine="norm"``) have no signs: ``.signed`` is None, heads have norms.

    Raises:
        ValueError: as the scope; a model whose attention cannot be frozen, as a state-space mixer.

    Cost: one forward and two vector-Jacobian products per row of V; the first time on a model that anything is frozen, one
    run on 5 tokens.

    >>> parts = split(model, "German: der Hund sieht die Katze. English: the", target=" dog")
    >>> bool(torch.allclose(parts.signed[0], parts.signed[1] + parts.signed[2], atol=1e-5))
    True
    >>> bool((parts.exact.scores <= parts.frozen.scores + parts.difference.scores + 1e-5).all())
    True

    Reference: this package; attention is frozen as in circuit tracing (Ameisen et al. 2025).
    """
    model, prompts, direction, options = asked_by_name(model, prompt, method, target_hook, keywords)
    direction.check(model_state(model))
    for argument, name in (("at", options.at), ("target_hook", target_hook)):
        require_hook(model, model.hook_dict, name, argument)
    try:
        refuse_unfrozen(model, ("attention",))  # may run the model, so that what the caller can mend comes before
    except ValueError as error:
        raise ValueError(f"one half of a split has frozen='attention', which is refused here: {error}") from error
    hooks = required_residual_hooks(model)
    blocks, notes = _blocks(model)
    with head_counts(model, blocks) as counts:
        # what has a sign, then norms; of heads both, for what there is depends on the rows of V
        probes = [
            GradientProbe(options.at, inner_products, "if one row"),
            *(GradientProbe(name, norm_of_gradient) for name in hooks),
            *(head_probe(layer, inner_products, counts, "if one row") for layer in blocks),
            *(head_probe(layer, norm_of_gradient, counts) for layer in blocks),
        ]
        explained = explain_inside(model, prompts, [direction], probes, options, split=True)
    heads = explained[0][0][1][1 + len(hooks) :]
    try:
        require_equal_heads(model, {layer: one.shape[1] for layer, one in zip(blocks, heads, strict=False)})
    except ValueError as error:
        blocks, notes = (), (*notes, f"By token and layer only: {error}.")
    return [_split(parts, hooks, blocks, notes) for parts in explained]


def _blocks(model: LensModel) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Layers whose heads are shown, and what a reader must know of those that are not."""
    try:
        blocks = attention_layers(model, OUTPUT)
    except ValueError as error:
        return (), (f"By token and layer only: {error}.",)
    return blocks, attention_notes(model, blocks)


def _split(parts: Sequence[Measured], hooks: tuple[str, ...], blocks: tuple[int, ...], notes: tuple[str, ...]) -> Split:
    """One prompt's result from the three gradients' measurements."""
    exact, frozen, difference = (attribution.without("special") for attribution, _ in parts)
    every = list(zip(*(measured for _, measured in parts), strict=True))
    signed, *rest = (torch.stack(three) for three in every)
    by_layer, by_head = torch.stack(rest[: len(hooks)], dim=1), rest[len(hooks) :]
    one_row = not bool(signed.isnan().any())
    found = by_head[: len(blocks)] if one_row else by_head[len(by_head) // 2 :][: len(blocks)]
    heads: Tensor | None = torch.stack([one.mT for one in found], dim=1) if found else None
    return Split(
        exact=exact,
        frozen=frozen,
        difference=difference,
        layers=by_layer,
        hooks=hooks,
        signed=signed if one_row else None,
        heads=heads,
        blocks=blocks,
        head_kind="signed" if one_row else "sensitivity",
        notes=notes,
    )
