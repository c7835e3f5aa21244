"""What every source yields, whatever its files look like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SourceEpisode:
    """One episode of T agent steps; step t is (s_t, a_t, r_{t+1}, done_{t+1}).

    Attributes:
        frames: (T, 84, 84) uint8, grey, one frame a step, without the frame after the last action.
        actions: (T,) uint8, indices into ALE's full set of 18.
        rewards: (T,) float32, raw or clipped to [-1, 1] as the source has them.
        terminated: the game ended with the last step; False where the episode was truncated or cut.
        info: JSON-compatible facts about the episode.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    terminated: bool
    info: dict[str, Any] = field(default_factory=dict)
