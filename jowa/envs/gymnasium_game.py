"""One environment of Gymnasium as a game: its actions, its screens and its episodes."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from jowa.envs.environment_spec import RENDER, EnvironmentConfig, action_indices, settings_of
from jowa.envs.images import Grey
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.screens import find_image, pooled, screen
from jowa.envs.single import SingleStep
from jowa.errors import UserError
from jowa.games import FRESH, LARGEST_ACTION_SET, CustomGame

_PACKAGES = {"MiniGrid": "minigrid", "BabyAI": "minigrid"}
"""Packages whose environments are known only once they are imported, by how the ids begin."""

_CHANCES = 1

_LARGEST_REWARD = float(np.finfo(np.float32).max)
"""Rewards are stored as float32."""


class GymnasiumGame:
    """One environment; the interface of `SingleAtari` as far as a game without readable memory has it.

    An episode depends on its seed and the actions only, as far as the environment's own `reset(seed=…)` sees to that.

    Attributes:
        game: its name.
        legal: the game's actions.
    """

    def __init__(self, game: CustomGame, protocol: ProtocolConfig, seed: int) -> None:
        """Raises UserError when the environment can't be made, or isn't what the game was made of."""
        self._env, self._settings = settings_of(game)
        self.game, self.legal = game.name, game.legal
        self._protocol = protocol.check()
        self._environment = make(self._env, self._settings)
        self._image = find_image(self._environment, self._env, self._settings)
        self._actions = self._action_table(game)
        if protocol.max_no_op_frames and self._no_op is None:
            raise UserError(
                f"protocol.max_no_op_frames needs an action that does nothing, and {self.game} names none: set it to 0 "
                "or call one of environment.actions NOOP."
            )
        self._cap = -(-protocol.max_episode_frames // self._settings.frame_skip)
        self._seed, self._episode = int(seed), -1
        self._chances = np.random.default_rng(0)
        self._greys: deque[Grey] = deque(maxlen=2 if self._settings.max_pool else 1)
        self._last: int | None = None
        self._steps = 0

    def _action_table(self, game: CustomGame) -> dict[int, int]:
        """From the game's actions to the environment's. Raises UserError when their number has changed."""
        space = getattr(self._environment, "action_space", None)
        count = action_count(self._env, space)
        if count != len(game.legal):
            raise UserError(
                f"{self._env} has {count} actions, and {game.name} had {len(game.legal)} when it was recorded: install "
                "the version of its package that it was recorded with."
            )
        indices = action_indices(self._env, self._settings.actions, count) or range(count)
        first = int(getattr(space, "start", 0))
        return {index: first + number for number, index in enumerate(indices)}

    @property
    def _no_op(self) -> int | None:
        return None if self._settings.actions == FRESH else self._actions.get(0)

    def reset(self, seed: int | None = None) -> NDArray[np.uint8]:
        """Begin a new episode and return its first screen (84, 84) uint8.

        A `seed` replaces the environment's and numbers its episodes from 0 again.
        """
        if seed is not None:
            self._seed, self._episode = int(seed), -1
        self._episode += 1
        self._steps = 0
        start = episode_seed(self._seed, self._episode)
        self._chances = np.random.default_rng([start, _CHANCES])
        observed = self._begin(start)
        if self._protocol.max_no_op_frames:
            for _ in range(int(self._chances.integers(self._protocol.max_no_op_frames + 1))):
                assert self._no_op is not None, "refused when it was made"
                observed, _, terminated, truncated = self._advance(self._no_op)
                if terminated or truncated:
                    observed = self._begin(start)
        self._greys.clear()
        self._look(observed)
        return self._screen()

    def _begin(self, seed: int) -> Any:
        self._last = None
        try:
            began: Any = self._environment.reset(seed=seed)
        except Exception as error:  # whatever somebody's environment may raise
            self._fail("reset", error)
        # Unpacking would take an image of two rows for a pair.
        if not isinstance(began, tuple) or len(began) != 2:
            raise UserError(
                f"{self._env} failed in reset(): it gave {type(began).__name__} where (observation, info) was "
                "expected: mend the environment, or wrap it."
            )
        return began[0]

    def step(self, action: int, render: bool = True) -> SingleStep:
        """Hold one of the game's actions for an agent step; without `render` there is no frame, which is faster.

        Raises ValueError for an action that the game hasn't.
        """
        if action not in self._actions:
            raise ValueError(f"{self.game} has no action {action}")
        reward, settings = 0.0, self._settings
        # With pooling the next screen may need the last image of a step that nobody looks at.
        wanted = int(render) + int(settings.max_pool)
        for left in reversed(range(settings.frame_skip)):
            observed, gained, terminated, truncated = self._advance(self._actions[action])
            reward += gained
            over = terminated or truncated
            if (0 if over else left) < wanted:
                self._look(observed)
            if over:
                break
        if abs(reward) > _LARGEST_REWARD:
            raise UserError(
                f"{self._env} gave the reward {reward:g}: mend the environment, rewards must be at most "
                f"{_LARGEST_REWARD:.2g}."
            )
        self._steps += 1
        cut = not terminated and (truncated or self._steps >= self._cap)
        return SingleStep(self._screen() if render else None, reward, terminated, cut)

    def _advance(self, action: int) -> tuple[Any, float, bool, bool]:
        """One environment step: observation, reward, terminated, truncated."""
        sticky = self._protocol.repeat_action_probability
        if sticky and self._chances.random() < sticky and self._last is not None:
            action = self._last
        self._last = action
        try:
            observed, reward, terminated, truncated, _ = self._environment.step(action)
            gained, ends = float(reward), (bool(terminated), bool(truncated))
        except Exception as error:  # whatever somebody's environment may raise
            self._fail("step", error)
        if not math.isfinite(gained):
            raise UserError(f"{self._env} gave the reward {gained}: mend the environment, rewards must be finite.")
        return observed, gained, *ends

    def _look(self, observed: Any) -> None:
        shown = observed
        if self._image.path is None:
            try:
                shown = self._environment.render()
            except Exception as error:  # whatever somebody's environment may raise
                self._fail("render", error)
        # A copy, for an environment may go on drawing into the same array.
        self._greys.append(self._image.grey(shown).copy())

    def _screen(self) -> Grey:
        return screen(pooled(self._greys, self._env), self._settings.crop, self._settings.interpolation)

    def _fail(self, where: str, error: Exception) -> NoReturn:
        raise UserError(
            f"{self._env} failed in {where}() ({_reason(error)}): try it by itself, with gymnasium.make."
        ) from error

    def package(self) -> str:
        """The top-level module that the environment's class comes from."""
        return type(self._environment.unwrapped).__module__.partition(".")[0]

    def close(self) -> None:
        """Let go of the environment."""
        self._environment.close()


