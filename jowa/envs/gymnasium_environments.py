"""Any games of Gymnasium side by side, and how they get known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jowa.envs.atari import SCREEN, StepResult
from jowa.envs.environment_spec import EnvironmentConfig, game_from
from jowa.envs.gymnasium_game import GymnasiumGame, action_count, make
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.games import CustomGame, check_game, custom_game, legal_mask, register, task_id


class GymnasiumEnvironments:
    """N environments, each with its own registered game and seed; the interface of `AtariEnvironments`.

    An environment's episodes depend on its game, its seed and the actions it is given, never on its neighbours.

    Attributes:
        games: N names of registered games.
        tasks: (N,) int64 task ids.
        legal: (N, A) bool legal actions, A being the largest of the games' sets.
    """

    def __init__(self, games: Sequence[str], protocol: ProtocolConfig, seeds: Sequence[int]) -> None:
        """One environment for each entry of `games`, seeded by the entry of `seeds`.

        Raises:
            UserError: unknown game, senseless protocol value, or an environment that can't be made.
        """
        if len(games) != len(seeds) or not games:
            raise ValueError(f"as many seeds as games, and at least one: {len(games)} games, {len(seeds)} seeds")
        self.games = tuple(games)
        self.num_envs = len(self.games)
        self.tasks = np.array([task_id(game) for game in self.games], dtype=np.int64)
        self.legal = side_by_side([legal_mask(game) for game in self.games])
        self._rows = [GymnasiumGame(known(game), protocol, seed) for game, seed in zip(self.games, seeds, strict=True)]
        self._begun = np.zeros(self.num_envs, np.bool_)
        self._playing = np.zeros(self.num_envs, np.bool_)
        self._frames = np.zeros((self.num_envs, *SCREEN), np.uint8)

    def reset(self, mask: NDArray[np.bool_] | None = None, seeds: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Begin a new episode where `mask` (N,) is True (None: everywhere); the other environments stay as they are.

        Args:
            mask: (N,) bool. The very first call resets all.
            seeds: N new seeds, used where `mask` is True; their episodes are numbered from 0 again.

        Returns:
            frames (N, 84, 84) uint8: first screens of the new episodes, current screens of the others.
        """
        chosen = np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        if chosen.shape != (self.num_envs,) or (seeds is not None and len(seeds) != self.num_envs):
            raise ValueError(f"mask and seeds need one entry for each of the {self.num_envs} environments")
        chosen = chosen | ~self._begun
        for row in np.flatnonzero(chosen).tolist():
            self._frames[row] = self._rows[row].reset(None if seeds is None else int(seeds[row]))
        self._begun[chosen] = self._playing[chosen] = True
        return self._frames.copy()

    def step(self, actions: NDArray[np.integer]) -> StepResult:
        """One agent step everywhere; environments whose episode has ended ignore it (reward 0, same frame).

        Args:
            actions: (N,) integers in each game's set.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must be {self.num_envs} indices, not {actions}")
        rewards = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        for row in np.flatnonzero(self._playing).tolist():
            step = self._rows[row].step(int(actions[row]))
            assert step.frame is not None, "it is rendered unless told otherwise"
            self._frames[row], rewards[row] = step.frame, step.reward
            terminated[row], truncated[row] = step.terminated, step.truncated
        self._playing &= ~(terminated | truncated)
        return StepResult(self._frames.copy(), rewards, terminated, truncated)

    def close(self) -> None:
        """Let go of the environments; they can't be used afterwards."""
        for row in self._rows:
            row.close()
        self._rows.clear()


def side_by_side(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Masks (a,) of any lengths as one array (N, A), the longest's; what a shorter one lacks isn't legal."""
    legal = np.zeros((len(masks), max(map(len, masks))), np.bool_)
    for row, mask in enumerate(masks):
        legal[row, : len(mask)] = mask
    return legal


def known(game: str) -> CustomGame:
    """The registered game of that name. Raises UserError for an unknown one."""
    found = custom_game(check_game(game))
    if found is None:
        raise UserError(f"{game} is an Atari game, not an environment of Gymnasium's.")
    return found


def register_environment(env: str, config: EnvironmentConfig) -> str:
    """Make `env=<id>` known as a game and return its name; it is tried out by beginning an episode.

    Raises:
        UserError: there is no such environment, it has no images or no separate actions, it fails, or its name stands
            for another game.
    """
    environment = make(env, config.check())
    try:
        game = game_from(env, config, action_count(env, getattr(environment, "action_space", None)))
    finally:
        environment.close()
    tried = GymnasiumGame(game, ProtocolConfig(), 0)
    try:
        tried.reset()
    finally:
        tried.close()
    register(game)
    return game.name
