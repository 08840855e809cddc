"""Captum on plain Hugging Face: ``LLMGradientAttribution`` and ``LLMAttribution`` as they come, and ``Saliency``.

    captum/saliency             ‖∂s/∂x_t‖, Captum's gradient and the norm over d_model: the Semantic Scope of a single token
    captum/input_x_gradient     Σ_d x_td ∂s/∂x_td, signed: LayerGradientXActivation of the embedding
    captum/integrated_gradients Σ_d, signed: LayerIntegratedGradients of the embedding, STEPS steps from the blank token
    captum/feature_ablation     log p of the answer less that with the token exchanged for the blank one

s is the logit of an answer of one token, the log-probability of one of several, in ``captum/saliency``; Captum's language
model classes know only log-probabilities, and sum them over the answer's tokens. The blank token is the tokenizer's padding
token, else its unknown one. BOS is skipped by Captum's own ``skip_tokens`` and has score 0.
"""

from __future__ import annotations

from typing import Any

import torch
from plain import Asked, Peer, explained, relative_error, require_same_ids
from torch import Tensor

import tl_scopes as tls

STEPS = 20
"""Of integrated gradients, as ``gold_alignment`` gives ours on tasks."""


def saliency(hf: Any, _tokenizer: Any, one: Asked) -> Tensor:
    """Captum's gradient of the scalar, its norm."""
    from captum.attr import Saliency

    def scalar(x: Tensor) -> Tensor:
        return explained(hf(inputs_embeds=x, use_cache=False).logits, one)[None]

    x = hf.get_input_embeddings()(one.whole[None]).detach().requires_grad_()
    return Saliency(scalar).attribute(x, abs=False)[0].norm(dim=-1)[: len(one.prompt)]


def input_x_gradient(hf: Any, tokenizer: Any, one: Asked) -> Tensor:
    """Embedding times gradient of log p, summed."""
    from captum.attr import LayerGradientXActivation

    return _by_gradient(LayerGradientXActivation(hf, hf.get_input_embeddings()), tokenizer, one)


def integrated_gradients(hf: Any, tokenizer: Any, one: Asked) -> Tensor:
    """The same along the way from the blank token."""
    from captum.attr import LayerIntegratedGradients

    method = LayerIntegratedGradients(hf, hf.get_input_embeddings())
    return _by_gradient(method, tokenizer, one, n_steps=STEPS)


def feature_ablation(hf: Any, tokenizer: Any, one: Asked) -> Tensor:
    """A forward per token, with the blank one in its place."""
    from captum.attr import FeatureAblation, LLMAttribution

    given, kept = _input(tokenizer, one)
    method = LLMAttribution(FeatureAblation(hf), tokenizer)
    with torch.no_grad():
        found = method.attribute(given, target=torch.tensor(one.answer), forward_in_tokens=False, show_progress=False)
    return _placed(found.seq_attr, kept)


def _by_gradient(method: Any, tokenizer: Any, one: Asked, **options: Any) -> Tensor:
    from captum.attr import LLMGradientAttribution

    given, kept = _input(tokenizer, one)
    for parameter in method.layer.parameters():
        parameter.requires_grad_()  # captum wants a gradient to reach the layer
    try:
        found = LLMGradientAttribution(method, tokenizer).attribute(given, target=torch.tensor(one.answer), **options)
    finally:
        method.layer.requires_grad_(False)
    return _placed(found.seq_attr, kept)


def _input(tokenizer: Any, one: Asked) -> tuple[Any, Tensor]:
    """Captum's input, of our ids; and which of them it attributes to."""
    from captum.attr import TextTokenInput

    special = sorted({int(one.prompt[i]) for i in one.encoded.special if i < len(one.prompt)})
    given = TextTokenInput(one.text, tokenizer, baselines=blank(tokenizer), skip_tokens=special or None)
    require_same_ids("captum", given.inp_tensor[0].tolist(), one.prompt)
    return given, torch.isin(one.prompt, torch.tensor(special, dtype=torch.int64), invert=True)


def blank(tokenizer: Any) -> int:
    """The token that stands for none."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.unk_token_id) if i is not None), 0)


def _placed(scores: Tensor, kept: Tensor) -> Tensor:
    """One score for each token of the prompt, 0 for those that are skipped."""
    found = torch.zeros(len(kept))
    found[kept] = scores.detach().float().cpu()
    return found


def check(model: Any, hf: Any, one: Asked) -> dict[str, float]:
    """Gradients against our own on the bridge, feature ablation against forwards with one token exchanged in each."""
    tokenizer, n = model.tokenizer, len(one.prompt)
    asked: dict[str, Any] = {"pos": one.span, "target": list(one.answer)}
    of: Any = "logit" if len(one.answer) == 1 else "log_prob"
    norms = relative_error(
        saliency(hf, tokenizer, one), tls.semantic_scope(model, one.whole, of=of, **asked).scores[:n]
    )
    ours = tls.input_x_gradient(model, one.whole, of="log_prob", **asked).signed
    assert ours is not None
    kept = torch.tensor([t for t in range(n) if t not in one.encoded.special])
    products = relative_error(input_x_gradient(hf, tokenizer, one)[kept], ours[kept])

    @torch.no_grad()
    def log_p(ids: Tensor) -> Tensor:
        rows = hf(ids[None], use_cache=False).logits[0, one.span].log_softmax(-1)
        return rows[range(len(one.answer)), list(one.answer)].sum()

    here = torch.arange(len(one.whole))
    dropped = torch.stack([log_p(one.whole) - log_p(torch.where(here == t, blank(tokenizer), one.whole)) for t in kept])
    exchanged = relative_error(feature_ablation(hf, tokenizer, one)[kept], dropped)
    return {
        "the norm of its saliency is semantic_scope's": norms,
        "input times gradient is input_x_gradient's signed": products,
        "feature ablation is what exchanging tokens does to log p": exchanged,
    }


PEER = Peer(
    "captum",
    {
        "captum/saliency": saliency,
        "captum/input_x_gradient": input_x_gradient,
        "captum/integrated_gradients": integrated_gradients,
        "captum/feature_ablation": feature_ablation,
    },
    check,
    substitutes=("captum/feature_ablation",),
)
