"""The dream as a Gymnasium environment: what `jowa/Dream-v0` stands for once jowa is imported.

    envs = gymnasium.make_vec("jowa/Dream-v0", num_envs=64, ckpt="runs/demo", game="Freeway")
    env = gymnasium.make("jowa/Dream-v0", ckpt="runs/demo", game="Freeway", render_mode="rgb_array")

An episode starts from a few real screens of the game and goes on in the model's imagination alone, for a few steps.
Observations are the imagined frames, rewards the predicted signs, and an episode terminates where an end is predicted.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import logger, spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from jowa.data.split import held_out_episodes
from jowa.data.store import EpisodeStore, has_episodes
from jowa.dreaming.dreams import Dreams
from jowa.dreaming.starts import EmulatorStarts, RecordedStarts, Starts
from jowa.envs.atari import SCREEN
from jowa.errors import UserError
from jowa.games import check_game
from jowa.models.agent_files import Agent
from jowa.models.world_action_model import check_game_fits
from jowa.training.distribution import choose_device
from jowa.training.new_game import trained_games
from jowa.training.starting_point import open_agent

FRAMES_PER_SECOND = 15  # the game's own speed: 60 frames a second, 4 frames an agent step
_SCALE = 3

Array = NDArray[Any]


@dataclass(frozen=True)
class DreamConfig:
    """What `gymnasium.make` and `make_vec` take besides their own keywords.

    ckpt: a run's folder, one checkpoint's, or published files. game: ALE name; actions are the game's legal ones.
    observation: "frame", (84, 84) grey as decoded, or "codes", (K,) numbers of the tokenizer's codebook. context: real
    and imagined frames the model looks back on, at most its blocks less one, which null takes. temperature: 0 imagines
    the likeliest codes, 1 samples them as predicted. start: "data", held-out episodes where there are any, or
    "emulator", the real game after a few random actions. data: the episode store, that of the training run if null.
    """

    ckpt: str
    game: str
    observation: str = "frame"
    context: int | None = None
    temperature: float = 0.0
    start: str = "data"
    data: str | None = None
    device: str = "auto"


def read_config(settings: dict[str, Any]) -> DreamConfig:
    """Raises UserError for whatever can be refused before the checkpoint is opened, naming the key."""
    known = [field.name for field in fields(DreamConfig)]
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}."
            raise UserError(f"jowa/Dream-v0 has no key '{key}': {hint}")
    missing = [field.name for field in fields(DreamConfig) if field.default is MISSING and field.name not in settings]
    if missing:
        raise UserError(f"A value is missing: give jowa/Dream-v0 {' and '.join(f'{key}=…' for key in missing)}.")
    config = DreamConfig(**settings)
    _check_types(config)
    for key, choices in (("observation", ("frame", "codes")), ("start", ("data", "emulator"))):
        if getattr(config, key) not in choices:
            raise UserError(f"{key} must be '{choices[0]}' or '{choices[1]}', not '{getattr(config, key)}'.")
    if not 0 <= config.temperature < math.inf:
        raise UserError(f"temperature={config.temperature} is no temperature: set it to 0 or more.")
    if config.context is not None and config.context < 1:
        raise UserError(f"context={config.context} gives the model no frame to see: set it to 1 or more.")
    return config


def _check_types(config: DreamConfig) -> None:
    """Raises UserError for a value of another kind than its key's."""
    text, whole = (str, Path), (int, np.integer)
    kinds: dict[str, tuple[type, ...]] = {
        "ckpt": text, "game": (str,), "observation": (str,), "context": (*whole, type(None)),
        "temperature": (float, np.floating, *whole), "start": (str,), "data": (*text, type(None)), "device": (str,),
    }  # fmt: skip
    for key, kind in kinds.items():
        value = getattr(config, key)
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = " or ".join("None" if one is type(None) else one.__name__ for one in kind[:1] + kind[2:3])
            raise UserError(f"{key}={value!r} is no value for jowa/Dream-v0's {key}: give it as {wanted}.")


