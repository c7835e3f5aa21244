"""Pooled episodes, counted repetitions and refused bootstrap settings, against plain Python and theory."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.errors import UserError
from jowa.evaluation.statistics.scores import BootstrapConfig, Estimate, check_bootstrap, pooled_score, repetition
from jowa.games import ReferenceScores

QUICK = BootstrapConfig(resamples=500)
UNIT = ReferenceScores(random=0.0, human=1.0, dqn=2.0)
RETURNS = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=12)


def iqm(values: list[float]) -> float:
    """In plain Python: a quarter of the values, rounded down, is left out at each end."""
    cut = len(values) // 4
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("ABCDE"), RETURNS, min_size=1))
def test_pooling_any_games_equals_plain_python(returns: dict[str, list[float]]) -> None:
    score = pooled_score(returns, dict.fromkeys(returns, UNIT), "dqn", BootstrapConfig(resamples=20))
    assert score is not None
    everything = [value / 2 for values in returns.values() for value in values]
    assert score.interquartile_mean.value == pytest.approx(iqm(everything), abs=1e-7)
    assert score.episodes == len(everything)
    low, high = score.interquartile_mean.low, score.interquartile_mean.high
    assert min(everything) - 1e-7 <= low <= high <= max(everything) + 1e-7


def test_games_without_reference_scores_are_left_out_of_the_pool() -> None:
    references = {"A": UNIT, "B": ReferenceScores(0.0, None, 1.0)}
    score = pooled_score({"A": [1.0, 3.0], "B": [9.0], "C": [9.0]}, references, "human", QUICK)
    assert score is not None and (score.games, score.left_out, score.episodes) == (("A",), ("B", "C"), 2)
    assert score.interquartile_mean.value == 2.0
    assert pooled_score({"C": [1.0]}, references, "human", QUICK) is None


def test_episodes_are_drawn_anew_within_their_game_only() -> None:
    """Whatever is drawn, there are eight zeros and eight ones: drawing from the pool would change their numbers."""
    constant = {"A": [0.0] * 8, "B": [1.0] * 8}
    score = pooled_score(constant, dict.fromkeys(constant, UNIT), "human", QUICK)
    assert score is not None and score.interquartile_mean == Estimate(0.5, 0.5, 0.5)


def test_the_pooled_interval_is_as_wide_as_theory_says() -> None:
    """Two games are cut off whole; of the others' mean the variance is a quarter of the sum of their variances."""
    returns = {"low": [-100.0] * 100, "A": [0.0, 2.0] * 50, "B": [0.0, 6.0] * 50, "high": [100.0] * 100}
    score = pooled_score(returns, dict.fromkeys(returns, UNIT), "human", BootstrapConfig(resamples=20_000))
    assert score is not None and score.interquartile_mean.value == 2.0
    deviation = np.sqrt((1.0 / 100 + 9.0 / 100) / 4)
    width = score.interquartile_mean.high - score.interquartile_mean.low
    assert width / 2 == pytest.approx(1.96 * deviation, rel=0.05)


@given(st.lists(st.sampled_from([0.0, 10.0, 20.0, -5.0]), min_size=1, max_size=20))
def test_repetitions_are_counted_as_by_hand(returns: list[float]) -> None:
    counts = Counter(returns)
    ours = repetition(returns)
    assert (ours.episodes, ours.distinct, ours.commonest) == (len(returns), len(counts), max(counts.values()))
    assert ours.repeated == sum(value in returns[:i] for i, value in enumerate(returns))


def test_repetitions_of_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="no returns"):
        repetition([])


@pytest.mark.parametrize("change", [{"resamples": 0}, {"confidence": 0.0}, {"confidence": float("nan")}, {"seed": -1}])
def test_settings_without_an_interval_are_refused(change: dict[str, float]) -> None:
    check_bootstrap(BootstrapConfig())
    (key,) = change
    with pytest.raises(UserError, match=f"bootstrap.{key}"):
        check_bootstrap(dataclasses.replace(BootstrapConfig(), **change))
