"""From episode returns to numbers one can quote: means, normalised scores, aggregates, all with intervals.

The aggregates are those of Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice"); a game counts with
the mean of its episodes, as in the paper (arXiv 2410.00564, section 5.1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np

from jowa.errors import UserError
from jowa.evaluation.statistics.measures import (
    Floats,
    Scores,
    interquartile_mean,
    interquartile_mean_of_episodes,
    interquartile_mean_of_games,
    mean_of_games,
    median_of_games,
    optimality_gap_of_episodes,
)
from jowa.games import ReferenceScores

Normalisation = Literal["human", "dqn"]


@dataclass(frozen=True)
class BootstrapConfig:
    """How intervals are made: percentiles of `resamples` bootstrap resamples, drawn under `seed`."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0


def check_bootstrap(config: BootstrapConfig) -> None:
    """Raises UserError, naming the key, for settings that give no interval."""
    if not 1 <= config.resamples <= 1_000_000:
        raise UserError(f"bootstrap.resamples must be at least 1 and at most 1 000 000, not {config.resamples}.")
    if not 0 < config.confidence < 1:
        raise UserError(f"bootstrap.confidence must lie between 0 and 1, not be {config.confidence}.")
    if config.seed < 0:
        raise UserError(f"bootstrap.seed must not be negative, but is {config.seed}.")


@dataclass(frozen=True)
class Estimate:
    """A number and the interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GameScore:
    """One game's episodes in short. Returns are raw game points, lengths are agent steps.

    `repeated` counts the episodes whose return and length both equal those of an earlier episode, `distinct` the rest.
    A normalised score is None where a reference score is unknown.
    """

    game: str
    episodes: int
    mean: Estimate
    median: float
    minimum: float
    maximum: float
    mean_agent_steps: float
    repeated: int
    distinct: int
    human_normalised: Estimate | None
    dqn_normalised: Estimate | None


@dataclass(frozen=True)
class AggregateScore:
    """Normalised scores over the games whose reference scores are known; `left_out` are the others.

    `interquartile_mean`, `median` and `mean` are of the games' means. `pooled_interquartile_mean`, which rliable calls
    the interquartile mean, and `optimality_gap`, the mean shortfall from a score of 1, are of all `episodes`.
    """

    games: tuple[str, ...]
    left_out: tuple[str, ...]
    episodes: int
    interquartile_mean: Estimate
    median: Estimate
    mean: Estimate
    pooled_interquartile_mean: Estimate
    optimality_gap: Estimate


@dataclass(frozen=True)
class PooledScore:
    """Interquartile mean over the normalised episodes of all games in one list; `left_out` are games not normalised.

    `of_game_means` is the same with every episode replaced by its game's mean. It differs from the interquartile mean
    over games only in what is cut off: a quarter of the episodes, not a quarter of the games rounded down.
    """

    games: tuple[str, ...]
    left_out: tuple[str, ...]
    episodes: int
    interquartile_mean: Estimate
    of_game_means: float


@dataclass(frozen=True)
class Repetition:
    """How one game's episodes repeat each other's return: how many values there are, how often the commonest occurs.

    `repeated` counts the episodes whose return an earlier one had, whatever their lengths.
    """

    episodes: int
    distinct: int
    commonest: int
    repeated: int


def separated(a: Estimate, b: Estimate) -> bool:
    """Whether two intervals have no point in common."""
    return a.high < b.low or b.high < a.low


def normalise(score: Floats | float, random: float | None, reference: float | None) -> Floats | None:
    """(score − random) / (reference − random), or None where that is unknown or undefined."""
    if random is None or reference is None or reference == random:
        return None
    return (np.asarray(score, dtype=np.float64) - random) / (reference - random)


def bootstrap_draws(values: Sequence[float], config: BootstrapConfig, stream: str = "") -> Floats:
    """Resamples of `values` with replacement, (resamples, values). `stream` separates the draws of several games."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("no values to resample")
    random = np.random.default_rng([config.seed, crc32(stream.encode())])
    return data[random.integers(data.size, size=(config.resamples, data.size))]


def bootstrap_means(values: Sequence[float], config: BootstrapConfig, stream: str = "") -> Floats:
    """The means of `bootstrap_draws`, (resamples,)."""
    return bootstrap_draws(values, config, stream).mean(axis=1)


