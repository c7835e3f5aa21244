"""Many Atari games side by side, on ale-py's own vector environment.

Preprocessing (paper, appendix; Dopamine's): an action is held for `frame_skip` emulator frames, the pixelwise maximum
of the last two grey screens is resized by area to 84×84; no stacking, no reward clipping, no end on a lost life.
A screen that follows a reset has no predecessor: black takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import ale_py
import numpy as np
from numpy.typing import NDArray

from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.roms import rom_path
from jowa.games import NUM_ACTIONS, check_game, legal_mask, task_id

SCREEN = (84, 84)
_NEVER = 2**31 - 1


@dataclass(frozen=True)
class StepResult:
    """What one agent step brought N environments.

    frames (N, 84, 84) uint8; rewards (N,) float32, raw; terminated (N,) bool, the game is over; truncated (N,) bool,
    the episode is at the protocol's cap. An episode's last frame is not meant to be looked at: the emulator may end
    between two screens.
    """

    frames: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class AtariEnvironments:
    """N environments, each with its own game and seed.

    An environment's episodes depend on its game, its seed and the actions it is given, never on its neighbours:
    every episode starts from a freshly loaded ROM with the seed `episode_seed(seed, episode number)`.

    Attributes:
        games: N ALE names.
        tasks: (N,) int64 task ids.
        legal: (N, 18) bool legal actions.
    """

    def __init__(self, games: Sequence[str], protocol: ProtocolConfig, seeds: Sequence[int]) -> None:
        """One environment for each entry of `games`, seeded by the entry of `seeds`.

        Raises:
            UserError: unknown game, senseless protocol value, or a ROM missing in `protocol.rom_dir`.
        """
        if len(games) != len(seeds) or not games:
            raise ValueError(f"as many seeds as games, and at least one: {len(games)} games, {len(seeds)} seeds")
        protocol.check()
        self.games = tuple(check_game(game) for game in games)
        self.num_envs = len(self.games)
        self.tasks = np.array([task_id(game) for game in self.games], dtype=np.int64)
        self.legal = np.stack([legal_mask(game) for game in self.games])
        self._protocol = protocol
        for game in set(self.games):
            rom_path(game, protocol.rom_dir)
        self._members = {game: _indices(self.games, game) for game in dict.fromkeys(self.games)}
        # Emulators take memory and time to open, so there are those of games that are being played.
        self._vectors: dict[str, ale_py.ALEVectorInterface] = {}
        self._codes: dict[str, NDArray[np.int64]] = {}
        self._seeds = [int(seed) for seed in seeds]
        self._episodes = np.full(self.num_envs, -1, dtype=np.int64)
        self._steps = np.zeros(self.num_envs, dtype=np.int64)
        self._playing = np.zeros(self.num_envs, dtype=np.bool_)
        self._frames = np.zeros((self.num_envs, *SCREEN), dtype=np.uint8)

    def reset(self, mask: NDArray[np.bool_] | None = None, seeds: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Begin a new episode where `mask` (N,) is True (None: everywhere); the other environments stay as they are.

        Args:
            mask: (N,) bool. Environments that were never reset ignore all actions, and show black.
            seeds: N new seeds, used where `mask` is True; their episodes are numbered from 0 again.

        Returns:
            frames (N, 84, 84) uint8: first screens of the new episodes, current screens of the others.
        """
        chosen = np.ones(self.num_envs, dtype=np.bool_) if mask is None else np.asarray(mask, dtype=np.bool_)
        if chosen.shape != (self.num_envs,) or (seeds is not None and len(seeds) != self.num_envs):
            raise ValueError(f"mask and seeds need one entry for each of the {self.num_envs} environments")
        opened = self._open(chosen)
        for index in np.flatnonzero(chosen):
            if seeds is not None:
                self._seeds[index], self._episodes[index] = int(seeds[int(index)]), -1
            self._episodes[index] += 1
        for game, own in self._members.items():
            # Emulators that have just been opened must all be reset before any of them is stepped.
            slots = np.arange(len(own)) if game in opened else np.flatnonzero(chosen[own])
            if len(slots):
                emulator_seeds = [episode_seed(self._seeds[e], max(int(self._episodes[e]), 0)) for e in own[slots]]
                screens, _ = self._vectors[game].reset(slots, np.array(emulator_seeds))
                begun = np.flatnonzero(chosen[own])
                self._frames[own[begun]] = screens[begun, 0]
        self._steps[chosen] = 0
        self._playing[chosen] = True
        return self._frames.copy()

    def _open(self, chosen: NDArray[np.bool_]) -> set[str]:
        """Open the emulators of games that begin, in place of games of which nothing is being played any more.

        Returns the games that were opened.
        """
        wanted = {game for game, own in self._members.items() if chosen[own].any()}
        missing = wanted - set(self._vectors)
        for game in set(self._vectors) - wanted if missing else ():
            if not self._playing[self._members[game]].any():
                del self._vectors[game]
        for game in missing:
            self._vectors[game] = _open_vector(game, len(self._members[game]), self._protocol)
            self._codes[game] = _action_codes(self._vectors[game])
        return missing

    def step(self, actions: NDArray[np.integer]) -> StepResult:
        """One agent step everywhere; environments whose episode has ended ignore it (reward 0, same frame).

        Args:
            actions: (N,) integers in the full 18.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() >= NUM_ACTIONS:
            raise ValueError(f"actions must be {self.num_envs} indices in 0…{NUM_ACTIONS - 1}, not {actions}")
        playing = self._playing.copy()
        # Games of which nothing is played cost nothing. All others get their actions before any is waited for, so that
        # they run at the same time, each in threads of its own.
        running = {game: own for game, own in self._members.items() if playing[own].any()}
        for game, own in running.items():
            codes = np.where(playing[own], self._codes[game][actions[own]], 0)
            self._vectors[game].send(codes, np.ones(len(own), dtype=np.float32))
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        for game, own in running.items():
            screens, gained, ended, _, _ = self._vectors[game].recv()
            live = playing[own]
            self._frames[own[live]] = screens[live, 0]
            rewards[own[live]] = gained[live]
            terminated[own[live]] = ended[live]
        self._steps[playing] += 1
        truncated = playing & ~terminated & (self._steps >= self._protocol.max_episode_steps)
        self._playing &= ~(terminated | truncated)
        return StepResult(self._frames.copy(), rewards, terminated, truncated)

    def close(self) -> None:
        """Stop the emulators and their threads; the environments can't be used afterwards."""
        self._vectors.clear()


