"""Random numbers that depend on an episode's seed and the step in it, and on nothing else.

So an episode can be played again alone, or beside any others, and meets the same chances.
"""

import numpy as np
from numpy.typing import NDArray

_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014): every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(seeds: NDArray[np.int64], steps: NDArray[np.int64], stream: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each pair of seed and step; different streams are unrelated. All (N,)."""
    x = _mix(seeds.astype(np.uint64) + _ODD)
    x = _mix(x + steps.astype(np.uint64) * _ODD + _ODD)
    x = _mix(x + np.array([stream], dtype=np.uint64) * _ODD + _ODD)
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def random_legal_actions(legal: NDArray[np.bool_], chances: NDArray[np.float64]) -> NDArray[np.int64]:
    """One legal action a row, each equally likely when `chances` (N,) is uniform in [0, 1). legal: (N, A)."""
    wanted = (chances * legal.sum(axis=1)).astype(np.int64)
    return np.argmax(legal.cumsum(axis=1) > wanted[:, None], axis=1).astype(np.int64)
