"""DQN-Replay: the logged replay buffers of DQN agents, 60 games, 5 runs, 51 logs (checkpoints) a run.

A log's rows are one stream with those of the logs before it (see `dqn_logs`). Three black rows precede every episode:
padding for stacks of four frames, which is dropped. An episode belongs to the checkpoint in which it ends, so the
frames of the one that crosses into a log are read from the log before it. Rewards are clipped to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.sources.dqn_logs import FrameRows, Log, log_files, read_log, stretch
from jowa.data.sources.episode import SourceEpisode
from jowa.errors import UserError

_PADDING = 3


def part_name(run: int, checkpoint: int) -> str:
    """The part of the store that holds the episodes that end in a checkpoint: `dqn_replay-1-00003`."""
    return f"dqn_replay-{run}-{checkpoint:05d}"


def provenance(game: str, run: int, checkpoint: int, keep_stack_padding: bool = False) -> dict[str, Any]:
    """What the store keeps about a checkpoint's episodes. Which ROM was played isn't known, so `rom_md5` is None."""
    return {
        "source": "dqn_replay",
        "game": game,
        "run": run,
        "checkpoint": checkpoint,
        "rewards": "clipped",
        "rom_md5": None,
        "sticky": True,
        "stack_padding": keep_stack_padding,
    }


@dataclass(frozen=True)
class _Running:
    """An episode of which only the first T rows are known so far, its padding included.

    start says what comes first: `padding`, three rows; `gap`, what is left of it after lost rows; `unknown`, rows from
    the midst of the episode, which begins in the log number missing_log or before. seam: how many of the rows are of
    the logs before, None if all are of one log.
    """

    start: str = "padding"
    missing_log: int | None = None
    first_row: int = 0
    seam: int | None = None
    frames: tuple[NDArray[np.uint8], ...] = ()
    actions: tuple[NDArray[np.uint8], ...] = ()
    rewards: tuple[NDArray[np.float32], ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.actions))

    def extended(
        self, frames: NDArray[np.uint8], actions: NDArray[np.uint8], rewards: NDArray[np.float32], row: int
    ) -> _Running:
        """With rows from number `row` on."""
        return replace(
            self,
            first_row=self.first_row if self.actions else row,
            frames=(*self.frames, frames),
            actions=(*self.actions, actions),
            rewards=(*self.rewards, rewards),
        )


class RunReader:
    """One run's episodes, a checkpoint at a time; quickest in the order of the checkpoints.

    Attributes:
        missing_log: the number of the log for want of which the end of an episode was left out of the checkpoint read
            last; None if nothing was.
    """

    missing_log: int | None = None

    def __init__(
        self, folder: Path, game: str, keep_stack_padding: bool = False, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Nothing is read yet.

        Args:
            folder: the run's `replay_logs`.
            game: ALE name.
            keep_stack_padding: leave the black rows in their place, as JOWA's authors did.
            say: told, a sentence each, what had to be cut or left out.
        """
        self._folder, self._game, self._keep, self._say = folder, game, keep_stack_padding, say
        self._logs: dict[int, Log] = {}
        self._unfinished: dict[int, _Running] = {}

    def episodes(self, checkpoint: int) -> Iterator[SourceEpisode]:
        """The episodes that end in a checkpoint, in the order of play; none or several.

        What is cut, not terminated: an episode that the run's end or lost rows cut short. What is left out, and said:
        the end of an episode whose beginning lies in a log that isn't there.

        Raises:
            UserError: a file is missing, truncated, damaged, or holds something else than it should.
        """
        self.missing_log = None
        before = self._before(checkpoint)
        part = stretch(self._log(checkpoint), before)
        running = self._running_into(checkpoint)
        self._unfinished = {}
        if part.lost:
            self._say(
                f"{self._folder}: {part.lost} rows before checkpoint {checkpoint} were never logged; the episode that "
                "led there is cut."
            )
            yield from self._episode(running, False)
            running = _Running(start="gap")
        running = replace(running, seam=len(running) if before and running.seam is None else running.seam)
        actions, rewards, terminals = part.checked(self._game)
        ends = np.flatnonzero(terminals) + 1
        with FrameRows(part) as frames:
            for start, stop in _bounds(ends, len(actions)):
                some = frames.rows(stop - start)
                running = running.extended(some, actions[start:stop], rewards[start:stop], part.first + start)
                if terminals[stop - 1]:
                    yield from self._episode(running, True)
                    running = _Running()
            frames.finish()
        if part.log.last:
            yield from self._episode(running, False)
        else:
            self._unfinished = {checkpoint: running}

    def unfinished(self, checkpoint: int) -> int:
        """Rows of a checkpoint just read that belong to an episode which ends in the next one."""
        running = self._unfinished.get(checkpoint)
        return max(len(running) - _PADDING, 0) if running else 0

    def _log(self, number: int) -> Log:
        if number not in self._logs:
            # Two are in use at a time: a log and the one before it.
            self._logs = {other: log for other, log in self._logs.items() if abs(other - number) == 1}
            log = self._logs[number] = read_log(self._folder, number)
            if log.last and log_files(self._folder, number + 1)["add_count"].is_file():
                raise UserError(
                    f"{log.files['add_count']} counts {log.add_count} rows of {log.capacity}, as only a run's last log "
                    "may, but another log follows it."
                )
        return self._logs[number]

    def _before(self, checkpoint: int) -> Log | None:
        """The log that this checkpoint continues, if it is there."""
        files = log_files(self._folder, checkpoint - 1).values()
        if checkpoint == 0 or not all(path.is_file() for path in files):
            return None
        return self._log(checkpoint - 1)

    def _running_into(self, checkpoint: int) -> _Running:
        """The episode that is under way when a checkpoint's rows begin."""
        if checkpoint == 0:
            return _Running()
        if self._before(checkpoint) is None:
            return _Running(start="unknown", missing_log=checkpoint - 1)
        if checkpoint - 1 not in self._unfinished:
            return self._reread(checkpoint - 1)
        return self._unfinished[checkpoint - 1]

    def _reread(self, checkpoint: int) -> _Running:
        """The episode that is under way when a checkpoint's rows end, read again from its log and those before it."""
        part = stretch(self._log(checkpoint), self._before(checkpoint))
        actions, rewards, terminals = part.checked(self._game)
        ends = np.flatnonzero(terminals) + 1
        start = int(ends[-1]) if len(ends) else 0
        running = _Running()
        if not len(ends):
            running = _Running(start="gap") if part.lost else self._running_into(checkpoint)
            running = replace(running, seam=len(running) if running.seam is None else running.seam)
        if start == len(actions):
            return running
        with FrameRows(part, start) as frames:
            rows = frames.rows(len(actions) - start)
            frames.finish()
        return running.extended(rows, actions[start:], rewards[start:], part.first + start)

    def _episode(self, running: _Running, terminated: bool) -> Iterator[SourceEpisode]:
        """The one episode that the rows make, or none."""
        if not len(running):
            return
        row, start = running.first_row, running.start
        if start == "unknown":
            self.missing_log = running.missing_log
            self._say(
                f"{self._folder}: {len(running)} rows from row {row} on are left out: the beginning of their episode "
                "lies in a checkpoint that isn't here."
            )
            return
        frames, actions, rewards = _joined(running.frames), _joined(running.actions), _joined(running.rewards)
        black = _black_rows(frames[:_PADDING], actions, rewards)
        if start == "padding" and black < min(_PADDING, len(actions)):
            if running.seam is None or running.seam > _PADDING:
                raise UserError(f"{self._folder}: the episode at row {row} isn't preceded by three black rows.")
            self._say(f"{self._folder}: row {row + running.seam} doesn't continue the checkpoint before it.")
            cut = running.seam
            frames, actions, rewards, row, start = frames[cut:], actions[cut:], rewards[cut:], row + cut, "gap"
            black = _black_rows(frames[:_PADDING], actions, rewards)
        if black == len(actions):
            if terminated:
                raise UserError(f"{self._folder}: the episode at row {row} ends before it begins.")
            return
        kept = slice(0 if self._keep else black, None)
        info = {"stream_row": row + black, **({"after_gap": True} if start == "gap" else {})}
        yield SourceEpisode(frames[kept], actions[kept], rewards[kept], terminated, info)


def _bounds(ends: NDArray[np.int64], count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the stretches that 0 … count - 1 are cut into after each of `ends`."""
    edges = [0, *ends.tolist(), count]
    return ((start, stop) for start, stop in pairwise(edges) if start < stop)


def _black_rows(frames: NDArray[np.uint8], actions: NDArray[np.uint8], rewards: NDArray[np.float32]) -> int:
    """How many of the first rows hold nothing but zeros."""
    for row, frame in enumerate(frames):
        if frame.any() or actions[row] or rewards[row]:
            return row
    return len(frames)


def _joined(arrays: tuple[NDArray[Any], ...]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
