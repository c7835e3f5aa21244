"""Write episodes into parts of a game, in such a way that being killed loses only the part not yet committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import (
    ACTIONS,
    CHUNK,
    COLUMNS,
    FRAME_SHAPE,
    SHARD,
    Manifest,
)
from jowa.data.open_part import OpenPart, sweep
from jowa.data.parts import committed_parts
from jowa.errors import UserError
from jowa.files import full_disk, require_writable_folder

SOURCE_FACTS = ("rom_md5", "sticky")
"""What must be alike in all of a game's parts, unless mixing is allowed: otherwise they are of two different games."""


class EpisodeWriter:
    """Writes one game's episodes; a context manager.

    Row t of an episode is (s_t, a_t, r_{t+1}, done_{t+1}); the frame after the last action is not stored.

    Without a part's name, episodes go into numbered parts, one for about `commit_every` rows, and leaving the context
    commits what there is, also after an error. With a name all go into that part, which is committed on leaving
    without an error and else leaves nothing.
    """

    def __init__(
        self,
        folder: Path | str,
        game: str,
        *,
        provenance: dict[str, Any],
        append: bool = False,
        part: str | None = None,
        allow_mixed: bool = False,
        commit_every: int = 2 * SHARD,
        shard: int = SHARD,
        chunk: int = CHUNK,
    ) -> None:
        """Open `<folder>/<game>` for writing; any number of writers may, each makes parts of its own.

        Args:
            folder: the episode store; made if missing.
            game: ALE name.
            provenance: JSON-compatible facts about where the episodes come from, kept in the manifests.
            append: add numbered parts to what is already there. Without it that is a UserError.
            part: the name of the one part to write.
            allow_mixed: let a game's parts come from different ROMs, or from sticky and other play.
            commit_every: rows (agent steps) after which a numbered part is committed.
            shard: frames a file. chunk: frames compressed together.

        Raises:
            UserError: the folder can't be written, holds the part already, holds episodes that are not to be mixed
                with these, or is damaged; or it holds episodes and `append` is False.
        """
        json.dumps(provenance, allow_nan=False)
        self.folder = require_writable_folder(Path(folder) / game, "data.path")
        self._game, self._provenance, self._name = game, provenance, part
        self._commit_every, self._shard, self._chunk = commit_every, shard, chunk
        there = committed_parts(folder, game)
        if part in there:
            raise UserError(f"{self.folder / str(part)} is there already: remove it to write it anew.")
        if there and part is None and not append:
            raise UserError(
                f"{self.folder} already holds episodes of {game}: pass append=true to add to them, or set data.path to "
                "another folder."
            )
        before = {name: Manifest.read(self.folder / name) for name in there}
        if not allow_mixed:
            _check_alike(self.folder, before, provenance)
        self._before = (
            sum(one.transitions for one in before.values()),
            sum(one.episodes for one in before.values()),
        )
        sweep(self.folder)
        self._open: OpenPart | None = None
        self._added = (0, 0)
        self._closed = False

    @property
    def transitions(self) -> int:
        """Rows (agent steps) of the game, those of this writer that are not yet committed included."""
        return self._before[0] + self._added[0]

    @property
    def episodes(self) -> int:
        """Episodes of the game, those of this writer that are not yet committed included."""
        return self._before[1] + self._added[1]

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
            rewards: (T,) float32, raw, or clipped where the source has no raw ones.
            terminated: the game ended with the last step; False for truncated or cut episodes.
            info: JSON-compatible facts about the episode (its behaviour, say).

        Raises:
            ValueError: a shape, type or value is wrong; nothing has been added.
            UserError: the disk is full; what was committed is safe.
        """
        if self._closed:
            raise ValueError("the writer is closed")
        _check_episode(frames, actions, rewards)
        entry = {"length": len(actions), "return": float(rewards.sum(dtype=np.float64)),
                 "terminated": bool(terminated), "info": info or {}}  # fmt: skip
        json.dumps(entry, allow_nan=False)
        with full_disk(self.folder):
            if self._open is None:
                self._open = OpenPart(self.folder, self._shard, self._chunk)
            self._open.append(frames, actions, rewards, entry)
        self._added = (self._added[0] + len(actions), self._added[1] + 1)
        if self._name is None and self._open.transitions >= self._commit_every:
            self.commit()

    def commit(self) -> None:
        """Put every appended episode on disk for good, as a part; without any there is nothing to do.

        Raises:
            UserError: another process has made the part of that name; the disk is full.
        """
        if self._open is None:
            return
        part, self._open = self._open, None
        try:
            with full_disk(self.folder):
                part.finish(self._game, self._provenance)
            if self._name is not None:
                if not part.rename(self._name):
                    raise UserError(f"{self.folder / self._name} was made by another process in the meantime.")
                return
            # Numbers may be taken by a writer beside this one.
            number = len(committed_parts(self.folder.parent, self._game))
            while not part.rename(f"part-{number:05d}"):
                number += 1
        finally:
            part.discard()

    def close(self) -> None:
        """Commit what is not yet committed; calling it twice does no harm."""
        if not self._closed:
            self._closed = True
            self.commit()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._name is not None and self._open is not None:
            self._open.discard()
            self._open = None
        self.close()


def _check_alike(folder: Path, parts: dict[str, Manifest], provenance: dict[str, Any]) -> None:
    for name, part in parts.items():
        for fact in SOURCE_FACTS:
            theirs, ours = part.provenance.get(fact), provenance.get(fact)
            if theirs != ours:
                raise UserError(
                    f"{folder / name} has {fact} {theirs}, the new episodes have {ours}: they are not of the same "
                    "game; set data.path (out) to another folder, or allow_mixed=true to have both."
                )


def _check_episode(frames: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any]) -> None:
    wanted = {"frames": (frames, np.dtype("u1")), "actions": (actions, COLUMNS["actions"]),
              "rewards": (rewards, COLUMNS["rewards"])}  # fmt: skip
    for name, (array, dtype) in wanted.items():
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{name} must be {dtype}, not {kind}")
    steps = len(actions)
    if steps < 1 or frames.shape != (steps, *FRAME_SHAPE) or actions.ndim != 1 or rewards.shape != (steps,):
        shapes = ", ".join(f"{name} {array.shape}" for name, (array, _) in wanted.items())
        raise ValueError(f"an episode of T >= 1 steps has frames (T, 84, 84), actions (T,), rewards (T,), not {shapes}")
    if actions.max() >= ACTIONS:
        raise ValueError(f"actions must lie below {ACTIONS}, not {actions.max()}")
    if not np.isfinite(rewards).all():
        raise ValueError("rewards must be finite")
