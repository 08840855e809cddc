"""Load a model fit for every scope: weights unprocessed, evaluation mode.

A folded final norm takes the meaning out of the Temperature and Fisher Scopes, so nothing here folds, centres or
otherwise processes weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from tl_scopes.demo import BUNDLED
from tl_scopes.model.lens import LensModel, bridge_class, hooked_class, transformer_lens_version
from tl_scopes.numerics.arguments import public_call


@public_call
def load_model(
    name: str | Path = "demo",
    *,
    kind: Literal["auto", "bridge", "hooked"] = "auto",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> LensModel:
    """A TransformerLens model with unprocessed weights, in evaluation mode, ready for every scope.

    Args:
        name: ``"demo"`` or ``"demo-llama"`` (bundled, offline; a GPT-2 and a Llama), a Hugging Face Hub name, or a local
            Hugging Face folder.
        kind: ``"bridge"`` for ``TransformerBridge`` (TransformerLens 3 and 4), ``"hooked"`` for
            ``HookedTransformer`` (3 only), ``"auto"`` for the bridge.
        device: None lets TransformerLens choose (CUDA when there is one); the bundled models stay on the CPU.
        dtype: of the weights; None is float32.
        kwargs: handed to ``boot_transformers`` or ``HookedTransformer.from_pretrained_no_processing``.

    Returns:
        The model, of the class that ``kind`` names.

    Raises:
        ValueError: unknown kind; ``kind="hooked"`` on TransformerLens 4; a device that is not there; a file, a folder that
            holds no model, or one whose weights are a pickle; a model that the libraries cannot read.

    >>> load_model().cfg.d_vocab == model.cfg.d_vocab
    True
    """
    require_loadable(name, kind, device)
    dtype = torch.float32 if dtype is None else dtype
    if not dtype.is_floating_point:
        raise ValueError(f"(dtype={dtype}): expected a floating-point dtype, e.g. torch.float32")
    if str(name) in BUNDLED:
        name, device = BUNDLED[str(name)], "cpu" if device is None else device
    folder = Path(name).expanduser()
    local = folder.is_dir()
    try:
        # Both libraries draw initial weights before they load the real ones.
        with torch.random.fork_rng():
            if kind != "hooked":
                source = str(folder.resolve()) if local else str(name)  # a bare name may be one of TransformerLens' own
                model = bridge_class().boot_transformers(source, device=device, dtype=dtype, **kwargs)
            elif local:
                model = _hooked_from_folder(folder, device, dtype, kwargs)
            else:
                model = hooked_class().from_pretrained_no_processing(str(name), device=device, dtype=dtype, **kwargs)
    except (ValueError, TypeError, NotImplementedError, OSError):
        raise
    except Exception as error:  # broken weights and configurations raise whatever their readers have
        raise ValueError(f"(name={str(name)!r}): cannot be loaded ({type(error).__name__}: {error})") from error
    model.eval()
    return model  # type: ignore[no-any-return]


def require_loadable(name: str | Path, kind: str, device: str | torch.device | None) -> None:
    """Refuse what cannot be loaded, as far as that shows without loading.

    Raises:
        ValueError: an unknown kind, a device that is not there, a file, a folder that holds no model.
    """
    if kind not in ("auto", "bridge", "hooked"):
        raise ValueError(f"(kind={kind!r}): expected 'auto', 'bridge' or 'hooked'")
    if kind == "hooked" and hooked_class() is None:
        raise ValueError(
            f"(kind='hooked'): HookedTransformer was removed in TransformerLens 4 (installed: "
            f"{transformer_lens_version()}). Use kind='bridge', or install 'transformer_lens<4'"
        )
    if not str(name):
        raise ValueError("(name=''): give 'demo', a Hub name or a local folder")
    folder = Path(name).expanduser()
    if str(name) not in BUNDLED and folder.is_dir():
        _require_model_folder(folder, str(name))
    elif folder.is_file():
        raise ValueError(f"(name={str(name)!r}): this is a file; give the folder of a Hugging Face model")
    elif isinstance(name, Path) or str(name).startswith(("/", "./", "../", "~")):
        raise ValueError(f"(name={str(name)!r}): there is no such folder")
    _require_device(device)


def _require_model_folder(folder: Path, name: str) -> None:
    """A configuration, and weights that are no pickle."""
    if not (folder / "config.json").exists():
        raise ValueError(f"(name={name!r}): this folder has no config.json; expected a Hugging Face model")
    pickles = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if pickles and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"(name={name!r}): its weights are a pickle ({pickles[0]}), which can run any code when it is read. Convert it "
            "where you trust it: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder) of transformers "
            "writes model.safetensors"
        )


def _require_device(device: str | torch.device | None) -> None:
    """Refuse a device that is misspelt or not in this machine."""
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"(device={str(device)!r}): cannot be used here ({reason}). Leave it out, or try 'cpu'"
        ) from error


def _hooked_from_folder(
    folder: Path, device: str | torch.device | None, dtype: torch.dtype, kwargs: dict[str, Any]
) -> Any:
    """``HookedTransformer`` from a local folder, which ``from_pretrained`` refuses.

    TransformerLens guesses the architecture from the path when that contains "llama" or "gemma", and then takes
    dimensions of the published models; a link with a neutral name makes it read ``config.json``.
    """
    from transformer_lens import loading_from_pretrained as loading
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(folder.resolve())
    tokenizer = AutoTokenizer.from_pretrained(source, add_bos_token=True)
    hf_model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as parent:
        link = Path(parent) / "model"
        link.symlink_to(source, target_is_directory=True)
        cfg = loading.get_pretrained_model_config(
            str(link), device=None if device is None else str(device), dtype=dtype, fold_ln=False, **kwargs
        )
        cfg.model_name = folder.name
        state = loading.get_pretrained_state_dict(str(link), cfg, hf_model=hf_model, dtype=dtype)
    cfg.tokenizer_name = None
    model = hooked_class()(cfg, tokenizer=tokenizer, move_to_device=False)
    model.load_and_process_state_dict(
        state,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
        refactor_factored_attn_matrices=False,
    )
    model.move_model_modules_to_device()
    return model
