"""The episode store: a folder with one folder a game, from which any rows can be read.

Whatever the format on disk, the rest of the system sees a table of episodes and rows by number: row
`table.starts[e] + t` is agent step t of episode e.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from numpy.typing import NDArray

from jowa.data.layout import FRAME_SHAPE, FRAMES, read_error
from jowa.data.parts import (
    Part,
    check_stored_game,
    committed_parts,
    game_folders,
    has_episodes,
    open_parts,
    register_from_store,
)
from jowa.data.table import EpisodeTable, join_tables
from jowa.data.writer import EpisodeWriter
from jowa.errors import UserError

__all__ = [
    "FRAME_SHAPE", "EpisodeStore", "EpisodeTable", "EpisodeWriter", "NoEpisodes", "Part", "Rows",
    "check_stored_game", "committed_parts", "has_episodes", "register_from_store",
]  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Rows as stored, in the shape (...) in which they were asked for.

    Attributes:
        frames: (..., 84, 84) uint8, or None if they were not asked for.
        actions: (...) uint8, indices into the game's set.
        rewards: (...) float32, as the source gave them (raw, or clipped by a source that has no raw ones).
        ends: (...) bool.
    """

    frames: NDArray[np.uint8] | None
    actions: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    ends: NDArray[np.bool_]


class NoEpisodes(UserError):
    """What was asked for has not been recorded, fetched or imported yet."""


