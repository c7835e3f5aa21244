"""Scores: the published headline from published means, intervals that cover, and warnings where episodes repeat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.evaluation.statistics.scores import (
    BootstrapConfig,
    Estimate,
    aggregate_score,
    bootstrap_means,
    estimate,
    game_score,
    interquartile_mean,
    mostly_repeated,
    normalise,
    repeated_episodes,
    separated,
)
from jowa.games import ReferenceScores, reference

PUBLISHED_150M_WITH_PLANNING = {
    "Assault": 1458.6, "Atlantis": 2841262.5, "BeamRider": 2927.0, "Berzerk": 496.9, "Carnival": 4910.0,
    "Centipede": 7117.0, "ChopperCommand": 3925.0, "DemonAttack": 9296.6, "NameThisGame": 9380.0, "Phoenix": 5230.0,
    "Seaquest": 1413.8, "SpaceInvaders": 1036.9, "StarGunner": 53237.5, "TimePilot": 3975.0, "Zaxxon": 331.2,
}  # fmt: skip
QUICK = BootstrapConfig(resamples=2000)
FINITE = st.floats(-1e5, 1e5)


@pytest.mark.parametrize(("kind", "interquartile", "median"), [("human", 0.847, 0.585), ("dqn", 1.195, None)])
def test_published_means_give_the_published_headline(kind, interquartile, median):
    references = {game: reference(game) for game in PUBLISHED_150M_WITH_PLANNING}
    score = aggregate_score({g: [s] for g, s in PUBLISHED_150M_WITH_PLANNING.items()}, references, kind, QUICK)
    assert score is not None and len(score.games) == 15
    assert score.interquartile_mean.value == pytest.approx(interquartile, abs=6e-4)
    if median is not None:
        assert score.median.value == pytest.approx(median, abs=6e-4)
    assert score.mean.low == pytest.approx(score.mean.high), "one episode a game leaves nothing to resample"


def test_interquartile_mean_drops_whole_games_only():
    assert interquartile_mean(np.array([0.0, 1.0, 2.0])) == 1.0
    assert interquartile_mean(np.array([-100.0, 1.0, 3.0, 100.0])) == 2.0
    assert interquartile_mean(np.array([[9.0, 0, 1, 2, 3, 4, 5, -9]])).tolist() == [2.5]


def test_unknown_references_are_left_out_not_guessed():
    references = {"A": ReferenceScores(0.0, 10.0, None), "B": ReferenceScores(0.0, None, 5.0)}
    returns = {"A": [5.0, 5.0], "B": [1.0, 2.0], "C": [1.0, 1.0]}
    human = aggregate_score(returns, references, "human", QUICK)
    assert human is not None and human.games == ("A",) and human.left_out == ("B", "C")
    assert human.interquartile_mean == Estimate(0.5, 0.5, 0.5)
    assert aggregate_score({"C": [1.0]}, references, "human", QUICK) is None
    score = game_score("A", [5.0, 5.0], [3, 4], references["A"], QUICK)
    assert score.dqn_normalised is None and score.human_normalised == Estimate(0.5, 0.5, 0.5)
    assert game_score("C", [1.0], [1], None, QUICK).human_normalised is None
    assert normalise(1.0, 3.0, 3.0) is None, "no gap between the references, no normalised score"


def test_a_lower_reference_turns_the_interval_but_keeps_it_in_order():
    upside_down = ReferenceScores(random=0.0, human=-10.0, dqn=None)
    score = game_score("A", [1.0, 2.0, 9.0], [1, 2, 3], upside_down, QUICK).human_normalised
    assert score is not None and score.low < score.value < score.high < 0


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    config = BootstrapConfig(resamples=500)
    covered = 0
    for _ in range(400):
        values = random.normal(3.0, 2.0, size=30)
        interval = estimate(values.mean(), bootstrap_means(values, config), config.confidence)
        covered += interval.low <= 3.0 <= interval.high
    assert 0.90 <= covered / 400 <= 0.97


def test_the_stratified_interval_is_as_wide_as_theory_says():
    """Two independent games: the variance of their mean is a quarter of the sum of their variances."""
    returns = {"A": [0.0, 2.0] * 50, "B": [0.0, 6.0] * 50}
    references = {game: ReferenceScores(0.0, 1.0, 1.0) for game in returns}
    score = aggregate_score(returns, references, "human", BootstrapConfig(resamples=20_000))
    assert score is not None and score.mean.value == 2.0
    deviation = np.sqrt((1.0 / 100 + 9.0 / 100) / 4)
    assert (score.mean.high - score.mean.low) / 2 == pytest.approx(1.96 * deviation, rel=0.05)


@settings(max_examples=50, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=20))
def test_intervals_hold_the_mean_and_lie_within_the_data(values):
    score = game_score("A", values, [1] * len(values), None, BootstrapConfig(resamples=200))
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= score.mean.low <= score.mean.high <= max(values) + slack
    again = game_score("A", values, [1] * len(values), None, BootstrapConfig(resamples=200))
    assert score == again, "the same seed gives the same interval"


def test_seeds_and_games_draw_differently():
    values = list(range(10))
    draws = [
        bootstrap_means(values, BootstrapConfig(resamples=50, seed=seed), game)
        for seed, game in ((0, "A"), (1, "A"), (0, "B"))
    ]
    assert not np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


@settings(max_examples=100, deadline=None)
@given(FINITE, FINITE, FINITE, FINITE)
def test_separated_means_no_common_point(a, b, c, d):
    first, second = Estimate(0, *sorted((a, b))), Estimate(0, *sorted((c, d)))
    common = max(first.low, second.low) <= min(first.high, second.high)
    assert separated(first, second) == separated(second, first) == (not common)


def test_repetitions_are_counted_and_warned_of():
    returns, lengths = [5.0] * 9 + [1, 2, 3, 4, 5, 6, 7], [10] * 9 + [10, 10, 10, 10, 11, 10, 10]
    assert repeated_episodes(returns, lengths) == 8, "an equal return at another length is no repetition"
    assert mostly_repeated(game_score("Pong", returns, lengths, None, QUICK))
    assert not mostly_repeated(game_score("Pong", returns[1:], lengths[1:], None, QUICK)), "seven of fifteen"
    assert not mostly_repeated(game_score("Pong", [1.0], [1], None, QUICK))


def test_no_episodes_are_an_error():
    with pytest.raises(ValueError, match="no values"):
        game_score("A", [], [], None, QUICK)
