"""A sparse autoencoder as it is kept: an object, a mapping of tensors, a file, or a folder; its tensors and its settings.

    folder   ``sae_lens``: ``cfg.json`` + ``sae_weights.safetensors``;  Gemma Scope: ``params.npz``, or ``config.json`` +
             ``params.safetensors``;  else the one file of tensors in it
    tensors  ``W_enc`` ``[d_in, d_sae]``, ``W_dec`` ``[d_sae, d_out]``;  per feature ``b_enc``, ``threshold``, ``b_gate``,
             ``b_mag``, ``r_mag``;  ``b_dec`` ``[d_out]``;  also written ``w_enc``, ``w_dec``

Nothing is imported of the package that made it. Of a safetensors file only what is asked for is read: one column of a
million features, not all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tl_scopes.demo import BUNDLED_SAE

WEIGHTS = ("sae_weights.safetensors", "params.safetensors", "params.npz")
SETTINGS = ("cfg.json", "config.json")
OTHER_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec"}
PER_FEATURE = ("b_enc", "threshold", "b_gate", "b_mag", "r_mag")
TENSORS = ("W_enc", "W_dec", "b_dec", *PER_FEATURE)
PICKLES = (".pt", ".pth", ".bin", ".pkl")
Index = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class StoredSAE:
    """An SAE's tensors, read where they are asked for, and its settings.

    Attributes:
        shapes: of the tensors that it has, by the names of ``sae_lens``.
        read: part of a tensor.
        cfg: its settings; an object or a mapping.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str, Index], Tensor]
    cfg: Any

    def setting(self, name: str) -> Any:
        """An entry of ``cfg``, or of its ``metadata`` or ``meta``; an architecture is called where it is a method."""
        for holder in (self.cfg, *(_entry(self.cfg, inner) for inner in ("metadata", "meta"))):
            value = _entry(holder, name)
            if value is not None:
                return value() if callable(value) else value
        return None

    def column(self, feature: int) -> Tensor:
        """``W_enc[:, f]``."""
        return self.read("W_enc", (slice(None), slice(feature, feature + 1)))[:, 0]

    def row(self, feature: int) -> Tensor:
        """``W_dec[f]``."""
        return self.read("W_dec", (slice(feature, feature + 1), slice(None)))[0]

    def number(self, name: str, feature: int) -> Tensor:
        """Entry f of a tensor with one number per feature."""
        return self.read(name, (slice(feature, feature + 1),))[0]


def stored_sae(sae: Any) -> StoredSAE:
    """The SAE that an argument means, its shapes checked.

    Raises:
        ValueError: no such file, a broken one, a pickle; a tensor that is not there, or of a shape that does not fit.
        TypeError: nothing of which an SAE can be read.
    """
    if isinstance(sae, str | Path):
        found, what = _from_path(sae), repr(str(sae))
    elif isinstance(sae, Mapping):
        found, what = _from_mapping(sae, sae.get("cfg", {})), "a mapping"
    else:
        tensors = {name: getattr(sae, name, None) for name in TENSORS}
        cfg = getattr(sae, "cfg", None)
        if not isinstance(tensors["W_enc"], Tensor) or not isinstance(tensors["W_dec"], Tensor) or cfg is None:
            raise TypeError(
                f"(sae=...): expected a folder or file, a mapping of tensors, or an SAE with W_enc [d_in, d_sae], "
                f"W_dec [d_sae, d_out] and cfg, got {type(sae).__name__}"
            )
        found, what = _from_mapping(tensors, cfg), type(sae).__name__
    _require_shapes(found, what)
    return found


