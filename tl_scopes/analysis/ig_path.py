"""Gradients along the straight path from a baseline to the prompt: integrated, and made visible.

Legend: ``x`` ``[pos, d_model]`` the prompt's embeddings, ``x'`` the baseline, ``x(α) = x' + α(x − x')``; ``s`` the
explained scalar at the explained position; ``g(α) = ∂s/∂x`` at ``x(α)``.

    IG        (x − x') ⊙ ∫₀¹ g(α) dα                  by the rules of :mod:`tl_scopes.numerics.quadrature`
    IG path   ‖g_t(α)‖₂ on a grid of α, zero baseline; at α = 1 it is the Semantic Scope

Completeness: ``∫₀¹ ⟨x − x', g(α)⟩ dα = s(x) − s(x')``. What a rule misses of it is reported, never hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from einops import einsum, reduce
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.directions.logits import Semantic
from tl_scopes.kernel.batching import repeated, rows_per_forward
from tl_scopes.kernel.calls import encode, prompt_call
from tl_scopes.kernel.interventions import along, run_changed
from tl_scopes.kernel.options import BatchKeywords, run_options
from tl_scopes.kernel.read_out import target_string
from tl_scopes.model.hooks import require_hook
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, Prompt, Target, encode_targets
from tl_scopes.model.state import model_state
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.precision import to_float64
from tl_scopes.results.ig_path import IGPath

DEFAULT_ALPHAS = tuple(i / 50 for i in range(51))


@prompt_call
def ig_path(
    model: LensModel,
    prompt: Prompt,
    target: Target = None,
    *,
    alphas: Iterable[float] = DEFAULT_ALPHAS,
    scale_positions: bool = False,
    sink_tokens: int = 1,
    **options: Unpack[BatchKeywords],
) -> list[IGPath]:
    """Each token's gradient norm on the straight path from the zero embedding to the prompt.

    ``grad_norms[a, t] = ‖∂z_target/∂x_t‖₂`` at the embeddings ``α_a x``, read at ``pos``; logit per unit of embedding.
    The row of α = 1 is the Semantic Scope; integrated gradients average the rows. Near α = 0 the input is out of
    distribution, gradients are large and pile up on the first positions.

    Args:
        model, prompt, options: as in :func:`semantic_scope`; ``batch_size`` counts points of the path.
        target: the explained token as text or id; None is the top prediction of the unchanged prompt.
        alphas: increasing numbers; the default is 0, 0.02 … 1.
        scale_positions: scale additive position embeddings too (``hook_pos_embed``); without it they stay at full
            size along the path. Rotary models have none.
        sink_tokens: how many first positions ``sink_share`` counts.

    Returns:
        One :class:`IGPath` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; alphas that do not increase; ``scale_positions`` on a rotary model.

    Cost: one forward and one backward per α, in batches, and one plain forward.

    >>> path = ig_path(model, "German: der Hund sieht die Katze. English: the", " dog", alphas=(0.1, 0.5, 1.0))
    >>> path.grad_norms.shape[0], path.target_str
    (3, ' dog')

    Reference: paper section A.6, figures 14 and 15.
    """
    chosen = run_options(**options)
    model, prompts = encode(model, prompt, chosen)
    grid = list(alphas)
    if not grid or any(b <= a for a, b in pairwise(grid)):
        raise ValueError(f"(alphas=...): expected increasing finite numbers, got {grid[:8]}")
    integer("sink_tokens", sink_tokens, least=1)
    size = rows_per_forward(model, prompts, chosen.batch_size)
    if scale_positions:
        require_hook(model, model.hook_dict, "hook_pos_embed", "scale_positions")
    targets = encode_targets(model, target, len(prompts))
    return [_path(model, p, t, grid, scale_positions, sink_tokens, size) for p, t in zip(prompts, targets, strict=True)]


def _path(
    model: LensModel,
    prompt: EncodedPrompt,
    target: int | None,
    grid: Sequence[float],
    scale_positions: bool,
    sink_tokens: int,
    batch_size: int,
) -> IGPath:
    """The path of one prompt."""
    positions: list[Tensor] = []

    def watch(p: Tensor) -> Tensor:
        positions.append(p.detach())
        return p

    plain = run_changed(model, *repeated(prompt, 1), changes=[("hook_pos_embed", watch)] if scale_positions else ())
    chosen = int(plain.logits[0].argmax()) if target is None else target
    end = plain.x[0] + positions[0][0] if scale_positions else plain.x[0]
    norms, slopes, logits, entropy = [], [], [], []
    for first in range(0, len(grid), batch_size):
        part = grid[first : first + batch_size]
        column = torch.tensor(part, dtype=torch.float64)[:, None, None]

        def scale(p: Tensor, column: Tensor = column) -> Tensor:
            return p * column.to(p)

        run = run_changed(
            model,
            *repeated(prompt, len(part)),
            changes=[
                ("hook_embed", along(part, torch.zeros_like)),
                *([("hook_pos_embed", scale)] if scale_positions else ()),
            ],
            direction=Semantic((chosen,)),
            indices=[0] * len(part),
        )
        assert run.gradient is not None
        gradient = to_float64(run.gradient)
        norms.append(row_norms(gradient).cpu())
        slopes.append(einsum(to_float64(end), gradient, "pos d_model, a pos d_model -> a").cpu())
        logits.append(to_float64(run.logits[:, chosen]).cpu())
        entropy.append(-reduce(run.log_probs.exp() * run.log_probs, "a d_vocab -> a", "sum").cpu().double())
    map_ = torch.cat(norms)
    total = reduce(map_, "a pos -> a", "sum")
    sink = reduce(map_[:, :sink_tokens], "a pos -> a", "sum")
    full = torch.zeros(len(grid), len(prompt.tokens), dtype=torch.float64)
    full[:, : prompt.pos + 1] = map_
    dtype = plain.logits.dtype
    return IGPath(
        alphas=torch.tensor(grid, dtype=torch.float64),
        grad_norms=full.to(dtype),
        logits=torch.cat(logits),
        entropy=torch.cat(entropy),
        sink_share=sink / total.clamp_min(torch.finfo(torch.float64).tiny),
        slopes=torch.cat(slopes),
        tokens=prompt.tokens,
        str_tokens=prompt.str_tokens,
        pos=prompt.pos,
        target=chosen,
        target_str=str(target_string(model, chosen)),
        scale_positions=scale_positions,
        sink_tokens=sink_tokens,
        provenance=model_state(model).provenance(),
    )
