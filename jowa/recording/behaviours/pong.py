"""A Pong player that reads the ball's and the paddle's place from the console's memory."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from jowa.envs.single import SingleAtari

_BALL_X, _BALL_Y, _PADDLE = 49, 54, 51
_OUR_X, _TOP, _BOTTOM, _MIDDLE = 189, 44, 205, 125
_FIRE = 1
# Command −1, 0, 1 → RIGHT (up), NOOP, LEFT (down).
_ACTIONS = {-1: 3, 0: 0, 1: 4}

# The paddle moves by _KEPT of its last move + _LATE for the last command + _NOW for this one, per agent step of 4
# frames (fitted to the emulator): a tap from rest carries it 23 pixels, most of them later.
_KEPT, _LATE, _NOW = 0.245, 7.4, 10.2
_CENTRE = 8
# Met near the paddle's upper end the ball flies off steeply, which the opponent misses; further out we miss it.
_OFF_CENTRE = (2.0, 10.0)
_FINE_STEPS = 4


class PongController:
    """Runs to where the ball will arrive and times its last steps; ends about 17 points ahead.

    The point of the paddle that it meets the ball with is drawn anew for each approach: without that, rallies
    against the deterministic opponent never end.
    """

    watchful = True

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self, progress: float = 1.0) -> None:
        """Forget the last positions."""
        self._ball: tuple[int, int] | None = None
        self._paddle: int | None = None
        self._command = 0
        self._approaching = False
        self._off_centre = 0.0

    def act(self, env: SingleAtari) -> int:
        """FIRE, NOOP, RIGHT (up) or LEFT (down)."""
        memory = env.ram()
        x, y, paddle = int(memory[_BALL_X]), int(memory[_BALL_Y]), int(memory[_PADDLE])
        target, steps = self._target(x, y)
        move = 0 if self._paddle is None else paddle - self._paddle
        self._ball, self._paddle = (x, y) if y else None, paddle
        if y == 0:
            self._command = 0
            return _FIRE
        self._command = _best_command(paddle, move, self._command, target - _CENTRE + self._off_centre, steps)
        return _ACTIONS[self._command]

    def _target(self, x: int, y: int) -> tuple[float, int]:
        """At which height the ball passes our paddle and in how many steps; the middle while it flies away."""
        velocity_x = 0 if self._ball is None else x - self._ball[0]
        if self._ball is None or velocity_x <= 0 or x >= _OUR_X:
            self._approaching = False
            return _MIDDLE, _FINE_STEPS + 1
        if not self._approaching:
            self._approaching = True
            self._off_centre = float(self._rng.uniform(*_OFF_CENTRE))
        steps = (_OUR_X - x) / velocity_x
        return reflected(y + (y - self._ball[1]) * steps, _TOP, _BOTTOM), max(1, round(steps))

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"policy": "scripted"}


def _best_command(paddle: float, move: float, command: int, target: float, steps: int) -> int:
    """The next command (−1, 0, 1) that brings the paddle nearest to `target`.

    While there is time, nearest where it comes to rest; in the last steps, nearest after exactly `steps`.
    """
    fine = steps <= _FINE_STEPS
    best, best_miss = 0, float("inf")
    for commands in product((0, -1, 1), repeat=steps if fine else 1):
        place, last_move, last = paddle, move, command
        for now in commands:
            last_move = _KEPT * last_move + _LATE * last + _NOW * now
            place += last_move
            last = now
        if not fine:
            place += (_KEPT * last_move + _LATE * last) / (1 - _KEPT)
        if abs(place - target) < best_miss - 1e-9:
            best, best_miss = commands[0], abs(place - target)
    return best


def reflected(value: float, low: float, high: float) -> float:
    """Where a ball that would be at `value` is if walls at `low` and `high` throw it back."""
    span = high - low
    offset = (value - low) % (2 * span)
    return low + (offset if offset <= span else 2 * span - offset)
