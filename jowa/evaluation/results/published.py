"""The paper's tables (arXiv 2410.00564) made anew from what its authors published, with what else the episodes tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jowa.evaluation.statistics.scores import (
    BootstrapConfig,
    Estimate,
    Normalisation,
    aggregate_score,
    normalise,
    pooled_score,
    repetition,
)
from jowa.games import ReferenceScores, reference
from jowa.published_scores import PUBLISHED_SIZES, OfficialEvaluation, official_evaluation, published_means

ALGORITHMS = (
    "JOWA_150M_with_planning", "JOWA_70M_with_planning", "JOWA_40M_with_planning", "JOWA_150M_without_planning",
    "JOWA_70M_without_planning", "JOWA_40M_without_planning", "EDT_200M", "MGDT_200M", "Scaled_QL_80M", "MTBC_120M",
    "MGDT_40M", "MTBC_65M", "MTBC_34M",
)  # fmt: skip
"""The published algorithms in the order of the tables."""

ROUNDING = 0.05
"""Raw game points by which a published mean may differ from its episodes' mean: most were rounded to one decimal."""

FROM_MEANS = "published means"


@dataclass(frozen=True)
class AlgorithmRow:
    """One algorithm over all games: interquartile mean and median of its normalised per-game means.

    `source` says what it was computed from: the raw returns of so many episodes a game, or published per-game means.
    """

    algorithm: str
    label: str
    source: str
    human_iqm: float
    human_median: float
    dqn_iqm: float


@dataclass(frozen=True)
class Comparison:
    """The same normalised episodes summed up in two ways.

    `over_games` is the interquartile mean of the games' means, `pooled` that of all episodes in one list, and
    `pooled_game_means` the latter with every episode replaced by its game's mean.
    """

    over_games: Estimate
    pooled: Estimate
    pooled_game_means: float


@dataclass(frozen=True)
class ModelRow:
    """One model's episodes with planning. `episodes` and `repeated` count over all games.

    In `one_score_games` games at least `majority` episodes, more than half of them, have the same return.
    """

    size: str
    games: int
    episodes: int
    episodes_per_game: int
    human: Comparison
    dqn: Comparison
    repeated: int
    majority: int
    one_score_games: int


@dataclass(frozen=True)
class GameRow:
    """One model's episodes of one game, with planning.

    Means are in raw game points. `agrees`: the published mean is that of the episodes, but for rounding. `commonest`
    counts the episodes that have the most frequent return, `repeated` those whose return an earlier one had. The
    planner was given `context` frames, kept `width` futures and looked `horizon` agent steps ahead.
    """

    size: str
    game: str
    mean: float
    published_mean: float
    agrees: bool
    human_normalised: float | None
    dqn_normalised: float | None
    episodes: int
    distinct: int
    commonest: int
    repeated: int
    context: int
    width: int
    horizon: int


@dataclass(frozen=True)
class PublishedTables:
    """Everything the report shows; models and their games from the largest to the smallest."""

    bootstrap: BootstrapConfig
    algorithms: tuple[AlgorithmRow, ...]
    models: tuple[ModelRow, ...]
    games: tuple[GameRow, ...]

    @property
    def disagreements(self) -> tuple[GameRow, ...]:
        """The games whose published mean is not that of the published episodes."""
        return tuple(row for row in self.games if not row.agrees)

    def of(self, size: str) -> list[GameRow]:
        """The games of one model."""
        return [row for row in self.games if row.size == size]


def published_tables(bootstrap: BootstrapConfig) -> PublishedTables:
    """All tables, from the data that travel with the package."""
    means = published_means()
    references = {game: reference(game) for game in means[ALGORITHMS[0]]}
    evaluations = {size: official_evaluation(size) for size in reversed(PUBLISHED_SIZES)}
    return PublishedTables(
        bootstrap=bootstrap,
        algorithms=algorithm_rows(means, evaluations, references),
        models=tuple(model_row(size, games, references, bootstrap) for size, games in evaluations.items()),
        games=tuple(
            row
            for size, games in evaluations.items()
            for row in game_rows(size, games, means[with_planning(size)], references)
        ),
    )


def with_planning(size: str) -> str:
    """The name under which a model's scores with planning were published."""
    return f"JOWA_{size}_with_planning"


def algorithm_label(name: str) -> str:
    """'JOWA_150M_with_planning' becomes 'JOWA 150M, planning'."""
    return name.replace("_with_", ", ").replace("_without_", ", no ").replace("_", " ")


