"""A replay buffer that logs itself as Dopamine's does, and reading such logs, for tests of their import."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jowa.data.sources.dqn_replay import RunReader
from jowa.data.sources.episode import SourceEpisode

SAMPLES = Path(__file__).parent / "samples" / "dopamine"
LOGS = Path("Pong") / "1" / "replay_logs"
TYPES = {"observation": "u1", "action": "<i4", "reward": "<f4", "terminal": "u1"}


class Ring:
    """The buffer: `add` transitions, and `end` the run. What it logged lies in `folder`."""

    def __init__(self, folder: Path, capacity: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.capacity, self.count, self.logs = folder, capacity, 0, 0
        self.counts: list[int] = []  # rows ever added, at each log
        garbage = np.random.default_rng(0)
        self.columns = {
            "observation": garbage.integers(0, 256, (capacity, 84, 84), np.uint8),
            "action": garbage.integers(100, 1 << 30, capacity).astype("<i4"),
            "reward": np.full(capacity, np.nan, "<f4"),
            "terminal": np.full(capacity, 70, "u1"),
        }

    def add(self, frame: np.ndarray, action: int, reward: float, terminal: bool) -> None:
        if self.count == 0 or self.columns["terminal"][(self.count - 1) % self.capacity] == 1:
            for _ in range(3):
                self._put(np.zeros((84, 84), np.uint8), 0, 0.0, 0)
        self._put(frame, action, reward, int(terminal))
        if self.count % self.capacity == self.capacity - 1:
            self._log(self.count)

    def end(self) -> None:
        self._log(self.count % self.capacity)

    def _put(self, *row: Any) -> None:
        for column, value in zip(self.columns.values(), row, strict=True):
            column[self.count % self.capacity] = value
        self.count += 1

    def _log(self, add_count: int) -> None:
        for name, column in self.columns.items():
            save(self.folder / f"$store$_{name}_ckpt.{self.logs}.gz", column)
        save(self.folder / f"add_count_ckpt.{self.logs}.gz", np.array(add_count))
        self.counts.append(self.count)
        self.logs += 1


def numbered(number: int) -> np.ndarray:
    frame = np.full((84, 84), 1, np.uint8)
    frame[0, :4] = list(number.to_bytes(4, "big"))
    return frame


def play_numbers(ring: Ring, steps: int, random: np.random.Generator) -> list[tuple[int, float, bool]]:
    """Episodes of 1 to 30 numbered frames; returns the stream: (number or -1 for padding, reward, terminal)."""
    stream: list[tuple[int, float, bool]] = []
    terminal = True
    for number in range(steps):
        stream += [(-1, 0.0, False)] * 3 if terminal else []
        terminal, reward = bool(random.random() < 0.07), random.uniform(-1, 1)
        ring.add(numbered(number), int(random.integers(6)), reward, terminal)
        stream.append((number, float(np.float32(reward)), terminal))
    ring.end()
    return stream


def save(path: Path, array: np.ndarray) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        np.save(file, array)


def load(path: Path) -> np.ndarray:
    with gzip.open(path, "rb") as file:
        return np.load(file)


def read_all(folder: Path, resumed: bool = False, **options: Any) -> dict[int, list[SourceEpisode]]:
    """The Pong episodes of every checkpoint; `resumed`: each read by a reader of its own, the last first."""
    checkpoints = sorted(int(path.name.split(".")[1]) for path in folder.glob("add_count_ckpt.*"))
    if resumed:
        return {number: list(RunReader(folder, "Pong", **options).episodes(number)) for number in checkpoints[::-1]}
    reader = RunReader(folder, "Pong", **options)
    return {number: list(reader.episodes(number)) for number in checkpoints}


def in_order(episodes: dict[int, list[SourceEpisode]]) -> list[SourceEpisode]:
    return [episode for number in sorted(episodes) for episode in episodes[number]]


def same(some: Iterable[SourceEpisode], others: Iterable[SourceEpisode]) -> bool:
    return all(
        np.array_equal(one.frames, other.frames)
        and np.array_equal(one.actions, other.actions)
        and np.array_equal(one.rewards, other.rewards)
        and (one.terminated, one.info) == (other.terminated, other.info)
        for one, other in zip(some, others, strict=True)
    )
