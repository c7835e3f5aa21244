"""Whether expected Q is what really follows: beside the discounted, clipped returns of the play it was read in.

Q is of playing greedily from here on, the returns are of the play as it was; where these differ, so may the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.evaluation.diagnostics.discounts import Discount

Floats = NDArray[np.float64]

BINS = 8
POINTS = 300
RECORDED = "recorded"
"""What recorded episodes are called beside the ways of playing."""
REMAINING = 0.05
"""Discount of what a cut episode didn't show, above which a step isn't compared."""


@dataclass(frozen=True)
class Decisions:
    """One episode's decisions: expected Q (T,) of the actions (T,) played and the rewards (T,) that followed, raw."""

    q: NDArray[np.floating]
    rewards: NDArray[np.floating]
    terminated: bool
    actions: NDArray[np.integer]

    def repeats(self, earlier: Decisions) -> bool:
        """Whether actions and rewards are those of an earlier episode, as far as this one was followed."""
        steps = len(self.actions)
        same = np.array_equal(self.actions, earlier.actions[:steps])
        return same and np.array_equal(self.rewards, earlier.rewards[:steps])


@dataclass(frozen=True)
class QBin:
    """About as many decisions as in every other bin, by rank of Q: mean Q, mean return, the returns' middle half."""

    decisions: int
    q: float
    realised: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True)
class QCalibration:
    """One game's Q beside its realised returns, both discounted by `gamma` an agent step, rewards clipped to signs.

    `trained_gamma` says that this is known to be training's discount, not only the planner's. `play` says whose actions
    were followed: a way of playing, or "recorded". `distinct` of the `episodes` don't repeat an earlier one action by
    action and reward by reward; None where nobody looked. Of `decisions`, those `compared` are whose
    episode ended or whose unseen rest is discounted to less than 5 %. `bias` is the mean of Q less return;
    `correlation` is None where either does not vary. `points` are some of the pairs (Q, return).
    """

    game: str
    play: str
    gamma: float
    trained_gamma: bool
    episodes: int
    distinct: int | None
    decisions: int
    compared: int
    mean_q: float | None
    mean_realised: float | None
    bias: float | None
    root_mean_squared_error: float | None
    correlation: float | None
    bins: tuple[QBin, ...]
    points: tuple[tuple[float, float], ...]


def realised_returns(rewards: NDArray[np.floating], terminated: bool, gamma: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Discounted sums of the rewards' signs from each step on, both (T,), and which of them are (nearly) complete."""
    returns, following = np.zeros(len(rewards)), 0.0
    for step in range(len(rewards) - 1, -1, -1):
        following = float(np.sign(rewards[step])) + gamma * following
        returns[step] = following
    rest = gamma ** np.arange(len(rewards), 0, -1)
    return returns, np.full(len(rewards), terminated) | (rest < REMAINING)


def q_calibration(
    game: str, play: str, discount: Discount, episodes: int, distinct: int | None,
    q: Floats, realised: Floats, complete: NDArray[np.bool_],
) -> QCalibration:  # fmt: skip
    """Q of so many episodes' decisions beside what followed them, and whether that is known to the end; (M,) each."""
    decisions = len(q)
    q, realised = q[complete].astype(np.float64), realised[complete]
    some = len(q) > 0
    varies = some and q.std() > 1e-9 and realised.std() > 1e-9
    chosen = np.unique(np.linspace(0, max(len(q) - 1, 0), min(POINTS, len(q))).astype(np.int64))
    return QCalibration(
        game=game,
        play=play,
        gamma=discount.gamma,
        trained_gamma=discount.trained,
        episodes=episodes,
        distinct=distinct,
        decisions=decisions,
        compared=len(q),
        mean_q=float(q.mean()) if some else None,
        mean_realised=float(realised.mean()) if some else None,
        bias=float((q - realised).mean()) if some else None,
        root_mean_squared_error=float(np.sqrt(np.square(q - realised).mean())) if some else None,
        correlation=float(np.corrcoef(q, realised)[0, 1]) if varies else None,
        bins=_bins(q, realised),
        points=tuple((round(float(q[i]), 4), round(float(realised[i]), 4)) for i in chosen),
    )


def own_play(
    mode: str, decisions: Mapping[str, Sequence[Decisions]], gammas: Mapping[str, Discount]
) -> tuple[QCalibration, ...]:
    """Q in the agent's own play, game by game."""
    found = []
    for game, episodes in decisions.items():
        returns = [realised_returns(episode.rewards, episode.terminated, gammas[game].gamma) for episode in episodes]
        q = np.concatenate([episode.q for episode in episodes])
        realised, complete = (np.concatenate(part) for part in zip(*returns, strict=True))
        repeats = sum(any(map(one.repeats, episodes[:place])) for place, one in enumerate(episodes))
        distinct = len(episodes) - repeats
        found.append(q_calibration(game, mode, gammas[game], len(episodes), distinct, q, realised, complete))
    return tuple(found)


def _bins(q: Floats, realised: Floats) -> tuple[QBin, ...]:
    if not len(q):
        return ()
    # Equal values stay together, or their order would be mistaken for a ranking.
    edges = np.unique(np.quantile(q, np.arange(1, BINS) / BINS))
    place = np.searchsorted(edges, q, side="left")
    return tuple(
        QBin(
            int(here.sum()),
            float(q[here].mean()),
            float(realised[here].mean()),
            *map(float, np.quantile(realised[here], [0.25, 0.75])),
        )
        for here in (place == number for number in range(len(edges) + 1))
        if here.any()
    )