def open_dreams(config: DreamConfig, count: int) -> Dreams:
    """Load the agent and make `count` dreams in it. Raises UserError for what can't be found or doesn't fit."""
    device = choose_device(config.device, "device")
    agent = open_agent(str(config.ckpt)).agent
    # Not before the agent is there: which games there are beside Atari's is in its description.
    check_game_fits(agent.model.config, check_game(config.game))
    trained = trained_games(agent)
    if trained and config.game not in trained:
        known = ", ".join(trained)
        logger.warn(f"The agent was never trained on {config.game} (only on {known}): its dreams of it mean little.")
    most = agent.model.config.blocks - 1
    context = most if config.context is None else config.context
    if context > most:
        raise UserError(
            f"context={context} leaves no room for an imagined frame: the model sees {most + 1} frames in all, set "
            f"context to at most {most}."
        )
    starts = EmulatorStarts(config.game, context) if config.start == "emulator" else _recorded(config, agent, context)
    tokenizer, model = agent.tokenizer.to(device), agent.model.to(device)
    return Dreams(tokenizer, model, starts, config.game, count, context, config.temperature)


def _recorded(config: DreamConfig, agent: Agent, context: int) -> Starts:
    folder = config.data or agent.description["data"]
    if folder is None or not has_episodes(Path(folder), config.game):
        where = "that the agent names" if folder is None else f"in {folder}"
        raise UserError(
            f"Dreams start from real screens, and there are no episodes of {config.game} {where}: set data to an "
            f"episode store that has some, or start='emulator'."
        )
    store = EpisodeStore(Path(folder), [config.game], path_key="data", games_key="game")
    holdout = agent.description["holdout"] or 0.0
    held_out = held_out_episodes(config.game, store.episode_names(config.game), holdout)
    return RecordedStarts(store, config.game, context, "held_out" if held_out.any() else "all", holdout)


class DreamEnv(gymnasium.Env[Array, np.int64]):
    """One dream. It never truncates: `gymnasium.make` does so after `max_episode_steps`, 15 unless told otherwise.

    `info["imagined"]` is the number of agent steps since the last real screen.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FRAMES_PER_SECOND}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        """Settings are those of `DreamConfig`. Raises UserError."""
        self._config = read_config(settings)
        self.render_mode = _checked_render_mode(render_mode)
        self._dreams = open_dreams(self._config, 1)
        self.observation_space = _observation_space(self._config, self._dreams)
        self.action_space = spaces.Discrete(len(self._dreams.actions))
        self._imagined = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin at another start. Everything that follows, sampled codes too, follows from a seed that is given."""
        unseeded = self._np_random is None
        super().reset(seed=seed)
        if seed is not None or unseeded:
            self._dreams.seed([self.np_random])
        self._dreams.begin([0], [self.np_random])
        self._imagined = 0
        return _observe(self._config, self._dreams)[0], {"imagined": 0}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Imagine one agent step; the action is a number of the game's legal ones."""
        if self._np_random is None:
            raise ResetNeeded("Nothing is dreamed yet: call reset() before step().")
        dreamed = self._dreams.step(np.array([action]))
        self._imagined += 1
        observation = _observe(self._config, self._dreams)[0]
        return observation, float(dreamed.rewards[0]), bool(dreamed.ended[0]), False, {"imagined": self._imagined}

    def render(self) -> Any:
        """The present frame, (252, 252, 3) uint8."""
        return _pictures(self._dreams)[0] if self.render_mode == "rgb_array" else None


