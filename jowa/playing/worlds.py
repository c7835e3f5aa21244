"""Where one plays: the real game, or the agent's imagination of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from jowa.data.split import held_out_episodes
from jowa.data.store import EpisodeStore, has_episodes
from jowa.dreaming.dreams import Dreams
from jowa.dreaming.starts import EmulatorStarts, RecordedStarts, Start, Starts
from jowa.envs.environments import open_single
from jowa.envs.gymnasium_game import GymnasiumGame
from jowa.envs.protocol import ProtocolConfig
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.models.agent_files import Agent
from jowa.playing.history import History
from jowa.playing.thought import Thinker


@dataclass(frozen=True)
class Ending:
    """An episode that is over: its number, its return and its length in agent steps."""

    number: int
    score: float
    agent_steps: int


class World(Protocol):
    """One game going on.

    Attributes:
        history: what was seen and done in the present episode.
        score: the episode's return so far.
        agent_steps: that it has gone on for.
        reward: of the last step.
    """

    history: History
    score: float
    agent_steps: int
    reward: float

    def step(self, action: int) -> Ending | None:
        """Play a legal action for one agent step; at an end the next episode begins at once."""
        ...

    def restart(self) -> None:
        """Begin the next episode."""
        ...


class RealWorld:
    """The game itself. Its episodes are those of evaluation: their seeds are `seed`, `seed` + 1, …"""

    def __init__(self, game: str, protocol: ProtocolConfig, seed: int, thinker: Thinker, most: int) -> None:
        """most: frames remembered. Raises UserError for a game that can't be played here."""
        self.seed = seed
        self.history = History(most)
        self._thinker = thinker
        self._game = open_single(game, protocol, seed)
        self._begin()

    def _begin(self) -> None:
        self.score, self.agent_steps, self.reward = 0.0, 0, 0.0
        self.history.begin()
        frame = self._game.reset(self.seed)
        self.history.see(frame, self._thinker.encode(frame))

    def restart(self) -> None:
        """Begin an episode with the next seed."""
        self.seed += 1
        self._begin()

    def step(self, action: int) -> Ending | None:
        """One agent step. Raises UserError when the environment fails."""
        done = self._game.step(action)
        assert done.frame is not None, "it is rendered unless told otherwise"
        self.score, self.agent_steps, self.reward = self.score + done.reward, self.agent_steps + 1, done.reward
        if done.terminated or done.truncated:
            ending = Ending(self.seed, self.score, self.agent_steps)
            self.restart()
            return ending
        self.history.act(action)
        self.history.see(done.frame, self._thinker.encode(done.frame))
        return None

    @property
    def lives(self) -> int | None:
        """Lives left; None where the game doesn't tell."""
        lives = self._game.lives() if isinstance(self._game, SingleAtari) else 0
        return lives or None

    def close(self) -> None:
        """Let go of the environment; nothing can be played afterwards."""
        if isinstance(self._game, GymnasiumGame):
            self._game.close()
        # Whatever still refers to this world, the emulator has to be gone before the interpreter ends.
        del self._game


class Here:
    """The one start that is the present of a history."""

    def __init__(self, history: History) -> None:
        self._start = history.start()

    def draw(self, random: np.random.Generator) -> Start:
        """Always the same."""
        return self._start


class DreamWorld:
    """One dream of a game, which looks back on as many frames as the model sees, but for the one it imagines.

    It begins anew at a predicted end: at the same start if that is `Here`, else at another one.
    """

    def __init__(
        self, agent: Agent, thinker: Thinker, game: str, starts: Starts, random: np.random.Generator,
        temperature: float, here: History | None = None,
    ) -> None:  # fmt: skip
        """here: the history that the start is `Here` of, whose codes are taken over."""
        self.temperature = temperature
        self._starts, self._here, self._thinker = starts, here, thinker
        self._random = random
        blocks = agent.model.config.blocks
        self._dreams = Dreams(agent.tokenizer, agent.model, self, game, 1, blocks - 1, temperature)
        self._dreams.seed([self._random])
        self._most = blocks
        self._number = -1
        self.restart()

    def draw(self, random: np.random.Generator) -> Start:
        """The next start; the history begins with it too."""
        start = self._starts.draw(random)
        if self._here is not None:
            self.history = self._here.copy(self._most)
            return start
        self.history = History(self._most)
        for action, frame in zip([None, *start.actions.tolist()], start.frames, strict=True):
            if action is not None:
                self.history.act(action)
            self.history.see(frame, self._thinker.encode(frame))
        return start

    def restart(self) -> None:
        """Begin at the next start."""
        self.score, self.agent_steps, self.reward = 0.0, 0, 0.0
        self._number += 1
        self._dreams.begin([0], [self._random])

    def step(self, action: int) -> Ending | None:
        """Imagine one agent step."""
        dreamed = self._dreams.step(np.array([self._dreams.actions.index(action)]))
        reward = float(dreamed.rewards[0])
        self.score, self.agent_steps, self.reward = self.score + reward, self.agent_steps + 1, reward
        if dreamed.ended[0]:
            ending = Ending(self._number, self.score, self.agent_steps)
            self.restart()
            return ending
        self.history.act(action)
        codes = self.history.codes.new_tensor(self._dreams.codes()[0])
        self.history.see(self._dreams.frames()[0], codes)
        return None


def other_starts(folder: Path | None, agent: Agent, game: str) -> tuple[Starts, str]:
    """Starts away from the present screen, and what they are: held-out episodes where there are any, else all recorded
    ones, else the game after a few random actions.

    Raises UserError for data that are damaged.
    """
    context = agent.model.config.blocks - 1
    if folder is None or not has_episodes(folder, game):
        return EmulatorStarts(game, context), "the game after random actions"
    store = EpisodeStore(folder, [game], path_key="data", games_key="game")
    holdout = agent.description["holdout"] or 0.0
    held_out = held_out_episodes(game, store.episode_names(game), holdout).any()
    starts = RecordedStarts(store, game, context, "held_out" if held_out else "all", holdout)
    return starts, "a held-out episode" if held_out else "a recorded episode"


def check_data(folder: str | None, game: str) -> None:
    """Raises UserError when `folder`, which was asked for, has no episodes of the game."""
    if folder is not None and not has_episodes(Path(folder), game):
        raise UserError(f"data={folder} holds no episodes of {game}: set data to another folder, or to null.")
