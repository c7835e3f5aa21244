"""Our statistics and rliable's agree to 1e-9 on the published raw scores: values, and intervals of equal resamples."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jowa.evaluation.results.baselines import published
from jowa.evaluation.statistics.improvement import improvement
from jowa.evaluation.statistics.measures import (
    game_means,
    interquartile_mean_of_episodes,
    mean_of_games,
    median_of_games,
    optimality_gap_of_episodes,
    share_of_episodes_above,
    win_probability,
)
from jowa.evaluation.statistics.profiles import THRESHOLDS, performance_profile
from jowa.evaluation.statistics.scores import BootstrapConfig, aggregate_score, estimate
from jowa.games import PRETRAINING_GAMES, reference
from jowa.published_scores import PUBLISHED_SIZES

REFERENCES = {game: reference(game) for game in PRETRAINING_GAMES}
EXACT = {"rel": 0.0, "abs": 1e-9}
RESAMPLES = 200


@pytest.fixture(scope="module")
def rliable() -> tuple[Any, Any]:
    """Its metrics and its library, of which arch's bootstrap is all that is used.

    arch is imported without what its package imports first: models of time series, which fail with pandas 3.
    """
    pytest.importorskip("rliable")
    spec = importlib.util.find_spec("arch")
    assert spec is not None
    bare = types.ModuleType("arch")
    bare.__path__ = list(spec.submodule_search_locations or ())
    sys.modules.setdefault("arch", bare)
    from rliable import library, metrics

    return metrics, library


def returns(size: str) -> dict[str, tuple[float, ...]]:
    return dict(published(f"JOWA_{size}_with_planning", PRETRAINING_GAMES).returns)


def scores(size: str, kind: str) -> np.ndarray:
    """(episodes, games), as rliable wants them, normalised without a line of ours."""
    columns = []
    for game, values in returns(size).items():
        low = REFERENCES[game].random
        columns.append([(value - low) / (getattr(REFERENCES[game], kind) - low) for value in values])
    return np.array(columns).T


def by_game(matrix: np.ndarray) -> list[np.ndarray]:
    """(…, episodes, games) as ours want them: an array a game."""
    return [matrix[..., game] for game in range(matrix.shape[-1])]


@pytest.mark.parametrize("kind", ["human", "dqn"])
@pytest.mark.parametrize("size", PUBLISHED_SIZES)
def test_summaries_are_rliables(rliable, size, kind):
    metrics, _ = rliable
    theirs = scores(size, kind)
    ours = aggregate_score(returns(size), REFERENCES, kind, BootstrapConfig(resamples=1))
    assert ours is not None and ours.episodes == theirs.size == 240
    assert ours.mean.value == pytest.approx(metrics.aggregate_mean(theirs), **EXACT)
    assert ours.median.value == pytest.approx(metrics.aggregate_median(theirs), **EXACT)
    assert ours.pooled_interquartile_mean.value == pytest.approx(metrics.aggregate_iqm(theirs), **EXACT)
    assert ours.optimality_gap.value == pytest.approx(metrics.aggregate_optimality_gap(theirs), **EXACT)
    of_means = metrics.aggregate_iqm(theirs.mean(axis=0, keepdims=True))
    assert ours.interquartile_mean.value == pytest.approx(of_means, **EXACT), "as if each game had been played once"


@pytest.mark.parametrize(("size", "other"), [("150M", "70M"), ("70M", "40M"), ("40M", "150M"), ("70M", "70M")])
def test_the_probability_of_improvement_is_rliables(rliable, size, other):
    metrics, _ = rliable
    theirs = metrics.probability_of_improvement(scores(size, "human"), scores(other, "human"))
    sides = [published(f"JOWA_{one}_with_planning", PRETRAINING_GAMES) for one in (size, other)]
    ours = improvement(*sides, BootstrapConfig(resamples=1))
    assert ours is not None and len(ours.games) == 15
    assert ours.probability.value == pytest.approx(theirs, **EXACT)


@pytest.mark.parametrize("kind", ["human", "dqn"])
def test_the_profile_is_rliables_score_distribution(rliable, kind):
    _, library = rliable
    theirs = library.score_distributions(scores("150M", kind), THRESHOLDS)
    ours = performance_profile(returns("150M"), REFERENCES, kind, BootstrapConfig(resamples=5))
    assert ours is not None and ours.share == pytest.approx(tuple(theirs), **EXACT)
    # A score that equals a threshold is not above it.
    values = np.sort(scores("150M", kind).ravel())
    expected = library.score_distributions(scores("150M", kind), values)
    assert share_of_episodes_above(by_game(scores("150M", kind)), values) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("aggregate_mean", mean_of_games),
        ("aggregate_median", median_of_games),
        ("aggregate_iqm", interquartile_mean_of_episodes),
        ("aggregate_optimality_gap", optimality_gap_of_episodes),
    ],
)
def test_intervals_of_the_same_resamples_are_rliables(rliable, name, measure: Callable[[Any], np.ndarray]):
    metrics, library = rliable
    matrix = scores("150M", "human")
    np.random.seed(7)  # noqa: NPY002 - rliable draws from this one, whatever it is given
    function = getattr(metrics, name)
    _, theirs = library.get_interval_estimates({"a": matrix}, lambda x: np.array([function(x)]), reps=RESAMPLES)
    ours = measure(by_game(resamples(library.StratifiedBootstrap(matrix), 0)))
    interval = estimate(0.0, ours, 0.95)
    assert [interval.low, interval.high] == pytest.approx(theirs["a"][:, 0].tolist(), **EXACT)
    assert interval.low < interval.high


def test_the_interval_of_an_improvement_is_rliables(rliable):
    metrics, library = rliable
    matrices = [scores("150M", "human"), scores("70M", "human")[:12]]
    np.random.seed(7)  # noqa: NPY002
    function = metrics.probability_of_improvement
    _, theirs = library.get_interval_estimates({"a": matrices}, lambda x, y: np.array([function(x, y)]), reps=50)
    bootstrap = library.StratifiedIndependentBootstrap(*matrices)
    drawn = list(drawn_again(bootstrap, 50))
    sides = [np.stack([data[side] for data in drawn]) for side in (0, 1)]
    games = [win_probability(x, y) for x, y in zip(*map(by_game, sides), strict=True)]
    interval = estimate(0.0, np.mean(games, axis=0), 0.95)
    assert [interval.low, interval.high] == pytest.approx(theirs["a"][:, 0].tolist(), **EXACT)


def test_the_band_of_a_profile_is_rliables(rliable):
    _, library = rliable
    matrix, thresholds = scores("70M", "dqn"), np.array([0.0, 0.25, 0.5, 1.0, 1.5])
    np.random.seed(7)  # noqa: NPY002
    _, theirs = library.create_performance_profile({"a": matrix}, thresholds, reps=RESAMPLES)
    shares = share_of_episodes_above(by_game(resamples(library.StratifiedBootstrap(matrix), 0)), thresholds)
    assert np.quantile(shares, [0.025, 0.975], axis=0) == pytest.approx(theirs["a"], **EXACT)


def test_our_own_resamples_give_rliables_intervals_but_for_chance(rliable):
    """Nothing shared but the data: the two bootstraps are the same procedure."""
    metrics, library = rliable
    matrix = scores("150M", "human")
    ours = aggregate_score(returns("150M"), REFERENCES, "human", BootstrapConfig(resamples=4000))
    np.random.seed(1)  # noqa: NPY002
    _, theirs = library.get_interval_estimates(
        {"a": matrix}, lambda x: np.array([metrics.aggregate_iqm(x), metrics.aggregate_optimality_gap(x)]), reps=2000
    )
    assert ours is not None
    for found, (low, high) in zip((ours.pooled_interquartile_mean, ours.optimality_gap), theirs["a"].T, strict=True):
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_means_of_games_have_their_own_axis():
    games = [np.arange(6.0).reshape(2, 3), np.arange(4.0).reshape(2, 2)]
    assert game_means(games).tolist() == [[1.0, 0.5], [4.0, 2.5]]


def resamples(bootstrap: Any, side: int) -> np.ndarray:
    return np.stack([data[side] for data in drawn_again(bootstrap, RESAMPLES)])


def drawn_again(bootstrap: Any, number: int) -> Any:
    """The resamples that rliable has just used: the same numbers drawn once more."""
    np.random.seed(7)  # noqa: NPY002
    for positional, _ in bootstrap.bootstrap(number):
        yield positional
