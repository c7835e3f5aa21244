"""Which episodes train and which are held out to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jowa.errors import UserError

Split = Literal["training", "held_out", "all"]


def held_out_episodes(game: str, names: Sequence[str], holdout: float) -> NDArray[np.bool_]:
    """Which of a game's episodes, given by their names in the store, are held out: (E,) bool.

    An episode's lot depends on the game and the episode's name alone, so that data that are added later, wherever they
    sort, leave the others where they were. The one exception: with two episodes or more (and `holdout` > 0) at least
    one is held out and at least one trains. UserError unless 0 <= holdout < 1.
    """
    if not 0 <= holdout < 1:
        raise UserError(f"data.holdout must be at least 0 and below 1, not {holdout}")
    lots = np.array([_lot(game, name) for name in names], np.float64)
    held_out = lots < holdout
    if len(names) >= 2 and holdout > 0:
        held_out[lots.argmin()] = True
        held_out[lots.argmax()] = False
    return held_out


def select_episodes(game: str, names: Sequence[str], holdout: float, split: Split) -> NDArray[np.int64]:
    """The numbers of the episodes that belong to the split, ascending: (n,) int64."""
    held_out = held_out_episodes(game, names, holdout)
    chosen = {"training": ~held_out, "held_out": held_out, "all": np.ones(len(names), np.bool_)}[split]
    return np.flatnonzero(chosen).astype(np.int64)


def _lot(game: str, episode: str) -> float:
    """A number in [0, 1) that looks random but is always the same."""
    digest = hashlib.blake2b(f"{game}/{episode}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64
