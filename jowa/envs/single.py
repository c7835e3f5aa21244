"""One Atari game whose memory can be read and whose state can be put back, for behaviour policies that cheat.

Screens, rewards and ends equal those of `AtariEnvironments` under the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import ale_py
import cv2
import numpy as np
from numpy.typing import NDArray

from jowa.envs.atari import SCREEN
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.roms import rom_path
from jowa.games import check_game, legal_actions

# ALE's states lack something that only matters right after a reset, and of the 60 games only here.
_BEGINNING_CANNOT_BE_RESTORED = ("Qbert",)


@dataclass(frozen=True)
class SingleStep:
    """One agent step: frame (84, 84) uint8 (None unless asked for), raw reward, game over, at the protocol's cap."""

    frame: NDArray[np.uint8] | None
    reward: float
    terminated: bool
    truncated: bool


@dataclass(frozen=True)
class Snapshot:
    """A state of the game to come back to."""

    emulator: ale_py.ALEState
    steps: int


class SingleAtari:
    """One environment on ALEInterface.

    Attributes:
        game: ALE name.
        legal: the game's legal actions, indices into the full 18.
        protocol: the rules of play.
    """

    def __init__(self, game: str, protocol: ProtocolConfig, seed: int) -> None:
        """Raises UserError for an unknown game, a senseless protocol value or a missing ROM."""
        self.protocol = protocol.check()
        self.game = check_game(game)
        self.legal = legal_actions(game)
        self._rom = rom_path(game, protocol.rom_dir)
        self._seed = int(seed)
        self._episode = -1
        self._steps = 0
        self._must_load = protocol.repeat_action_probability > 0.0 or game in _BEGINNING_CANNOT_BE_RESTORED
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", protocol.repeat_action_probability)
        self._actions = [ale_py.Action(index) for index in range(18)]
        self._screens: list[NDArray[np.uint8]] = []
        self._pooled = np.zeros(0, dtype=np.uint8)
        self._beginning: tuple[ale_py.ALEState, NDArray[np.uint8]] | None = None

    def reset(self, seed: int | None = None) -> NDArray[np.uint8]:
        """Begin a new episode and return its first screen (84, 84) uint8.

        A `seed` replaces the environment's and numbers its episodes from 0 again.
        """
        if seed is not None:
            self._seed, self._episode = int(seed), -1
        self._episode += 1
        self._steps = 0
        emulator_seed = episode_seed(self._seed, self._episode)
        # Without stickiness the seed doesn't reach the emulator, and going back is 100 times faster than loading.
        if self._beginning is None or self._must_load:
            self._beginning = self._load(emulator_seed)
        else:
            self._ale.restoreState(self._beginning[0])
        np.copyto(self._screens[0], self._beginning[1])
        self._play_no_ops(emulator_seed)
        self._screens[1].fill(0)
        return self._frame()

    def step(self, action: int, render: bool = True) -> SingleStep:
        """Hold an action of the full 18 for one agent step; without `render` there is no frame, which is faster.

        Raises ValueError if the episode has already ended.
        """
        if self._ale.game_over() or self._steps >= self.protocol.max_episode_steps:
            raise ValueError("the episode has ended: call reset() first")
        reward, over = 0, False
        held = self._actions[action]
        for left in range(self.protocol.frame_skip - 1, -1, -1):
            reward += self._ale.act(held)
            over = self._ale.game_over()
            if over:
                break
            if render and left < 2:
                self._ale.getScreenGrayscale(self._screens[left])
        self._steps += 1
        truncated = not over and self._steps >= self.protocol.max_episode_steps
        return SingleStep(self._frame() if render else None, float(reward), over, truncated)

    @property
    def steps(self) -> int:
        """Agent steps since the episode began."""
        return self._steps

    def ram(self) -> NDArray[np.uint8]:
        """(128,) uint8, the console's memory."""
        memory: NDArray[np.uint8] = self._ale.getRAM()
        return memory

    def lives(self) -> int:
        """Lives left; 0 in games that don't have any."""
        return int(self._ale.lives())

    def clone(self) -> Snapshot:
        """The present state, the emulator's random numbers included."""
        return Snapshot(self._ale.cloneState(include_rng=True), self._steps)

    def restore(self, snapshot: Snapshot) -> None:
        """Go to a state of this or another environment of the same game; what follows will be as it was after `clone`.

        Two things are not part of a state: with stickiness the action that may be repeated first, and Qbert's very
        first state is not restored exactly.
        """
        self._ale.restoreState(snapshot.emulator)
        self._steps = snapshot.steps

    def _load(self, emulator_seed: int) -> tuple[ale_py.ALEState, NDArray[np.uint8]]:
        self._ale.setInt("random_seed", emulator_seed)
        self._ale.loadROM(self._rom)
        self._ale.reset_game()
        height, width = self._ale.getScreenDims()
        self._screens = [np.zeros((height, width), dtype=np.uint8) for _ in range(2)]
        self._pooled = np.zeros((height, width), dtype=np.uint8)
        # A state doesn't hold the screen, so the first one is kept beside it.
        return self._ale.cloneState(include_rng=True), self._ale.getScreenGrayscale()

    def _play_no_ops(self, emulator_seed: int) -> None:
        # The count is drawn evenly like the vector environment's, but from other random numbers.
        most = self.protocol.max_no_op_frames
        count = int(np.random.default_rng(emulator_seed).integers(most + 1)) if most else 0
        for _ in range(count):
            self._ale.act(self._actions[0])
            if self._ale.game_over():
                self._ale.reset_game()
        if count:
            self._ale.getScreenGrayscale(self._screens[0])

    def _frame(self) -> NDArray[np.uint8]:
        np.maximum(self._screens[0], self._screens[1], out=self._pooled)
        return np.asarray(cv2.resize(self._pooled, SCREEN[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
