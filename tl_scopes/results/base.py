"""What every result does alike: it shows itself, and it is saved as JSON with a name and a version; never pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from tl_scopes.results.lossless import Archive

S = TypeVar("S", bound="Serializable")


@runtime_checkable
class Picture(Protocol):
    """What ``.view()`` gives: a :class:`tl_scopes.views.View`, which notebooks show by itself."""

    def html(self) -> str:
        """A page of its own that works offline."""

    def save(self, path: str | Path) -> Path:
        """Write :meth:`html` to a file; returns its path."""

    def show(self) -> None:
        """Display it in a notebook; print its text elsewhere."""

    def _repr_html_(self) -> str: ...


def views() -> Any:
    """The package's pictures, imported by name when one is asked for: they know the results, not the other way round."""
    before = random.getstate()
    try:
        return import_module("tl_scopes.views")
    finally:
        random.setstate(before)  # rich draws from it when it is first imported


class Displayable:
    """A result that shows itself: as text, as a notebook's output, as a page, as a figure.

    What each class looks like is registered in :mod:`tl_scopes.views`, or beside a result of another folder.
    """

    def view(self) -> Picture:
        """The result as an interactive view."""
        found: Picture = views().view(self)
        return found

    def html(self) -> str:
        """A page of its own that works offline."""
        return self.view().html()

    def plot(self) -> Any:
        """The result as a matplotlib figure."""
        return views().plot(self)

    def show(self) -> None:
        """Display it in a notebook; print its text elsewhere."""
        self.view().show()

    def __str__(self) -> str:
        return str(views().text(self))

    def _repr_html_(self) -> str:
        return self.view()._repr_html_()


class Serializable:
    """A dataclass that is saved by its fields, see :mod:`tl_scopes.results.lossless`."""

    format_version: ClassVar[int] = 1
    """Raised where an older package could not read what a newer one writes."""
    _beside: ClassVar[tuple[str, ...]] = ()
    """Tensors that lie beside the JSON file, as safetensors."""
    _unsaved: ClassVar[tuple[str, ...]] = ()
    """Fields that are not saved at all."""
    _later: ClassVar[tuple[str, ...]] = ()
    """Fields that older files lack."""

    @property
    def _head(self) -> dict[str, Any]:
        """What every saved result begins with."""
        return {"format": f"tl_scopes.{type(self).__name__}", "format_version": self.format_version}

    def to_dict(self) -> dict[str, Any]:
        """Everything but what :meth:`save` writes beside the file, as JSON-ready values."""
        return self._written(Archive())

    @classmethod
    def from_dict(cls: type[S], raw: Mapping[str, Any]) -> S:
        """From what :meth:`to_dict` gave."""
        return cls._restored(Archive(), dict(raw))

    def save(self, path: str | Path) -> Path:
        """Write the result as JSON, without loss; returns the path.

        Gradients and directions that were kept go beside it, as safetensors; an activation cache is not written.
        """
        path, archive = Path(path), Archive()
        payload = self._written(archive)
        if archive.beside:
            from safetensors.torch import save_file

            beside = path.with_suffix(".safetensors")
            save_file(archive.beside, beside)
            payload["gradient_file"] = beside.name
        text = json.dumps(payload, ensure_ascii=False, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls: type[S], path: str | Path) -> S:
        """Read what :meth:`save` wrote; numbers come back bit for bit. Any other file is a ``ValueError``."""
        path, name = Path(path), cls.__name__
        call = f"{name}.load({str(path)!r})"
        try:
            raw: Any = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # no JSON, or no text at all
            raise ValueError(f"{call}: not a JSON file ({error})") from error
        if not isinstance(raw, dict) or raw.get("format") != f"tl_scopes.{name}":
            raise ValueError(f"{call}: not written by {name}.save")
        version = raw.get("format_version")
        if isinstance(version, int) and version > cls.format_version:
            raise ValueError(
                f"{call}: format {version} is newer than this tl_scopes reads ({cls.format_version}); upgrade tl_scopes"
            )
        try:
            return cls._restored(_beside(path, raw), raw)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{call}: not as {name}.save writes it ({type(error).__name__}: {error})") from error

    def _written(self, archive: Archive) -> dict[str, Any]:
        """The values of the file."""
        return archive.write_record(self)

    @classmethod
    def _restored(cls: type[S], archive: Archive, raw: dict[str, Any]) -> S:
        """The result that a file's values make."""
        found: S = archive.read_record(cls, raw)
        return found


def _beside(path: Path, raw: Mapping[str, Any]) -> Archive:
    """The tensors that lie beside a file."""
    if "gradient_file" not in raw:
        return Archive()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return Archive(load_file(path.with_name(raw["gradient_file"])))
    except SafetensorError as error:
        raise ValueError(f"{raw['gradient_file']}: {error}") from error