class DreamVectorEnv(VectorEnv[Array, Array, Array]):
    """N dreams that are imagined in one batch. Whichever ends begins anew in the same step (`AutoresetMode.SAME_STEP`).

    Dream n seeded with s is what a single environment seeded with s + n is, up to rounding; with a temperature above 0
    only where it starts is, since what a batch samples comes from one source. Infos are as in a `SyncVectorEnv`.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"], "render_fps": FRAMES_PER_SECOND, "autoreset_mode": AutoresetMode.SAME_STEP,
    }  # fmt: skip

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int = 15, render_mode: str | None = None, **settings: Any
    ) -> None:
        """max_episode_steps: agent steps after which a dream is truncated, -1 for never. Raises UserError."""
        for key, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool):
                raise UserError(f"{key} must be a whole number, not {value!r}.")
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1, not {num_envs}.")
        if max_episode_steps < 1 and max_episode_steps != -1:
            raise UserError(f"max_episode_steps must be at least 1, or -1 for no end, not {max_episode_steps}.")
        self._config = read_config(settings)
        self.render_mode = _checked_render_mode(render_mode)
        self._dreams = open_dreams(self._config, num_envs)
        self.num_envs = num_envs
        self.single_observation_space = _observation_space(self._config, self._dreams)
        self.single_action_space = spaces.Discrete(len(self._dreams.actions))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._most = max_episode_steps if max_episode_steps != -1 else np.iinfo(np.int64).max
        self._imagined = np.zeros(num_envs, np.int64)
        self._randoms: list[np.random.Generator] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin all dreams anew; with `seed` the n-th one's generator is seeded with seed + n."""
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            raise UserError("reset_mask is for environments without autoreset; these begin anew by themselves.")
        if seed is not None or not self._randoms:
            first = self.np_random.integers(2**62) if seed is None else seed
            self._randoms = [seeding.np_random(int(first) + n)[0] for n in range(self.num_envs)]
            self._dreams.seed(self._randoms)
        self._dreams.begin(range(self.num_envs), self._randoms)
        self._imagined[:] = 0
        return _observe(self._config, self._dreams), self._infos()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Imagine one agent step in every dream, and begin those anew that ended with it."""
        if not self._randoms:
            raise ResetNeeded("Nothing is dreamed yet: call reset() before step().")
        dreamed = self._dreams.step(actions)
        self._imagined += 1
        truncated = self._imagined >= self._most
        infos: dict[str, Any] = {}
        observations = _observe(self._config, self._dreams)
        ended = np.flatnonzero(dreamed.ended | truncated).tolist()
        if ended:
            for row in ended:
                final = {"final_obs": observations[row].copy(), "final_info": {"imagined": int(self._imagined[row])}}
                infos = self._add_info(infos, final, row)
            self._dreams.begin(ended, [self._randoms[row] for row in ended])
            self._imagined[ended] = 0
            observations = _observe(self._config, self._dreams)
        return observations, dreamed.rewards, dreamed.ended, truncated, infos | self._infos()

    def render(self) -> tuple[Any, ...] | None:
        """The present frames, (252, 252, 3) uint8 each."""
        return tuple(_pictures(self._dreams)) if self.render_mode == "rgb_array" else None

    def _infos(self) -> dict[str, Any]:
        return {"imagined": self._imagined.copy(), "_imagined": np.ones(self.num_envs, np.bool_)}


def _checked_render_mode(mode: str | None) -> str | None:
    if mode not in (None, "rgb_array"):
        raise UserError(f"render_mode must be 'rgb_array' or None, not '{mode}'.")
    return mode


def _observation_space(config: DreamConfig, dreams: Dreams) -> spaces.Space[Array]:
    if config.observation == "codes":
        return spaces.MultiDiscrete([dreams.vocabulary] * dreams.tokens_per_frame)
    return spaces.Box(0, 255, SCREEN, np.uint8)


def _observe(config: DreamConfig, dreams: Dreams) -> Array:
    """The present observations (N, ...)."""
    return dreams.codes() if config.observation == "codes" else dreams.frames()


def _pictures(dreams: Dreams) -> NDArray[np.uint8]:
    """(N, 252, 252, 3), large enough to look at."""
    large = dreams.frames().repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    return np.repeat(large[..., None], 3, axis=3)
