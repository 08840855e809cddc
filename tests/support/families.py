"""Tiny random checkpoints of the families that differ, on every model class of the installed TransformerLens.

Each family is built from its own seed, without a file, a network or the global random state:

    pair = build("llama", "bridge")   # Pair(model, hf, tokenizer, family, kind, dtype), float64 by default
    pair.model                        # TransformerLens, weights unprocessed, eval mode
    pair.hf                           # the same weights in plain Hugging Face, eager attention, never wrapped

**Shared, do not mutate.** `build`, `processed` and `native_unit_gain` return one cached object per argument
set, used by every test of the session: do not write to its weights, leave hooks on it, change its mode or its
tokenizer. A test that must do so passes `fresh=True` and owns what it gets.

No checkpoint is degenerate: norm gains are spread (1 + 0.3 N(0,1); an all-ones final gain makes ‖y‖
constant), every position of `PROMPT` reaches the last one with a gradient of healthy size, p is neither flat
nor one-hot, and soft caps bend the logits. Token id 0 is an ordinary word (" the"), so `id or default` fails
a test.
"""

from __future__ import annotations

import importlib.metadata
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

try:
    from transformer_lens import HookedTransformer
except ImportError:  # TransformerLens 4
    HookedTransformer = None
try:
    from transformer_lens import TransformerBridge
except ImportError:  # TransformerLens 3
    from transformer_lens.model_bridge import TransformerBridge

TL_MAJOR = int(importlib.metadata.version("transformer_lens").split(".")[0])

D_MODEL, N_HEADS, N_KV_HEADS, D_HEAD, D_MLP, N_CTX = 32, 4, 2, 8, 64, 128
WINDOW = 6  # sliding window of mistral, gemma2 and gemma3: shorter than PROMPT

# ----------------------------------------------------------------------------
# Tokenizer
# ----------------------------------------------------------------------------
_WORDS = [
    "the",
    "a",
    "dog",
    "cat",
    "man",
    "house",
    "river",
    "city",
    "king",
    "ship",
    "saw",
    "ran",
    "sat",
    "to",
    "in",
    "of",
    "and",
    "is",
    "was",
    "not",
    "big",
    "red",
    "old",
    "new",
    "Paris",
    "London",
    "North",
    "South",
    "good",
    "bad",
]
VOCAB: dict[str, int] = {
    piece: i
    for i, piece in enumerate(
        [" " + _WORDS[0], "<bos>", "<eos>", "<pad>", "<unk>"]
        + [" " + word for word in _WORDS[1:]]
        + list(_WORDS)
        + list(",.!?:;")
        + [str(number) for number in range(10, 100)]
    )
}
D_VOCAB = len(VOCAB)
BOS_ID, EOS_ID, PAD_ID, UNK_ID = (VOCAB[f"<{name}>"] for name in ("bos", "eos", "pad", "unk"))

PROMPT = "the dog saw a cat and the old man ran to"
"""Twelve tokens with the BOS, the two " the"s spelt differently ("the" and " the")."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer in memory: " dog" and "dog" are two pieces; 10..99, "," and "!" one piece each.

    `name_or_path` and `add_bos_token` keep TransformerLens from reloading it through the Hub.
    """
    backend = Tokenizer(models.WordLevel(VOCAB, unk_token="<unk>"))
    pieces = Regex(r" ?[A-Za-z]+|\d+|[^\sA-Za-z\d]|\s+")
    backend.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        name_or_path="tiny",
        add_bos_token=True,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=N_CTX,
    )


