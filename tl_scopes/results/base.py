"""What every result does alike: it shows itself and is saved as JSON with a name and a version; never pickle."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tl_scopes.views.canvas.page import View

S = TypeVar("S", bound="Saved")
DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}


def plain(value: Any) -> Any:
    """The JSON-ready form of a tensor, set, mapping, tuple or result, one level deep; all else as it is."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    return value.to_dict() if isinstance(value, Saved) else value


class Saved(ABC):
    """A result with :meth:`to_dict` and :meth:`from_dict`, which are each other's inverse."""

    format_version: ClassVar[int] = 1
    """Raised where an older package could not read what a newer one writes."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""

    @classmethod
    @abstractmethod
    def from_dict(cls: type[S], raw: Mapping[str, Any]) -> S:
        """From what :meth:`to_dict` gave."""

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON, without loss; returns the path."""
        return self._write(Path(path), self.to_dict())

    @classmethod
    def load(cls: type[S], path: str | Path) -> S:
        """Read what :meth:`save` wrote; numbers come back bit for bit. Any other file is a ``ValueError``."""
        return cls._read(Path(path), cls.from_dict)

    def _head(self) -> dict[str, Any]:
        """What every saved result begins with."""
        return {"format": f"tl_scopes.{type(self).__name__}", "format_version": self.format_version}

    @staticmethod
    def _write(path: Path, payload: Mapping[str, Any]) -> Path:
        text = json.dumps(payload, ensure_ascii=False, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def _read(cls: type[S], path: Path, build: Callable[[dict[str, Any]], S]) -> S:
        """The result in a file, whose values ``build`` puts together."""
        name = cls.__name__
        call = f"{name}.load({str(path)!r})"
        try:
            raw: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # no JSON, or no text at all
            raise ValueError(f"{call}: not a JSON file ({error})") from error
        if not isinstance(raw, dict) or raw.get("format") != f"tl_scopes.{name}":
            raise ValueError(f"{call}: not written by {name}.save")
        version = raw.get("format_version")
        if isinstance(version, int) and version > cls.format_version:
            raise ValueError(
                f"{call}: format {version} is newer than this tl_scopes reads ({cls.format_version}); upgrade tl_scopes"
            )
        try:
            return build(raw)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{call}: not as {name}.save writes it ({type(error).__name__}: {error})") from error


class Shown(ABC):
    """A result with a :meth:`view`; what it looks like is in :mod:`tl_scopes.views`, which is imported when it is drawn."""

    @abstractmethod
    def view(self) -> View:
        """The result as an interactive view."""

    def html(self) -> str:
        """A page of its own that works offline."""
        return self.view().html()

    def _repr_html_(self) -> str:
        return self.view()._repr_html_()

    def show(self) -> None:
        """Display it in a notebook; print its text elsewhere."""
        self.view().show()
