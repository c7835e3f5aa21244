"""A Breakout player that reads the ball's and the paddle's place from the console's memory."""

from __future__ import annotations

from typing import Any

from jowa.envs.single import SingleAtari
from jowa.recording.behaviours.pong import reflected

_BALL_X, _BALL_Y, _PADDLE = 99, 101, 72
_LEFT_WALL, _RIGHT_WALL = 57, 207
_NOOP, _FIRE, _RIGHT, _LEFT = 0, 1, 3, 4


class BreakoutController:
    """Keeps the paddle under the falling ball; scores about 240 at frame skip 4."""

    watchful = True

    def __init__(self, seed: int) -> None:
        self.reset()

    def reset(self, progress: float = 1.0) -> None:
        """Forget the last positions."""
        self._ball: tuple[int, int] | None = None
        self._paddle: int | None = None

    def act(self, env: SingleAtari) -> int:
        """FIRE, NOOP, RIGHT or LEFT."""
        memory = env.ram()
        x, y, paddle = int(memory[_BALL_X]), int(memory[_BALL_Y]), int(memory[_PADDLE])
        before, speed = self._ball, 0 if self._paddle is None else paddle - self._paddle
        self._ball, self._paddle = (x, y) if y else None, paddle
        if y == 0:
            return _FIRE
        if before is None or y <= before[1]:
            return _NOOP
        arrival = reflected(x + (x - before[0]), _LEFT_WALL, _RIGHT_WALL)
        distance = arrival - 11 - (paddle + 0.5 * speed)
        return _RIGHT if distance > 6 else _LEFT if distance < -6 else _NOOP

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"policy": "scripted"}
