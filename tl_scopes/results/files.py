"""Files are written whole or not at all: to a new file beside the old one, which then takes its place.

Whatever goes wrong before that (a full disk, a kill, text that UTF-8 has no bytes for) leaves the old file as it was. A
symbolic link stays one, and the file that it names is replaced; a device, a pipe or a terminal is written to, not
replaced. Permissions are those that ``open`` would give, or those of the file that is replaced.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/(?:fd/(\d+)|(stdout)|(stderr))")
"""Names of what is open already; behind them may stand a file of the shell's, which goes on being written."""
_HEAD = 4096


def write_file(path: str | Path, content: str | bytes) -> Path:
    """Write text, as UTF-8, or bytes; returns the path."""
    write_files({Path(path): content})
    return Path(path)


def write_files(contents: Mapping[Path, str | bytes]) -> None:
    """Write several files that belong together: none of them is replaced before all are on the disk.

    Raises:
        ValueError: a text with half of a character (a lone surrogate), which UTF-8 cannot hold.
        OSError: as ``open`` and ``write`` raise it; the files are then as they were.
    """
    encoded = {path: _bytes(path, content) for path, content in contents.items()}
    written: list[tuple[Path, Path]] = []
    try:
        for path, content in encoded.items():
            if _replaceable(path):
                real = Path(os.path.realpath(path))
                beside = real.with_name(f".tl_scopes-{secrets.token_hex(8)}.tmp")
                written.append((beside, real))
                try:
                    _write_new(beside, content, real)
                except OSError as error:  # of the file that was asked for: nobody knows the other
                    raise type(error)(error.errno, error.strerror, str(path)) from error
        for beside, real in written:
            os.replace(beside, real)
    finally:
        for beside, _ in written:
            with suppress(OSError):
                beside.unlink()
    for path, content in encoded.items():
        if not _replaceable(path):
            _write_through(path, content)


def require_json_target(path: Path) -> None:
    """Refuse to save a result in the place of anything but a result.

    Raises:
        ValueError: a name for tensors, or a file that is there and not empty and that no result was saved to.
    """
    if path.suffix.lower() == ".safetensors":
        raise ValueError(
            f"({str(path)!r}): a result is saved as JSON, and .safetensors names tensors; end it with .json"
        )
    if not (path.exists() and _replaceable(path)):
        return
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.strip() and b'"tl_scopes.' not in head:
        raise ValueError(
            f"({str(path)!r}): this file holds something else than a result; choose another name, or delete it"
        )


def _bytes(path: Path, content: str | bytes) -> bytes:
    try:
        return content.encode("utf-8") if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        near = ascii(error.object[max(error.start - 20, 0) : error.end + 20])
        raise ValueError(f"{path}: not written, for UTF-8 has no bytes for half of a character ({near})") from error


def _replaceable(path: Path) -> bool:
    """A regular file, or none yet."""
    if _DESCRIPTOR.fullmatch(os.path.abspath(path)):
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def _write_new(beside: Path, content: bytes, real: Path) -> None:
    """The new file, on the disk, with the permissions of the one that it is for."""
    old = real.stat() if real.exists() else None
    if old is not None and not os.access(real, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    if old is not None:
        if hasattr(os, "chown"):
            with suppress(PermissionError):
                os.chown(beside, old.st_uid, old.st_gid)
        os.chmod(beside, stat.S_IMODE(old.st_mode))


def _write_through(path: Path, content: bytes) -> None:
    """Into a device, a pipe, or what is open already; a folder is refused by ``open``."""
    found = _DESCRIPTOR.fullmatch(os.path.abspath(path))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with open(path if found is None else os.dup(int(found[1] or (1 if found[2] else 2))), "wb") as file:
        file.write(content)