def estimate(value: float, resampled: Floats, confidence: float) -> Estimate:
    """`value` with the central `confidence` share of its bootstrap distribution."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))


def repeated_episodes(returns: Sequence[float], lengths: Sequence[int]) -> int:
    """How many episodes repeat an earlier one's exact return and length."""
    pairs = list(zip(returns, lengths, strict=True))
    return len(pairs) - len(set(pairs))


def repetition(returns: Sequence[float]) -> Repetition:
    """How one game's returns (raw game points) repeat, for scores that come without the episodes' lengths.

    Raises:
        ValueError: no returns were given.
    """
    _, counts = np.unique(np.asarray(returns, dtype=np.float64), return_counts=True)
    if counts.size == 0:
        raise ValueError("no returns to compare")
    return Repetition(len(returns), counts.size, int(counts.max()), len(returns) - counts.size)


def mostly_repeated(score: GameScore) -> bool:
    """Whether at least half of a game's episodes repeat an earlier one."""
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
    repeated = repeated_episodes(returns, lengths)

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
        mean_agent_steps=float(np.mean(lengths)),
        repeated=repeated,
        distinct=len(returns) - repeated,
        human_normalised=normalised("human"),
        dqn_normalised=normalised("dqn"),
    )


def normalised_draws(
    returns: Mapping[str, Sequence[float]],
    references: Mapping[str, ReferenceScores],
    kind: Normalisation,
    config: BootstrapConfig,
) -> dict[str, Floats]:
    """Each game's normalised episodes, resampled: (resamples + 1, episodes), the last row as they were played.

    The bootstrap is stratified: every resample draws episodes anew within each game; the set of games stays as it is.
    Games whose reference scores are unknown are left out.
    """
    columns: dict[str, Floats] = {}
    for game, values in returns.items():
        resampled = np.vstack([bootstrap_draws(values, config, stream=game), np.asarray(values, dtype=np.float64)])
        normalised = _normalise_game(resampled, references.get(game), kind)
        if normalised is not None:
            columns[game] = normalised
    return columns


def aggregate_score(
    returns: Mapping[str, Sequence[float]],
    references: Mapping[str, ReferenceScores],
    kind: Normalisation,
    config: BootstrapConfig,
) -> AggregateScore | None:
    """All summaries of the normalised scores, with intervals of `normalised_draws`.

    None when no game's reference scores are known.
    """
    columns = normalised_draws(returns, references, kind, config)
    if not columns:
        return None
    draws = list(columns.values())

    def summary(measure: Callable[[Scores], Floats]) -> Estimate:
        values = measure(draws)
        return estimate(float(values[-1]), values[:-1], config.confidence)

    return AggregateScore(
        games=tuple(columns),
        left_out=tuple(game for game in returns if game not in columns),
        episodes=sum(column.shape[1] for column in draws),
        interquartile_mean=summary(interquartile_mean_of_games),
        median=summary(median_of_games),
        mean=summary(mean_of_games),
        pooled_interquartile_mean=summary(interquartile_mean_of_episodes),
        optimality_gap=summary(optimality_gap_of_episodes),
    )


def pooled_score(
    returns: Mapping[str, Sequence[float]],
    references: Mapping[str, ReferenceScores],
    kind: Normalisation,
    config: BootstrapConfig,
) -> PooledScore | None:
    """Interquartile mean of all games' normalised episodes in one list, where a game weighs as much as its episodes.

    The draws are those of `aggregate_score`. None when no game's reference scores are known.
    """
    columns = normalised_draws(returns, references, kind, config)
    if not columns:
        return None
    pooled = interquartile_mean_of_episodes(list(columns.values()))
    means = [np.full(column.shape[1], column[-1].mean()) for column in columns.values()]
    return PooledScore(
        games=tuple(columns),
        left_out=tuple(game for game in returns if game not in columns),
        episodes=sum(column.shape[1] for column in columns.values()),
        interquartile_mean=estimate(float(pooled[-1]), pooled[:-1], config.confidence),
        of_game_means=float(interquartile_mean(np.concatenate(means))),
    )


def _normalise_game(scores: Floats, reference: ReferenceScores | None, kind: Normalisation) -> Floats | None:
    if reference is None:
        return None
    return normalise(scores, reference.random, reference.human if kind == "human" else reference.dqn)
