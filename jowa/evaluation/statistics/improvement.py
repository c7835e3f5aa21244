"""How likely one player beats another: the probability of improvement, game by game and over games."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jowa.evaluation.statistics.measures import Floats, win_probability
from jowa.evaluation.statistics.scores import BootstrapConfig, Estimate, bootstrap_draws, estimate


@dataclass(frozen=True)
class Contender:
    """Someone whose raw returns by game are compared; where only means are known, a game has its mean alone."""

    name: str
    returns: Mapping[str, Sequence[float]]
    means_only: bool = False

    def mean(self, game: str) -> float | None:
        """The mean raw return, None for a game that was not played."""
        return float(np.mean(self.returns[game])) if self.returns.get(game) else None


@dataclass(frozen=True)
class Improvement:
    """The probability that an episode of `ours` beats one of `theirs` in the same game, ties counting half.

    `probability` is the mean over `games`, those that both played, and `by_game` its parts. `means_only`: of `theirs`
    only the games' means are known, so that episodes are compared with these.
    """

    ours: str
    theirs: str
    games: tuple[str, ...]
    probability: Estimate
    by_game: Mapping[str, float]
    means_only: bool


def improvement(ours: Contender, theirs: Contender, config: BootstrapConfig) -> Improvement | None:
    """Agarwal et al. 2021's measure with a stratified bootstrap: every game's episodes are drawn anew on both sides.

    A single value, such as a published mean, stays as it is. None when they played no game in common.
    """
    games = tuple(game for game in ours.returns if game in theirs.returns)
    if not games:
        return None
    parts = {game: _values(ours.returns[game], theirs.returns[game], game, config) for game in games}
    values = np.mean(list(parts.values()), axis=0)
    return Improvement(
        ours=ours.name,
        theirs=theirs.name,
        games=games,
        probability=estimate(float(values[-1]), values[:-1], config.confidence),
        by_game={game: float(part[-1]) for game, part in parts.items()},
        means_only=ours.means_only or theirs.means_only,
    )


def resample_counts(episodes: int, config: BootstrapConfig, stream: str) -> Floats:
    """How often `bootstrap_draws` takes each of the episodes: (resamples, episodes)."""
    drawn = bootstrap_draws(range(episodes), config, stream).astype(np.int64)
    rows = np.arange(len(drawn))[:, None] * episodes
    return np.bincount((drawn + rows).ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _values(ours: Sequence[float], theirs: Sequence[float], game: str, config: BootstrapConfig) -> Floats:
    """One game's probability in every resample and, last, in the episodes as they were played."""
    mine, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    wins = win_probability(mine[:, None, None], other[None, :, None])
    # Both sides are drawn independently, though they may hold the same number of episodes.
    counts = [
        resample_counts(len(side), config, f"{game}, {name}") for side, name in ((mine, "ours"), (other, "theirs"))
    ]
    resampled = ((counts[0] @ wins) * counts[1]).sum(axis=1) / wins.size
    return np.append(resampled, wins.mean())
