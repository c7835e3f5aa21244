"""Random play."""

from __future__ import annotations

from typing import Any

import numpy as np

from jowa.envs.single import SingleAtari


class UniformRandom:
    """Every legal action with equal probability, at every agent step."""

    watchful = False

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def reset(self, progress: float = 1.0) -> None:
        """Nothing to forget."""

    def act(self, env: SingleAtari) -> int:
        """A random legal action."""
        return env.legal[int(self._rng.integers(len(env.legal)))]

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"policy": "random"}
