"""How one game's episodes lie on disk: the names, types and counts that the writer and the store share.

A game's folder holds one flat, headerless file for each column (frames, actions, rewards, ends), a table with one JSON
line an episode, and a manifest. Only what the manifest counts exists: it is written last, by rename, so that whatever
a killed writer left behind it is ignored.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jowa.errors import UserError
from jowa.files import write_json

FRAME_SHAPE = (84, 84)
ACTIONS = 18
FORMAT = 1
MANIFEST = "manifest.json"
EPISODES = "episodes.jsonl"


@dataclass(frozen=True)
class Column:
    """One flat file: a row for every agent step."""

    file: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes a row takes on disk."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


COLUMNS = {
    "frames": Column("frames.u8", np.dtype("u1"), FRAME_SHAPE),
    "actions": Column("actions.u8", np.dtype("u1"), ()),
    "rewards": Column("rewards.f4", np.dtype("<f4"), ()),
    "ends": Column("ends.u8", np.dtype("u1"), ()),
}
ROW_BYTES = sum(column.row_bytes for column in COLUMNS.values())


@dataclass(frozen=True)
class Manifest:
    """What a game's folder holds.

    Attributes:
        game: ALE name.
        transitions: rows (agent steps) committed.
        episodes: episodes committed.
        mean_return: mean over the episodes of the sum of raw rewards (0 without episodes).
        files: for every file its committed size in bytes and the sha256 of these bytes.
        recordings: for every writer that added episodes, in order: `first_episode`, `episodes`, `transitions`,
            `jowa_version` and the `provenance` it gave (ROM MD5, stickiness, behaviour ...).
        format: version of this layout.
    """

    game: str
    transitions: int
    episodes: int
    mean_return: float
    files: dict[str, dict[str, Any]]
    recordings: list[dict[str, Any]]
    format: int = FORMAT

    @staticmethod
    def empty(game: str) -> Manifest:
        """A folder in which nothing has been committed."""
        return Manifest(game, 0, 0, 0.0, {}, [])

    def bytes_of(self, file: str) -> int:
        """Committed size of a file, in bytes."""
        return int(self.files[file]["bytes"]) if file in self.files else 0

    def write(self, folder: Path) -> None:
        """Commit: from here on the folder holds what this manifest says."""
        write_json(folder / MANIFEST, asdict(self))

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read a folder's manifest; UserError if it cannot be understood or if the files are shorter than it says."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise UserError(
                    f"{path} has format {content['format']}, but this version of jowa reads format {FORMAT}: "
                    "record the data again, or set data.path to another folder"
                )
            manifest = Manifest(**content)
            expected = {column.file: manifest.transitions * column.row_bytes for column in COLUMNS.values()}
            consistent = all(manifest.bytes_of(file) == size for file, size in expected.items())
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        if not consistent or (manifest.episodes and EPISODES not in manifest.files):
            raise damaged(path, "its counts and file sizes contradict each other")
        for file in manifest.files:
            actual = (folder / file).stat().st_size if (folder / file).is_file() else 0
            if actual < manifest.bytes_of(file):
                raise damaged(folder / file, f"{actual} bytes where {manifest.bytes_of(file)} were committed")
        return manifest


def damaged(path: Path, reason: str) -> UserError:
    """The error for data that cannot be trusted."""
    return UserError(
        f"{path} is damaged ({reason}): delete {path.parent} and record that game again with "
        "`python -m jowa.data.record`, or set data.path to another folder"
    )
