"""What every result does alike: it shows itself, and it is saved as JSON with a name and a version; never pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from tl_scopes.results.beside import beside_file, owner_of, require_own_tensors, tensor_bytes, tensors_beside
from tl_scopes.results.checked import Checked
from tl_scopes.results.files import require_json_target, write_files
from tl_scopes.results.lossless import MISTAKES, Archive, Misfit

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


class Serializable(Checked):
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

        Gradients and directions that were kept go beside it, as safetensors (``x.json.tensors.safetensors``); an
        activation cache is not written. The files are replaced when all is on the disk, not before; what is there and
        is no result, or not its tensors, is never replaced: ``ValueError``.
        """
        try:
            return self._save(Path(path))
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}.save{'' if str(error)[0] == '(' else ': '}{error}") from error
        except RecursionError as error:
            raise ValueError(f"{type(self).__name__}.save: nested too deep for JSON") from error

    def _save(self, path: Path) -> Path:
        archive = Archive()
        require_json_target(path)
        payload = self._written(archive)
        text = _json(payload)
        files: dict[Path, str | bytes] = {}
        if archive.beside and (path.is_file() or not path.exists()):
            beside = beside_file(path)
            require_own_tensors(beside)
            owner = owner_of(text, archive.beside)
            text = _json({**payload, "gradient_file": beside.name, "gradient_owner": owner})
            files[beside] = tensor_bytes(archive.beside, owner)
        write_files({**files, path: text})
        return path

    @classmethod
    def load(cls: type[S], path: str | Path) -> S:
        """Read what :meth:`save` wrote; numbers come back bit for bit. Any other file is a ``ValueError``."""
        path, name = Path(path), cls.__name__
        call = f"{name}.load({str(path)!r})"
        try:
            raw: Any = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:  # no JSON, or no text at all
            raise ValueError(f"{call}: not a JSON file ({error})") from error
        found = raw.get("format") if isinstance(raw, dict) else None
        if found != f"tl_scopes.{name}":
            raise ValueError(f"{call}: not written by {name}.save (format: {str(found)[:60]!r})")
        version = raw.get("format_version")
        if type(version) is not int or version < 1:
            raise ValueError(f"{call}: not as {name}.save writes it (format_version: {str(version)[:60]!r} is none)")
        if version > cls.format_version:
            raise ValueError(
                f"{call}: format_version {str(version)[:60]} is newer than "
                f"this tl_scopes reads ({cls.format_version}); upgrade tl_scopes"
            )
        try:
            return cls._restored(Archive(tensors_beside(path, raw)), raw)
        except (*MISTAKES, RecursionError, OSError) as error:
            kind = "" if type(error) in (ValueError, Misfit) else f"{type(error).__name__}: "
            raise ValueError(f"{call}: not as {name}.save writes it ({kind}{error})") from error

    def _written(self, archive: Archive) -> dict[str, Any]:
        """The values of the file."""
        return archive.write_record(self)

    @classmethod
    def _restored(cls: type[S], archive: Archive, raw: dict[str, Any]) -> S:
        """The result that a file's values make."""
        found: S = archive.read_record(cls, raw)
        return found


def _json(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
