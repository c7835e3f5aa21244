"""The progress bar of play: how much of it is done, and how much time it will still take."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from jowa.evaluation.episode import Episode

_SECONDS = 0.5
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


class PlayProgress:
    """Counts in episodes; one that is being played counts in part, by how long its game's finished ones were.

    Nothing is foretold before an episode has ended, and of a game of which none has ended yet, episodes count as half
    done at most. From the first time that stderr can't be written to it is silent.
    """

    def __init__(self, description: str, episodes: int, shown: bool) -> None:
        self._description, self._episodes = description, episodes
        self._started = self._last = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if shown and episodes:
            with contextlib.suppress(OSError):
                self._bar = tqdm(total=episodes, desc=description, bar_format=_FORMAT, miniters=0)

    def show(self, finished: Collection[Episode], playing: Iterable[tuple[str, int]], decisions: int) -> None:
        """`playing` are game and agent steps of the episodes that are being played, `decisions` all made so far."""
        if self._bar is None or time.monotonic() - self._last < _SECONDS:
            return
        self._last = time.monotonic()
        parts = _parts(finished, playing)
        speed = decisions / (self._last - self._started)
        with contextlib.suppress(OSError):
            self._bar.n = max(self._bar.n, len(finished) + parts)
            done_so_far = f"{len(finished)} of {self._episodes} episodes, {speed:,.0f} decisions/s"
            self._bar.set_description_str(f"{self._description}, {done_so_far}")

    def __enter__(self) -> PlayProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                if kind is None:
                    self._bar.n = self._episodes
                    self._bar.set_description_str(f"{self._description}, {self._episodes} episodes")
                self._bar.close()


def _parts(finished: Collection[Episode], playing: Iterable[tuple[str, int]]) -> float:
    """How many episodes' worth of play has been done in those that are being played."""
    if not finished:
        return 0.0
    lengths: dict[str, list[int]] = defaultdict(list)
    for episode in finished:
        lengths[episode.game].append(episode.agent_steps)
    every = sum(map(sum, lengths.values())) / len(finished)
    done = 0.0
    for game, steps in playing:
        own = lengths.get(game)
        # A long episode goes on after its expected end; it is then nearly done, never more than that.
        done += min(steps * len(own) / sum(own), 0.95) if own else min(steps / every, 0.5)
    return done
