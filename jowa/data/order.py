"""The data order: a pure function of (seed, epoch, step), the same whatever the number of processes.

A Feistel network is a permutation of 0..4^b-1 whatever its round function; walking its cycles until the value falls
below n makes it a permutation of 0..n-1. Any batch of an epoch is so computed in memory of the batch's size, and a
resumed run needs to know nothing but its step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.errors import UserError

BALANCES = ("proportional", "balanced")

_ROUNDS = 8
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


class Order:
    """Which sequences every training step takes, from several games whose sequences are numbered one after the other.

    proportional: an epoch takes every sequence once, so that a game counts by its size.
    balanced: an epoch takes as many sequences from every game as the largest one has. The largest game's come once
    each, a smaller game's go round and round, in an order of the game's own that goes on from epoch to epoch: after any
    number of whole epochs a game's sequences have been taken equally often, give or take one, where nothing is left
    over.

    An epoch ends with its last full batch; what is left over, fewer sequences than a batch, is not taken in it. These
    are any of the epoch's, other ones in each, and by so much the counts may differ further.
    """

    def __init__(self, counts: Mapping[str, int], seed: int, balance: str = "proportional") -> None:
        """Order the sequences of games that have `counts` of them.

        Raises:
            UserError: the order is to be balanced, but a game has no sequences.
        """
        if balance not in BALANCES:
            raise ValueError(f"balance must be one of {', '.join(BALANCES)}, not {balance!r}")
        self._seed, self._balanced = seed, balance == "balanced"
        self._games = tuple(counts)
        self._counts = np.array(list(counts.values()), np.int64)
        self._first = np.cumsum(self._counts) - self._counts
        empty = [game for game, count in counts.items() if not count]
        if self._balanced and empty:
            raise UserError(
                f"data.balance=balanced draws every game equally often, but {', '.join(empty)} has no sequences to "
                "train on: leave it out of data.games, or lower data.holdout."
            )

    def __len__(self) -> int:
        """Sequences an epoch takes, before what is left over is taken off."""
        if self._balanced:
            return len(self._counts) * int(self._counts.max(initial=0))
        return int(self._counts.sum())

    def batch(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """The sequences of one training step's global batch: (batch_size,) int64; UserError if an epoch is shorter."""
        turns = batch_indices(self._seed, step, batch_size, len(self))
        if not self._balanced:
            return turns
        largest = int(self._counts.max())
        games, turns = np.divmod(turns, largest)
        turns += step // steps_per_epoch(batch_size, len(self)) * largest
        sequences = np.empty_like(turns)
        for number in np.unique(games):
            count = int(self._counts[number])
            places = turns[games == number] % count
            sequences[games == number] = self._first[number] + permute(places, count, self._seed, self._games[number])
        return sequences


def permute(positions: NDArray[np.integer[Any]], total: int, seed: int, epoch: int | str) -> NDArray[np.int64]:
    """Where the permutation of 0..total-1 that belongs to (seed, epoch) sends each position.

    Args:
        positions: (n,) integers in 0..total-1.
        total: size of the permutation, at least 1.
        seed: a family of permutations.
        epoch: which one of the family: an epoch's number, or a game's name for an order that no epoch changes.

    Returns:
        (n,) int64.
    """
    if total < 1 or (positions.size and (positions.min() < 0 or positions.max() >= total)):
        raise ValueError(f"positions must lie in 0..{total - 1}")
    half = max(1, ((total - 1).bit_length() + 1) // 2)
    keys = _round_keys(seed, epoch)
    values = _feistel(positions.astype(np.uint64), half, keys)
    outside = np.flatnonzero(values >= total)
    while outside.size:
        values[outside] = _feistel(values[outside], half, keys)
        outside = outside[values[outside] >= total]
    return values.astype(np.int64)


def steps_per_epoch(batch_size: int, total: int) -> int:
    """Batches an epoch has; the rest of the sequences, fewer than a batch, wait for the next epoch's other order."""
    return total // batch_size


def check_batch_size(batch_size: int, total: int) -> None:
    """UserError unless `total` sequences fill at least one batch."""
    if batch_size < 1:
        raise UserError(f"training.batch_size must be at least 1, not {batch_size}")
    if total < batch_size:
        raise UserError(
            f"the data has {total} sequences, fewer than one batch of {batch_size}: lower training.batch_size or "
            "record more episodes with `python -m jowa.data.record`"
        )


def batch_indices(seed: int, step: int, batch_size: int, total: int) -> NDArray[np.int64]:
    """The sequences of one training step's global batch: (batch_size,) int64 in 0..total-1.

    Within an epoch (`total // batch_size` steps) no sequence comes twice. UserError if `total < batch_size`.
    """
    check_batch_size(batch_size, total)
    epoch, step_in_epoch = divmod(step, steps_per_epoch(batch_size, total))
    positions = step_in_epoch * batch_size + np.arange(batch_size, dtype=np.int64)
    return permute(positions, total, seed, epoch)


def rank_slice(batch_size: int, rank: int, ranks: int) -> slice:
    """The contiguous part of the global batch that belongs to `rank`; UserError if the batch can't be shared evenly."""
    if batch_size % ranks:
        raise UserError(
            f"training.batch_size {batch_size} cannot be divided among {ranks} processes: make it a multiple of {ranks}"
        )
    share = batch_size // ranks
    return slice(rank * share, (rank + 1) * share)


def _round_keys(seed: int, epoch: int | str) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)


def _feistel(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = np.uint64(half)
    mask = np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_A
    values = (values ^ (values >> np.uint64(27))) * _MIX_B
    return values ^ (values >> np.uint64(31))
