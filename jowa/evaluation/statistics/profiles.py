"""Performance profiles: which share of the episodes scores above each threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jowa.evaluation.statistics.measures import Floats, share_of_episodes_above
from jowa.evaluation.statistics.scores import BootstrapConfig, Normalisation, normalised_draws
from jowa.games import ReferenceScores

THRESHOLDS: Floats = np.arange(81) / 40
"""Normalised scores from 0, random play's, to 2, twice the human's or DQN's: the same for all runs, to compare them."""


@dataclass(frozen=True)
class Profile:
    """A performance profile (Agarwal et al. 2021), equally long: thresholds, shares above them, and their interval.

    The interval holds at each threshold by itself, not for the whole curve at once.
    """

    thresholds: tuple[float, ...]
    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def performance_profile(
    returns: Mapping[str, Sequence[float]],
    references: Mapping[str, ReferenceScores],
    kind: Normalisation,
    config: BootstrapConfig,
    thresholds: Floats = THRESHOLDS,
) -> Profile | None:
    """The profile of all games' episodes in one list, drawn anew as in `normalised_draws`.

    None when no game's reference scores are known.
    """
    columns = normalised_draws(returns, references, kind, config)
    if not columns:
        return None
    shares = share_of_episodes_above(list(columns.values()), thresholds)
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(shares[:-1], [tail, 1 - tail], axis=0)
    return Profile(*(tuple(values.tolist()) for values in (thresholds, shares[-1], low, high)))
