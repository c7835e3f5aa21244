"""The progress bar of play: how much of it is done, and how much time it will still take."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from jowa.evaluation.play.episode import Episode

_SECONDS = 0.5
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
_MOST_DONE = 0.95


class PlayProgress:
    """Counts in episodes; one that is being played counts in part, by how long its game's finished ones were.

    While none of its game has ended, in other ways of playing neither, an episode is taken to last until `cap` agent
    steps, and what is left is then said to be at most so much. From the first time that stderr can't be written to the
    bar is silent.
    """

    def __init__(
        self, description: str, episodes: int, cap: int, known: Iterable[Episode] = (), shown: bool = True
    ) -> None:
        """known: episodes played before, for their lengths."""
        self._description, self._episodes, self._cap = description, episodes, cap
        self._lengths: dict[str, list[int]] = defaultdict(list)
        for episode in known:
            self._lengths[episode.game].append(episode.agent_steps)
        self._ended = self._decisions = 0
        self._started = self._last = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if shown and episodes:
            with contextlib.suppress(OSError):
                self._bar = tqdm(total=episodes, desc=description, bar_format=_FORMAT, miniters=0)

    def show(self, ended: Iterable[Episode], playing: Iterable[tuple[str, int]], decisions: int) -> None:
        """What one turn brought: episodes that ended with it, and how many decisions it had.

        `playing` are game and agent steps so far of the episodes that go on.
        """
        for episode in ended:
            self._lengths[episode.game].append(episode.agent_steps)
            self._ended += 1
        self._decisions += decisions
        now = time.monotonic()
        if self._bar is None or now - self._last < _SECONDS:
            return
        self._last = now
        speed = self._decisions / (now - self._started)
        done, certain = self.done(playing)
        text = f"{self._description}, {self._ended} of {self._episodes} episodes, {speed:,.0f} decisions/s"
        with contextlib.suppress(OSError):
            self._bar.bar_format = _FORMAT if certain else _FORMAT.replace("{remaining}", "at most {remaining}")
            self._bar.n = done
            self._bar.set_description_str(text)

    def done(self, playing: Iterable[tuple[str, int]]) -> tuple[float, bool]:
        """How many episodes' worth of play is done, and whether the lengths of all these games are known."""
        done, certain = float(self._ended), True
        for game, steps in playing:
            own = self._lengths.get(game)
            certain = certain and own is not None
            # A long episode goes on after its expected end; it is then nearly done, never more than that.
            done += min(steps / (sum(own) / len(own) if own else self._cap), _MOST_DONE)
        return done, certain

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
