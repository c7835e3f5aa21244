"""Films of play: the opening of one episode and what was planned at each decision."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECISIONS_PER_SECOND = 15  # the game's own speed: 60 frames a second, 4 frames a decision


@dataclass(frozen=True)
class Thoughts:
    """What the planner had in mind at each of T decisions: R futures, best first, of up to H agent steps.

    Attributes:
        legal: (n,) int64, the game's legal actions.
        q: (T, A), expected Q at the frame.
        scores: (T, R), -inf where there were fewer futures.
        first_actions: (T, R) int64; actions: (T, R, H) int64, along each future.
        frames: (T, R, H, K) int64 imagined codes, or (T, R, H, 84, 84) uint8 once they are decoded. H is 0 in greedy
            play.
        rewards, continuations: (T, R, H), as predicted.
    """

    legal: NDArray[np.int64]
    q: NDArray[Any]
    scores: NDArray[Any]
    first_actions: NDArray[Any]
    actions: NDArray[Any]
    frames: NDArray[Any]
    rewards: NDArray[Any]
    continuations: NDArray[Any]


@dataclass(frozen=True)
class Film:
    """The opening of one episode: frames (T, 84, 84) uint8, the action (T,) played
    and the reward (T,) received at each.

    `seen` is what remains of the frames when they pass through the tokenizer, of the same shape, or None.
    """

    game: str
    mode: str
    frames: NDArray[np.uint8]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    seen: NDArray[np.uint8] | None = None
    thoughts: Thoughts | None = None
