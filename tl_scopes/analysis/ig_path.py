"""Gradients along the straight path from a baseline to the prompt: integrated, and made visible.

Legend: ``x`` ``[pos, d_model]`` the prompt's embeddings, ``x'`` the baseline, ``x(α) = x' + α(x − x')``; ``s`` the
explained scalar at the explained position; ``g(α) = ∂s/∂x`` at ``x(α)``.

    IG        (x − x') ⊙ ∫₀¹ g(α) dα                  by the rules of :mod:`tl_scopes.numerics.quadrature`
    IG path   ‖g_t(α)‖₂ on a grid of α; at α = 1 it is the Semantic Scope

Completeness: ``∫₀¹ ⟨x − x', g(α)⟩ dα = s(x) − s(x')``. What a rule misses of it is reported, never hidden.

α = 0 of the zero baseline is a limit where norms take no mean (RMSNorm): ``x/√(mean x² + eps)`` is the same for every α
but the smallest, and at 0 the gradient is ``1/√eps`` to the power of the model's depth. The row is then taken at
``α = √(eps / mean (x − x')²)``, where a token's own size begins to count, and the result says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import einsum, reduce
from torch import Tensor
from typing_extensions import Unpack

from tl_scopes.baselines.path_starts import OTHER_STARTS, StartName, jumps, path_start, start_name
from tl_scopes.directions.logits import Semantic
from tl_scopes.kernel.attributed import how_attention_ran
from tl_scopes.kernel.batching import repeated, rows_per_forward
from tl_scopes.kernel.calls import encode, prompt_call
from tl_scopes.kernel.interventions import Change, Outcome, along, run_changed
from tl_scopes.kernel.options import BatchKeywords, run_options
from tl_scopes.kernel.read_out import target_string
from tl_scopes.model.hooks import require_hook
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt, Prompt, Target
from tl_scopes.model.state import model_state
from tl_scopes.model.targets import encode_targets
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.norms import row_norms
from tl_scopes.numerics.precision import to_float64
from tl_scopes.numerics.progress import progress
from tl_scopes.results.ig_path import IGPath
from tl_scopes.results.written import minus

DEFAULT_ALPHAS = tuple(i / 50 for i in range(51))
_EPS = 1e-6
"""Of norms whose model does not say."""


@prompt_call
def ig_path(
    model: LensModel,
    prompt: Prompt,
    target: Target = None,
    *,
    alphas: Iterable[float] = DEFAULT_ALPHAS,
    baseline: StartName | int | Tensor = "zero",
    scale_positions: bool = False,
    sink_tokens: int = 1,
    **options: Unpack[BatchKeywords],
) -> list[IGPath]:
    """Each token's gradient norm on the straight path from a baseline, the zero embedding, to the prompt.

    ``grad_norms[a, t] = ‖∂z_target/∂x_t‖₂`` at the embeddings ``x' + α_a (x − x')``, read at ``pos``; logit per unit of
    embedding. The row of α = 1 is the Semantic Scope; integrated gradients average the rows. Near α = 0 of the zero
    baseline the input is out of distribution, gradients are large and pile up on the first positions.

    Args:
        model, prompt, options: as in :func:`semantic_scope`; ``batch_size`` counts points of the path.
        target: the explained token as text or id; None is the top prediction of the unchanged prompt.
        alphas: increasing numbers; the default is 0, 0.02 … 1. Where the model jumps at α = 0 (zero baseline, RMSNorm)
            that row is taken at a small α in its place; ``.alphas`` and ``.notes`` say which.
        baseline: x', as in :func:`integrated_gradients`.
        scale_positions: scale additive position embeddings too (``hook_pos_embed``); without it they stay at full
            size along the path. Rotary models have none.
        sink_tokens: how many first positions ``sink_share`` counts.

    Returns:
        One :class:`IGPath` for one prompt, a list for a list.

    Raises:
        ValueError: as :func:`semantic_scope`; alphas that do not increase; a baseline that does not fit; ``scale_positions``
            on a rotary model, or with another baseline than zero.

    Cost: one forward and one backward per α, in batches, one plain forward, and one of two rows where α = 0 is asked for.

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
        if start_name(baseline) != "zero":
            raise ValueError("(scale_positions=True): positions are scaled from nothing; use it with baseline='zero'")
    targets = encode_targets(model, target, len(prompts))
    ways = [_Way(path_start(model, p, baseline, "hook_embed"), scale_positions) for p in prompts]
    return [
        _path(model, prompt, way, token, grid, size, start_name(baseline), sink_tokens)
        for prompt, way, token in zip(prompts, ways, targets, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Way:
    """From where, and whether position embeddings go along."""

    start: Change
    scale_positions: bool

    def changes(self, alphas: Sequence[float]) -> list[tuple[str, Change]]:
        """What a run does whose rows stand at these α."""
        column = torch.tensor(alphas, dtype=torch.float64)[:, None, None]
        positions = [("hook_pos_embed", lambda p: p * column.to(p))] if self.scale_positions else []
        return [("hook_embed", along(alphas, self.start)), *positions]

    def difference(self, model: LensModel, prompt: EncodedPrompt) -> tuple[Outcome, Tensor]:
        """The unchanged run, and all that grows with α, ``[pos, d_model]``."""
        positions: list[Tensor] = []

        def watch(p: Tensor) -> Tensor:
            positions.append(p.detach())
            return p

        watched = [("hook_pos_embed", watch)] if self.scale_positions else []
        plain = run_changed(model, *repeated(model, prompt, 1), changes=watched)
        moved = (plain.x - self.start(plain.x))[0]
        return plain, moved + positions[0][0] if self.scale_positions else moved


def _path(
    model: LensModel,
    prompt: EncodedPrompt,
    way: _Way,
    target: int | None,
    grid: Sequence[float],
    batch_size: int,
    baseline: str,
    sink_tokens: int,
) -> IGPath:
    """The path of one prompt."""
    plain, difference = way.difference(model, prompt)
    chosen = int(plain.predictions.top[0]) if target is None else target
    grid, notes = _without_a_jump(model, prompt, way, difference, grid, chosen)
    norms, slopes, logits, entropy = [], [], [], []
    for first in progress(range(0, len(grid), batch_size), unit="batch"):
        part = grid[first : first + batch_size]
        run = run_changed(
            model,
            *repeated(model, prompt, len(part)),
            changes=way.changes(part),
            direction=Semantic((chosen,)),
            indices=[0] * len(part),
        )
        assert run.gradient is not None
        gradient = to_float64(run.gradient)
        norms.append(row_norms(gradient).cpu())
        slopes.append(einsum(to_float64(difference), gradient, "pos d_model, a pos d_model -> a").cpu())
        logits.append(to_float64(run.predictions.logit(chosen)).cpu())
        entropy.append(run.predictions.entropy().cpu())
        del run  # before the next is made
    map_ = torch.cat(norms)
    total = reduce(map_, "a pos -> a", "sum")
    sink = reduce(map_[:, :sink_tokens], "a pos -> a", "sum")
    full = torch.zeros(len(grid), len(prompt.tokens), dtype=torch.float64)
    full[:, : prompt.pos + 1] = map_
    return IGPath(
        alphas=torch.tensor(grid, dtype=torch.float64),
        grad_norms=full.to(plain.predictions.dtype),
        logits=torch.cat(logits),
        entropy=torch.cat(entropy),
        sink_share=sink / total.clamp_min(torch.finfo(torch.float64).tiny),
        slopes=torch.cat(slopes),
        tokens=prompt.tokens,
        str_tokens=prompt.str_tokens,
        pos=prompt.pos,
        target=chosen,
        target_str=str(target_string(model, chosen)),
        scale_positions=way.scale_positions,
        sink_tokens=sink_tokens,
        baseline=baseline,
        notes=notes,
        provenance=model_state(model).provenance() | how_attention_ran(plain.predictions),
    )


def _without_a_jump(
    model: LensModel, prompt: EncodedPrompt, way: _Way, difference: Tensor, grid: Sequence[float], target: int
) -> tuple[list[float], tuple[str, ...]]:
    """The grid with α = 0 moved to where the norms take hold, if the model jumps there; and the sentence that says so."""
    size = float(to_float64(difference).square().mean(dim=-1).median())
    if 0.0 not in grid or size == 0:
        return list(grid), ()
    eps = getattr(model.cfg, "eps", None) or _EPS
    least = min([math.sqrt(eps / size), *(a / 2 for a in grid if a > 0)])
    run = run_changed(model, *repeated(model, prompt, 3), changes=way.changes([0.0, least / 100, least]))
    y, logits = to_float64(run.hidden), run.predictions.logit(target).tolist()
    if not jumps(y[0], y[1]):
        return list(grid), ()
    says = (
        f"α = 0 is a limit here, not a point: zeros are divided by the norms' eps alone ({eps:.2g}), and the gradient there "
        f"is not the model's. Its row is taken at α = {least:.2g}, where a token's mean square is about eps; below it the "
        f"logit jumps from {logits[0]:.3g} to {logits[2]:.3g}, which no grid resolves. Starts within the data: "
        f"{OTHER_STARTS}."
    )
    return [least if a == 0 else a for a in grid], (minus(says),)