def prompt_tokens(length: int = 12, seed: int = 0) -> torch.Tensor:
    """Token ids [length]: the BOS, then words drawn from the vocabulary without its special tokens."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.tensor([i for piece, i in VOCAB.items() if not piece.startswith("<")])
    drawn = words[torch.randint(len(words), (length - 1,), generator=generator)]
    return torch.cat([torch.tensor([BOS_ID]), drawn])


# ----------------------------------------------------------------------------
# Hugging Face checkpoints
# ----------------------------------------------------------------------------
_COMMON = dict(vocab_size=D_VOCAB, bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID)
_MODERN = dict(
    hidden_size=D_MODEL,
    intermediate_size=D_MLP,
    num_attention_heads=N_HEADS,
    num_key_value_heads=N_KV_HEADS,
    max_position_embeddings=N_CTX,
)
_NEOX = dict(
    hidden_size=D_MODEL,
    intermediate_size=4 * D_MODEL,
    num_hidden_layers=2,
    num_attention_heads=N_HEADS,
    max_position_embeddings=N_CTX,
    hidden_act="gelu",
    rotary_pct=0.5,
    tie_word_embeddings=False,
)
_GEMMA = dict(head_dim=D_HEAD, num_hidden_layers=3, sliding_window=WINDOW, query_pre_attn_scalar=2 * D_HEAD)


@dataclass(frozen=True)
class _Family:
    """How one family is built: Hugging Face classes and sizes, the scale of its weights, where it runs."""

    config: str
    model: str
    sizes: dict[str, Any]
    hooked: Callable[[Any], dict[str, Any]] | None = None  # HookedTransformerConfig fields; None: unsupported
    converter: str = ""
    embed_std: float = 0.3
    unembed_std: float = 0.35  # logits of standard deviation about 0.35·√d_model = 2
    min_bridge: int = 3  # first major version of TransformerLens whose bridge is right


def _hooked_layer_norm(config: Any) -> dict[str, Any]:
    return dict(normalization_type="LN", eps=1e-5, d_mlp=4 * D_MODEL)


def _hooked_neox(config: Any) -> dict[str, Any]:
    return _hooked_layer_norm(config) | dict(
        act_fn="gelu",
        positional_embedding_type="rotary",
        rotary_dim=D_HEAD // 2,
        parallel_attn_mlp=config.use_parallel_residual,
        default_prepend_bos=False,
    )


def _hooked_rms(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    return dict(
        normalization_type="RMS",
        final_rms=True,
        eps=config.rms_norm_eps,
        d_mlp=config.intermediate_size,
        n_key_value_heads=config.num_key_value_heads,
        gated_mlp=True,
        act_fn="silu",
        positional_embedding_type="rotary",
        rotary_dim=D_HEAD,
        rotary_base=rope.get("full_attention", rope)["rope_theta"],
    )


def _hooked_local(config: Any, layer_types: list[str]) -> dict[str, Any]:
    attn_types = ["local" if name == "sliding_attention" else "global" for name in layer_types]
    return _hooked_rms(config) | dict(use_local_attn=True, window_size=WINDOW, attn_types=attn_types)


def _hooked_gemma(config: Any) -> dict[str, Any]:
    sliding = config.rope_parameters.get("sliding_attention")
    return _hooked_local(config, config.layer_types) | dict(
        act_fn="gelu_pytorch_tanh",
        use_normalization_before_and_after=True,
        attn_scale=config.query_pre_attn_scalar**0.5,
        attn_scores_soft_cap=config.attn_logit_softcapping or -1.0,
        output_logits_soft_cap=config.final_logit_softcapping or -1.0,
        use_qk_norm=config.model_type == "gemma3_text",
        rotary_base_local=sliding["rope_theta"] if sliding else None,
    )


_FAMILIES: dict[str, _Family] = {
    "gpt2": _Family(
        "GPT2Config",
        "GPT2LMHeadModel",
        dict(n_embd=D_MODEL, n_layer=2, n_head=N_HEADS, n_positions=N_CTX, n_ctx=N_CTX),
        lambda config: _hooked_layer_norm(config) | dict(act_fn="gelu_new"),
        "convert_gpt2_weights",
    ),
    "neox": _Family("GPTNeoXConfig", "GPTNeoXForCausalLM", _NEOX, _hooked_neox, "convert_neox_weights"),
    "neox_sequential": _Family(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        _NEOX | dict(use_parallel_residual=False),
        _hooked_neox,
        "convert_neox_weights",
    ),
    "llama": _Family(
        "LlamaConfig",
        "LlamaForCausalLM",
        _MODERN | dict(num_hidden_layers=2, tie_word_embeddings=False),
        _hooked_rms,
        "convert_llama_weights",
    ),
    "mistral": _Family(
        "MistralConfig",
        "MistralForCausalLM",
        _MODERN | dict(num_hidden_layers=3, sliding_window=WINDOW, tie_word_embeddings=False),
        lambda config: _hooked_local(config, ["sliding_attention"] * 3),
        "convert_mistral_weights",
    ),
    "qwen2": _Family(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        _MODERN | dict(num_hidden_layers=2, tie_word_embeddings=False),
        lambda config: _hooked_rms(config) | dict(default_prepend_bos=False),
        "convert_qwen2_weights",
    ),
    "qwen2_tied": _Family(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        _MODERN | dict(num_hidden_layers=2, tie_word_embeddings=True),
        lambda config: _hooked_rms(config) | dict(default_prepend_bos=False),
        "convert_qwen2_weights",
    ),
    "gemma2": _Family(
        "Gemma2Config",
        "Gemma2ForCausalLM",
        _MODERN | _GEMMA | dict(final_logit_softcapping=3.0, attn_logit_softcapping=1.5),
        _hooked_gemma,
        "convert_gemma_weights",
    ),
    "gemma3": _Family(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        _MODERN | _GEMMA | dict(layer_types=["sliding_attention", "sliding_attention", "full_attention"]),
        _hooked_gemma,
        "convert_gemma_weights",
    ),
    "granite": _Family(
        "GraniteConfig",
        "GraniteForCausalLM",
        _MODERN
        | dict(
            num_hidden_layers=2,
            embedding_multiplier=3.0,
            logits_scaling=2.0,
            residual_multiplier=0.7,
            attention_multiplier=0.3,
            tie_word_embeddings=False,
        ),
        unembed_std=0.7,
    ),
    "cohere": _Family(
        "CohereConfig",
        "CohereForCausalLM",
        _MODERN | dict(num_hidden_layers=2, logit_scale=0.5),
        embed_std=0.6,
        min_bridge=4,  # TransformerLens 3 pairs the rotary dimensions wrongly
    ),
}
FAMILIES: list[str] = list(_FAMILIES)
VARIANTS = ("neox_sequential", "mistral", "qwen2_tied")
"""Families that differ from another by one property."""


def late(family: str, kind: str) -> bool:
    """Is this pair in the slow tier, but for tests that name it? Variants are, and bridges that run beside a
    HookedTransformer of the same family (TransformerLens 3.9), but for two."""
    return family in VARIANTS or (kind == "bridge" and len(kinds_available()) > 1 and family not in ("gpt2", "llama"))


def _hf_model(family: str, dtype: torch.dtype, unit_gain: bool = False) -> nn.Module:
    """The family's Hugging Face model in eval mode, with float32 weights cast to `dtype`.

    TransformerLens' `process_weights` passes every weight through float32, even with all steps off and even
    in float64; float32 numbers survive that, and the float32 and float64 checkpoints are identical.
    """
    spec = _FAMILIES[family]
    config = getattr(transformers, spec.config)(**_COMMON, **spec.sizes)
    from_config = transformers.AutoModelForCausalLM.from_config
    with torch.random.fork_rng(devices=[]):
        hf = from_config(config, attn_implementation="eager", dtype=torch.float32)
    generator = torch.Generator().manual_seed(zlib.crc32(family.encode()))

    def draw(parameter: nn.Parameter, std: float, mean: float = 0.0) -> None:
        # parameters only: Hugging Face keeps the rotary buffers in float32 whatever the dtype of the weights
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = (mean + std * noise).to(dtype)

    for module, kind, parameter in parameters_once(hf):
        if "Norm" in type(module).__name__ and kind == "weight":
            draw(parameter, std=0.0 if unit_gain else 0.3, mean=0.0 if "gemma" in family else 1.0)
        elif kind == "bias":
            draw(parameter, std=0.1)
        elif isinstance(module, nn.Embedding):
            draw(parameter, std=spec.embed_std)
        elif module is hf.get_output_embeddings():
            draw(parameter, std=spec.unembed_std)
        else:  # transformers' Conv1D (GPT-2) stores [in, out]
            fan_in = parameter.shape[1 if isinstance(module, nn.Linear) else 0]
            draw(parameter, std=fan_in**-0.5)
    hf.config.dtype = dtype
    hf.config.architectures = [spec.model]
    return hf.eval().requires_grad_(True)


def parameters_once(hf: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Each parameter with its module and its name there; tied ones where they come first."""
    seen: set[int] = set()
    for module in hf.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield module, kind, parameter


