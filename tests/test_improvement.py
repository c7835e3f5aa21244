"""Who beats whom and how much is missing: bounds, symmetry, ties, fixed means, and profiles that only fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pytest
from fake_runs import evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.cli import load_config
from jowa.errors import UserError
from jowa.evaluate import EvaluateConfig, main
from jowa.evaluation.results.baselines import baselines, check_baselines, published, usual_baselines, with_comparisons
from jowa.evaluation.results.published import ALGORITHMS
from jowa.evaluation.statistics.improvement import Contender, Improvement, improvement, resample_counts
from jowa.evaluation.statistics.measures import win_probability
from jowa.evaluation.statistics.profiles import THRESHOLDS, performance_profile
from jowa.evaluation.statistics.scores import BootstrapConfig, Estimate, aggregate_score, bootstrap_draws
from jowa.games import PRETRAINING_GAMES, ReferenceScores
from jowa.published_scores import official_evaluation, published_means

QUICK = BootstrapConfig(resamples=200)
UNIT = ReferenceScores(random=0.0, human=1.0, dqn=2.0)
RETURNS = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=6)
PLAYED = st.dictionaries(st.sampled_from("ABC"), RETURNS, min_size=1)


def found(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Improvement | None:
    return improvement(Contender("x", ours), Contender("y", theirs), QUICK)


@settings(max_examples=60, deadline=None)
@given(PLAYED, PLAYED)
def test_one_wins_or_the_other_and_ties_count_half(ours, theirs):
    there, back = found(ours, theirs), found(theirs, ours)
    if not set(ours) & set(theirs):
        assert there is None and back is None
        return
    assert there is not None and back is not None and set(there.games) == set(ours) & set(theirs)
    assert there.probability.value + back.probability.value == pytest.approx(1.0)
    assert 0.0 <= there.probability.low <= there.probability.high <= 1.0
    for game in there.games:
        pairs = [(x > y) + 0.5 * (x == y) for x in ours[game] for y in theirs[game]]
        assert there.by_game[game] == pytest.approx(sum(pairs) / len(pairs))
    assert there.probability.value == pytest.approx(sum(there.by_game.values()) / len(there.games))


def test_counted_resamples_are_the_drawn_ones():
    counts = resample_counts(5, QUICK, "A")
    drawn = bootstrap_draws(range(5), QUICK, "A")
    assert counts.sum(axis=1).tolist() == [5] * 200
    assert counts.tolist() == [[row.tolist().count(value) for value in range(5)] for row in drawn]


def test_both_sides_are_drawn_and_independently():
    """As many episodes on both sides: equal draws on both would make the interval of equal players a point."""
    values = [float(value) for value in range(12)]
    both = found({"A": values}, {"A": values})
    assert both is not None and both.probability.value == 0.5
    assert both.probability.low < 0.4 and both.probability.high > 0.6
    # The variance of the Mann-Whitney statistic of equal players is (n + m + 1) / 12nm, the bootstrap's about that.
    deviation = np.sqrt((12 + 12 + 1) / (12 * 12 * 12))
    assert (both.probability.high - both.probability.low) / 2 == pytest.approx(1.96 * deviation, rel=0.2)


def test_a_fixed_mean_is_not_drawn():
    fixed = improvement(Contender("x", {"A": [1.0, 3.0]}), Contender("y", {"A": [2.0]}, means_only=True), QUICK)
    assert fixed is not None and fixed.means_only and fixed.probability == Estimate(0.5, 0.0, 1.0)
    against_itself = found({"A": [2.0]}, {"A": [2.0]})
    assert against_itself is not None and against_itself.probability == Estimate(0.5, 0.5, 0.5)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.lists(st.floats(-3, 3), min_size=1, max_size=5))
def test_win_probability_broadcasts_over_resamples(ours, theirs):
    x, y = np.array([ours, ours[::-1]]), np.array([theirs, theirs])
    assert win_probability(x, y).tolist() == [win_probability(x[0], y[0])] * 2


@settings(max_examples=60, deadline=None)
@given(PLAYED)
def test_the_gap_lies_between_nothing_and_the_worst_episodes(returns):
    score = aggregate_score(returns, dict.fromkeys(returns, UNIT), "human", QUICK)
    assert score is not None
    everything = [value for values in returns.values() for value in values]
    gap = score.optimality_gap
    assert gap.value == pytest.approx(sum(max(0.0, 1.0 - value) for value in everything) / len(everything))
    assert 0.0 <= gap.low <= gap.high <= max(0.0, 1.0 - min(everything)) + 1e-12
    assert score.episodes == len(everything)


@settings(max_examples=60, deadline=None)
@given(PLAYED)
def test_profiles_only_fall_and_stay_in_their_band(returns):
    profile = performance_profile(returns, dict.fromkeys(returns, UNIT), "dqn", BootstrapConfig(resamples=50))
    assert profile is not None and profile.thresholds == tuple(THRESHOLDS)
    everything = np.array([value / 2 for values in returns.values() for value in values])
    assert profile.share == pytest.approx([(everything > threshold).mean() for threshold in THRESHOLDS])
    for line in (profile.share, profile.low, profile.high):
        assert all(later <= earlier for earlier, later in pairwise(line))
        assert all(0.0 <= share <= 1.0 for share in line)
    assert all(low <= high for low, high in zip(profile.low, profile.high, strict=True))
    assert performance_profile({"A": [1.0]}, {}, "human", QUICK) is None


# Published baselines


def test_raw_episodes_where_there_are_some_else_means():
    largest = published("JOWA_150M_with_planning", ("Phoenix", "Pong"))
    assert largest.returns == {"Phoenix": official_evaluation("150M")["Phoenix"].returns} and not largest.means_only
    rival = published("EDT_200M", PRETRAINING_GAMES)
    assert rival.means_only and rival.mean("Phoenix") == published_means()["EDT_200M"]["Phoenix"]
    assert rival.mean("Pong") is None and all(len(values) == 1 for values in rival.returns.values())


def test_the_usual_baselines_begin_with_the_same_size():
    assert usual_baselines([{"name": "40M"}])[0] == "JOWA_40M_with_planning"
    assert usual_baselines([{"name": "150M"}, {"name": "nano"}]) == ("JOWA_150M_with_planning", "MGDT_200M", "EDT_200M")
    assert baselines(None, [{"name": "40M"}], ["Pong"]) == [], "nothing was published of it"
    assert [one.name for one in baselines(["MTBC_34M"], [], ["Zaxxon"])] == ["MTBC_34M"]
    assert baselines([], [{"name": "40M"}], PRETRAINING_GAMES) == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["EDT_200"], "Unknown published algorithm 'EDT_200' \\(key 'baselines'\\): did you mean 'EDT_200M'"),
        (["jowa 150m with planning"], "did you mean 'JOWA_150M_with_planning'"),
        (["???"], "choose among JOWA_150M_with_planning, "),
        (["EDT_200M", "EDT_200M"], "baselines names an algorithm twice"),
    ],
)
def test_wrong_baselines_are_refused(names, words):
    with pytest.raises(UserError, match=words):
        check_baselines(names)


def test_evaluate_refuses_them_before_any_work():
    config = load_config(EvaluateConfig, "evaluate", ["ckpt=nowhere", "baselines=[EDT_200]"])
    with pytest.raises(UserError, match="did you mean 'EDT_200M'"):
        main(config)


def test_all_published_names_are_right():
    check_baselines(ALGORITHMS)
    check_baselines(None)


def test_an_evaluation_is_compared_with_its_own_ways_and_the_published():
    results = with_comparisons(evaluation(["Phoenix", "Pong"]), ["EDT_200M", "JOWA_70M_with_planning"])
    assert [(one.ours, one.theirs, one.means_only) for one in results.improvements] == [
        ("planning", "random", False), ("planning", "no planning", False), ("planning", "EDT_200M", True),
        ("planning", "JOWA_70M_with_planning", False),
    ]  # fmt: skip
    assert results.baselines["EDT_200M"] == {"Phoenix": published_means()["EDT_200M"]["Phoenix"]}
    assert results.improvements[0].probability.value > 0.9, "it plays better than chance"
    best = results.best
    assert best is not None
    ours = [episode.episode_return for episode in best.of("Phoenix")]
    expected = np.mean([value > published_means()["EDT_200M"]["Phoenix"] for value in ours])
    assert results.improvements[2].probability.value == expected and results.improvements[2].games == ("Phoenix",)
    assert with_comparisons(evaluation(), []).baselines == {}
