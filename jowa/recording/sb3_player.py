"""Plays the agents that stable-baselines3 has saved. Importing this needs stable-baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from jowa.envs.atari import SCREEN
from jowa.errors import UserError
from jowa.evaluation.play.rollout import Turn
from jowa.games import legal_actions
from jowa.recording.sb3_training import STACK, stacked

_CLASSES: dict[str, type[DQN] | type[PPO]] = {"DQN": DQN, "PPO": PPO}


def load_agent(path: str, algorithm: str, games: Sequence[str], device: torch.device) -> BaseAlgorithm:
    """The agent in a file that stable-baselines3 saved. It may run code of its maker's: load only what you trust.

    Raises:
        UserError: the file isn't there, holds no such agent, or one for other screens or another number of actions
            than the games have.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"There is no file {path}: set sb3.load to the .zip of an agent, or to null to train one.")
    try:
        agent = _CLASSES[algorithm].load(file, device=device)
    except Exception as error:  # whatever unpickling another version's or another algorithm's file brings
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{path} can't be read as a {algorithm} agent ({reason}): set sb3.load or sb3.algorithm."
        ) from error
    for game in games:
        screens, actions = (STACK, *SCREEN), len(legal_actions(game))
        if agent.observation_space.shape != screens or getattr(agent.action_space, "n", None) != actions:
            raise UserError(
                f"The agent in {path} sees {agent.observation_space} and plays {agent.action_space}, {game} has "
                f"{screens} and {actions} actions: set sb3.load to an agent of that game."
            )
    return agent


class Sb3Player:
    """A loaded agent as one of many environments' players: its best action, never a draw of its own."""

    def __init__(self, agent: BaseAlgorithm, games: Sequence[str]) -> None:
        """`games`: what the N environments play."""
        self._agent = agent
        self._legal = np.array([legal_actions(game) for game in games], np.int64)
        self._stacks = np.zeros((len(games), STACK, *SCREEN), np.uint8)

    def act(self, turn: Turn) -> NDArray[np.int64]:
        """Actions (N,), indices into the full 18."""
        self._stacks = stacked(self._stacks, turn.frames, turn.begins)
        chosen, _ = self._agent.predict(self._stacks, deterministic=True)
        actions: NDArray[np.int64] = np.take_along_axis(self._legal, chosen.reshape(-1, 1), axis=1)[:, 0]
        return actions

    def record(self, actions: NDArray[np.int64]) -> None:
        """It doesn't look back at actions."""
