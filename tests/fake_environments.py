"""Toy games with the interface of AtariEnvironments, whose returns and lengths can be told in advance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jowa.envs.atari import StepResult


class FakeEnvironments:
    """An episode with seed s ends after 3 + s % 5 steps (after `cap`, if sooner, it is truncated).

    The reward is the played action + 1. Pixel [0, 0] shows the step, [0, 1] the environment, [0, 2] the seed.
    """

    def __init__(self, games: Sequence[str], legal: NDArray[np.bool_] | None = None, cap: int = 100) -> None:
        self.games = tuple(games)
        self.num_envs = len(games)
        self.tasks = np.arange(self.num_envs, dtype=np.int64)
        self.legal = np.ones((self.num_envs, 18), bool) if legal is None else legal
        self._cap = cap
        self._seeds = np.zeros(self.num_envs, np.int64)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, bool)
        self.played: list[list[int]] = [[] for _ in games]

    def _frames(self) -> NDArray[np.uint8]:
        frames = np.zeros((self.num_envs, 84, 84), np.uint8)
        frames[:, 0, 0], frames[:, 0, 1], frames[:, 0, 2] = self._steps, np.arange(self.num_envs), self._seeds
        return frames

    def reset(self, mask: NDArray[np.bool_] | None = None, seeds: Sequence[int] | None = None) -> NDArray[np.uint8]:
        chosen = np.ones(self.num_envs, bool) if mask is None else mask
        assert seeds is not None and len(seeds) == self.num_envs
        self._seeds[chosen] = np.array(seeds)[chosen]
        self._steps[chosen] = 0
        self._ended[chosen] = False
        return self._frames()

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        live = ~self._ended
        for index in np.flatnonzero(live):
            self.played[index].append(int(actions[index]))
        self._steps[live] += 1
        terminated = live & (self._steps >= 3 + self._seeds % 5)
        truncated = live & ~terminated & (self._steps >= self._cap)
        self._ended |= terminated | truncated
        return StepResult(self._frames(), np.where(live, actions + 1, 0).astype(np.float32), terminated, truncated)
