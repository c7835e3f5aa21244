"""The episode table: where each of a game's episodes lies and how it went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import EPISODES, Manifest, damaged, read_error


@dataclass(frozen=True)
class EpisodeTable:
    """E episodes.

    Attributes:
        starts: (E,) int64, the first row of each episode.
        lengths: (E,) int64, agent steps.
        returns: (E,) float64, sums of the rewards as they are stored.
        terminated: (E,) bool, False where the episode was truncated or cut.
        parts: (E,) int64, the number of the part each lies in.
        info: what the recorder said about each episode.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    parts: NDArray[np.int64]
    info: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.starts)


def read_table(folder: Path, manifest: Manifest) -> EpisodeTable:
    """Read the episodes of one part, rows counted from its own first; UserError if they don't fit the manifest."""
    path = folder / EPISODES
    try:
        entries = [json.loads(line) for line in path.read_bytes().splitlines()]
        table = EpisodeTable(
            starts=np.array([entry["start"] for entry in entries], np.int64),
            lengths=np.array([entry["length"] for entry in entries], np.int64),
            returns=np.array([entry["return"] for entry in entries], np.float64),
            terminated=np.array([entry["terminated"] for entry in entries], np.bool_),
            parts=np.zeros(len(entries), np.int64),
            info=tuple(entry["info"] for entry in entries),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise read_error(path, error) from error
    bounds = np.append(table.starts, manifest.transitions)
    adds_up = len(table) == manifest.episodes and bounds[0] == 0 and (np.diff(bounds) == table.lengths).all()
    if not adds_up or (table.lengths < 1).any():
        raise damaged(path, "its episodes do not add up to the manifest's counts")
    return table


def join_tables(tables: Sequence[EpisodeTable], first_rows: Sequence[int]) -> EpisodeTable:
    """The tables of a game's parts as one; `first_rows` are the parts' first rows in the game."""
    return EpisodeTable(
        starts=np.concatenate([table.starts + row for table, row in zip(tables, first_rows, strict=True)]),
        lengths=np.concatenate([table.lengths for table in tables]),
        returns=np.concatenate([table.returns for table in tables]),
        terminated=np.concatenate([table.terminated for table in tables]),
        parts=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        info=tuple(info for table in tables for info in table.info),
    )
