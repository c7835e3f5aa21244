"""Plays episodes: many environments side by side, one decision for all of them at a time."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.envs.atari import StepResult
from jowa.envs.environments import Environments
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.noise import random_legal_actions, uniform
from jowa.evaluation.play.play_progress import PlayProgress

_WHETHER_RANDOM, _WHICH_RANDOM = 1, 2


@dataclass(frozen=True)
class Turn:
    """What a policy sees when it has to decide, for N environments.

    frames: (N, 84, 84) uint8, the current screens; begins: (N,) bool, an episode's first frame; playing: (N,) bool, the
    others have nothing left to play and whatever is chosen for them is ignored; seeds: (N,) int64, the episodes' seeds;
    steps: (N,) int64, decisions made in the episode so far.
    """

    frames: NDArray[np.uint8]
    begins: NDArray[np.bool_]
    playing: NDArray[np.bool_]
    seeds: NDArray[np.int64]
    steps: NDArray[np.int64]


class Policy(Protocol):
    """Anyone who plays."""

    def act(self, turn: Turn) -> NDArray[np.int64]:
        """Actions (N,), indices into the games' set."""
        ...

    def record(self, actions: NDArray[np.int64]) -> None:
        """Learns which actions (N,) were really played after the last `act`: chance may have replaced some."""
        ...


@dataclass(frozen=True)
class Rollout:
    """Episodes in the order (game, seed) they were asked for, and what it took to play them."""

    episodes: tuple[Episode, ...]
    decisions: int
    seconds: float

    @property
    def decisions_per_second(self) -> float:
        return self.decisions / max(self.seconds, 1e-9)


class _Seats:
    """Which episode each environment is playing: its seed, step and return so far; at most `at_once` of them play."""

    def __init__(self, games: Sequence[str], seeds: Mapping[str, Sequence[int]], at_once: int) -> None:
        self.games = list(games)
        self.at_once = at_once
        self._waiting = [(game, seed) for game, wanted in seeds.items() for seed in wanted]
        self.playing = np.zeros(len(games), bool)
        self.begins = np.zeros(len(games), bool)
        self.seeds = np.zeros(len(games), np.int64)
        self.steps = np.zeros(len(games), np.int64)
        self.returns = np.zeros(len(games), np.float64)

    def fill(self) -> NDArray[np.bool_]:
        """Starts the next episodes in free environments of their games; returns which environments got one."""
        self.begins = np.zeros_like(self.playing)
        free: dict[str, list[int]] = defaultdict(list)
        for index in np.flatnonzero(~self.playing)[::-1].tolist():
            free[self.games[index]].append(index)
        places, left = self.at_once - int(self.playing.sum()), []
        for game, seed in self._waiting:
            if places and free[game]:
                index, places = free[game].pop(), places - 1
                self.begins[index], self.seeds[index] = True, seed
            else:
                left.append((game, seed))
        self._waiting = left
        self.playing |= self.begins
        self.steps[self.begins] = 0
        self.returns[self.begins] = 0.0
        return self.begins

    def running(self) -> list[tuple[str, int]]:
        """Game and agent steps so far of what is being played."""
        return [(self.games[i], int(self.steps[i])) for i in np.flatnonzero(self.playing)]

    def turn(self, frames: NDArray[np.uint8]) -> Turn:
        return Turn(frames, self.begins.copy(), self.playing.copy(), self.seeds.copy(), self.steps.copy())

    def advance(self, result: StepResult, mode: str) -> dict[tuple[str, int], Episode]:
        """Books one step, frees the environments that ended and returns their episodes."""
        self.returns[self.playing] += result.rewards[self.playing]
        self.steps[self.playing] += 1
        ended = self.playing & (result.terminated | result.truncated)
        finished = {
            (self.games[i], int(self.seeds[i])): Episode(
                game=self.games[i],
                seed=int(self.seeds[i]),
                mode=mode,
                episode_return=float(self.returns[i]),
                agent_steps=int(self.steps[i]),
                terminated=bool(result.terminated[i]),
                truncated=bool(result.truncated[i] and not result.terminated[i]),
            )
            for i in np.flatnonzero(ended)
        }
        self.playing &= ~ended
        return finished


def episode_seeds(seed: int, games: Sequence[str], episodes: int) -> dict[str, list[int]]:
    """The seeds of every game's episodes: seed, seed + 1, …; the same for every mode of play, so that modes compare."""
    return {game: list(range(seed, seed + episodes)) for game in games}


def play(
    environments: Environments,
    policy: Policy,
    seeds: Mapping[str, Sequence[int]],
    *,
    mode: str,
    at_once: int | None = None,
    random_action_probability: float = 0.0,
    keep: Callable[[Episode], None] = lambda episode: None,
    bar: PlayProgress | None = None,
) -> Rollout:
    """Plays one episode for every seed of every game, each to its end.

    Episodes begin in the order given, as soon as fewer than `at_once` (None: any number) are played and an environment
    of their game is free. With `random_action_probability` a uniform legal action is played instead of the chosen one.
    Chances depend on the episode's seed and step only, so that what is played doesn't depend on what is played beside
    it. `keep` is given each episode as soon as it has ended.

    Raises:
        ValueError: a game has seeds but no environment, or the same seed twice.
    """
    _check(environments.games, seeds)
    seats = _Seats(environments.games, seeds, environments.num_envs if at_once is None else at_once)
    seats.fill()
    frames = environments.reset(seats.begins, seats.seeds.tolist())
    finished: dict[tuple[str, int], Episode] = {}
    decisions, started = 0, time.perf_counter()
    while seats.playing.any():
        turn = seats.turn(frames)
        actions = with_chance(policy.act(turn), turn, environments.legal, random_action_probability)
        policy.record(actions)
        result = environments.step(actions)
        decisions += int(turn.playing.sum())
        ended = seats.advance(result, mode)
        finished |= ended
        for episode in ended.values():
            keep(episode)
        begins = seats.fill()
        frames = environments.reset(begins, seats.seeds.tolist()) if begins.any() else result.frames
        if bar is not None:
            bar.show(ended.values(), seats.running(), int(turn.playing.sum()))
    ordered = tuple(finished[game, seed] for game, wanted in seeds.items() for seed in wanted)
    return Rollout(ordered, decisions, time.perf_counter() - started)


def _check(games: Sequence[str], seeds: Mapping[str, Sequence[int]]) -> None:
    for game, wanted in seeds.items():
        if wanted and game not in games:
            raise ValueError(f"no environment plays {game}")
        if len(set(wanted)) != len(wanted):
            raise ValueError(f"a seed of {game} is given twice")


def with_chance(
    actions: NDArray[np.int64], turn: Turn, legal: NDArray[np.bool_], probability: float | NDArray[np.float64]
) -> NDArray[np.int64]:
    """Actions (N,), each replaced by a random legal one with its `probability`, one for all or (N,); 0 for the idle."""
    replaced = turn.playing & (uniform(turn.seeds, turn.steps, _WHETHER_RANDOM) < probability)
    chance = random_legal_actions(legal, uniform(turn.seeds, turn.steps, _WHICH_RANDOM))
    return np.where(replaced, chance, np.where(turn.playing, actions, 0))
