"""The parts of a game: which there are, and reading one of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.frames import open_frames
from jowa.data.layout import COLUMNS, FRAME_SHAPE, FRAMES, MANIFEST, Manifest, column_file, damaged, other_format
from jowa.data.table import EpisodeTable, read_table


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
        """Open a part; UserError if it is damaged or of another format."""
        self.name, self.folder, self.first_row = folder.name, folder, first_row
        self.manifest = Manifest.read(folder)
        self.table: EpisodeTable = read_table(folder, self.manifest)

    @property
    def transitions(self) -> int:
        """Rows (agent steps)."""
        return self.manifest.transitions

    @property
    def episodes(self) -> int:
        """How many episodes."""
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
            raise damaged(path, "it can't be opened") from error
        if frames.shape != (self.transitions, *FRAME_SHAPE):
            raise damaged(path, f"its shape is {tuple(frames.shape)}")
        return frames

    def column(self, name: str) -> NDArray[Any]:
        """A column (T,), mapped from disk; UserError if it isn't what the manifest says."""
        path = self.folder / column_file(name)
        try:
            column = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        if column.shape != (self.transitions,) or column.dtype != COLUMNS[name]:
            raise damaged(path, f"it holds {column.dtype} {column.shape}")
        return np.asarray(column)


def committed_parts(store: Path | str, game: str) -> tuple[str, ...]:
    """Names of a game's parts, in the order of their rows; UserError where an older format lies in their place."""
    folder = Path(store) / game
    if (folder / MANIFEST).is_file():
        raise other_format(folder / MANIFEST, 1)
    found = (path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    return tuple(sorted(name for name in found if not name.startswith(".")))


def has_episodes(store: Path | str, game: str) -> bool:
    """Whether a store holds any episodes of a game."""
    return bool(committed_parts(store, game))


def open_parts(store: Path, game: str) -> tuple[Part, ...]:
    """All parts of a game; UserError if one is damaged."""
    parts: list[Part] = []
    for name in committed_parts(store, game):
        first_row = parts[-1].first_row + parts[-1].transitions if parts else 0
        parts.append(Part(store / game / name, first_row))
    return tuple(parts)
