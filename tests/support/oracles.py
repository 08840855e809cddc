"""Slow, independent references: plain Hugging Face autograd through `inputs_embeds`, no TransformerLens.

Symbols, for a prompt of T tokens read at `pos`:

    x [T, d]   input embeddings as TransformerLens has them at `hook_embed` (Gemma: after the factor √d)
    y [T, d]   input of the unembedding, i.e. the hidden state after the final norm
    z [T, V]   logits as Hugging Face returns them, soft cap and logit scale included;  p = softmax z[pos]
    A [V, d]   ∂z/∂y at y[pos];   J [d, T, d] = ∂y[pos]/∂x;   F [d, d] = Aᵀ(diag p − p pᵀ)A

Every function takes the Hugging Face model (`families.Pair.hf`) and token ids [T] or embeddings [T, d], and
computes in the model's dtype unless it says float64. One backward per gradient; nothing is batched or cached.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

ScalarFn = Callable[[Tensor, Tensor], Tensor]
"""(z [V], y [d]) at the read position -> a scalar."""


class Run(NamedTuple):
    """One forward of the reference: x [T, d], y [T, d], logits [T, V]."""

    x: Tensor
    y: Tensor
    logits: Tensor


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max |actual − expected| / max |expected|, in float64: what the tolerances in `families` bound."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max())


def embed_scale(hf: nn.Module) -> float:
    """x divided by Hugging Face's `inputs_embeds`: Granite's multiplier on TransformerLens 4, else 1.

    Granite multiplies the embeddings inside its forward; the bridge's `hook_embed` is after that in 4.x and
    before it in 3.x.
    """
    after = int(importlib.metadata.version("transformer_lens").split(".")[0]) >= 4
    return float(getattr(hf.config, "embedding_multiplier", 1.0)) if after else 1.0


def embeddings(hf: nn.Module, tokens: Tensor) -> Tensor:
    """x = E[tokens] in the convention of `hook_embed`, detached, [T, d]."""
    return hf.get_input_embeddings()(tokens).detach() * embed_scale(hf)


def run(hf: nn.Module, x: Tensor) -> Run:
    """The forward from any embeddings x [T, d]: unbatched, unmasked, differentiable."""
    captured: list[Tensor] = []
    handle = hf.get_output_embeddings().register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    try:
        logits = hf(inputs_embeds=(x / embed_scale(hf))[None], use_cache=False).logits
    finally:
        handle.remove()
    (y,) = captured
    return Run(x, y[0], logits[0])


def run_tokens(hf: nn.Module, tokens: Tensor) -> Run:
    """`run` from a fresh leaf x = `embeddings(hf, tokens)`: `torch.autograd.grad(..., run.x)` works."""
    return run(hf, embeddings(hf, tokens).requires_grad_(True))


def gradient_at(hf: nn.Module, x: Tensor, pos: int, scalar_fn: ScalarFn) -> Tensor:
    """∂ scalar_fn(z[pos], y[pos]) / ∂x at any embeddings x, [T, d]."""
    with torch.enable_grad():
        out = run(hf, x.detach().clone().requires_grad_(True))
        (gradient,) = torch.autograd.grad(scalar_fn(out.logits[pos], out.y[pos]), out.x)
    return gradient


def hf_gradient(hf: nn.Module, tokens: Tensor, pos: int, scalar_fn: ScalarFn) -> Tensor:
    """∂ scalar_fn(z[pos], y[pos]) / ∂x at the prompt's embeddings, [T, d]."""
    return gradient_at(hf, embeddings(hf, tokens), pos, scalar_fn)


# ----------------------------------------------------------------------------
# Scopes
# ----------------------------------------------------------------------------
def semantic(hf: nn.Module, tokens: Tensor, pos: int, target: int) -> Tensor:
    """score_t = ‖∂z_target/∂x_t‖₂, [T]."""
    return hf_gradient(hf, tokens, pos, lambda z, y: z[target]).norm(dim=-1)


def contrast(hf: nn.Module, tokens: Tensor, pos: int, target: int, foil: int) -> Tensor:
    """score_t = ‖∂(z_target − z_foil)/∂x_t‖₂, [T]."""
    return hf_gradient(hf, tokens, pos, lambda z, y: z[target] - z[foil]).norm(dim=-1)


def temperature(hf: nn.Module, tokens: Tensor, pos: int) -> Tensor:
    """score_t = ‖∂‖y‖₂/∂x_t‖₂, [T]."""
    return hf_gradient(hf, tokens, pos, lambda z, y: y.norm()).norm(dim=-1)


def directional(hf: nn.Module, tokens: Tensor, pos: int, v: Tensor) -> Tensor:
    """score_t = ‖∂(vᵀy)/∂x_t‖₂ for a constant direction v [d], [T]."""
    return hf_gradient(hf, tokens, pos, lambda z, y: (v.detach().to(y) * y).sum()).norm(dim=-1)