class EpisodeStore:
    """Read access to the games in a folder, as they were when it was opened. Games that aren't Atari's get known by it.

    Frames are read from disk when they are asked for; a game's other columns, 6 bytes a row, are held in memory from
    its first read on.
    """

    def __init__(
        self,
        folder: Path | str,
        games: Sequence[str] | None = None,
        *,
        path_key: str = "data.path",
        games_key: str = "data.games",
    ) -> None:
        """Open the store.

        Args:
            folder: where it is.
            games: ALE names, in the order wanted; all games found (alphabetical) if None.
            path_key, games_key: the configuration's keys that said so, for messages.

        Raises:
            NoEpisodes: there is no such folder, or a game has no episodes.
            UserError: a game is named twice, its files are damaged or out of reach, or its environment is another than
                that of the same name here.
        """
        self.folder = Path(folder)
        wanted = game_folders(self.folder) if games is None else games
        if len(set(wanted)) != len(wanted):
            raise UserError(f"{games_key} names a game twice: {', '.join(wanted)}")
        found = tuple(game for game in wanted if has_episodes(self.folder, game))
        missing = [game for game in games or () if game not in found]
        if missing or not found:
            raise _no_data(self.folder, missing, path_key)
        for game in found:
            register_from_store(self.folder, game)
        self.games = found
        self._parts = {game: open_parts(self.folder, game) for game in self.games}
        self.tables = {
            game: join_tables([part.table for part in parts], [part.first_row for part in parts])
            for game, parts in self._parts.items()
        }
        self._first_rows = {game: np.array([part.first_row for part in self._parts[game]]) for game in self.games}
        self._columns: dict[tuple[str, str], NDArray[Any]] = {}

    def parts(self, game: str) -> tuple[Part, ...]:
        """The game's parts, in the order of their rows."""
        return self._parts[game]

    def manifest(self, game: str) -> dict[str, Any]:
        """What is known of the game as plain data: counts, mean return, and its parts with their provenance."""
        return {
            "game": game,
            "transitions": self.transitions(game),
            "episodes": len(self.tables[game]),
            "mean_return": float(self.tables[game].returns.mean()),
            "parts": [{"name": part.name, **asdict(part.manifest)} for part in self._parts[game]],
        }

    def transitions(self, game: str) -> int:
        """Rows (agent steps) the game has."""
        return sum(part.transitions for part in self._parts[game])

    def episode_names(self, game: str) -> list[str]:
        """<part>/<number in it> of each of the game's episodes: what stays the same when other parts come."""
        return [f"{part.name}/{number}" for part in self._parts[game] for number in range(len(part.table))]

    def bytes(self, game: str) -> int:
        """Bytes the game takes on disk."""
        return sum(part.manifest.bytes for part in self._parts[game])

    def fingerprint(self, game: str) -> str:
        """16 hexadecimal digits that change whenever the game's data does."""
        files = [
            [part.name, {name: entry["sha256"] for name, entry in part.manifest.files.items()}]
            for part in self._parts[game]
        ]
        return hashlib.sha256(json.dumps([game, files], sort_keys=True).encode()).hexdigest()[:16]

    def read_frames(self, game: str, rows: NDArray[np.integer[Any]] | slice) -> NDArray[np.uint8]:
        """Frames (..., 84, 84) uint8 for row numbers of any shape (...) or a slice; IndexError if outside."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.transitions(game)))
        frames = np.empty((rows.size, *FRAME_SHAPE), np.uint8)
        self.start_frames(game, rows.reshape(-1), frames, np.arange(rows.size))()
        return frames.reshape(*rows.shape, *FRAME_SHAPE)

    def start_frames(
        self, game: str, rows: NDArray[np.integer[Any]], out: NDArray[np.uint8], places: NDArray[np.integer[Any]]
    ) -> Callable[[], None]:
        """Begin to read the frames of rows (n,) into out[places], and return what waits for them.

        Several such reads are under way together. `out` is (m, 84, 84) uint8, `places` (n,) below m.
        """
        self._check_rows(game, rows)
        part_of = np.searchsorted(self._first_rows[game], rows, side="right") - 1
        # Rows that follow each other in one part, and go to places that do so too, are one read.
        begins = (np.diff(rows, prepend=-2) != 1) | (np.diff(part_of, prepend=-1) != 0)
        first = np.flatnonzero(begins | (np.diff(places, prepend=-2) != 1)).tolist()
        batch = tensorstore.Batch()
        reads = []
        for start, stop in itertools.pairwise([*first, len(rows)]):
            part = self._parts[game][part_of[start]]
            row, place = int(rows[start]) - part.first_row, int(places[start])
            read = part.frames[row : row + stop - start].read(batch=batch)
            reads.append((out[place : place + stop - start], part, read))
        batch.submit()

        def finish() -> None:
            for target, part, read in reads:
                try:
                    target[:] = read.result()
                except ValueError as error:
                    raise read_error(part.folder / FRAMES, error) from error

        return finish

    def read(self, game: str, rows: NDArray[np.integer[Any]], frames: bool = True) -> Rows:
        """Rows of any shape (...), such as (n, 8) windows; IndexError if one lies outside the game's data."""
        self._check_rows(game, rows)
        return Rows(
            frames=self.read_frames(game, rows) if frames else None,
            actions=self.column(game, "actions")[rows],
            rewards=self.column(game, "rewards")[rows],
            ends=self.column(game, "ends")[rows],
        )

    def column(self, game: str, name: str) -> NDArray[Any]:
        """A game's whole actions (uint8), rewards (float32) or ends (bool), (T,); not to be written to."""
        key = game, name
        if key not in self._columns:
            self._columns[key] = np.concatenate([part.column(name) for part in self._parts[game]])
            self._columns[key].flags.writeable = False
        return self._columns[key]

    def _check_rows(self, game: str, rows: NDArray[np.integer[Any]]) -> None:
        # A negative number would silently read from the other end.
        if rows.size and (rows.min() < 0 or rows.max() >= self.transitions(game)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {game}, which has {self.transitions(game)}")


def _no_data(folder: Path, missing: Sequence[str], path_key: str) -> NoEpisodes:
    what = f"no recorded episodes of {', '.join(missing)}" if missing else "no recorded episodes"
    return NoEpisodes(
        f"{what} in {folder}: make them with `python -m jowa.data.record` (or jowa.data.fetch, jowa.data.import), or "
        f"set {path_key} to the folder that has them."
    )
