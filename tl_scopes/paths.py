"""Gradients along the straight path from a baseline to the prompt: integrated, and made visible.

Legend: ``x`` ``[pos, d_model]`` the prompt's embeddings, ``x'`` the baseline, ``x(α) = x' + α(x − x')``; ``s`` the
explained scalar at the explained position; ``g(α) = ∂s/∂x`` at ``x(α)``.

    IG        (x − x') ⊙ ∫₀¹ g(α) dα                  by the rules of :mod:`tl_scopes.quadrature`
    IG path   ‖g_t(α)‖₂ on a grid of α, zero baseline; at α = 1 it is the Semantic Scope

Completeness: ``∫₀¹ ⟨x − x', g(α)⟩ dα = s(x) − s(x')``. What a rule misses of it is reported, never hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes import prompts as _prompts
from tl_scopes.call_form import encode, one_or_many
from tl_scopes.capture import require_hook
from tl_scopes.directions import Explanandum, Semantic
from tl_scopes.interventions import Change, repeated, rows_per_forward, run_changed, says_target, substitutes
from tl_scopes.model import LensModel, model_state
from tl_scopes.precision import wide
from tl_scopes.prompts import EncodedPrompt, Prompt, Target, encode_targets
from tl_scopes.quadrature import NEAR_ZERO, split_rule
from tl_scopes.scores import row_norms

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class PathIntegral:
    """What :func:`integrate_path` found.

    Attributes:
        product: ``(x − x') ⊙ ∫ g dα``, ``[pos, d_model]``, float64 on the CPU.
        signed_sum: its sum over everything.
        change: ``s(x) − s(x')``.
        near_sum: the part of ``signed_sum`` from α ≤ NEAR_ZERO.
        near_change: ``s(x(NEAR_ZERO)) − s(x')``.
        logits: of the unchanged prompt.
        target: the explained token.
        notes: of the explanandum.
    """

    product: Float[Tensor, "pos d_model"]
    signed_sum: float
    change: float
    near_sum: float
    near_change: float
    logits: Float[Tensor, " d_vocab"]
    target: int
    notes: tuple[str, ...]


def path_baseline(
    model: LensModel, prompt: EncodedPrompt, baseline: Literal["zero", "mean", "pad"] | Tensor, at: str, call: str
) -> Change:
    """x' as a function of the activation ``[batch, pos, d_model]``."""
    if isinstance(baseline, Tensor):
        shape = (prompt.pos + 1, model.cfg.d_model)
        try:
            given = (
                baseline.detach()[..., : shape[0], :] if baseline.ndim == 2 and len(baseline) > 1 else baseline.detach()
            )
            rows = given.expand(shape)
        except (RuntimeError, IndexError):
            raise ValueError(
                f"{call}(baseline=tensor of shape {list(baseline.shape)}): expected [d_model] or [pos, d_model] with "
                f"d_model={shape[1]} and at least {shape[0]} positions"
            ) from None
        return lambda x: rows.to(x).expand_as(x)
    if baseline == "pad":
        pad = getattr(model.tokenizer, "pad_token_id", None)
        if pad is None:
            raise ValueError(
                f"{call}(baseline='pad'): this model's tokenizer has no padding token; use 'zero' or 'mean'"
            )
        tokens, read = repeated(prompt, 1)
        rows = run_changed(model, torch.full_like(tokens, pad), read, at=at, call=call).x[0]
        return lambda x: rows.to(x).expand_as(x)
    if baseline == "zero":
        return torch.zeros_like
    if baseline == "mean":
        kept = [p for p in range(prompt.pos + 1) if p not in prompt.special] or list(range(prompt.pos + 1))
        values = substitutes("mean", kept, prompt.tokens, 0)
        return lambda x: values(x[0]).expand_as(x)
    raise ValueError(f"{call}(baseline={baseline!r}): expected 'zero', 'mean', 'pad' or a tensor")


def along(alphas: Sequence[float], baseline: Change) -> Change:
    """Row n of the batch moves to ``x' + α_n (x − x')``."""
    column = torch.tensor(alphas, dtype=torch.float64)[:, None, None]

    def change(x: Tensor) -> Tensor:
        start, a = baseline(x), column.to(x)
        return torch.where(a == 1, x, start + a * (x - start))

    return change


def integrate_path(
    model: LensModel,
    prompt: EncodedPrompt,
    baseline: Change,
    scalar: Callable[[int | None], Explanandum],
    target: int | None,
    *,
    n_steps: int,
    at: str,
    batch_size: int,
    call: str,
) -> PathIntegral:
    """Integrated gradients of one prompt, in batches over α."""
    ends = run_changed(model, *repeated(prompt, 3), change=along([0.0, NEAR_ZERO, 1.0], baseline), at=at, call=call)
    chosen = int(ends.logits[2].argmax()) if target is None else target
    explained = scalar(chosen)
    table = ends.logits if isinstance(explained, Semantic) else ends.log_probs
    start, near, end = table[:, chosen].tolist()
    x = ends.x[2:]
    difference = (x - baseline(x))[0].cpu().double()
    nodes, weights, n_near = split_rule(n_steps)
    parts = [torch.zeros_like(difference), torch.zeros_like(difference)]
    notes = says_target(target)
    for part, chunk in enumerate((range(n_near), range(n_near, n_steps))):
        for first in range(chunk.start, chunk.stop, batch_size):
            last = min(first + batch_size, chunk.stop)
            run = run_changed(
                model,
                *repeated(prompt, last - first),
                change=along(nodes[first:last], baseline),
                explanandum=explained,
                indices=[0] * (last - first),
                at=at,
                call=call,
            )
            assert run.gradient is not None
            w = torch.tensor(weights[first:last], dtype=torch.float64)
            parts[part] += einsum(w, run.gradient.cpu().double(), "a, a pos d_model -> pos d_model")
            notes = tuple(dict.fromkeys((*notes, *run.rows[0].notes)))
    near_sum, far_sum = (float((difference * part).sum()) for part in parts)
    return PathIntegral(
        product=difference * (parts[0] + parts[1]),
        signed_sum=near_sum + far_sum,
        change=end - start,
        near_sum=near_sum,
        near_change=near - start,
        logits=ends.logits[2],
        target=chosen,
        notes=notes,
    )


@dataclass(frozen=True, eq=False)
class IGPath:
    """Gradients of one prompt on the way from the zero input to itself; result of :func:`ig_path`.

    Attributes:
        alphas: ``[alpha]``, the grid.
        grad_norms: ``[alpha, pos]``, ``‖∂z_target/∂x_t‖₂`` at ``α x``; 0 after ``pos``.
        logits: ``[alpha]``, the target's logit.
        entropy: ``[alpha]``, nats of the whole prediction.
        sink_share: ``[alpha]``, share of the gradient norms on the first ``sink_tokens`` positions.
        slopes: ``[alpha]``, ``dz_target/dα = Σ_t ⟨x_t, g_t⟩`` (positions included where they are scaled).
        tokens: ``[pos]`` ids.
        str_tokens: their texts.
        pos: explained position.
        target: explained token.
        target_str: its text.
        scale_positions: were additive position embeddings scaled too?
        sink_tokens: how many first positions count as sink.
        provenance: of the model.
    """

    alphas: Float[Tensor, " alpha"]
    grad_norms: Float[Tensor, "alpha pos"]
    logits: Float[Tensor, " alpha"]
    entropy: Float[Tensor, " alpha"]
    sink_share: Float[Tensor, " alpha"]
    slopes: Float[Tensor, " alpha"]
    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    pos: int
    target: int
    target_str: str
    scale_positions: bool = False
    sink_tokens: int = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def residual(self) -> Float[Tensor, " alpha"]:
        """``[alpha]``: trapezoid integral of the slopes from the first α, less the change of the logit; 0 if exact."""
        steps = (self.alphas[1:] - self.alphas[:-1]) * (self.slopes[1:] + self.slopes[:-1]) / 2
        integral = torch.cat([torch.zeros_like(self.slopes[:1]), steps.cumsum(0)])
        return integral - (self.logits - self.logits[0])

    @property
    def completeness_residual(self) -> float:
        """Last entry of :attr:`residual`, in logits: what the grid's trapezoid rule misses over the whole path."""
        return float(self.residual[-1])

    def to_frame(self) -> pd.DataFrame:
        """One row per α: logit, entropy, sink share, slope, residual."""
        import pandas as pd

        names = ("alphas", "logits", "entropy", "sink_share", "slopes", "residual")
        return pd.DataFrame({n.removesuffix("s") if n != "sink_share" else n: getattr(self, n).tolist() for n in names})

    def __repr__(self) -> str:
        return (
            f"IGPath({len(self.alphas)} points, {len(self.tokens)} tokens, target={self.target_str!r}, "
            f"logit {float(self.logits[0]):.3g} -> {float(self.logits[-1]):.3g}, "
            f"sink share {float(self.sink_share[0]):.0%} -> {float(self.sink_share[-1]):.0%}, "
            f"residual {self.completeness_residual:.2g})"
        )

    def plot(self) -> Any:
        """A matplotlib figure: the α × token map, with logit, entropy and sink share beside it."""
        from tl_scopes.views.curves import path_figure

        return path_figure(self)

    def html(self) -> str:
        """A standalone page with a slider over α; works offline."""
        from tl_scopes.views.path_page import path_page

        return path_page(self)


DEFAULT_ALPHAS = tuple(i / 50 for i in range(51))


@one_or_many
def ig_path(
    model: LensModel,
    prompt: Prompt,
    target: Target = None,
    *,
    alphas: Iterable[float] = DEFAULT_ALPHAS,
    scale_positions: bool = False,
    sink_tokens: int = 1,
    pos: int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    batch_size: int | None = None,
) -> list[IGPath]:
    """Each token's gradient norm on the straight path from the zero embedding to the prompt.

    ``grad_norms[a, t] = ‖∂z_target/∂x_t‖₂`` at the embeddings ``α_a x``, read at ``pos``; logit per unit of embedding.
    The row of α = 1 is the Semantic Scope; integrated gradients average the rows. Near α = 0 the input is out of
    distribution, gradients are large and pile up on the first positions.

    Args:
        model, prompt, pos, prepend_bos: as in :func:`semantic_scope`.
        target: the explained token as text or id; None is the top prediction of the unchanged prompt.
        alphas: increasing numbers; the default is 0, 0.02 … 1.
        scale_positions: scale additive position embeddings too (``hook_pos_embed``); without it they stay at full
            size along the path. Rotary models have none.
        sink_tokens: how many first positions ``sink_share`` counts.
        batch_size: path points per forward.

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
    call = "ig_path"
    model, prompts = encode(model, prompt, pos, prepend_bos, call)
    grid = [float(a) for a in alphas]
    if not grid or not np.isfinite(grid).all() or any(b <= a for a, b in pairwise(grid)):
        raise ValueError(f"{call}(alphas=...): expected increasing finite numbers, got {grid[:8]}")
    if isinstance(sink_tokens, bool) or not isinstance(sink_tokens, int) or sink_tokens < 1:
        raise ValueError(f"{call}(sink_tokens={sink_tokens!r}): expected a positive integer")
    size = rows_per_forward(model, prompts, batch_size, call)
    if scale_positions:
        require_hook(model, model.hook_dict, "hook_pos_embed", call, "scale_positions")
    targets = encode_targets(model, target, len(prompts), call=call)
    return [
        _path(model, p, t, grid, scale_positions, sink_tokens, size, call)
        for p, t in zip(prompts, targets, strict=True)
    ]


def _path(
    model: LensModel,
    prompt: EncodedPrompt,
    target: int | None,
    grid: Sequence[float],
    scale_positions: bool,
    sink_tokens: int,
    batch_size: int,
    call: str,
) -> IGPath:
    """The path of one prompt."""
    positions: list[Tensor] = []

    def watch(p: Tensor) -> Tensor:
        positions.append(p.detach())
        return p

    plain = run_changed(
        model, *repeated(prompt, 1), more_changes=[("hook_pos_embed", watch)] if scale_positions else (), call=call
    )
    chosen = int(plain.logits[0].argmax()) if target is None else target
    direction = plain.x[0] + positions[0][0] if scale_positions else plain.x[0]
    norms, slopes, logits, entropy = [], [], [], []
    for first in range(0, len(grid), batch_size):
        part = grid[first : first + batch_size]
        column = torch.tensor(part, dtype=torch.float64)[:, None, None]

        def scale(p: Tensor, column: Tensor = column) -> Tensor:
            return p * column.to(p)

        run = run_changed(
            model,
            *repeated(prompt, len(part)),
            change=along(part, torch.zeros_like),
            more_changes=[("hook_pos_embed", scale)] if scale_positions else (),
            explanandum=Semantic((chosen,)),
            indices=[0] * len(part),
            call=call,
        )
        assert run.gradient is not None
        gradient = wide(run.gradient)
        norms.append(row_norms(gradient).cpu())
        slopes.append(einsum(wide(direction), gradient, "pos d_model, a pos d_model -> a").cpu())
        logits.append(wide(run.logits[:, chosen]).cpu())
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
        target_str=_prompts.token_strings(model, torch.tensor([chosen]))[0],
        scale_positions=scale_positions,
        sink_tokens=sink_tokens,
        provenance=model_state(model).provenance(),
    )
