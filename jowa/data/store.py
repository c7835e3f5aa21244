"""The episode store: a folder with one folder a game, from which any rows can be read.

Whatever the format on disk, the rest of the system sees a table of episodes and rows by number: row
`table.starts[e] + t` is agent step t of episode e.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import COLUMNS, FRAME_SHAPE, MANIFEST, ROW_BYTES, Manifest, damaged
from jowa.data.table import EpisodeTable, read_table
from jowa.data.writer import EpisodeWriter
from jowa.errors import UserError

__all__ = ["FRAME_SHAPE", "EpisodeStore", "EpisodeTable", "EpisodeWriter", "Rows"]

_HASH_CHUNK = 1 << 24


@dataclass(frozen=True)
class Rows:
    """Rows as stored, in the shape (...) in which they were asked for.

    Attributes:
        frames: (..., 84, 84) uint8, or None if they were not asked for.
        actions: (...) uint8, indices into the full 18.
        rewards: (...) float32, raw.
        ends: (...) bool.
    """

    frames: NDArray[np.uint8] | None
    actions: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    ends: NDArray[np.bool_]


class EpisodeStore:
    """Read access to the games recorded in a folder, as they were when it was opened."""

    def __init__(self, folder: Path | str, games: Sequence[str] | None = None) -> None:
        """Open the store.

        Args:
            folder: the config's `data.path`.
            games: ALE names, in the order wanted; all games found (alphabetical) if None.

        Raises:
            UserError: there is no such folder, a game has no episodes, or its files are damaged.
        """
        self.folder = Path(folder)
        found = _find_games(self.folder)
        self.games = tuple(found if games is None else games)
        if len(set(self.games)) != len(self.games):
            raise UserError(f"data.games names a game twice: {', '.join(self.games)}")
        missing = [game for game in self.games if game not in found]
        if missing or not self.games:
            raise _no_data(self.folder, missing)
        self._manifests = {game: Manifest.read(self.folder / game) for game in self.games}
        empty = [game for game in self.games if self._manifests[game].episodes == 0]
        if empty:
            raise _no_data(self.folder, empty)
        self.tables = {game: read_table(self.folder / game, self._manifests[game]) for game in self.games}
        self._columns = {game: self._open_columns(game) for game in self.games}

    def manifest(self, game: str) -> dict[str, Any]:
        """The game's manifest as plain data: counts, mean return, file hashes, recordings with their provenance."""
        return asdict(self._manifests[game])

    def transitions(self, game: str) -> int:
        """Rows (agent steps) the game has."""
        return self._manifests[game].transitions

    def bytes(self, game: str) -> int:
        """Bytes the game's rows take on disk."""
        return self.transitions(game) * ROW_BYTES

    def fingerprint(self, game: str) -> str:
        """16 hexadecimal digits that change whenever the game's data does."""
        files = {file: entry["sha256"] for file, entry in self._manifests[game].files.items()}
        return hashlib.sha256(json.dumps([game, files], sort_keys=True).encode()).hexdigest()[:16]

    def read_frames(self, game: str, rows: NDArray[np.integer[Any]] | slice) -> NDArray[np.uint8]:
        """Frames (..., 84, 84) uint8, a copy, for row numbers of any shape (...) or a slice; IndexError if outside."""
        return self._read(game, "frames", rows)

    def read(self, game: str, rows: NDArray[np.integer[Any]], frames: bool = True) -> Rows:
        """Rows of any shape (...), such as (n, 8) windows; IndexError if one lies outside the game's data."""
        return Rows(
            frames=self._read(game, "frames", rows) if frames else None,
            actions=self._read(game, "actions", rows),
            rewards=self._read(game, "rewards", rows),
            ends=self._read(game, "ends", rows).view(np.bool_),
        )

    def verify(self, game: str) -> None:
        """Read all of the game's files and compare them with the manifest's sha256; UserError if they differ."""
        for file, entry in self._manifests[game].files.items():
            digest, rest = hashlib.sha256(), int(entry["bytes"])
            with (self.folder / game / file).open("rb") as handle:
                while rest and (chunk := handle.read(min(rest, _HASH_CHUNK))):
                    digest.update(chunk)
                    rest -= len(chunk)
            if digest.hexdigest() != entry["sha256"]:
                raise damaged(self.folder / game / file, "its content is not what was committed")

    def _read(self, game: str, column: str, rows: NDArray[np.integer[Any]] | slice) -> NDArray[Any]:
        data = self._columns[game][column]
        if isinstance(rows, slice):
            return data[rows].copy()
        # A negative number would silently read from the other end.
        if rows.size and (rows.min() < 0 or rows.max() >= len(data)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {game}, which has {len(data)}")
        picked: NDArray[Any] = data[rows]
        return picked

    def _open_columns(self, game: str) -> dict[str, NDArray[Any]]:
        count = self._manifests[game].transitions
        # As plain arrays: the memmap subclass makes every indexing slower, and keeps nothing alive that these don't.
        return {
            name: np.asarray(np.memmap(self.folder / game / column.file, column.dtype, "r",
                                       shape=(count, *column.shape)))
            for name, column in COLUMNS.items()
        }


def _find_games(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))


def _no_data(folder: Path, missing: Sequence[str]) -> UserError:
    what = f"no recorded episodes of {', '.join(missing)}" if missing else "no recorded episodes"
    return UserError(
        f"{what} in {folder}: make them with `python -m jowa.data.record`, or set data.path to the folder that has them"
    )
