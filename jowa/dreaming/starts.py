"""Where dreams begin: a few real screens in a row and the actions between them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.data.sequences import SequenceDataset
from jowa.data.split import Split
from jowa.data.store import EpisodeStore
from jowa.envs.environments import open_single
from jowa.envs.protocol import ProtocolConfig

MOST_STEPS = 100
"""Agent steps an emulator is played at most before a dream takes over."""


@dataclass(frozen=True)
class Start:
    """l real screens up to the present one, 1 to the context: frames (l, 84, 84) uint8, oldest first, and the actions
    (l - 1,) int64 in the full action set that were played at all but the last.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.int64]


class Starts(Protocol):
    """A source of starts of one game."""

    def draw(self, random: np.random.Generator) -> Start:
        """A start that depends on nothing but the generator's state."""
        ...


class RecordedStarts:
    """Any agent step of the game's episodes, all equally likely, and up to `context` - 1 steps before it."""

    def __init__(self, store: EpisodeStore, game: str, context: int, split: Split, holdout: float) -> None:
        self._data = SequenceDataset(
            store, [game], split=split, holdout=holdout, length=context, stride=1, pad="left", real_steps_first=True
        )

    def draw(self, random: np.random.Generator) -> Start:
        """The start that ends with a step drawn evenly."""
        batch = self._data.batch(random.integers(len(self._data), size=1))
        assert batch.frames is not None, "without a code cache batches carry frames"
        length = int(batch.valid.sum())
        return Start(batch.frames[0, :length, 0].numpy(), batch.actions[0, : length - 1].numpy())


class EmulatorStarts:
    """The real game after 0 to 100 random legal actions, any number of them equally likely."""

    def __init__(self, game: str, context: int) -> None:
        self._emulator = open_single(game, ProtocolConfig(), 0)
        self._context = context

    def draw(self, random: np.random.Generator) -> Start:
        """The last screens of a play from the beginning; a game that is over begins again, without its past."""
        most = self._context
        emulator_seed, steps = int(random.integers(2**31)), int(random.integers(MOST_STEPS + 1))
        frames, actions = deque([self._emulator.reset(emulator_seed)], most), deque[int]([], most - 1)
        for action in random.choice(self._emulator.legal, steps).tolist():
            step = self._emulator.step(action)
            if step.terminated or step.truncated:
                frames.clear()
                actions.clear()
                frames.append(self._emulator.reset())
                continue
            assert step.frame is not None, "it is rendered unless told otherwise"
            frames.append(step.frame)
            actions.append(action)
        return Start(np.stack(frames), np.array(actions, np.int64))