# ----------------------------------------------------------------------------
# TransformerLens models
# ----------------------------------------------------------------------------
def kinds_available() -> list[str]:
    """The model classes of this TransformerLens: "hooked" (`HookedTransformer`, 3.9 only) and "bridge"."""
    return ["bridge"] if HookedTransformer is None else ["hooked", "bridge"]


def supported(family: str, kind: str) -> bool:
    """Whether `kind` exists in the installed TransformerLens and computes `family` correctly there."""
    spec = _FAMILIES[family]
    right = spec.hooked is not None if kind == "hooked" else spec.min_bridge <= TL_MAJOR
    return kind in kinds_available() and right


PAIRS: list[tuple[str, str]] = [(f, k) for f in FAMILIES for k in kinds_available() if supported(f, k)]
"""Every (family, kind) to parametrise over."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A TransformerLens model and the plain Hugging Face model with the same weights."""

    model: Any
    hf: nn.Module
    tokenizer: PreTrainedTokenizerFast
    family: str
    kind: str
    dtype: torch.dtype


def _hooked_model(hf: nn.Module, family: str, processing: bool) -> Any:
    """A `HookedTransformer` from a hand-written config and TransformerLens' own weight converter."""
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    spec, config = _FAMILIES[family], hf.config
    fields: dict[str, Any] = dict(
        n_layers=config.num_hidden_layers,
        d_model=D_MODEL,
        d_head=D_HEAD,
        n_heads=N_HEADS,
        n_ctx=N_CTX,
        d_vocab=D_VOCAB,
        dtype=config.dtype,
        device="cpu",
        model_name=f"tiny-{family}",
        original_architecture=spec.model,
    )
    cfg = HookedTransformerConfig(**fields | spec.hooked(config))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="HookedTransformer is deprecated", category=DeprecationWarning)
        model = HookedTransformer(cfg, tokenizer=tokenizer(), move_to_device=False)
    weights = {k: v.detach().clone() for k, v in getattr(weight_conversions, spec.converter)(hf, cfg).items()}
    steps = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
    model.load_and_process_state_dict(weights, **dict.fromkeys(steps, processing))
    return model.eval()


