"""Inseq on plain Hugging Face: ``inseq.load_model(model, method).attribute(prompt, prompt + answer)`` and ``aggregate()``.

    inseq/attention   weights of the query that predicts a token, mean over heads and layers

Of an answer of several tokens the means are summed. It reads text, whose ids are compared with ours. Its methods by gradients
and its occlusion are Captum's; release 0.7.1's ``value_zeroing`` does not run with transformers 5.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from plain import Asked, Peer, relative_error, require_same_ids
from torch import Tensor

import tl_scopes as tls


def attention(hf: Any, tokenizer: Any, one: Asked) -> Tensor:
    """The package's own aggregate, summed over the answer."""
    found = _attributed("attention", hf, tokenizer, one).aggregate().target_attributions
    return found[: len(one.prompt)].nan_to_num().sum(-1)


def _attributed(method: str, hf: Any, tokenizer: Any, one: Asked, **options: Any) -> Any:
    import inseq

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inputs that captum asks a gradient of
        model = inseq.load_model(hf, method, tokenizer=tokenizer)
        text = one.text + tokenizer.decode(list(one.answer))
        found = model.attribute(one.text, text, show_progress=False, pretty_progress=False, **options)
    (sequence,) = found.sequence_attributions
    whole = torch.cat([one.prompt, torch.tensor(one.answer)])
    require_same_ids("inseq", [token.id for token in sequence.target], whole)
    return sequence


def check(model: Any, hf: Any, one: Asked) -> dict[str, float]:
    """The norm of its gradients of the first token's logit."""
    gradients = _attributed("saliency", hf, model.tokenizer, one, attributed_fn="logit").target_attributions
    norms = gradients[: len(one.prompt), 0].norm(dim=-1)
    ours = tls.semantic_scope(model, one.prompt, target=one.answer[0]).scores
    return {"the norm of its saliency is semantic_scope's": relative_error(norms, ours)}


PEER = Peer("inseq", {"inseq/attention": attention}, check)