def _indices(games: Sequence[str], game: str) -> NDArray[np.int64]:
    return np.array([index for index, name in enumerate(games) if name == game], dtype=np.int64)


def _open_vector(game: str, count: int, protocol: ProtocolConfig) -> ale_py.ALEVectorInterface:
    # gymnasium's wrapper around this interface accepts no other ROM than ale-py's.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py.ALEVectorInterface(
        rom_path=rom_path(game, protocol.rom_dir),
        num_envs=count,
        frame_skip=protocol.frame_skip,
        stack_num=1,
        img_height=SCREEN[0],
        img_width=SCREEN[1],
        grayscale=True,
        maxpool=True,
        # ALE draws from 0 … noop_max − 1.
        noop_max=protocol.max_no_op_frames + 1 if protocol.max_no_op_frames else 0,
        use_fire_reset=False,
        episodic_life=False,
        life_loss_info=False,
        reward_clipping=False,
        # The cap is ours: ALE's would break off within an agent step.
        max_episode_steps=_NEVER,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_space=True,
        batch_size=0,
        num_threads=min(count, os.cpu_count() or 1),
        thread_affinity_offset=-1,
        # An ended environment that must be stepped along with its neighbours restarts inside and is ignored.
        autoreset_mode="NextStep",
    )


def _action_codes(vector: ale_py.ALEVectorInterface) -> NDArray[np.int64]:
    """(18,) for each action of the full set its index in the emulator's own, which is shorter in Skiing.

    Actions the emulator doesn't know are no-ops, as they are for ALEInterface.act.
    """
    codes = np.zeros(NUM_ACTIONS, dtype=np.int64)
    for code, action in enumerate(vector.get_action_set()):
        codes[action.value] = code
    return codes
