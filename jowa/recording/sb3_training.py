"""Records agents of stable-baselines3 while they train, as DQN-Replay was made.

The emulator, its preprocessing and its protocol are ours; only what the agent is given is made for it here: the last
four screens, the game's legal actions alone, and rewards clipped to their sign. What is stored are single screens,
actions of the full 18 and raw rewards. Importing this needs stable-baselines3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from jowa.data.sources.episode import SourceEpisode
from jowa.envs.atari import SCREEN, AtariEnvironments
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.games import legal_actions
from jowa.recording.episodes import Advance, EpisodeBuffer

STACK = 4
"""Screens an agent sees at once."""

CHECKPOINTS = 50
"""Into how many equal shares a training is divided, as in DQN-Replay."""

_UPDATE_EVERY = 4

Store = Callable[[SourceEpisode], None]


@dataclass(frozen=True)
class Training:
    """A training to be recorded.

    algorithm: DQN or PPO, with the settings they are usually trained on Atari with, shortened in proportion where
    `steps` is small. steps: agent steps of all environments together. environments: episodes side by side. buffer:
    agent steps DQN remembers, 28 kB each. seed: with it a training on a CPU is reproducible. device: PyTorch's.
    """

    algorithm: str
    steps: int
    environments: int
    buffer: int
    seed: int
    device: torch.device


def train_while_recording(
    game: str, protocol: ProtocolConfig, training: Training, store: Store, advance: Advance
) -> BaseAlgorithm:
    """Train an agent on the game and store all it plays meanwhile, as whole episodes in the order of their ends.

    The episodes that are running when the training ends are finished by the trained agent.

    Returns:
        The agent.
    """
    environments = RecordingEnvironments(game, protocol, training, store, advance)
    try:
        agent = _new_agent(environments, training)
        agent.learn(training.steps)
        environments.last_episodes = True
        while environments.playing.any():
            actions, _ = agent.predict(environments.stacks)
            environments.step(actions)
    finally:
        environments.close()
    return agent


def _new_agent(environments: VecEnv, training: Training) -> BaseAlgorithm:
    """An untrained agent, with the hyperparameters of the original publications as far as a short training allows."""
    count, steps = training.environments, training.steps
    if training.algorithm == "PPO":
        rollout = max(1, min(128, steps // count))
        return PPO(
            "CnnPolicy", environments, learning_rate=lambda left: 2.5e-4 * left, n_steps=rollout,
            batch_size=min(256, rollout * count), n_epochs=4, clip_range=lambda left: 0.1 * left, ent_coef=0.01,
            seed=training.seed, device=training.device,
        )  # fmt: skip
    return DQN(
        "CnnPolicy", environments, buffer_size=min(training.buffer, steps), learning_starts=min(20_000, steps // 10),
        # About one update for every four agent steps, however many of them are taken at once.
        train_freq=max(1, _UPDATE_EVERY // count), gradient_steps=max(1, count // _UPDATE_EVERY),
        target_update_interval=1000, exploration_final_eps=0.01, optimize_memory_usage=True,
        # The cap on an episode counts as its end for the agent, as in DQN-Replay.
        replay_buffer_kwargs={"handle_timeout_termination": False}, seed=training.seed, device=training.device,
    )  # fmt: skip


def stacked(stacks: NDArray[np.uint8], frames: NDArray[np.uint8], begins: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Stacks (N, 4, 84, 84) with the screens (N, 84, 84) put last; an episode's first has black ones before it."""
    following = np.concatenate([stacks[:, 1:], frames[:, None]], axis=1)
    following[begins, :-1] = 0
    return following


class RecordingEnvironments(VecEnv):
    """N environments of one game as stable-baselines3 wants them, which store every episode that ends in them.

    Facts stored with an episode: `training_steps`, the agent steps the agent had been trained for at its end;
    `checkpoint`, the share of the training that is (1 … 50); and `seed`, with which `SingleAtari` plays it again.

    Attributes:
        stacks: (N, 4, 84, 84) uint8, what the agent sees now.
        playing: (N,) bool, False where `last_episodes` is set and the last one has ended.
        last_episodes: begin no more episodes.
    """

    render_mode: str | None = None

    def __init__(self, game: str, protocol: ProtocolConfig, training: Training, store: Store, advance: Advance) -> None:
        count = training.environments
        self._atari = AtariEnvironments([game] * count, protocol, [training.seed] * count)
        self._legal = np.array(legal_actions(game), np.int64)
        self._training, self._store, self._advance = training, store, advance
        self._begun = self._steps = 0
        self._frames = np.zeros((count, *SCREEN), np.uint8)
        self._actions = np.zeros(count, np.int64)
        self._buffers = [EpisodeBuffer() for _ in range(count)]
        self._episode_seeds = [0] * count
        self.stacks = np.zeros((count, STACK, *SCREEN), np.uint8)
        self.playing = np.ones(count, np.bool_)
        self.last_episodes = False
        super().__init__(count, spaces.Box(0, 255, self.stacks.shape[1:], np.uint8), spaces.Discrete(len(self._legal)))

    def reset(self) -> NDArray[np.uint8]:
        """Begin an episode everywhere; stacks (N, 4, 84, 84)."""
        self._begin(np.ones(self.num_envs, np.bool_))
        return self.stacks

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Take actions (N,), indices into the game's legal ones."""
        self._actions = self._legal[actions]

    def step_wait(self) -> VecEnvStepReturn:
        """Play them: stacks, clipped rewards (N,), ends (N,), and the last stack of episodes that ended."""
        result = self._atari.step(self._actions)
        ended = self.playing & (result.terminated | result.truncated)
        self._steps += int(self.playing.sum())
        self._advance(int(self.playing.sum()))
        following = stacked(self.stacks, result.frames, np.zeros_like(ended))
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(self.playing).tolist():
            self._buffers[row].add(self._frames[row], int(self._actions[row]), float(result.rewards[row]))
            if ended[row]:
                truncated = bool(result.truncated[row] and not result.terminated[row])
                infos[row] = {"terminal_observation": following[row], "TimeLimit.truncated": truncated}
                self._store(self._buffers[row].episode(bool(result.terminated[row]), self._facts(row)))
        self._frames, self.stacks = result.frames, following
        if self.last_episodes:
            self.playing &= ~ended
        elif ended.any():
            self._begin(ended)
        return self.stacks, np.sign(result.rewards), ended, infos

    def _begin(self, rows: NDArray[np.bool_]) -> None:
        for row in np.flatnonzero(rows).tolist():
            self._episode_seeds[row] = episode_seed(self._training.seed, self._begun)
            self._begun += 1
            self._buffers[row] = EpisodeBuffer()
        self._frames = self._atari.reset(rows, self._episode_seeds)
        # The other environments' screens are in their stacks already.
        begun = stacked(self.stacks, self._frames, rows)
        self.stacks = np.where(rows[:, None, None, None], begun, self.stacks)

    def _facts(self, row: int) -> dict[str, Any]:
        trained = min(self._steps, self._training.steps)
        share = min(CHECKPOINTS, 1 + CHECKPOINTS * trained // self._training.steps)
        return {
            "algorithm": self._training.algorithm,
            "training_steps": trained,
            "checkpoint": share,
            "seed": self._episode_seeds[row],
        }

    def close(self) -> None:
        """Stop the emulators."""
        self._atari.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """What stable-baselines3 asks environments for, the same for all."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """There is nothing to set."""
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """There is no environment to call."""
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """They never are."""
        return [False for _ in self._get_indices(indices)]