def _bridge_model(hf: nn.Module, family: str, processing: bool) -> Any:
    """A `TransformerBridge` around `hf`, which it takes over."""
    model = TransformerBridge.boot_transformers(
        f"tiny-{family}", hf_model=hf, tokenizer=tokenizer(), device="cpu", dtype=hf.config.dtype
    )
    if processing:
        model.enable_compatibility_mode(disable_warnings=True)
    return model.eval()


def _make(family: str, kind: str, dtype: torch.dtype, processing: bool, unit_gain: bool) -> Pair:
    if not supported(family, kind):
        raise ValueError(f"build({family!r}, {kind!r}): not available here; the available pairs are {PAIRS}.")
    with torch.random.fork_rng(devices=[]):
        source = _hf_model(family, dtype, unit_gain)
        model = (_hooked_model if kind == "hooked" else _bridge_model)(source, family, processing)
    return Pair(model, _hf_model(family, dtype, unit_gain), tokenizer(), family, kind, dtype)


_shared = lru_cache(maxsize=None)(_make)


def build(family: str, kind: str, dtype: torch.dtype = torch.float64, *, fresh: bool = False) -> Pair:
    """The family's `Pair` with raw weights; shared by all callers unless `fresh`."""
    return (_make if fresh else _shared)(family, kind, dtype, False, False)


