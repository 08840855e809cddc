"""The one file that knows TransformerLens' classes, versions and model states.

``HookedTransformer`` (TransformerLens 3) and ``TransformerBridge`` (3 and 4) are told apart by class name, and
neither is imported at module top, because 4.0 removed the first and moved the second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:

    class LensModel(Protocol):
        """What this package uses of a TransformerLens model."""

        cfg: Any
        tokenizer: Any
        W_U: Tensor
        b_U: Tensor
        hook_dict: Mapping[str, Any]
        training: bool
        blocks: nn.ModuleList
        unembed: nn.Module
        to_tokens: Callable[..., Tensor]
        generate: Callable[..., Tensor]

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Run the model."""

else:
    LensModel = nn.Module


# -- classes and versions ------------------------------------------------------------------------


def bridge_class() -> Any:
    """``TransformerBridge`` of the installed TransformerLens."""
    try:
        from transformer_lens import TransformerBridge
    except ImportError:
        from transformer_lens.model_bridge import TransformerBridge
    return TransformerBridge


def hooked_class() -> Any:
    """``HookedTransformer``, or None where TransformerLens no longer has it."""
    try:
        from transformer_lens import HookedTransformer
    except ImportError:
        return None
    return HookedTransformer


def class_kind(model: object) -> str | None:
    """``"HookedTransformer"``, ``"TransformerBridge"``, or None for anything else."""
    names = {c.__name__ for c in type(model).__mro__}
    for kind in ("HookedTransformer", "TransformerBridge"):
        if kind in names:
            return kind
    return None


def keeps_keys_and_values(model: object) -> bool:
    """May ``generate`` keep keys and values between steps? A bridge's loses them with transformers 5.24: it reads its own
    last token alone.
    """
    return class_kind(model) == "HookedTransformer"


def require_lens_model(model: object) -> LensModel:
    """The model, typed; ``TypeError`` unless it is one of the two TransformerLens classes."""
    if class_kind(model) is None:
        if class_kind(vars(model).get("_modules", {}).get("_orig_mod") if hasattr(model, "__dict__") else None):
            raise TypeError(
                "(model=...): torch.compile has put this model into an OptimizedModule, where hooks are not seen. Pass the "
                "model that was given to torch.compile"
            )
        raise TypeError(
            f"(model=...): expected a TransformerLens model (TransformerBridge or HookedTransformer), got "
            f"{type(model).__name__}. Use tl_scopes.load_model(name), or wrap a Hugging Face model with "
            "TransformerBridge.boot_transformers(name, hf_model=model)"
        )
    return cast(LensModel, model)


def whole(model: Any) -> nn.Module:
    """The module that every run goes through: two bridges around one Hugging Face model have it in common."""
    inner = model.__dict__.get("original_model")  # where a bridge keeps it; its attributes are those of the inner model
    return inner if isinstance(inner, nn.Module) else model


def all_modules(*modules: Any) -> list[nn.Module]:
    """The modules and all inside them, each once: ``modules()`` without the names, whose making takes most of its time."""
    seen = set(modules)
    found = list(dict.fromkeys(modules))
    for module in found:  # which grows
        for part in module._modules.values():
            if part is not None and part not in seen:
                seen.add(part)
                found.append(part)
    return found


def weights(model: LensModel) -> set[nn.Parameter]:
    """The parameters of the module that every run goes through."""
    return {p for part in all_modules(whole(model)) for p in part._parameters.values() if p is not None}


@lru_cache
def transformer_lens_version() -> str:
    """Version of the installed TransformerLens."""
    return metadata.version("transformer-lens")


def architecture(model: LensModel) -> str:
    """What the model calls itself."""
    names = (getattr(model.cfg, name, None) for name in ("architecture", "original_architecture", "model_name"))
    return next((str(name) for name in names if name), "this model")


def forward_options(model: LensModel, tokens: Tensor) -> dict[str, Any]:
    """What a forward on right-padded tokens must be told.

    Under a causal model they need no mask. A bridge makes none, and takes one it is given for the causal mask on some
    architectures (GPT-1); but it would fill a key-value cache that nobody reads. A HookedTransformer makes one of its own
    when the tokenizer pads left: ones keep it from that, where zeros would leave padded rows of a sliding window with
    nothing to attend to (NaN).
    """
    if class_kind(model) == "TransformerBridge":
        return {"use_cache": False}
    return {"attention_mask": torch.ones_like(tokens)}


def blocks(model: LensModel) -> Iterable[nn.Module]:
    """The model's blocks, first block first; none where a bridge has stacks under other names, run several times."""
    found: Iterable[nn.Module] = getattr(model, "blocks", ())
    return found


def hook_points(part: nn.Module) -> Iterator[nn.Module]:
    """TransformerLens' hook points in a part of a model."""
    return (module for module in all_modules(part) if type(module).__name__ == "HookPoint")


def stacks(model: LensModel) -> tuple[str, ...]:
    """Names of a bridge's stacks of blocks: ``"blocks"`` on most, several where two stacks run in turn."""
    mapping = getattr(getattr(model, "adapter", None), "component_mapping", None) or {}
    return tuple(name for name, part in mapping.items() if type(part).__name__.endswith("BlockBridge"))


def has_rotary_positions(model: LensModel) -> bool:
    """Has the model no additive position embedding at ``hook_pos_embed``?"""
    return str(model.cfg.positional_embedding_type) not in ("standard", "shortformer")


def block_hooks(model: LensModel, name: str) -> tuple[str, ...]:
    """One hook point of every block, first block first: ``"hook_resid_pre"``, ``"attn.hook_z"``, ..."""
    return tuple(f"blocks.{layer}.{name}" for layer in range(model.cfg.n_layers))