def algorithm_rows(
    means: Mapping[str, Mapping[str, float]],
    evaluations: Mapping[str, Mapping[str, OfficialEvaluation]],
    references: Mapping[str, ReferenceScores],
) -> tuple[AlgorithmRow, ...]:
    """The published table: from raw returns where `evaluations` (by model size) has them, else from per-game means."""
    raw = {with_planning(size): _returns(games) for size, games in evaluations.items()}
    rows = []
    for name in ALGORITHMS:
        returns = raw.get(name) or {game: (mean,) for game, mean in means[name].items()}
        source = f"{_episodes_per_game(returns)} episodes a game" if name in raw else FROM_MEANS
        human_iqm, human_median = _over_games(returns, references, "human")
        dqn_iqm, _ = _over_games(returns, references, "dqn")
        rows.append(AlgorithmRow(name, algorithm_label(name), source, human_iqm, human_median, dqn_iqm))
    return tuple(rows)


def model_row(
    size: str,
    games: Mapping[str, OfficialEvaluation],
    references: Mapping[str, ReferenceScores],
    bootstrap: BootstrapConfig,
) -> ModelRow:
    """One model's episodes summed up, with intervals."""
    returns = _returns(games)
    repetitions = [repetition(values) for values in returns.values()]
    return ModelRow(
        size=size,
        games=len(games),
        episodes=sum(one.episodes for one in repetitions),
        episodes_per_game=_episodes_per_game(returns),
        human=comparison(returns, references, "human", bootstrap),
        dqn=comparison(returns, references, "dqn", bootstrap),
        repeated=sum(one.repeated for one in repetitions),
        majority=_episodes_per_game(returns) // 2 + 1,
        one_score_games=sum(2 * one.commonest > one.episodes for one in repetitions),
    )


def comparison(
    returns: Mapping[str, Sequence[float]],
    references: Mapping[str, ReferenceScores],
    kind: Normalisation,
    bootstrap: BootstrapConfig,
) -> Comparison:
    """Raw returns by game, summed up over games and pooled.

    Raises:
        ValueError: no game's reference scores are known.
    """
    over_games = aggregate_score(returns, references, kind, bootstrap)
    pooled = pooled_score(returns, references, kind, bootstrap)
    if over_games is None or pooled is None:
        raise ValueError(f"no {kind} scores are known for {', '.join(returns)}")
    return Comparison(over_games.interquartile_mean, pooled.interquartile_mean, pooled.of_game_means)


def game_rows(
    size: str,
    games: Mapping[str, OfficialEvaluation],
    published: Mapping[str, float],
    references: Mapping[str, ReferenceScores],
) -> tuple[GameRow, ...]:
    """One model's games in alphabetical order; `published` are its published means by game."""
    return tuple(_game_row(size, game, games[game], published[game], references[game]) for game in sorted(games))


def _game_row(
    size: str, game: str, evaluation: OfficialEvaluation, published: float, scores: ReferenceScores
) -> GameRow:
    mean = float(np.mean(evaluation.returns))
    human = normalise(mean, scores.random, scores.human)
    dqn = normalise(mean, scores.random, scores.dqn)
    repeats = repetition(evaluation.returns)
    return GameRow(
        size=size,
        game=game,
        mean=mean,
        published_mean=published,
        agrees=abs(mean - published) <= ROUNDING + 1e-6,  # halves are rounded either way, and floats are not decimals
        human_normalised=None if human is None else float(human),
        dqn_normalised=None if dqn is None else float(dqn),
        episodes=repeats.episodes,
        distinct=repeats.distinct,
        commonest=repeats.commonest,
        repeated=repeats.repeated,
        context=evaluation.context,
        width=evaluation.width,
        horizon=evaluation.horizon,
    )


def _over_games(
    returns: Mapping[str, Sequence[float]], references: Mapping[str, ReferenceScores], kind: Normalisation
) -> tuple[float, float]:
    """Interquartile mean and median of the normalised per-game means."""
    score = aggregate_score(returns, references, kind, BootstrapConfig(resamples=1))  # its intervals are not used
    if score is None:
        raise ValueError(f"no {kind} scores are known for {', '.join(returns)}")
    return score.interquartile_mean.value, score.median.value


def _returns(games: Mapping[str, OfficialEvaluation]) -> dict[str, tuple[float, ...]]:
    return {game: evaluation.returns for game, evaluation in games.items()}


def _episodes_per_game(returns: Mapping[str, Sequence[float]]) -> int:
    """The number all games share, for sentences.

    Raises:
        ValueError: they differ.
    """
    (number,) = {len(values) for values in returns.values()}
    return number
