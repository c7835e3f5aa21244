"""Whether announced probabilities come true: reliability of predicted rewards and ends (Brier 1950, Guo et al. 2017).

Rewards and ends are rare, so the bins are narrow where probabilities are small, and scores stand beside those of a
forecaster who always announces the base rate.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

EDGES = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Bin:
    """Steps whose probability lay in [low, high): their mean probability and the share in which it happened.

    `least` … `most` is the Wilson 95 % interval of that share, for steps that are independent of each other.
    """

    low: float
    high: float
    steps: int
    happened: int
    announced: float
    observed: float
    least: float
    most: float


@dataclass(frozen=True)
class Reliability:
    """How an event's announced probabilities compare with what happened, in the bins that are not empty.

    `error` is the expected calibration error, `brier` the mean squared distance of probability and event, and
    `base_brier` that of announcing `happened / steps` always. All three are None where it never happened.
    """

    event: str
    steps: int
    happened: int
    announced: float
    error: float | None
    brier: float | None
    base_brier: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Calibration:
    """One game's events, or all games' pooled; `agent_steps_dreamed` frames before the action were imagined ones."""

    game: str
    agent_steps_dreamed: int
    events: tuple[Reliability, ...]


def calibration(
    game: str, dreamed: int, rewards: NDArray[np.floating], signs: NDArray[np.int64],
    ends: NDArray[np.floating], ended: NDArray[np.bool_],
) -> Calibration:  # fmt: skip
    """rewards (M, 3) of the signs −1, 0, 1; signs (M,); ends (M,) probabilities; ended (M,)."""
    return Calibration(
        game,
        dreamed,
        (
            reliability("any reward", 1 - rewards[:, 1], signs != 0),
            reliability("positive reward", rewards[:, 2], signs > 0),
            reliability("negative reward", rewards[:, 0], signs < 0),
            reliability("episode ends", ends, ended),
        ),
    )


def reliability(event: str, probabilities: NDArray[np.floating], happened: NDArray[np.bool_]) -> Reliability:
    """probabilities (M,) and whether it happened (M,), M at least 1."""
    announced = np.clip(probabilities.astype(np.float64), 0.0, 1.0)
    place = np.clip(np.searchsorted(EDGES, announced, side="right") - 1, 0, len(EDGES) - 2)
    bins = tuple(
        _bin(low, high, announced[place == number], happened[place == number])
        for number, (low, high) in enumerate(pairwise(EDGES))
        if (place == number).any()
    )
    steps, count = len(announced), int(happened.sum())
    base = count / steps
    return Reliability(
        event=event,
        steps=steps,
        happened=count,
        announced=float(announced.mean()),
        error=sum(one.steps * abs(one.announced - one.observed) for one in bins) / steps if count else None,
        brier=float(np.square(announced - happened).mean()) if count else None,
        base_brier=base * (1 - base) if count else None,
        bins=bins,
    )


def _bin(low: float, high: float, announced: NDArray[np.float64], happened: NDArray[np.bool_]) -> Bin:
    steps, count = len(announced), int(happened.sum())
    least, most = wilson(count, steps)
    return Bin(low, high, steps, count, float(announced.mean()), count / steps, least, most)


def wilson(count: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    share, spread = count / trials, _Z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # Rounding must not push the share itself out of its interval.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))
