"""Intervals of shares and F1 scores that are counted over sequences: a sequence is drawn anew with all its counts."""

from collections.abc import Callable
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from jowa.evaluation.statistics.scores import BootstrapConfig, Estimate, estimate

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Counts (..., C) → (...), NaN where nothing could be counted."""


def resampled_sums(counts: NDArray[np.int64], config: BootstrapConfig, stream: str) -> Floats:
    """Sums over S sequences' counts (S, ...) in each resample of the sequences, (resamples, ...).

    `stream` separates the draws of several games.
    """
    random = np.random.default_rng([config.seed, crc32(stream.encode())])
    size = len(counts)
    drawn = random.multinomial(size, np.full(size, 1 / size), size=config.resamples)
    sums: Floats = drawn.astype(np.float64) @ counts.reshape(size, -1).astype(np.float64)
    return sums.reshape(config.resamples, *counts.shape[1:])


def estimated(statistic: Statistic, sums: Floats, resampled: Floats, confidence: float) -> Estimate | None:
    """A statistic of the sums (C,) with its interval; None where nothing could be counted.

    Resamples (R, C) in which nothing could be counted are left out.
    """
    value, drawn = float(statistic(sums)), statistic(resampled)
    return None if np.isnan(value) else estimate(value, drawn[~np.isnan(drawn)], confidence)


def share_of(part: int, whole: int) -> Statistic:
    """The share that column `part` is of column `whole`."""
    return lambda counts: _ratio(counts[..., part], counts[..., whole])


def f1_of(confusion: slice, classes: int, labels: tuple[int, ...]) -> Statistic:
    """The mean F1 of those `labels` that occur, the columns `confusion` holding a table (actual, predicted)."""

    def statistic(counts: Floats) -> Floats:
        table = counts[..., confusion].reshape(*counts.shape[:-1], classes, classes)
        positives, predicted = table.sum(-1), table.sum(-2)
        hits = np.diagonal(table, axis1=-2, axis2=-1)
        scores = _ratio(2 * hits, np.where(positives > 0, positives + predicted, 0))[..., list(labels)]
        known = ~np.isnan(scores)
        return _ratio(np.where(known, scores, 0).sum(-1), known.sum(-1))

    return statistic


def _ratio(part: Floats, whole: NDArray[np.generic]) -> Floats:
    divisor = np.asarray(whole, np.float64)
    return np.divide(part, divisor, out=np.full(np.shape(part), np.nan), where=divisor > 0)