def residual_hooks(model: LensModel) -> tuple[str, ...]:
    """The residual stream before every block and after the last one, ``n_layers + 1`` hook points."""
    return (*block_hooks(model, "hook_resid_pre"), f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")


def feeds_a_branch(model: LensModel, name: str) -> bool:
    """Is this hook of the residual stream on a branch of it, so that what is set there leaves the stream as it is?"""
    return name.endswith(".hook_resid_mid") and class_kind(model) == "TransformerBridge"


def before_the_fork(name: str) -> str:
    """The hook of the same block where a stream that :func:`feeds_a_branch` is still whole."""
    return name.replace("hook_resid_mid", "hook_resid_pre")


_OWN_HOOKS = ("transformer_lens.", "transformers.utils.output_capturing")
"""Modules whose hooks on a bridge's parts are its own: the second come with ``run_with_cache``, stay, and change nothing."""


def has_hooks(model: LensModel, among: Iterable[nn.Module] | None = None) -> bool:
    """Is any hook, TransformerLens' or torch's, on any part of the model, or on these? A bridge's own do not count."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found = [
        (module, hook)
        for module in (all_modules(model) if among is None else among)
        for own in (module.__dict__,)  # asking a bridge's module for an attribute is slow
        for kind in kinds
        if own[kind]
        for hook in own[kind].values()
    ]
    points = set(model.hook_dict.values()) if found else ()
    return any(m in points or not str(getattr(hook, "__module__", None)).startswith(_OWN_HOOKS) for m, hook in found)


def source_device(model: LensModel) -> torch.device:
    """Where the token embeddings live."""
    embedding = getattr(model, "embed", None)
    parameter = next(iter(embedding.parameters()), None) if isinstance(embedding, nn.Module) else None
    return parameter.device if parameter is not None else torch.device(model.cfg.device)


def eagerly() -> AbstractContextManager[Any]:
    """Without the graphs of ``torch.compile``: hooks that record what they see would be traced into them."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def restore_patterns(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """On exit the blocks' modules hold what they held before: TransformerLens' joint attention leaves its last pattern on
    itself, and with it the graph that made it."""
    held = [getattr(getattr(block, "attn", None), "__dict__", {}) for block in blocks]
    before = [{name: of_module[name] for name in ("_pattern",) if name in of_module} for of_module in held]
    try:
        yield
    finally:
        for of_module, values in zip(held, before, strict=True):
            of_module.update(values)


@contextmanager
def in_float32(model: LensModel) -> Iterator[None]:
    """The same weights in float32, for a comparison; afterwards the very tensors of before."""
    held: list[tuple[Tensor, Tensor]] = []
    configs = {id(c): c for m in all_modules(model) if (c := getattr(m, "cfg", None)) is not None}.values()
    dtypes = [(cfg, cfg.dtype) for cfg in configs if isinstance(getattr(cfg, "dtype", None), torch.dtype)]
    try:
        for module in all_modules(model):
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16):
                    held.append((tensor, tensor.data))
                    tensor.data = tensor.data.float()
        for cfg, dtype in dtypes:
            # HookedTransformer casts its activations to what is written here.
            if dtype in (torch.float16, torch.bfloat16):
                cfg.dtype = torch.float32
        yield
    finally:
        for tensor, data in held:
            tensor.data = data
        for cfg, dtype in dtypes:
            cfg.dtype = dtype


def _text_config(model: LensModel) -> Any:
    """The Hugging Face configuration of a bridge's language model; None where there is none."""
    config: Any = getattr(whole(model), "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else None


DELTA_RULE_CHUNK = 64
"""Hugging Face's chunk in linear attention by the delta rule."""


def chunk_length(model: LensModel) -> int | None:
    """To a multiple of how many tokens some layers pad a prompt; None where none does."""
    config = _text_config(model)
    for name in ("chunk_size", "mamba_chunk_size"):
        if isinstance(chunk := getattr(config, name, None), int):
            return chunk
    return DELTA_RULE_CHUNK if "linear_attention" in (getattr(config, "layer_types", None) or ()) else None


def has_states(model: LensModel) -> bool:
    """Has the model layers that carry a state from token to token: state-space models, linear attention?"""
    names = ("state_size", "mamba_d_state", "ssm_state_size")
    return chunk_length(model) is not None or any(getattr(_text_config(model), name, None) for name in names)


def attention_width(model: LensModel) -> int:
    """Width of all heads together, in the widest block: their output projections tell where blocks differ (Gemma 4)."""
    widths: list[int] = [model.cfg.n_heads * model.cfg.d_head]
    if class_kind(model) == "TransformerBridge":
        outputs = [getattr(getattr(block, "attn", None), "o", None) for block in blocks(model)]
        weights = [getattr(getattr(output, "original_component", None), "weight", None) for output in outputs]
        widths += [weight.numel() // model.cfg.d_model for weight in weights if isinstance(weight, Tensor)]
    return max(widths)


def attention_window(model: LensModel) -> int | None:
    """Tokens that some layer's attention sees at most; None where each sees all before."""
    config = _text_config(model)
    found = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    own = getattr(model.cfg, "window_size", None) if getattr(model.cfg, "use_local_attn", False) else None
    return min((n for n in (*found, own) if isinstance(n, int) and n > 0), default=None)


def memory_flags(model: LensModel) -> tuple[Any, ...]:
    """What, besides the architecture, decides how much memory a forward takes."""
    names = ("use_attn_result", "use_split_qkv_input", "use_attn_in", "use_hook_mlp_in", "dtype")
    return (*(getattr(model.cfg, name, None) for name in names), str(source_device(model)))
