"""LXT (AttnLRP, arXiv 2402.05602) on plain Hugging Face: the patches of ``lxt.efficient``, then embedding times gradient.

    lxt/attnlrp   Σ_d x_td ∂s/∂x_td under the package's default patches, signed, as its quickstart takes it
    lxt/cp_lrp    the same under those that it calls ``cp_LRP``

s is the logit of an answer of one token, the sum of the logits of one of several (its quickstart's ``logits[...]``).

LXT changes classes of transformers and torch, for every model of the process: what was there is put back after each prompt,
because a bridge runs the same classes. Release 2.1 was made for transformers 4. With 5 its patches for BERT do not import,
and its attention patch takes the table of attention functions for a plain one: those for BERT and images are not imported
here, and of attention the eager function alone is patched, by LXT's own wrapper.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from plain import Asked, Peer, given_back, relative_error
from torch import Tensor

import tl_scopes as tls

FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
"""LXT's file for each ``model_type``."""
Patches = Mapping[Any, Callable[[Any], bool]]
"""What LXT calls a ``patch_map``."""


def attnlrp(hf: Any, _tokenizer: Any, one: Asked) -> Tensor:
    """The default patches."""
    return relevance(hf, one, patches_of(hf, "attnLRP"))


def cp_lrp(hf: Any, _tokenizer: Any, one: Asked) -> Tensor:
    """The others."""
    return relevance(hf, one, patches_of(hf, "cp_LRP"))


def relevance(hf: Any, one: Asked, patches: Patches) -> Tensor:
    """``[prompt tokens]`` embedding times gradient of the answer's logits, under patches."""
    x = hf.get_input_embeddings()(one.whole[None]).detach().requires_grad_()
    from lxt.efficient import monkey_patch

    with given_back(patches), torch.enable_grad():
        monkey_patch(None, patches)
        logits = hf(inputs_embeds=x, use_cache=False).logits[0, one.span]
        (gradient,) = torch.autograd.grad(logits[range(len(one.answer)), list(one.answer)].sum(), x)
    return (x * gradient).sum(-1)[0, : len(one.prompt)].detach()


def patches_of(hf: Any, name: str) -> dict[Any, Callable[[Any], bool]]:
    """One of LXT's own maps for the model's family, its attention patch replaced by one for the eager function."""
    own = _own_map(hf, name)
    modeling = sys.modules[type(hf).__module__]
    from lxt.efficient import patches

    wrap = patches.cp_wrap_attention_forward if name == "cp_LRP" else patches.wrap_attention_forward

    def attention(module: Any) -> bool:
        module.eager_attention_forward = wrap(module.eager_attention_forward)
        return True

    return {**own, modeling: attention}


def _own_map(hf: Any, name: str) -> Patches:
    """Imported without what does not import with transformers 5."""
    for part in ("bert", "vit_torch"):
        left_out = types.ModuleType(part)
        vars(left_out).update(modeling_bert=part, vision_transformer=part, attnLRP={}, cp_LRP={})
        sys.modules.setdefault(f"lxt.efficient.models.{part}", left_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zennit is for models of images
        family = importlib.import_module(f"lxt.efficient.models.{FAMILIES[hf.config.model_type]}")
    return getattr(family, name)  # type: ignore[no-any-return]


def check(model: Any, hf: Any, one: Asked) -> dict[str, float]:
    """Where its rules mean what frozen parts mean, they agree."""
    default, other = patches_of(hf, "attnLRP"), patches_of(hf, "cp_LRP")
    modeling = sys.modules[type(hf).__module__]
    mixed = relevance(hf, one, {**default, modeling: other[modeling]})
    ours = tls.input_x_gradient(
        model, one.whole, pos=one.span, target=list(one.answer), frozen="all", of="logit"
    ).signed
    assert ours is not None
    what = "MLP and norms of attnLRP with the attention of cp_LRP are input_x_gradient(frozen='all').signed"
    return {what: relative_error(mixed, ours[: len(mixed)])}


PEER = Peer("lxt", {"lxt/attnlrp": attnlrp, "lxt/cp_lrp": cp_lrp}, check, families=tuple(FAMILIES))
