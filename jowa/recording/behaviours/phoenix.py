"""A Phoenix player."""

from __future__ import annotations

from typing import Any

from jowa.envs.single import SingleAtari

_RIGHT, _LEFT, _RIGHT_FIRE, _LEFT_FIRE = 3, 4, 11, 12
_SWEEP = 45


class PhoenixController:
    """Sweeps right and left and fires at every second step, whatever comes: about 2 500 points."""

    watchful = False

    def __init__(self, seed: int) -> None:
        pass

    def reset(self, progress: float = 1.0) -> None:
        """Nothing to forget."""

    def act(self, env: SingleAtari) -> int:
        """LEFT or RIGHT, with or without FIRE, by the number of the step."""
        leftwards = env.steps // _SWEEP % 2 == 1
        if env.steps % 2:
            return _LEFT_FIRE if leftwards else _RIGHT_FIRE
        return _LEFT if leftwards else _RIGHT

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"policy": "scripted"}
