"""Files that are either wholly there or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jowa.errors import UserError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def sync_file(path: Path) -> None:
    """Have the file's content on disk before returning."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the folder's entries (a rename) on disk before returning, where the file system can do that."""
    with contextlib.suppress(OSError):
        sync_file(folder)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds it is fsynced and renamed to `path`.

    When the block fails, the temporary file is removed and `path` is as it was. A killed process leaves at most one
    temporary file for each path, which the next one overwrites.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` atomically, as indented JSON (NaN and infinities are refused: ValueError)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def require_writable_folder(path: Path | str, key: str) -> Path:
    """Make the folder if needed and return it; raise UserError naming the config `key` if it cannot be written."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Trying beats asking: permission bits say nothing about read-only mounts or full quotas.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write to the folder {folder} ({reason}): set {key} to one you can write to") from None
    return folder


@contextlib.contextmanager
def locked_folder(folder: Path, wait: bool, name: str = ".lock") -> Iterator[None]:
    """Hold the folder's lock of that name (released by the system when the process dies).

    With `wait` it waits for its turn, without it raises BlockingIOError when another process holds the lock.
    File systems that know no locks go unprotected.
    """
    with _lock_file(folder / name) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


def _lock_file(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except PermissionError:
        # Another user's: it can be locked all the same.
        return path.open("rb")