def processed(family: str, kind: str, dtype: torch.dtype = torch.float64, *, fresh: bool = False) -> Pair:
    """The checkpoint of `build` with norms folded into the weights and a centred unembedding (gpt2, llama).

    `HookedTransformer`: `load_and_process_state_dict` with `fold_ln` and `center_unembed`; bridge:
    `enable_compatibility_mode()`. `hf` stays raw: compare log-probabilities, logit differences, tr F.
    """
    return (_make if fresh else _shared)(family, kind, dtype, True, False)


def native_unit_gain(kind: str, dtype: torch.dtype = torch.float64, *, fresh: bool = False) -> Pair:
    """An unprocessed llama whose norm gains are all ones: ‖y‖ is constant though nothing was folded."""
    return (_make if fresh else _shared)("llama", kind, dtype, False, True)


# ----------------------------------------------------------------------------
# Tolerances: max |TransformerLens − Hugging Face| / max |Hugging Face|
# ----------------------------------------------------------------------------
# Measured over x, y, the logits and the gradients at x of a logit, a log-probability, ‖y‖ and a fixed vᵀy, at
# the last position of four random prompts of 7-20 tokens; the largest is shown ("-": not supported).
# `python tests/test_oracles.py` prints it anew. bridge: 3.9 and 4.3 gave the same numbers; cohere 4.3 only.
#
#                       float64              float32              bfloat16             float16
#                  hooked    bridge     hooked    bridge     hooked    bridge     hooked    bridge
# gpt2              3e-15    2e-15       1e-06    9e-07       4e-02    2e-02       4e-03    2e-03
# neox              1e-07    1e-07       1e-06    3e-07       3e-02    1e-02       3e-03    1e-03
# neox_sequential   2e-07    2e-07       1e-06    4e-07       3e-02    1e-02       6e-03    2e-03
# llama             1e-06    0           3e-06    0           2e-02    0           4e-03    0
# mistral           1e-06    0           2e-06    0           3e-02    0           2e-03    0
# qwen2             6e-07    0           1e-06    0           1e-02    0           3e-03    0
# qwen2_tied        5e-07    0           1e-06    0           1e-02    0           2e-03    0
# gemma2            6e-07    0           1e-06    0           4e-02    0           5e-03    0
# gemma3            9e-07    0           2e-06    0           7e-02    0           1e-02    0
# granite           -        0           -        0           -        0           -        0
# cohere            -        3e-07       -        6e-07       -        2e-02       -        1e-03
FLOAT64_RTOL: dict[str, float] = {family: 1e-9 if family == "gpt2" else 5e-6 for family in FAMILIES}
"""GPT-2 is float64 throughout. Elsewhere a float64 Hugging Face model computes in float32: the rotary angles
and the attention softmax of all of them, RMSNorm (llama, mistral, qwen2, gemma2, gemma3, granite), LayerNorm
of cohere; `HookedTransformer` computes all of these in float64."""

FLOAT64_RTOL_BRIDGE: dict[str, float] = FLOAT64_RTOL | dict.fromkeys(
    ("llama", "mistral", "qwen2", "qwen2_tied", "gemma2", "gemma3", "granite"), 1e-9
)
"""On the bridge these seven make the same float32 steps as Hugging Face and agree bit for bit. Only for one
unpadded prompt: padding changes the order of the float32 sums, so batched runs go by `FLOAT64_RTOL`."""

FLOAT32_RTOL = 1e-5
FLOAT16_RTOL = 3e-2
BFLOAT16_RTOL = 0.2
PROCESSED_RTOL = 1e-5
"""`processed` against `hf` on what folding leaves alone (gradients of log-probabilities, logit differences):
TransformerLens processes weights in float32 whatever their dtype; measured 7e-7 (float64), 2e-6 (float32)."""


def rtol(pair: Pair) -> float:
    """The tolerance for one unpadded prompt on `pair` with raw weights, relative to the largest entry."""
    if pair.dtype == torch.float64:
        return (FLOAT64_RTOL_BRIDGE if pair.kind == "bridge" else FLOAT64_RTOL)[pair.family]
    by_dtype = {torch.float32: FLOAT32_RTOL, torch.float16: FLOAT16_RTOL, torch.bfloat16: BFLOAT16_RTOL}
    return by_dtype[pair.dtype]
