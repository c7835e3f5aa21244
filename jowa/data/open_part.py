"""A part while it is written: under a temporary name, held by a lock that dies with its process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import jowa
from jowa.data.frames import FrameWriter
from jowa.data.layout import COLUMNS, EPISODES, FRAMES, Manifest, column_file
from jowa.files import sync_file, sync_folder


class TemporaryFolder:
    """A folder for what isn't whole yet, `path`, held by a lock that dies with its process: see `sweep`."""

    def __init__(self, parent: Path, prefix: str = "") -> None:
        """Make it in `parent`, as `.<prefix>….tmp`."""
        self.path = parent / f".{prefix}{os.getpid()}-{os.urandom(4).hex()}.tmp"
        # Before the folder is there: nobody must come upon one that seems to be dead.
        self._lock = _lock_path(self.path).open("ab")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path.mkdir()

    def rename(self, path: Path) -> bool:
        """Give it its name; False if something of that name is there."""
        try:
            self.path.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        sync_folder(path.parent)
        return True

    def discard(self) -> None:
        """Remove what bears the temporary name still, and then the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        _lock_path(self.path).unlink(missing_ok=True)
        self._lock.close()


class OpenPart:
    """A part under its temporary name, held by a lock that dies with its process."""

    def __init__(self, game_folder: Path, shard: int, chunk: int) -> None:
        self._game_folder = game_folder
        self._temporary = TemporaryFolder(game_folder)
        self._folder = self._temporary.path
        self._frames = FrameWriter(self._folder / FRAMES, shard, chunk)
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self._entries: list[dict[str, Any]] = []
        self._begun = 0

    @property
    def transitions(self) -> int:
        """Rows (agent steps) of the episodes that are wholly in it."""
        return self._entries[-1]["start"] + self._entries[-1]["length"] if self._entries else 0

    def append(self, frames: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any], entry: dict[str, Any]) -> None:
        """Add a checked episode of T rows; `entry` is its line of the table, but for its start.

        When it fails half-way (a full disk, an interruption) the episodes before it can still be finished, but no other
        can be added: ValueError.
        """
        if self._begun > len(self._entries):
            raise ValueError("an episode was only half added: nothing can follow it")
        self._begun += 1
        self._frames.append(frames)
        ends = np.zeros(len(actions), np.bool_)
        ends[-1] = entry["terminated"]
        for name, column in (("actions", actions), ("rewards", rewards), ("ends", ends)):
            self._columns[name].append(column.copy())
        self._entries.append({"start": self.transitions, **entry})

    def finish(self, game: str, provenance: dict[str, Any]) -> None:
        """Write all whole episodes that are still held, the manifest last, and see them to the disk."""
        self._frames.close(self.transitions)
        for name, columns in self._columns.items():
            column = np.concatenate(columns)[: self.transitions].astype(COLUMNS[name])
            np.save(self._folder / column_file(name), column)
        lines = (json.dumps(entry, allow_nan=False) + "\n" for entry in self._entries)
        (self._folder / EPISODES).write_text("".join(lines), encoding="utf-8")
        files = {}
        for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
            sync_file(path)
            files[path.relative_to(self._folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        Manifest(game, self.transitions, len(self._entries), files, provenance, jowa.__version__).write(self._folder)
        for folder in (path for path in self._folder.rglob("*") if path.is_dir()):
            sync_folder(folder)

    def rename(self, name: str) -> bool:
        """Give the part its name; False if something of that name is there."""
        return self._temporary.rename(self._game_folder / name)

    def discard(self) -> None:
        """Remove what bears the temporary name still."""
        self._temporary.discard()


def sha256(path: Path) -> str:
    """A file's sha256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock_path(temporary: Path) -> Path:
    """The file whose lock the writer of a temporary folder holds: beside it, so that the two never move together."""
    return temporary.with_suffix(".lock")


def sweep(parent: Path, prefix: str = "") -> None:
    """Remove the temporary folders that killed writers left; the lock of a living one can't be had."""
    for folder in parent.glob(f".{prefix}*.tmp"):
        try:
            with _lock_path(folder).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                _lock_path(folder).unlink(missing_ok=True)
        except OSError:
            # Alive, or on a file system without locks, where nobody can tell.
            continue
