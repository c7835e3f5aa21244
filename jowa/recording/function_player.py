"""Plays by a function of the user's: `policy=<module>:<function>`.

    def play(frame, random, legal):
        return 0 if frame[40:44].any() else int(random.choice(legal))

It is asked at every agent step of every episode. `frame` is the present screen, (84, 84) uint8; `random` a NumPy
Generator of the episode's own, which its seed decides; `legal` the game's actions, ascending. It returns one of these.
Episodes that run side by side are asked about in turn, so a function that remembers anything can't tell them apart.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jowa.errors import UserError
from jowa.evaluation.play.rollout import Turn

Function = Callable[[NDArray[np.uint8], np.random.Generator, tuple[int, ...]], int]

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def names_function(policy: str) -> bool:
    """Whether it has the form <module>:<function>."""
    return _NAME.fullmatch(policy) is not None


def load_function(policy: str) -> Function:
    """The function of that name. Raises UserError when there is none; its module is run by that."""
    module, _, name = policy.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever somebody's module may raise
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"policy={policy} can't be imported ({type(error).__name__}: {reason}): mend it.") from error
    if not callable(function):
        raise UserError(f"policy={policy} is no function: name one that takes a frame, a generator and the actions.")
    loaded: Function = function
    return loaded


class FunctionPlayer:
    """A user's function as many environments' player; what it draws depends on the episode's seed alone."""

    def __init__(self, policy: str, function: Function, legal: NDArray[np.bool_]) -> None:
        """policy: its name, for messages; legal: (N, A) bool."""
        self._policy, self._function = policy, function
        self._legal = [tuple(np.flatnonzero(row).tolist()) for row in legal]
        self._randoms = [np.random.default_rng(0) for _ in legal]

    def act(self, turn: Turn) -> NDArray[np.int64]:
        """Actions (N,), 0 for the idle. Raises UserError when the function fails or returns no legal action."""
        actions = np.zeros(len(self._legal), np.int64)
        for row in np.flatnonzero(turn.playing).tolist():
            if turn.begins[row]:
                self._randoms[row] = np.random.default_rng(int(turn.seeds[row]))
            actions[row] = self._choose(row, turn.frames[row].copy())
        return actions

    def _choose(self, row: int, frame: NDArray[np.uint8]) -> int:
        legal = self._legal[row]
        try:
            action = self._function(frame, self._randoms[row], legal)
        except Exception as error:  # whatever somebody's function may raise
            reason = next(iter(str(error).splitlines()), "")
            raise UserError(f"policy={self._policy} failed ({type(error).__name__}: {reason}): mend it.") from error
        if not isinstance(action, int | np.integer) or action not in legal:
            raise UserError(f"policy={self._policy} returned {action!r}, none of the actions {legal}: mend it.")
        return int(action)

    def record(self, actions: NDArray[np.int64]) -> None:
        """It doesn't hear of actions that chance replaced."""
