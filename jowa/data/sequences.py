"""From episodes to sequences: fixed-length windows, found by cumulative counts and never listed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.data.batch import Batch
from jowa.data.codes import CodeCache
from jowa.data.layout import FRAME_SHAPE, ROW_BYTES
from jowa.data.split import Split, select_episodes
from jowa.data.store import EpisodeStore
from jowa.games import task_id


@dataclass(frozen=True)
class Windows:
    """Where n sequences lie.

    Attributes:
        games: (n,) int64, positions in the list of games.
        rows: (n, L) int64 row numbers in the game's data; padding repeats the episode's last row.
        valid: (n, L) bool, False where the window reaches beyond its episode.
    """

    games: NDArray[np.int64]
    rows: NDArray[np.int64]
    valid: NDArray[np.bool_]


class SequenceIndex:
    """All windows of `length` agent steps that start at 0, stride, 2·stride ... < T of the chosen episodes.

    Windows are numbered game by game, episode by episode, start by start. Those that reach beyond their episode's
    end are padded on the right.
    """

    def __init__(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], games: NDArray[np.int64],
                 length: int = 8, stride: int = 4) -> None:
        """Index E episodes, whose first rows, lengths (agent steps) and games (positions in a list) are all (E,)."""
        if not 1 <= stride <= length:
            raise ValueError(f"a stride of {stride} over windows of {length} steps would skip or repeat steps")
        self.length, self.stride = length, stride
        self._starts, self._lengths, self._games = starts, lengths, games
        self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(-(-lengths // stride))])

    def __len__(self) -> int:
        """Windows in all."""
        return int(self._before[-1])

    def locate(self, indices: NDArray[np.integer[Any]]) -> Windows:
        """Find windows by number (n,); IndexError for numbers that do not exist."""
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"sequences {indices.min()}..{indices.max()} of {len(self)}")
        episodes = np.searchsorted(self._before, indices, side="right") - 1
        first = (indices - self._before[episodes]) * self.stride
        steps = first[:, None] + np.arange(self.length)
        last = self._lengths[episodes, None] - 1
        rows = self._starts[episodes, None] + np.minimum(steps, last)
        return Windows(self._games[episodes], rows, steps <= last)


@dataclass(frozen=True)
class GameSummary:
    """What a data set holds of one game: agent steps, episodes, sequences and the bytes they take on disk."""

    game: str
    transitions: int
    episodes: int
    sequences: int
    bytes: int


class SequenceDataset:
    """Sequences of one or several games, read a batch at a time."""

    def __init__(
        self,
        store: EpisodeStore,
        games: Sequence[str] | None = None,
        *,
        split: Split = "all",
        holdout: float = 0.0,
        length: int = 8,
        stride: int = 4,
        codes: CodeCache | None = None,
        with_frames: bool | None = None,
    ) -> None:
        """Choose the sequences.

        Args:
            store: where the episodes are.
            games: ALE names; the store's games if None.
            split: the training episodes, the held-out ones, or all.
            holdout: fraction of a game's episodes that are held out.
            length: frames (agent steps) a sequence.
            stride: agent steps between the starts of two sequences.
            codes: cached codes; batches then carry these.
            with_frames: whether batches carry frames; if None, they do when no codes are given.
        """
        self.store, self.split, self.length, self.stride = store, split, length, stride
        self.games = store.games if games is None else tuple(games)
        self._codes = codes
        self._with_frames = codes is None if with_frames is None else with_frames
        self._tasks = np.array([task_id(game) for game in self.games], np.int64)
        self.episodes = {
            game: select_episodes(game, len(store.tables[game]), holdout, split) for game in self.games
        }
        lengths = [store.tables[game].lengths[self.episodes[game]] for game in self.games]
        starts = [store.tables[game].starts[self.episodes[game]] for game in self.games]
        numbers = np.repeat(np.arange(len(self.games)), [len(part) for part in lengths])
        self._index = SequenceIndex(np.concatenate(starts), np.concatenate(lengths), numbers, length, stride)
        self._summaries = tuple(
            GameSummary(game, int(part.sum()), len(part), int((-(-part // stride)).sum()), int(part.sum()) * ROW_BYTES)
            for game, part in zip(self.games, lengths, strict=True)
        )

    def __len__(self) -> int:
        """Sequences in all; they are numbered game by game."""
        return len(self._index)

    @property
    def counts(self) -> dict[str, int]:
        """Sequences of each game."""
        return {summary.game: summary.sequences for summary in self._summaries}

    def describe(self) -> tuple[GameSummary, ...]:
        """What there is of each game."""
        return self._summaries

    def batch(self, indices: NDArray[np.integer[Any]]) -> Batch:
        """Read the sequences with these numbers, (B,) in 0..len-1, into one batch on the CPU."""
        windows = self._index.locate(indices)
        shape = windows.valid.shape
        frames = np.zeros((*shape, 1, *FRAME_SHAPE), np.uint8) if self._with_frames else None
        codes = None if self._codes is None else np.zeros((*shape, self._codes.tokens_per_frame), np.int64)
        actions = np.zeros(shape, np.int64)
        rewards = np.zeros(shape, np.float32)
        ends = np.zeros(shape, np.bool_)
        for number in np.unique(windows.games):
            game = self.games[number]
            # Only real rows are read: (m,) positions in the batch and the (m,) rows that go there.
            where = np.nonzero(windows.valid & (windows.games == number)[:, None])
            rows = windows.rows[where]
            read = self.store.read(game, rows, frames=frames is not None)
            actions[where], rewards[where], ends[where] = read.actions, read.rewards, read.ends
            if frames is not None and read.frames is not None:
                frames[where] = read.frames[:, None]
            if codes is not None and self._codes is not None:
                codes[where] = self._codes.read(game, rows)
        return Batch(
            frames=None if frames is None else torch.from_numpy(frames),
            codes=None if codes is None else torch.from_numpy(codes),
            actions=torch.from_numpy(actions),
            rewards=torch.from_numpy(rewards),
            ends=torch.from_numpy(ends),
            valid=torch.from_numpy(windows.valid),
            tasks=torch.from_numpy(self._tasks[windows.games]),
        )
