"""A Phoenix player."""

from __future__ import annotations

from typing import Any

from jowa.envs.single import SingleAtari

_FIRE, _RIGHT, _LEFT = 1, 3, 4
_SWEEP = 45


class PhoenixController:
    """Sweeps from side to side and fires at every second step, whatever comes: about 3 000 points."""

    watchful = False

    def __init__(self, seed: int) -> None:
        pass

    def reset(self, progress: float = 1.0) -> None:
        """Nothing to forget."""

    def act(self, env: SingleAtari) -> int:
        """FIRE, LEFT or RIGHT, by the number of the step."""
        if env.steps % 2:
            return _FIRE
        return _LEFT if env.steps // _SWEEP % 2 == 0 else _RIGHT

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"behaviour": "scripted"}