def fisher(hf: nn.Module, tokens: Tensor, pos: int, rank: int = 1) -> Tensor:
    """score_t = √(Σ_{i≤rank} λᵢ/λ₁ ‖uᵢᵀJ_t‖²), F = Σ λᵢuᵢuᵢᵀ with λ falling, by eigh in float64, [T]."""
    eigenvalues, eigenvectors = torch.linalg.eigh(dense_fisher(hf, tokens, pos))
    eigenvalues, eigenvectors = eigenvalues.flip(0)[:rank], eigenvectors.flip(1)[:, :rank]
    rows = vjp_rows(hf, tokens, pos, eigenvectors.T).double()
    return torch.einsum("i,itd->t", eigenvalues / eigenvalues[0], rows**2).sqrt()


def total_information(hf: nn.Module, tokens: Tensor, pos: int) -> Tensor:
    """score_t = tr(J_tᵀ F J_t) from the dense J and F, in float64, [T]."""
    J = dense_jacobian(hf, tokens, pos).double()
    return torch.einsum("itd,ij,jtd->t", J, dense_fisher(hf, tokens, pos), J)


# ----------------------------------------------------------------------------
# Dense objects
# ----------------------------------------------------------------------------
def read_out(hf: nn.Module, y: Tensor) -> Tensor:
    """z(y) [V] by Hugging Face's own head (unembedding, cap, scale): its trunk is made to return y [d]."""
    trunk = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=y[None, None])
    dummy = torch.zeros(1, 1, y.shape[-1], dtype=y.dtype)
    with mock.patch.object(hf.base_model, "forward", lambda *args, **kwargs: trunk):
        return hf(inputs_embeds=dummy, use_cache=False).logits[0, 0]


def read_out_jacobian(hf: nn.Module, y: Tensor) -> Tensor:
    """A = ∂z/∂y at y [d], dense, [V, d]."""
    with torch.enable_grad():
        return torch.autograd.functional.jacobian(lambda point: read_out(hf, point), y.detach())


def fisher_at(hf: nn.Module, y: Tensor) -> Tensor:
    """F = Aᵀ(diag p − p pᵀ)A at y [d], dense, float64, [d, d]."""
    A = read_out_jacobian(hf, y).double()
    p = read_out(hf, y.detach()).detach().double().softmax(dim=-1)
    return A.T @ (torch.diag(p) - torch.outer(p, p)) @ A


def dense_fisher(hf: nn.Module, tokens: Tensor, pos: int) -> Tensor:
    """`fisher_at` the prompt's y[pos], [d, d]."""
    return fisher_at(hf, run_tokens(hf, tokens).y[pos])


def vjp_rows(hf: nn.Module, tokens: Tensor, pos: int, V: Tensor) -> Tensor:
    """rows[k, t, :] = V[k] J_t for constant directions V [k, d], one backward each, [k, T, d]."""
    with torch.enable_grad():
        out = run_tokens(hf, tokens)
        y = out.y[pos]
        return torch.stack([torch.autograd.grad(y, out.x, v.to(y), retain_graph=True)[0] for v in V])


def dense_jacobian(hf: nn.Module, tokens: Tensor, pos: int) -> Tensor:
    """J[i, t, :] = ∂y_i[pos]/∂x_t, [d, T, d]."""
    return vjp_rows(hf, tokens, pos, torch.eye(hf.config.hidden_size))


def kl_hessian(hf: nn.Module, y: Tensor) -> Tensor:
    """∂²/∂δ² KL(p(y) ‖ p(y + δ)) at δ = 0, in the model's dtype, [d, d]; equals `fisher_at`."""
    log_p = read_out(hf, y.detach()).detach().log_softmax(dim=-1)

    def divergence(point: Tensor) -> Tensor:
        return (log_p.exp() * (log_p - read_out(hf, point).log_softmax(dim=-1))).sum()

    with torch.enable_grad():
        return torch.autograd.functional.hessian(divergence, y.detach())


# ----------------------------------------------------------------------------
# Without derivatives
# ----------------------------------------------------------------------------
@torch.no_grad()
def kl_divergence(hf: nn.Module, tokens: Tensor, pos: int, x_changed: Tensor) -> float:
    """KL(p(x) ‖ p(x')) in nats at `pos`, for changed embeddings x' [T, d], log-softmax in float64."""
    log_p, log_q = (run(hf, x).logits[pos].double().log_softmax(dim=-1) for x in (embeddings(hf, tokens), x_changed))
    return float((log_p.exp() * (log_p - log_q)).sum())


@torch.no_grad()
def central_difference(
    hf: nn.Module,
    tokens: Tensor,
    pos: int,
    scalar_fn: ScalarFn,
    t: int,
    direction: Tensor,
    step: float = 1e-5,
) -> float:
    """(f(x + s·e_t ⊗ direction) − f(x − s·e_t ⊗ direction)) / 2s with f = scalar_fn(z[pos], y[pos]).

    Measured error relative to ‖gradient‖·‖direction‖: GPT-2 (float64 throughout) 1e-10 at the default step;
    elsewhere Hugging Face computes in float32 inside, where a step of 1e-3 gives 6e-5 and 1e-5 only 1e-2.
    """
    values = []
    for sign in (1, -1):
        x = embeddings(hf, tokens)
        x[t] += sign * step * direction.to(x)
        out = run(hf, x)
        values.append(float(scalar_fn(out.logits[pos], out.y[pos])))
    return (values[0] - values[1]) / (2 * step)
