"""Write episodes into parts of a game, in such a way that being killed loses only the part not yet committed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import (
    CHUNK,
    COLUMNS,
    FRAME_SHAPE,
    SHARD,
    Manifest,
)
from jowa.data.open_part import OpenPart, sweep
from jowa.data.parts import committed_parts
from jowa.errors import UserError
from jowa.files import full_disk, locked_folder, require_writable_folder
from jowa.games import NUM_ACTIONS, is_game, legal_mask

SOURCE_FACTS = ("rom_md5", "sticky", "rewards", "stack_padding")
"""What must be alike in all of a game's parts, unless mixing is allowed: otherwise they are of two different games."""


class EpisodeWriter:
    """Writes one game's episodes; a context manager.

    Row t of an episode is (s_t, a_t, r_{t+1}, done_{t+1}); the frame after the last action is not stored.

    Without a part's name, episodes go into numbered parts, one for about `commit_every` rows, and leaving the context
    commits what there is, also after an error. With a name all go into that part, which is committed on leaving
    without an error and else leaves nothing. Any number of writers may be at work, each makes parts of its own.
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
        commit_seconds: float = math.inf,
        shard: int = SHARD,
        chunk: int = CHUNK,
    ) -> None:
        """Open `<folder>/<game>` for writing.

        Args:
            folder: the episode store; made if missing.
            game: ALE name.
            provenance: JSON-compatible facts about where the episodes come from, kept in the manifests.
            append: add numbered parts to what is already there. Without it that is a UserError.
            part: the name of the one part to write.
            allow_mixed: let a game's parts differ in their ROM, stickiness, rewards or padding.
            commit_every, commit_seconds: rows of a numbered part, or seconds since the last one, that make it complete.
            shard, chunk: frames a file, and frames compressed together.

        Raises:
            UserError: the folder can't be written or is damaged, or holds what these episodes are not to be added to.
        """
        json.dumps(provenance, allow_nan=False)
        self.folder = require_writable_folder(Path(folder) / game, "data.path")
        self._game, self._provenance, self._name = game, provenance, part
        self._commit_every, self._commit_seconds = commit_every, commit_seconds
        self._shard, self._chunk, self._allow_mixed = shard, chunk, allow_mixed
        self._alike: set[str] = set()
        self._before = self._look_around(append)
        sweep(self.folder)
        self._open: OpenPart | None = None
        self._committed = time.monotonic()
        self._added, self._closed = (0, 0), False

    def _look_around(self, append: bool) -> tuple[int, int]:
        """Rows and episodes that are there; UserError if none may be added to them."""
        there = committed_parts(self.folder.parent, self._game)
        if self._name is not None and (self.folder / self._name).exists():
            why = "is there already" if self._name in there else "is in the way of the part of that name"
            raise UserError(f"{self.folder / self._name} {why}: remove it to write it anew.")
        if there and self._name is None and not append:
            raise UserError(
                f"{self.folder} already holds episodes of {self._game}: pass append=true to add to them, or set "
                "data.path to another folder."
            )
        before = self._check_alike(there)
        return sum(one.transitions for one in before), sum(one.episodes for one in before)

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
            actions: (T,) uint8, indices into the game's set.
            rewards: (T,) float32, raw, or clipped where the source has no raw ones.
            terminated: the game ended with the last step; False for truncated or cut episodes.
            info: JSON-compatible facts about the episode (its behaviour, say).

        Raises:
            ValueError: a shape, type or value is wrong; nothing has been added.
            UserError: the disk is full; what was committed is safe.
        """
        if self._closed:
            raise ValueError("the writer is closed")
        _check_episode(frames, actions, rewards, self._game)
        entry = {"length": len(actions), "return": float(rewards.sum(dtype=np.float64)),
                 "terminated": bool(terminated), "info": info or {}}  # fmt: skip
        json.dumps(entry, allow_nan=False)
        with full_disk(self.folder):
            if self._open is None:
                self._open = OpenPart(self.folder, self._shard, self._chunk)
            self._open.append(frames, actions, rewards, entry)
        self._added = (self._added[0] + len(actions), self._added[1] + 1)
        due = self._open.transitions >= self._commit_every or time.monotonic() - self._committed >= self._commit_seconds
        if self._name is None and due:
            self.commit()

    def note(self, facts: dict[str, Any]) -> None:
        """Put more facts into the provenance of the part that is being written and of those that follow."""
        json.dumps(facts, allow_nan=False)
        self._provenance = {**self._provenance, **facts}

    def commit(self) -> None:
        """Put every appended episode on disk for good, as a part; without any there is nothing to do.

        Raises:
            UserError: another process has made the part of that name, or one that isn't to be mixed with it; the disk
                is full.
        """
        if self._open is None:
            return
        part, self._open = self._open, None
        try:
            if not part.transitions:
                return
            with full_disk(self.folder):
                part.finish(self._game, self._provenance)
            # Two writers that began beside each other saw nothing to compare with.
            with locked_folder(self.folder, wait=True):
                self._check_alike(committed_parts(self.folder.parent, self._game))
                self._rename(part)
            self._committed = time.monotonic()
        finally:
            part.discard()

    def _rename(self, part: OpenPart) -> None:
        if self._name is not None:
            if not part.rename(self._name):
                raise UserError(f"{self.folder / self._name} was made by another process in the meantime.")
            return
        number = len(committed_parts(self.folder.parent, self._game))
        # A part that was removed makes the count fall behind the names.
        while not part.rename(f"part-{number:05d}"):
            number += 1

    def _check_alike(self, names: Iterable[str]) -> list[Manifest]:
        """Read the manifests not read before; UserError if the new episodes are not to be mixed with theirs."""
        manifests = {name: Manifest.read(self.folder / name) for name in names if name not in self._alike}
        for name, manifest in manifests.items():
            different = () if self._allow_mixed else differing_facts(manifest.provenance, self._provenance)
            for fact in different:
                raise UserError(
                    f"{self.folder / name} has {fact} {manifest.provenance.get(fact)}, the new episodes have "
                    f"{self._provenance.get(fact)}: they are not of the same game; set data.path (out) to another "
                    "folder, or allow_mixed=true to have both."
                )
        self._alike |= set(manifests)
        return list(manifests.values())

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


def differing_facts(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Those of `SOURCE_FACTS` that two parts' provenances disagree about; none if they may be mixed."""
    return [fact for fact in SOURCE_FACTS if _fact(one, fact) != _fact(other, fact)]


def _fact(provenance: Mapping[str, Any], fact: str) -> Any:
    # Sources without padding don't speak of it.
    return bool(provenance.get(fact)) if fact == "stack_padding" else provenance.get(fact)


def _check_episode(frames: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any], game: str) -> None:
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
    legal = legal_mask(game) if is_game(game) else np.ones(NUM_ACTIONS, np.bool_)
    if actions.max() >= len(legal):
        raise ValueError(f"actions must lie below {len(legal)}, not {actions.max()}")
    if not legal[actions].all():
        raise ValueError(f"{game} has no action {actions[~legal[actions]][0]}")
    if not np.isfinite(rewards).all():
        raise ValueError("rewards must be finite")
