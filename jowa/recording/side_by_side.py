"""Records agents that decide by what they see: many episodes side by side, one decision for all of them at a time.

What is recorded of a game doesn't depend on how many of its episodes run side by side, nor on the other games: episode
k has a seed of its own, and of the episodes 0, 1, 2, … those are kept that it takes to reach the steps asked for, not
those that happen to end first, which would be the short ones. (A network's values may differ in the last digits between
batches of different sizes; that can matter where two actions are worth the same.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.data.sources.episode import SourceEpisode
from jowa.envs.atari import StepResult
from jowa.envs.environments import Environments
from jowa.envs.protocol import episode_seed
from jowa.evaluation.play.rollout import Policy, Turn, with_chance
from jowa.recording.behaviours import SCHEDULES
from jowa.recording.episodes import Advance, EpisodeBuffer

LEVELS = 10
"""Into how many stairs of equal length a changing quality is cut: what runs side by side has no earlier and later."""

_FIRST_GUESS = 1000

Store = Callable[[SourceEpisode], None]


@dataclass(frozen=True)
class Share:
    """A part of one game's recording: at least `steps` agent steps, a share `epsilon` of them random.

    `seed` decides the seeds of its episodes.
    """

    steps: int
    epsilon: float
    seed: int


def shares(steps: int, seed: int, schedule: str, epsilon: float) -> list[Share]:
    """One game's recording of `steps` agent steps, as a whole or, with a changing quality, in `LEVELS` parts."""
    quality = SCHEDULES[schedule](epsilon)
    levels = 1 if schedule == "constant" else LEVELS
    return [
        Share(
            steps=-(-steps // levels),
            epsilon=quality(level / max(levels - 1, 1), np.random.default_rng(0)),
            seed=episode_seed(seed, level),
        )
        for level in range(levels)
    ]


def record_policy(
    environments: Environments,
    policy: Policy,
    wanted: Mapping[str, Sequence[Share]],
    stores: Mapping[str, Store],
    advance: Advance,
) -> None:
    """Play until every game's shares are recorded; an episode is stored when those before it have been.

    Args:
        environments: those of a game play its episodes side by side; each holds its episode in memory.
        policy: who plays; at every agent step a random legal action takes its place with the share's probability,
            drawn by the episode's seed and the step's number.
        wanted: each game's shares, in the order in which they are stored.
        stores: where each game's episodes go. Facts stored with them: `epsilon`, and `seed`, with which
            `make_environments` or `open_single` plays the same episode again.
        advance: told about agent steps played, as far as they count.
    """
    recordings = {game: _Recording(parts, stores[game]) for game, parts in wanted.items()}
    seats = _Seats(environments.games, recordings, advance)
    seats.fill()
    frames = environments.reset(None, seats.seeds.tolist())
    while seats.playing.any():
        turn = Turn(frames, seats.begins.copy(), seats.playing.copy(), seats.seeds.copy(), seats.steps.copy())
        actions = with_chance(policy.act(turn), turn, environments.legal, seats.epsilons)
        policy.record(actions)
        result = environments.step(actions)
        seats.book(turn.frames, actions, result)
        seats.fill()
        frames = environments.reset(seats.begins, seats.seeds.tolist()) if seats.begins.any() else result.frames


class _Episode:
    """One episode that was begun; it is done when it has ended."""

    def __init__(self, seed: int, epsilon: float) -> None:
        self.seed, self.epsilon = seed, epsilon
        self.buffer = EpisodeBuffer()
        self.done: SourceEpisode | None = None
        self.dropped = False

    def end(self, terminated: bool) -> None:
        self.done = self.buffer.episode(terminated, {"epsilon": self.epsilon, "seed": self.seed})


class _Progress:
    """One share: its episodes in the order of their numbers, the stored ones only counted."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self._stored = self._begun = 0
        self._waiting: deque[_Episode] = deque()

    @property
    def played(self) -> int:
        """Agent steps, those of running episodes included."""
        return self._stored + sum(len(episode.buffer) for episode in self._waiting)

    @property
    def complete(self) -> bool:
        return self._stored >= self.share.steps

    def expected(self, length: float) -> float:
        """Agent steps there will be without another episode, if running ones get `length` steps long."""
        running = (length - len(one.buffer) for one in self._waiting if one.done is None)
        return self.played + sum(max(rest, 0.0) for rest in running)

    def begin(self) -> _Episode:
        episode = _Episode(episode_seed(self.share.seed, self._begun), self.share.epsilon)
        self._begun += 1
        self._waiting.append(episode)
        return episode

    def drop(self) -> None:
        """Give up the last episodes as long as those before them already have the steps asked for."""
        while self._waiting and self.played - len(self._waiting[-1].buffer) >= self.share.steps:
            self._waiting.pop().dropped = True

    def take(self) -> Iterable[SourceEpisode]:
        """The episodes that have ended and are next to be stored."""
        while self._waiting and self._waiting[0].done is not None:
            done = self._waiting.popleft().done
            assert done is not None
            self._stored += len(done.actions)
            yield done


class _Recording:
    """One game's shares. What it begins, and when, decides how fast it gets done, never what is stored."""

    def __init__(self, wanted: Sequence[Share], store: Store) -> None:
        self._parts = [_Progress(share) for share in wanted]
        self._store = store
        self._ended = self._ended_steps = 0

    @property
    def counted(self) -> int:
        """Agent steps played, as far as they were asked for."""
        return sum(min(part.played, part.share.steps) for part in self._parts)

    def begin(self) -> _Episode | None:
        """The next episode; None when those that were begun will probably do."""
        length = self._ended_steps / self._ended if self._ended else _FIRST_GUESS
        for part in self._parts:
            if part.expected(length) < part.share.steps:
                return part.begin()
        return None

    def end(self, episode: _Episode, terminated: bool) -> None:
        """An episode has ended."""
        episode.end(terminated)
        self._ended += 1
        self._ended_steps += len(episode.buffer)

    def settle(self) -> None:
        """Drop what isn't needed and store what is next."""
        for part in self._parts:
            part.drop()
        for part in self._parts:
            for episode in part.take():
                self._store(episode)
            if not part.complete:
                break


class _Seats:
    """Which episode each of the N environments is playing; all arrays are (N,)."""

    def __init__(self, games: Sequence[str], recordings: Mapping[str, _Recording], advance: Advance) -> None:
        self._games, self._recordings, self._advance = games, recordings, advance
        self._episodes: list[_Episode | None] = [None for _ in games]
        self._counted = 0
        self.begins = np.zeros(len(games), np.bool_)
        self.playing = np.zeros(len(games), np.bool_)
        self.seeds = np.zeros(len(games), np.int64)
        self.steps = np.zeros(len(games), np.int64)
        self.epsilons = np.zeros(len(games), np.float64)

    def fill(self) -> None:
        """Give each free environment its game's next episode, as long as there is one."""
        self.begins[:] = False
        enough: set[str] = set()
        for row in np.flatnonzero(~self.playing).tolist():
            game = self._games[row]
            episode = None if game in enough else self._recordings[game].begin()
            self._episodes[row] = episode
            if episode is None:
                enough.add(game)
                continue
            self.begins[row] = self.playing[row] = True
            self.seeds[row], self.epsilons[row], self.steps[row] = episode.seed, episode.epsilon, 0

    def book(self, frames: NDArray[np.uint8], actions: NDArray[np.int64], result: StepResult) -> None:
        """Note one agent step everywhere, store what can be stored, and free the environments that are done."""
        for row in np.flatnonzero(self.playing).tolist():
            episode = self._episodes[row]
            assert episode is not None
            episode.buffer.add(frames[row], int(actions[row]), float(result.rewards[row]))
            if result.terminated[row] or result.truncated[row]:
                self._recordings[self._games[row]].end(episode, bool(result.terminated[row]))
        self.steps[self.playing] += 1
        for recording in self._recordings.values():
            recording.settle()
        for row in np.flatnonzero(self.playing).tolist():
            episode = self._episodes[row]
            self.playing[row] = episode is not None and episode.done is None and not episode.dropped
        counted = sum(recording.counted for recording in self._recordings.values())
        self._advance(counted - self._counted)
        self._counted = counted
