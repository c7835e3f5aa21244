"""Summaries of many games' scores, each of one table of episodes or of many resampled ones at once.

They are those of Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice") and its program rliable,
with episodes in the place of runs. A game's `scores` have the shape (…, episodes of the game), games may differ in
their last axis only, and the result has the shape (…). *Of games* means of the games' means; *of episodes* means of
all games' episodes in one list, where a game weighs as much as it has episodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Sequence[Floats]

OPTIMUM = 1.0
"""The score beyond which nothing more is asked for: the human's, or DQN's."""


def interquartile_mean(values: Floats) -> Floats:
    """Mean over the last axis without its lowest and highest quarter (rounded down to whole values)."""
    # Not scipy.stats.trim_mean, of which it is the very arithmetic: scipy.stats takes a second to import.
    count = values.shape[-1]
    cut = count // 4
    sorted_out = np.partition(values, (cut, count - cut - 1), axis=-1)
    return np.asarray(sorted_out[..., cut : count - cut].mean(axis=-1))


def game_means(scores: Scores) -> Floats:
    """Every game's mean, (…, games)."""
    return np.stack([game.mean(axis=-1) for game in scores], axis=-1)


def mean_of_games(scores: Scores) -> Floats:
    """rliable's aggregate_mean."""
    return np.asarray(game_means(scores).mean(axis=-1))


def median_of_games(scores: Scores) -> Floats:
    """rliable's aggregate_median."""
    return np.asarray(np.median(game_means(scores), axis=-1))


def interquartile_mean_of_games(scores: Scores) -> Floats:
    """The paper's (arXiv 2410.00564, section 5.1); rliable has none of the kind."""
    return interquartile_mean(game_means(scores))


def interquartile_mean_of_episodes(scores: Scores) -> Floats:
    """rliable's aggregate_iqm."""
    return interquartile_mean(np.concatenate(scores, axis=-1))


def optimality_gap_of_episodes(scores: Scores) -> Floats:
    """By how much episodes fall short of `OPTIMUM` on average, those beyond counting as 0; aggregate_optimality_gap."""
    return np.asarray(OPTIMUM - np.minimum(np.concatenate(scores, axis=-1), OPTIMUM).mean(axis=-1))


def share_of_episodes_above(scores: Scores, thresholds: Floats) -> Floats:
    """Which share lies above each of the ascending thresholds (T,): (…, T), rliable's score_distributions."""
    pooled = np.concatenate(scores, axis=-1)
    *shape, episodes = pooled.shape
    bins = len(thresholds) + 1
    passed = np.searchsorted(thresholds, pooled, side="left").reshape(-1, episodes)
    offsets = np.arange(len(passed))[:, None] * bins
    counts = np.bincount((passed + offsets).ravel(), minlength=len(passed) * bins).reshape(-1, bins)
    above = episodes - counts.cumsum(axis=1)[:, :-1]
    return np.asarray(above / episodes).reshape(*shape, len(thresholds))


def win_probability(ours: Floats, theirs: Floats) -> Floats:
    """P(ours > theirs) + ½ P(equal) for one episode of each, drawn at random: (…, n) and (…, m) give (…).

    The Mann-Whitney statistic divided by n m, a game's part of rliable's probability_of_improvement.
    """
    mine, other = ours[..., :, None], theirs[..., None, :]
    return np.asarray((np.greater(mine, other) + 0.5 * np.equal(mine, other)).mean(axis=(-2, -1)))