def make(env: str, settings: EnvironmentConfig) -> gymnasium.Env[Any, Any]:
    """The environment itself, with its own limit on an episode's length.

    Raises:
        UserError: no such environment is known here, or it can't be made with these settings.
    """
    keywords: dict[str, Any] = {**settings.kwargs, "disable_env_checker": True}
    if settings.observation == RENDER:
        keywords["render_mode"] = "rgb_array"
    try:
        return gymnasium.make(env, **keywords)
    except gymnasium.error.UnregisteredEnv as error:
        raise UserError(f"env={env} is unknown: {_reason(error, False)} {_where_it_may_be(env)}") from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"env={env} lacks a package: {_reason(error, False)}.") from error
    except ModuleNotFoundError as error:
        module = error.name or env.partition(":")[0]
        raise UserError(
            f"env={env} needs the Python module {module}, which isn't installed: install the package that has it."
        ) from error
    except Exception as error:  # whatever somebody's environment may raise
        raise UserError(f"env={env} can't be made ({_reason(error)}): check the id and environment.kwargs.") from error


def action_count(env: str, space: spaces.Space[Any] | None) -> int:
    """How many actions there are. Raises UserError unless they are a number of separate ones."""
    if space is None:
        raise UserError(f"{env} doesn't say what its actions are (it has no action_space): wrap it.")
    if not isinstance(space, spaces.Discrete):
        kind = {"Box": "continuous actions", "MultiDiscrete": "several actions at a time (MultiDiscrete)"}
        has = kind.get(type(space).__name__, f"actions of the kind {type(space).__name__}")
        raise UserError(f"{env} has {has}, and only Discrete ones can be learned: choose another environment.")
    if space.n > LARGEST_ACTION_SET:
        raise UserError(f"{env} has {space.n} actions, and there can be {LARGEST_ACTION_SET} at most: wrap it.")
    return int(space.n)


def _where_it_may_be(env: str) -> str:
    module, _, name = env.rpartition(":")
    package = next((package for start, package in _PACKAGES.items() if name.startswith(start)), None)
    if package is not None and not module:
        return f"Install {package} if it isn't, and write env={package}:{name}."
    if module:
        return "Write an id that its module registers."
    return "If a package of yours has it, name the module too: env=<module>:<id>."


def _reason(error: Exception, named: bool = True) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if named else first
