"""The episode table: where each of a game's episodes lies and how it went."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import EPISODES, Manifest, damaged


@dataclass(frozen=True)
class EpisodeTable:
    """One game's E episodes.

    Attributes:
        starts: (E,) int64, the first row of each episode.
        lengths: (E,) int64, agent steps.
        returns: (E,) float64, sums of raw rewards.
        terminated: (E,) bool, False where the episode was truncated or cut.
        info: what the recorder said about each episode.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    info: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.starts)


def read_table(folder: Path, manifest: Manifest) -> EpisodeTable:
    """Read the committed episodes of a game's folder; UserError if they do not fit the manifest."""
    path = folder / EPISODES
    try:
        with path.open("rb") as handle:
            lines = handle.read(manifest.bytes_of(EPISODES)).splitlines()
        entries = [json.loads(line) for line in lines]
        table = EpisodeTable(
            starts=np.array([entry["start"] for entry in entries], np.int64),
            lengths=np.array([entry["length"] for entry in entries], np.int64),
            returns=np.array([entry["return"] for entry in entries], np.float64),
            terminated=np.array([entry["terminated"] for entry in entries], np.bool_),
            info=tuple(entry["info"] for entry in entries),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    bounds = np.append(table.starts, manifest.transitions)
    adds_up = len(table) == manifest.episodes and bounds[0] == 0 and (np.diff(bounds) == table.lengths).all()
    if not adds_up or (table.lengths < 1).any():
        raise damaged(path, "its episodes do not add up to the manifest's counts")
    return table
