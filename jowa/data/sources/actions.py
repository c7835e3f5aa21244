"""Sources number the actions of a game's minimal set; the store has ALE's full 18."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.errors import UserError
from jowa.games import legal_actions


def full_actions(indices: NDArray[Any], game: str, where: str) -> NDArray[np.uint8]:
    """Translate indices (T,) into the game's minimal set into indices (T,) uint8 into the full 18.

    Raises:
        UserError: an index lies outside the set; the sentence begins with `where`.
    """
    legal = np.array(legal_actions(game), np.uint8)
    outside = (indices < 0) | (indices >= len(legal))
    if outside.any():
        raise UserError(
            f"{where} has the action {indices[outside][0]}, but {game}'s actions go from 0 to {len(legal) - 1}."
        )
    return legal[indices]
