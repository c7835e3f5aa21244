"""Files that are either wholly there or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from jowa.errors import UserError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
def full_disk(path: Path, then: str = "start again; finished parts are safe") -> Iterator[None]:
    """A full disk, a used-up quota or a limit on files as one sentence.

    path: what is being written; then: what to do once there is room.
    """
    try:
        yield
    except Exception as error:
        # Libraries say it in words of their own.
        said = ("No space left on device", "Disk quota exceeded", "RESOURCE_EXHAUSTED")
        full = error.errno in _FULL if isinstance(error, OSError) else any(words in str(error) for words in said)
        if full and not isinstance(error, UserError):
            raise UserError(f"The disk is full while writing {path}: make room and {then}.") from error
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds it is fsynced and renamed to `path`.

    When the block fails, the temporary file is removed and `path` is as it was; UserError if the disk is full. Any
    number of processes may do so at once, the last one wins. A killed one leaves a temporary file, which the next
    overwrites.
    """
    with full_disk(path), lock_file(path.with_name(f".{path.name}.lock"), without_locks=False) as alone:
        # Nobody else uses the one name while the lock is held; any other writer needs one of its own.
        own = "" if alone else f".{os.getpid()}-{os.urandom(4).hex()}"
        temporary = path.with_name(f".{path.name}{own}.tmp")
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


def put_aside(path: Path) -> Path | None:
    """Rename a file or folder to `<name>.old`, `<name>.old2` …; its new path, None if there is none."""
    if not path.exists():
        return None
    names = (path.with_name(f"{path.name}.old{number if number > 1 else ''}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    return aside


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


def check_destination(name: str, key: str) -> Path:
    """Where to write, when a new folder can be made there. Raises UserError naming the config `key`."""
    final = Path(name).expanduser().resolve()
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        kind = "isn't empty" if final.is_dir() else "is a file"
        raise UserError(f"{key}={name} {kind}: choose another {key}.")
    ancestor = next(folder for folder in final.parents if folder.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise UserError(f"No folder can be made in {ancestor}: choose another {key}.")
    return final


def in_new_folder(name: str, key: str, write: Callable[[Path], object]) -> None:
    """Have `write` fill a folder beside `name`, the config `key`'s value, and put it in its place when it is whole."""
    final = check_destination(name, key)
    parent = require_writable_folder(final.parent, key)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=parent))
    try:
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp leaves it to its owner alone
        write(temporary)
        temporary.replace(final)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{key}={name} can't be written ({error}): make room, or choose another {key}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(parent)


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


@contextlib.contextmanager
def lock_file(path: Path, without_locks: bool = True) -> Iterator[bool]:
    """Whether this process holds the lock `path`, a file in an existing folder that is there only while it is held.

    It doesn't wait: another's lock, or one whose file is just being removed, is not had. The system releases it when
    the process dies. `without_locks` is the answer on file systems that know no locks.
    """
    try:
        handle = path.open("ab")
    except FileNotFoundError:  # somebody has just removed the folder
        yield False
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = had = os.path.samestat(path.stat(), os.fstat(handle.fileno()))
        except (BlockingIOError, FileNotFoundError):
            ours = had = False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            ours, had = True, without_locks
        try:
            yield had
        finally:
            if ours:
                path.unlink(missing_ok=True)


def _lock_file(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except PermissionError:
        # Another user's: it can be locked all the same.
        return path.open("rb")