def _entry(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _from_mapping(given: Mapping[Any, Any], cfg: Any) -> StoredSAE:
    """From tensors in memory; what is no tensor of an SAE is left alone."""
    named = {OTHER_NAMES.get(name, name): value for name, value in given.items()}
    tensors = {
        name: torch.as_tensor(named[name]) for name in TENSORS if isinstance(named.get(name), Tensor | np.ndarray)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return StoredSAE(shapes, lambda name, index: tensors[name][index].detach(), cfg)


def _from_path(given: str | Path) -> StoredSAE:
    """From a file or a folder, with the settings that lie beside the weights."""
    path = BUNDLED_SAE if str(given) == "demo" else Path(given).expanduser()
    weights = _weights(path, str(given)) if path.is_dir() else path
    if not weights.is_file():
        raise ValueError(f"(sae={str(given)!r}): there is no such file or folder")
    if weights.suffix in PICKLES:
        raise ValueError(
            f"(sae={str(given)!r}): {weights.name} is a pickle, which can run any code when it is read. Load it where you "
            "trust it, and pass its tensors as a mapping: {'W_enc': ..., 'W_dec': ..., 'b_enc': ..., 'b_dec': ...}"
        )
    if weights.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"(sae={str(given)!r}): expected a .safetensors or .npz file, or a folder that holds one")
    cfg = _settings(weights.parent, str(given))
    try:
        if weights.suffix == ".npz":
            with np.load(weights, allow_pickle=False) as arrays:
                return _from_mapping({name: arrays[name] for name in arrays.files}, cfg)
        return _from_safetensors(weights, cfg)
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise ValueError(f"(sae={str(given)!r}): {weights.name} cannot be read ({error})") from error


def _from_safetensors(weights: Path, cfg: Any) -> StoredSAE:
    with safe_open(weights, "pt") as file:
        names = {OTHER_NAMES.get(name, name): name for name in file.keys()}  # noqa: SIM118  # no mapping
        shapes = {name: tuple(file.get_slice(names[name]).get_shape()) for name in TENSORS if name in names}

    def read(name: str, index: Index) -> Tensor:
        with safe_open(weights, "pt") as file:
            part: Tensor = file.get_slice(names[name])[index]
        return part

    return StoredSAE(shapes, read, cfg)


def _weights(folder: Path, given: str) -> Path:
    """The file of tensors in a folder."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".npz", *PICKLES))
    if len(files) == 1:
        return files[0]
    there = ", ".join(p.name for p in files) or "none"
    raise ValueError(
        f"(sae={given!r}): this folder has no {' or '.join(WEIGHTS)}, and not one file of tensors: {there}"
    )


def _settings(folder: Path, given: str) -> Mapping[str, Any]:
    """``cfg.json`` or ``config.json``; without either, none are known."""
    for file in (folder / name for name in SETTINGS):
        if not file.is_file():
            continue
        try:
            cfg = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"(sae={given!r}): {file.name} is not JSON ({error})") from error
        if not isinstance(cfg, dict):
            raise ValueError(f"(sae={given!r}): {file.name} holds no settings, but {type(cfg).__name__}")
        return cfg
    return {}


def _require_shapes(sae: StoredSAE, what: str) -> None:
    """Refuse what has no encoder and decoder of the same features, or not the shapes that its other tensors say."""
    shapes = sae.shapes
    missing = [name for name in ("W_enc", "W_dec") if name not in shapes]
    if missing:
        has = ", ".join(shapes) or "none of an SAE"
        raise ValueError(f"(sae=...): {what} has no {' and no '.join(missing)}; its tensors: {has}")
    if any(len(shapes[name]) != 2 for name in ("W_enc", "W_dec")) or shapes["W_enc"][1] != shapes["W_dec"][0]:
        raise ValueError(
            f"(sae=...): W_enc {list(shapes['W_enc'])} and W_dec {list(shapes['W_dec'])} of {what} are not "
            "[d_in, d_sae] and [d_sae, d_out]"
        )
    d_sae, d_out = shapes["W_dec"]
    expected = {name: (d_sae,) for name in PER_FEATURE} | {"b_dec": (d_out,)}
    said = {"d_in": shapes["W_enc"][0], "d_sae": d_sae}
    for name, shape in expected.items():
        if shapes.get(name, shape) != shape:
            raise ValueError(
                f"(sae=...): {name} of {what} has shape {list(shapes[name])}, and with W_enc {list(shapes['W_enc'])}, "
                f"W_dec {list(shapes['W_dec'])} it is {list(shape)}. Are they the other way round?"
            )
    for name, size in said.items():
        if isinstance(value := sae.setting(name), int) and value != size:
            raise ValueError(f"(sae=...): its cfg says {name} = {value}, its tensors {size}")
