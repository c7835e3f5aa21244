"""The parts of a game: which there are, and reading one of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.frames import open_frames
from jowa.data.layout import (
    COLUMNS,
    FRAME_SHAPE,
    FRAMES,
    MANIFEST,
    Manifest,
    column_file,
    damaged,
    other_format,
    read_error,
    unreadable,
)
from jowa.data.table import EpisodeTable, read_table
from jowa.games import GAMES, CustomGame, check_game, register


class Part:
    """One part's manifest and episode table, and its rows, which are opened when they are first read.

    Attributes:
        name: of its folder.
        folder: where it lies.
        manifest: what it says of itself.
        table: its episodes, rows counted from the part's own first.
        first_row: the number of its first row in the game.
    """

    def __init__(self, folder: Path, first_row: int) -> None:
        """Open a part; UserError if it is damaged, out of reach or of another format."""
        self.name, self.folder, self.first_row = folder.name, folder, first_row
        self.manifest = Manifest.read(folder)
        self.table: EpisodeTable = read_table(folder, self.manifest)

    @property
    def transitions(self) -> int:
        """Rows (agent steps)."""
        return self.manifest.transitions

    @property
    def episodes(self) -> int:
        """How many episodes it holds."""
        return self.manifest.episodes

    @property
    def provenance(self) -> dict[str, Any]:
        """Where its episodes come from."""
        return dict(self.manifest.provenance)

    @cached_property
    def frames(self) -> Any:
        """The tensorstore array (T, 84, 84) uint8."""
        path = self.folder / FRAMES
        try:
            frames = open_frames(path)
        except ValueError as error:
            raise read_error(path, error) from error
        if frames.shape != (self.transitions, *FRAME_SHAPE):
            raise damaged(path, f"its shape is {tuple(frames.shape)}")
        return frames

    def column(self, name: str) -> NDArray[Any]:
        """A column (T,), mapped from disk; UserError if it isn't what the manifest says."""
        path = self.folder / column_file(name)
        try:
            column = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise read_error(path, error) from error
        if column.shape != (self.transitions,) or column.dtype != COLUMNS[name]:
            raise damaged(path, f"it holds {column.dtype} {column.shape}")
        return np.asarray(column)


def part_folders(store: Path | str, game: str) -> list[Path]:
    """The folders of a game's parts, whole or not, by name; what a killed writer left is none.

    Raises:
        UserError: they can't be looked for, or an older format lies in their place.
    """
    folder = Path(store) / game
    try:
        if (folder / MANIFEST).is_file():
            raise other_format(folder / MANIFEST, 1)
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, str(error.strerror)) from error


def committed_parts(store: Path | str, game: str) -> tuple[str, ...]:
    """Names of a game's parts, in the order of their rows.

    Raises:
        UserError: one has lost its manifest or is out of reach (left out, it would be missed by nobody), or an older
            format lies in their place.
    """
    folders = part_folders(store, game)
    for folder in folders:
        try:
            (folder / MANIFEST).stat()
        except OSError as error:
            raise read_error(folder / MANIFEST, error) from error
    return tuple(folder.name for folder in folders)


def has_episodes(store: Path | str, game: str) -> bool:
    """Whether a store holds any episodes of a game; UserError where `committed_parts` raises it."""
    return bool(committed_parts(store, game))


def game_folders(store: Path) -> list[str]:
    """The games that a store has a folder of, by name; UserError if out of reach.

    A folder is a game's if its name is an Atari game's, or its parts say of which environment they are.
    """
    try:
        folders = sorted(path for path in store.iterdir() if not path.name.startswith(".") and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(store, str(error.strerror)) from error
    return [path.name for path in folders if path.name in GAMES or any(_environments(store, path.name))]


def register_from_store(store: Path | str, game: str) -> None:
    """Make a game known by what its parts say of its environment; an Atari game is known.

    Raises:
        UserError: the parts are of different environments, or of another than the name stands for here.
    """
    if game not in GAMES:
        for spec in _environments(store, game):
            register(CustomGame.of(spec))


def check_stored_game(store: Path | str, game: str, key: str = "game") -> str:
    """`check_game` for a game that may be known by its episodes in a store alone."""
    if isinstance(game, str):
        register_from_store(store, game)
    return check_game(game, key)


def _environments(store: Path | str, game: str) -> Iterator[dict[str, Any]]:
    """The environments in the provenance of a game's parts; what can't be read is somebody else's to report."""
    for path in sorted((Path(store) / game).glob(f"*/{MANIFEST}")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            spec = json.loads(path.read_text(encoding="utf-8"))["provenance"]["environment"]
            # A copy of a game's folder under another name is no game.
            if not path.parent.name.startswith(".") and spec["name"] == game:
                yield spec


def open_parts(store: Path, game: str) -> tuple[Part, ...]:
    """All parts of a game; UserError if one is damaged or out of reach."""
    parts: list[Part] = []
    for name in committed_parts(store, game):
        first_row = parts[-1].first_row + parts[-1].transitions if parts else 0
        parts.append(Part(store / game / name, first_row))
    return tuple(parts)
