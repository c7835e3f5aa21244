"""From episode returns to numbers one can quote: means, normalised scores, aggregates, all with intervals.

The aggregates are those of Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice"); a game counts with
the mean of its episodes, as in the paper (arXiv 2410.00564, section 5.1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from jowa.games import ReferenceScores

Floats = NDArray[np.float64]
Normalisation = Literal["human", "dqn"]


@dataclass(frozen=True)
class BootstrapConfig:
    """How intervals are made: percentiles of `resamples` bootstrap resamples, drawn under `seed`."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """A number and the interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GameScore:
    """One game's episodes in short. Returns are raw game points, lengths are agent steps.

    `repeated` counts the episodes whose return and length both equal those of an earlier episode.
    A normalised score is None where a reference score is unknown.
    """

    game: str
    episodes: int
    mean: Estimate
    median: float
    minimum: float
    maximum: float
    mean_length: float
    repeated: int
    human_normalised: Estimate | None
    dqn_normalised: Estimate | None


@dataclass(frozen=True)
class AggregateScore:
    """Normalised scores over the games whose reference scores are known; `left_out` are the others."""

    games: tuple[str, ...]
    left_out: tuple[str, ...]
    interquartile_mean: Estimate
    median: Estimate
    mean: Estimate


def separated(a: Estimate, b: Estimate) -> bool:
    """Whether two intervals have no point in common."""
    return a.high < b.low or b.high < a.low


def interquartile_mean(values: Floats) -> Floats:
    """Mean over the last axis without its lowest and highest quarter (rounded down to whole values)."""
    return np.asarray(trim_mean(values, 0.25, axis=-1))


def normalise(score: Floats | float, random: float | None, reference: float | None) -> Floats | None:
    """(score − random) / (reference − random), or None where that is unknown or undefined."""
    if random is None or reference is None or reference == random:
        return None
    return (np.asarray(score, dtype=np.float64) - random) / (reference - random)


def bootstrap_means(values: Sequence[float], config: BootstrapConfig, stream: str = "") -> Floats:
    """Means of resamples of `values` with replacement, (resamples,). `stream` separates the draws of several games."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("no values to resample")
    random = np.random.default_rng([config.seed, crc32(stream.encode())])
    return data[random.integers(data.size, size=(config.resamples, data.size))].mean(axis=1)


def estimate(value: float, resampled: Floats, confidence: float) -> Estimate:
    """`value` with the central `confidence` share of its bootstrap distribution."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))


def repeated_episodes(returns: Sequence[float], lengths: Sequence[int]) -> int:
    """How many episodes repeat an earlier one's exact return and length."""
    pairs = list(zip(returns, lengths, strict=True))
    return len(pairs) - len(set(pairs))


def mostly_repeated(score: GameScore) -> bool:
    """Whether at least half of a game's episodes repeat an earlier one, so that its interval deserves a warning."""
    return score.episodes > 1 and 2 * score.repeated >= score.episodes


def game_score(
    game: str,
    returns: Sequence[float],
    lengths: Sequence[int],
    reference: ReferenceScores | None,
    config: BootstrapConfig,
) -> GameScore:
    """Statistics of one game's episodes (raw returns; lengths in agent steps).

    Raises:
        ValueError: no episodes were given.
    """
    resampled = bootstrap_means(returns, config, stream=game)
    mean = float(np.mean(returns))

    def normalised(kind: Normalisation) -> Estimate | None:
        values = _normalise_game(np.append(resampled, mean), reference, kind)
        return None if values is None else estimate(float(values[-1]), values[:-1], config.confidence)

    return GameScore(
        game=game,
        episodes=len(returns),
        mean=estimate(mean, resampled, config.confidence),
        median=float(np.median(returns)),
        minimum=float(np.min(returns)),
        maximum=float(np.max(returns)),
        mean_length=float(np.mean(lengths)),
        repeated=repeated_episodes(returns, lengths),
        human_normalised=normalised("human"),
        dqn_normalised=normalised("dqn"),
    )


def aggregate_score(
    returns: Mapping[str, Sequence[float]],
    references: Mapping[str, ReferenceScores],
    kind: Normalisation,
    config: BootstrapConfig,
) -> AggregateScore | None:
    """Interquartile mean, median and mean over games of the normalised per-game means.

    The bootstrap is stratified: every resample draws episodes anew within each game; the set of games stays as it is.
    None when no game's reference scores are known.
    """
    columns: dict[str, Floats] = {}
    for game, values in returns.items():
        resampled = np.append(bootstrap_means(values, config, stream=game), np.mean(values))
        normalised = _normalise_game(resampled, references.get(game), kind)
        if normalised is not None:
            columns[game] = normalised
    if not columns:
        return None
    table = np.stack(list(columns.values()), axis=1)

    def over_games(statistic: Callable[[Floats], Floats]) -> Estimate:
        values = statistic(table)
        return estimate(float(values[-1]), values[:-1], config.confidence)

    return AggregateScore(
        games=tuple(columns),
        left_out=tuple(game for game in returns if game not in columns),
        interquartile_mean=over_games(interquartile_mean),
        median=over_games(lambda values: np.median(values, axis=-1)),
        mean=over_games(lambda values: np.mean(values, axis=-1)),
    )


def _normalise_game(scores: Floats, reference: ReferenceScores | None, kind: Normalisation) -> Floats | None:
    if reference is None:
        return None
    return normalise(scores, reference.random, reference.human if kind == "human" else reference.dqn)
