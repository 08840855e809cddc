"""Tensors that lie beside a saved result: ``x.json.tensors.safetensors`` beside ``x.json``, each knowing the other.

The two hold the same digest of what was saved, so tensors of another result are never read as this one's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tl_scopes.results.digests import digest_tensors

ENDING = ".tensors.safetensors"
_OWNER = "tl_scopes.owner"


def beside_file(path: Path) -> Path:
    """Where the tensors of a result at ``path`` lie; beside the file itself where the path is a link to it."""
    real = path.resolve()
    return real.with_name(real.name + ENDING)


def owner_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """What the two files know each other by."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
    digest_tensors(digest, tensors.items())
    return digest.hexdigest()


def tensor_bytes(tensors: Mapping[str, Tensor], owner: str) -> bytes:
    """The file beside."""
    from safetensors.torch import save

    return bytes(save(dict(tensors), {_OWNER: owner}))


def require_own_tensors(beside: Path) -> None:
    """Refuse to replace a file that is not the tensors of a saved result."""
    from safetensors import SafetensorError, safe_open

    if beside.exists() and not (beside.is_file() and beside.stat().st_size == 0):
        try:
            with safe_open(beside, "pt") as file:
                own = _OWNER in (file.metadata() or {})
        except (SafetensorError, OSError):
            own = False
        if not own:
            raise ValueError(
                f"({str(beside)!r}): the kept gradient would replace this file, which is not a saved result's; save under "
                "another name, or delete it"
            )


def tensors_beside(path: Path, raw: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that a saved result names; ``ValueError`` where they are not there or another's."""
    from safetensors import SafetensorError, safe_open

    name = raw.get("gradient_file")
    if "gradient_file" not in raw:
        return {}
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"gradient_file: {str(name)[:60]!r} is not the name of a file in the same folder")
    places = [path.resolve().with_name(name), path.with_name(name)]
    beside = next((p for p in places if p.is_file()), None)
    if beside is None:
        raise ValueError(f"gradient_file: there is no file {name!r} beside it; it holds the gradient that was kept")
    try:
        with safe_open(beside, "pt") as file:
            owner = (file.metadata() or {}).get(_OWNER)
            # copied: memory of its own, aligned as a new tensor is, so that products come out bit for bit
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"gradient_file: {name}: {error}") from error
    if owner != raw.get("gradient_owner"):
        raise ValueError(
            f"gradient_file: {name} holds tensors of another result (gradient_owner); "
            "put the file there that was saved with it"
        )
    return tensors
