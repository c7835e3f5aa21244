"""How the tokenizer spends its codes on the frames of each game."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.evaluation.diagnostics.world_model import ALL_GAMES


@dataclass(frozen=True)
class CodebookUse:
    """One game's use of a `vocabulary` of codes, or all games' pooled, in `frames` frames.

    `used` codes occur at all. `perplexity` is how many codes used equally often would be as hard to guess, and
    `commonest` the share of the code that occurs most. `counts` (V,) is how often each code occurs.
    """

    game: str
    frames: int
    vocabulary: int
    used: int
    perplexity: float
    commonest: float
    counts: tuple[int, ...]


def codebook_use(counts: Mapping[str, NDArray[np.int64]], tokens_per_frame: int) -> tuple[CodebookUse, ...]:
    """From each game's counts (V,), of which none is empty: all games pooled first, if several, then each."""
    parts = dict(counts)
    if len(parts) > 1:
        parts = {ALL_GAMES: np.sum(list(counts.values()), axis=0)} | parts
    return tuple(_use(game, own, tokens_per_frame) for game, own in parts.items())


def _use(game: str, counts: NDArray[np.int64], tokens_per_frame: int) -> CodebookUse:
    shares = counts[counts > 0] / counts.sum()
    return CodebookUse(
        game=game,
        frames=int(counts.sum()) // tokens_per_frame,
        vocabulary=len(counts),
        used=len(shares),
        perplexity=float(np.exp(-(shares * np.log(shares)).sum())),
        commonest=float(shares.max()),
        counts=tuple(counts.tolist()),
    )
