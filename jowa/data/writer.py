"""Append episodes to a game's folder, in such a way that being killed loses only what was not yet committed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import jowa
from jowa.data.layout import ACTIONS, COLUMNS, EPISODES, MANIFEST, Manifest, damaged
from jowa.data.table import read_table
from jowa.errors import UserError
from jowa.files import locked_folder, require_writable_folder

_HASH_CHUNK = 1 << 24


class EpisodeWriter:
    """Writes one game's episodes; a context manager that commits on leaving, also after an error.

    Row t of an episode is (s_t, a_t, r_{t+1}, done_{t+1}); the frame after the last action is not stored.
    """

    def __init__(
        self,
        folder: Path | str,
        game: str,
        *,
        provenance: dict[str, Any],
        append: bool = False,
        commit_every: int = 20_000,
    ) -> None:
        """Open `<folder>/<game>` for writing.

        Args:
            folder: the episode store; made if missing.
            game: ALE name.
            provenance: JSON-compatible facts about where the episodes come from, kept in the manifest.
            append: add to episodes that are already there. Without it they are a UserError.
            commit_every: rows (agent steps) after which the finished episodes are committed.

        Raises:
            UserError: the folder can't be written, is in use by another writer, is damaged, or already holds
                episodes and `append` is False.
        """
        json.dumps(provenance, allow_nan=False)
        self.folder = require_writable_folder(Path(folder) / game, "data.path")
        self._commit_every = commit_every
        self._provenance = provenance
        names = [*(column.file for column in COLUMNS.values()), EPISODES]
        with contextlib.ExitStack() as stack:
            _claim(self.folder, stack)
            self._before = _committed(self.folder, game, append)
            self._files = {
                name: stack.enter_context(_GrowingFile(self.folder / name, self._before)) for name in names
            }
            self._stack = stack.pop_all()
        self._transitions = self._committed = self._before.transitions
        self._episodes = self._before.episodes
        self._return_sum = self._before.mean_return * self._before.episodes
        self._closed = False

    @property
    def transitions(self) -> int:
        """Rows (agent steps) in the folder, those of this writer that are not yet committed included."""
        return self._transitions

    @property
    def episodes(self) -> int:
        """Episodes in the folder, those of this writer that are not yet committed included."""
        return self._episodes

    def append(
        self,
        frames: NDArray[np.uint8],
        actions: NDArray[np.uint8],
        rewards: NDArray[np.float32],
        terminated: bool,
        info: dict[str, Any] | None = None,
    ) -> None:
        """Add one episode of T agent steps.

        Args:
            frames: (T, 84, 84) uint8.
            actions: (T,) uint8, indices into the full 18.
            rewards: (T,) float32, raw.
            terminated: the game ended with the last step; False for truncated or cut episodes.
            info: JSON-compatible facts about the episode (its behaviour, say).

        Raises:
            ValueError: a shape, type or value is wrong; nothing has been added.
        """
        if self._closed:
            raise ValueError("the writer is closed")
        _check_episode(frames, actions, rewards)
        ends = np.zeros(len(actions), np.uint8)
        ends[-1] = bool(terminated)
        episode_return = float(rewards.sum(dtype=np.float64))
        entry = {"start": self._transitions, "length": len(actions), "return": episode_return,
                 "terminated": bool(terminated), "info": info or {}}
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        arrays = {"frames": frames, "actions": actions, "rewards": rewards, "ends": ends}
        parts = {column.file: np.ascontiguousarray(arrays[name], column.dtype).tobytes()
                 for name, column in COLUMNS.items()}
        parts[EPISODES] = line
        for file, content in parts.items():
            self._files[file].write(content)
        for growing in self._files.values():
            growing.accept()
        self._transitions += len(actions)
        self._episodes += 1
        self._return_sum += episode_return
        if self._transitions - self._committed >= self._commit_every:
            self.commit()

    def commit(self) -> None:
        """Put every appended episode on disk for good."""
        files = {file: growing.commit() for file, growing in self._files.items()}
        recording = {
            "first_episode": self._before.episodes,
            "episodes": self._episodes - self._before.episodes,
            "transitions": self._transitions - self._before.transitions,
            "jowa_version": jowa.__version__,
            "provenance": self._provenance,
        }
        dataclasses.replace(
            self._before,
            transitions=self._transitions,
            episodes=self._episodes,
            mean_return=self._return_sum / max(self._episodes, 1),
            files=files,
            recordings=[*self._before.recordings, recording],
        ).write(self.folder)
        self._committed = self._transitions

    def close(self) -> None:
        """Commit what is not yet committed and let go of the files; calling it twice does no harm."""
        if self._closed:
            return
        self._closed = True
        with self._stack:
            if self._transitions > self._committed:
                self.commit()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _GrowingFile:
    """A file that grows by accepted writes; what a failed or killed write left is overwritten or cut off."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._handle = path.open("r+b" if path.exists() else "w+b", buffering=0)
        try:
            self._size = self._pending = manifest.bytes_of(path.name)
            self._handle.truncate(self._size)
            self._hash = hashlib.sha256()
            while chunk := self._handle.read(_HASH_CHUNK):
                self._hash.update(chunk)
            if self._size and self._hash.hexdigest() != manifest.files[path.name].get("sha256"):
                raise damaged(path, "its content is not what was committed")
        except BaseException:
            self._handle.close()
            raise
        self._content = b""

    def write(self, content: bytes) -> None:
        self._handle.seek(self._size)
        rest = memoryview(content)
        while rest:
            rest = rest[self._handle.write(rest):]
        self._content = content

    def accept(self) -> None:
        self._hash.update(self._content)
        self._size += len(self._content)
        self._content = b""

    def commit(self) -> dict[str, Any]:
        os.fsync(self._handle.fileno())
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def __enter__(self) -> _GrowingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def _claim(folder: Path, stack: contextlib.ExitStack) -> None:
    try:
        stack.enter_context(locked_folder(folder, wait=False))
    except BlockingIOError:
        raise UserError(
            f"{folder} is being written by another process: wait for it, or set data.path to another folder"
        ) from None


def _committed(folder: Path, game: str, append: bool) -> Manifest:
    if not (folder / MANIFEST).exists():
        return Manifest.empty(game)
    manifest = Manifest.read(folder)
    read_table(folder, manifest)
    if manifest.episodes and not append:
        raise UserError(
            f"{folder} already holds {manifest.episodes} episodes of {game}: pass append=true to add to them, "
            "or set data.path to another folder"
        )
    return manifest


def _check_episode(frames: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any]) -> None:
    arrays = {"frames": frames, "actions": actions, "rewards": rewards}
    for name, array in arrays.items():
        column = COLUMNS[name]
        if not isinstance(array, np.ndarray) or array.dtype != column.dtype:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{name} must be a numpy array of {column.dtype}, not {kind}")
        if array.shape != (len(actions), *column.shape):
            raise ValueError(f"{name} must have the shape {(len(actions), *column.shape)}, not {array.shape}")
    if len(actions) == 0:
        raise ValueError("an episode needs at least one step")
    if actions.max() >= ACTIONS:
        raise ValueError(f"actions must lie in 0..{ACTIONS - 1} (ALE's full set), not {int(actions.max())}")
    if not np.isfinite(rewards).all():
        raise ValueError("rewards must be finite")
