"""A good player with random actions in between: fixed, or fading as they fade in a learning agent's history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jowa.envs.single import SingleAtari
from jowa.recording.behaviours.base import Behaviour

FINAL_EPSILON = 0.01
_SPREAD = 0.15

EpsilonSchedule = Callable[[float, np.random.Generator], float]
"""From the recording's progress in [0, 1] to an episode's share of random actions."""


class EpsilonMixture:
    """At each agent step a uniform legal action with probability ε, else the good player's; ε is drawn per episode."""

    watchful = True

    def __init__(self, good: Behaviour, epsilon: EpsilonSchedule, seed: int) -> None:
        self._good = good
        self._schedule = epsilon
        self._rng = np.random.default_rng(seed)
        self.epsilon = 0.0

    def reset(self, progress: float = 1.0) -> None:
        """Draw the episode's ε."""
        self.epsilon = self._schedule(progress, self._rng)
        self._good.reset(progress)

    def act(self, env: SingleAtari) -> int:
        """A random legal action or the good player's."""
        chance = self._rng.random() < self.epsilon
        action = env.legal[int(self._rng.integers(len(env.legal)))] if chance else 0
        if chance and not self._good.watchful:
            return action
        good = self._good.act(env)
        return action if chance else good

    def describe(self) -> dict[str, Any]:
        """The good player's facts and ε."""
        return {**self._good.describe(), "epsilon": self.epsilon}


def constant(epsilon: float) -> EpsilonSchedule:
    """The same ε in every episode."""
    return lambda progress, rng: epsilon


def rising(epsilon: float) -> EpsilonSchedule:
    """Rising quality: ε falls evenly from 1 to `epsilon` over the recording."""
    return lambda progress, rng: 1.0 - (1.0 - epsilon) * progress


SCHEDULES: dict[str, Callable[[float], EpsilonSchedule]] = {"constant": constant, "rising": rising}
"""How ε goes through a recording, given where it is at the end."""


def learning_history(progress: float, rng: np.random.Generator) -> float:
    """ε falling geometrically from 1 to 0.01 over the recording, each episode being a little ahead or behind."""
    skill = min(max(progress + float(rng.uniform(-_SPREAD, _SPREAD)), 0.0), 1.0)
    return FINAL_EPSILON**skill
