"""Records behaviour policies: one game in one emulator, episode after episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.sources.episode import SourceEpisode
from jowa.data.store import EpisodeWriter
from jowa.envs.atari import SCREEN
from jowa.envs.single import SingleAtari
from jowa.recording.behaviours import Behaviour

Advance = Callable[[int], Any]
"""Told the number of agent steps just recorded."""

_REPORT_EVERY = 100


@dataclass(frozen=True)
class Recorded:
    """What was added for one game."""

    game: str
    episodes: int
    transitions: int
    mean_return: float


class Tally:
    """Hands one game's episodes to its writer and counts them; `policy` plays where an episode doesn't say who.

    `transitions` are the recording's agent steps, those that were `there` before it was resumed included.
    """

    def __init__(self, game: str, writer: EpisodeWriter, policy: str, there: int = 0) -> None:
        self.game = game
        self.writer = writer
        self._policy = policy
        self.transitions = there
        self._there = there
        self._returns: list[float] = []

    def store(self, episode: SourceEpisode) -> None:
        """Append an episode, its raw return among its facts."""
        raw_return = float(episode.rewards.sum(dtype=np.float64))
        info = {"policy": self._policy, **episode.info, "raw_return": raw_return}
        self.writer.append(episode.frames, episode.actions, episode.rewards, episode.terminated, info)
        self.transitions += len(episode.actions)
        self._returns.append(raw_return)

    def summary(self) -> Recorded:
        """What has been added."""
        added = self.transitions - self._there
        return Recorded(self.game, len(self._returns), added, float(np.mean(self._returns)))


class EpisodeBuffer:
    """An episode that is being played; its length is the number of agent steps so far."""

    def __init__(self) -> None:
        self._frames = np.empty((256, *SCREEN), dtype=np.uint8)
        self._actions: list[int] = []
        self._rewards: list[float] = []

    def __len__(self) -> int:
        """Agent steps played."""
        return len(self._actions)

    def add(self, frame: NDArray[np.uint8], action: int, reward: float) -> None:
        """One agent step: the screen (84, 84) it was decided at, the action of the full 18, the raw reward."""
        if len(self) == len(self._frames):
            self._frames = np.concatenate([self._frames, np.empty_like(self._frames)])
        self._frames[len(self)] = frame
        self._actions.append(int(action))
        self._rewards.append(float(reward))

    def episode(self, terminated: bool, info: dict[str, Any]) -> SourceEpisode:
        """What was played, as an episode that has ended."""
        actions, rewards = np.array(self._actions, np.uint8), np.array(self._rewards, np.float32)
        return SourceEpisode(self._frames[: len(self)], actions, rewards, bool(terminated), info)


def record_behaviour(env: SingleAtari, behaviour: Behaviour, steps: int, tally: Tally, advance: Advance) -> None:
    """Play and store episodes until `steps` agent steps are reached; the last one is finished, not cut."""
    advance = capped(advance, steps - tally.transitions)
    while tally.transitions < steps:
        behaviour.reset(tally.transitions / steps)
        tally.store(play_episode(env, behaviour, advance))


def play_episode(env: SingleAtari, behaviour: Behaviour, advance: Advance = lambda steps: None) -> SourceEpisode:
    """Play one episode to its end or to the protocol's cap."""
    played = EpisodeBuffer()
    frame = env.reset()
    while True:
        action = behaviour.act(env)
        step = env.step(action)
        played.add(frame, action, step.reward)
        if len(played) % _REPORT_EVERY == 0:
            advance(_REPORT_EVERY)
        if step.terminated or step.truncated:
            break
        assert step.frame is not None
        frame = step.frame
    advance(len(played) % _REPORT_EVERY)
    return played.episode(step.terminated, behaviour.describe())


def capped(advance: Advance, budget: int) -> Advance:
    """Counts up to `budget` agent steps only: finishing the last episode adds nothing to a progress bar."""
    left = budget

    def counted(steps: int) -> None:
        nonlocal left
        advance(min(steps, left))
        left -= min(steps, left)

    return counted
