"""The files of DQN-Replay: a replay buffer of N slots, a ring, that Dopamine wrote to disk each time it was full.

A log is a gzipped .npy a column: `observation` u1 (N, 84, 84), `action` i4, `reward` f4, `terminal` u1 (N,), and
`add_count`, the rows ever added. Seen as one stream, row r of a run lies in slot r mod N. A log is written when slot
N - 2 is filled, so its last slot is one pass older than the others: in the first log garbage, later the row before
slot 0. The run's last log is written wherever it stops, and its `add_count` is only the slot that would come next.

When an episode starts, its padding and its first row are added at once; if that jumps over slot N - 2, the log of this
pass is never written, and its rows are lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jowa.data.layout import FRAME_SHAPE
from jowa.data.sources.actions import full_actions
from jowa.data.sources.npy import NpyStream, describe, read_column, read_integer
from jowa.errors import UserError

_TYPES = {"action": "<i4", "reward": "<f4", "terminal": "u1"}


def log_files(folder: Path, number: int) -> dict[str, Path]:
    """The files of log `number`, by column."""
    columns = {name: folder / f"$store$_{name}_ckpt.{number}.gz" for name in ("observation", *_TYPES)}
    return {**columns, "add_count": folder / f"add_count_ckpt.{number}.gz"}


@dataclass(frozen=True)
class Log:
    """One log, all but its frames.

    Attributes:
        files: as `log_files` names them.
        number: of the log, from 0: the checkpoint.
        add_count: as stored.
        columns: action, reward and terminal, (N,) each, by slot.
    """

    files: dict[str, Path]
    number: int
    add_count: int
    columns: dict[str, NDArray[Any]]

    @property
    def capacity(self) -> int:
        """N."""
        return len(self.columns["action"])

    @property
    def last(self) -> bool:
        """Whether it is the run's last log, the one that was written wherever the run stopped."""
        whole_pass = self.add_count % self.capacity == self.capacity - 1
        return not whole_pass or (self.number > 0 and self.add_count < self.capacity)

    def continues(self, before: Log, start: int, stop: int) -> bool:
        """Whether the rows start - N … before - 1 that both logs hold, if this one ends at `stop`, are the same."""
        slots = np.arange(max(stop - self.capacity, 0), start) % self.capacity
        pairs = ((self.columns[name][slots], before.columns[name][slots]) for name in _TYPES)
        return all(np.array_equal(ours.view("u1"), theirs.view("u1")) for ours, theirs in pairs)


def read_log(folder: Path, number: int) -> Log:
    """Read a log, all but its frames; UserError, naming the file, if one is missing, damaged or isn't as expected."""
    files = log_files(folder, number)
    columns = {name: read_column(files[name], dtype) for name, dtype in _TYPES.items()}
    with NpyStream(files["observation"]) as stream:
        if stream.dtype != np.uint8 or stream.shape[1:] != FRAME_SHAPE:
            raise UserError(f"{stream.path} holds {describe(stream.dtype, stream.shape)}, not uint8 (N, 84, 84).")
        capacity = stream.shape[0]
    for name, column in columns.items():
        if len(column) != capacity:
            raise UserError(f"{files[name]} has {len(column)} rows, but the observations beside it are {capacity}.")
    add_count = read_integer(files["add_count"])
    if add_count < 1 or capacity < 2:
        raise UserError(f"{files['add_count']} counts {add_count} rows of {capacity}: there is nothing to import.")
    return Log(files, number, add_count, columns)


@dataclass(frozen=True)
class Stretch:
    """The rows that a log adds to a run's stream.

    Attributes:
        log: the log.
        first: the stream's number of the first of these rows.
        stop: the number after the last one.
        lost: how many rows before `first` no log holds.
    """

    log: Log
    first: int
    stop: int
    lost: int

    def column(self, name: str) -> NDArray[Any]:
        """A column (stop - first,) in the stream's order."""
        return self.log.columns[name][np.arange(self.first, self.stop) % self.log.capacity]

    def checked(self, game: str) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
        """Actions in the full set, rewards and terminals of the rows; UserError, naming the file, if one can't be."""
        files = self.log.files
        rewards, terminals = self.column("reward"), self.column("terminal")
        # All comparisons with NaN are False.
        if not (np.abs(rewards) <= 1).all():
            wrong = rewards[~(np.abs(rewards) <= 1)][0]
            raise UserError(f"{files['reward']} has the reward {wrong}, but all must lie between -1 and 1.")
        if terminals.max(initial=0) > 1:
            raise UserError(f"{files['terminal']} has the value {terminals.max()}, but only 0 and 1 have a meaning.")
        return full_actions(self.column("action"), game, str(files["action"])), rewards, terminals.view(np.bool_)


def stretch(log: Log, before: Log | None) -> Stretch:
    """Find out which rows a log adds to what the log `before` it (None if there is none) has.

    Raises:
        UserError: the two can't be of one run.
    """
    capacity, stop = log.capacity, log.add_count
    if before is None:
        if log.number == 0:
            first = max(stop - capacity, 0)
            return Stretch(log, first, stop, lost=first)
        stop += log.number * capacity if stop < capacity else 0
        return Stretch(log, stop - stop % capacity - 1, stop, lost=0)
    start = before.add_count
    if before.capacity != capacity:
        raise UserError(
            f"{log.files['action']} has {capacity} rows, log {before.number} has {before.capacity}: they are not of "
            "one run."
        )
    if log.last and stop < capacity:
        stop = start + (stop - start) % capacity
        if not log.continues(before, start, stop):
            stop += capacity
    elif stop <= start:
        raise UserError(
            f"{log.files['add_count']} counts {stop} rows, log {before.number} has {start}: they are not of one run."
        )
    first = max(start, stop - capacity)
    return Stretch(log, first, stop, lost=first - start)


class FrameRows:
    """The frames of a stretch, in the stream's order; a context manager.

    A ring's oldest rows lie at its end, so where they are wanted the file is read twice, the first time only for them.
    """

    def __init__(self, stretch: Stretch, start: int = 0) -> None:
        """Nothing is read yet; row `start` of the stretch will be the first."""
        self._path = stretch.log.files["observation"]
        self._capacity = stretch.log.capacity
        slot, count = (stretch.first + start) % self._capacity, stretch.stop - stretch.first - start
        tail = min(count, self._capacity - slot)
        self._runs = [run for run in ((slot, tail), (0, count - tail)) if run[1]]
        self._stream: NpyStream | None = None
        self._slot = self._left = 0

    def rows(self, count: int) -> NDArray[np.uint8]:
        """The next `count` frames, (count, 84, 84) uint8; UserError if the file is truncated or damaged."""
        frames = np.empty((count, *FRAME_SHAPE), np.uint8)
        done = 0
        while done < count:
            stream = self._next_run() if self._stream is None or not self._left else self._stream
            size = min(count - done, self._left)
            stream.read_into(frames[done : done + size])
            done += size
            self._slot += size
            self._left -= size
        return frames

    def finish(self) -> None:
        """Read the file to its end, where its checksum is; UserError if it is truncated or damaged."""
        if self._stream is not None:
            self._stream.skip_rows(self._capacity - self._slot)
            self._stream.finish()
            self._stream.close()
            self._stream = None

    def _next_run(self) -> NpyStream:
        self.finish()
        self._slot, self._left = self._runs.pop(0)
        self._stream = NpyStream(self._path)
        self._stream.skip_rows(self._slot)
        return self._stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
