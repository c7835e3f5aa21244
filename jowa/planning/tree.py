"""Where the nodes of N imagined trees lie in a key-value cache: slots, positions and who may attend to whom.

Slots: first the prefix (the context's L frames with their actions, the last frame without), then room for a number of
blocks of K + 1 slots, the action that led to a node and its frame's K codes. The root's block is the prefix itself. The
B blocks that grow together are interleaved, first all their actions, then all their first codes and so on, so that at
every moment of decoding the slots written so far come before all others. A path is read through an attention bias;
blocks are copied only when those no longer needed make place for others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

ALIGNMENT = 16
"""Rows of a bias begin at multiples of so many numbers, which fused attention on a GPU asks for."""


class Growth(NamedTuple):
    """B new nodes in each of N trees, as their decoding needs them.

    Attributes:
        slots: (K + 1, B) int64, where each token's keys and values go, the same in all trees.
        positions: (K + 1, N, B) int64, the tokens' positions in their sequences.
        bias: (N, 1, B, S), 0 at the slots of a node's path and of its own block, else -inf.
        padded: whether slots that are not taken yet may follow those of the new blocks.
    """

    slots: Tensor
    positions: Tensor
    bias: Tensor
    padded: bool


class Tree:
    """The shape of N trees that grow by B nodes at a time; ids are the same range in all of them.

    Args:
        codes: (N, K) int64, the roots' codes.
        lengths: (N,) int64, frames in each environment's prefix, at most `frames`.
        frames: L, frames there is room for in the prefix.
        room: P, blocks there is room for behind it.
        dtype: of the biases.
        step: biases cover a multiple of so many blocks, which keeps the number of their shapes small.
    """

    def __init__(
        self, codes: Tensor, lengths: Tensor, frames: int, room: int, dtype: torch.dtype, step: int = 1
    ) -> None:
        self.tokens_per_block = codes.shape[1] + 1
        self.prefix_slots = frames * self.tokens_per_block - 1
        self.lengths = lengths
        self.codes = codes[:, None]  # (N, M, K), M nodes so far
        self.depth = torch.zeros_like(lengths)[:, None]  # (N, M), 0 at the root
        self._room = room
        self._dtype = dtype
        self._step = step
        self._growths = 0  # no path is longer than this
        self._places = 0  # blocks taken, of the P there are
        self._paths = torch.zeros(codes.shape[0], 1, room, dtype=torch.bool, device=codes.device)  # (N, M, P)
        # Where token t of the block in place p lies: first[p] + t * stride[p].
        self._first, self._stride = (torch.zeros(0, dtype=torch.int64, device=codes.device) for _ in range(2))
        self._place = self._first  # (S behind the prefix,), the inverse: which block's a slot is
        slots = torch.arange(self.prefix_slots, device=codes.device)
        self._prefix_open = slots < (lengths * self.tokens_per_block - 1)[:, None]  # (N, prefix slots)

    @property
    def nodes(self) -> int:
        """M, the number of nodes in each tree."""
        return self.depth.shape[1]

    def grow(self, parent: Tensor) -> Growth:
        """Add B nodes below `parent` (N, B); their codes follow with `add_codes`.

        Raises:
            ValueError: if there is no room for them.
        """
        children = parent.shape[1]
        if self._places + children > self._room:
            raise ValueError(
                f"the dream has room for {self._room} imagined frames in each tree and {self._places} are taken, so "
                f"{children} more do not fit: ask for more room at reset()"
            )
        inherited = self._paths.gather(1, parent[:, :, None].expand(-1, -1, self._room))
        depth = self.depth.gather(1, parent) + 1
        slots = self._new_slots(children)
        growth = Growth(slots, self._positions(depth), self._bias(inherited, children), self._step > 1)
        own = torch.eye(children, self._room, dtype=torch.bool, device=parent.device).roll(self._places, dims=1)
        self._paths = torch.cat((self._paths, inherited | own), dim=1)
        self.depth = torch.cat((self.depth, depth), dim=1)
        self._places += children
        self._growths += 1
        return growth

    def add_codes(self, codes: Tensor) -> None:
        """Note the codes (N, B, K) of the nodes added last."""
        self.codes = torch.cat((self.codes, codes), dim=1)

    def keep(self, ids: Tensor) -> tuple[int, Tensor] | None:
        """Free the places of all blocks but those on the paths to `ids` (N, W), if that frees any for certain.

        Returns:
            The first of the slots that now hold the blocks kept, and the slots (N, T) these were in until now.
        """
        kept = min(self._places, ids.shape[1] * self._growths)
        if kept == self._places:
            return None
        needed = self._paths.gather(1, ids[:, :, None].expand(-1, -1, self._room)).any(dim=1)
        places = needed[:, : self._places].byte().argsort(dim=1, descending=True, stable=True)[:, :kept]
        still = self._paths.gather(2, places[:, None].expand(-1, self.nodes, -1))
        self._paths = pad(still, (0, self._room - kept))
        token = torch.arange(self.tokens_per_block, device=ids.device)[:, None]
        old = self._first[places][:, None] + token * self._stride[places][:, None]  # (N, K + 1, kept)
        self._first, self._stride, self._place = (part[:0] for part in (self._first, self._stride, self._place))
        self._places = 0
        self._new_slots(kept)
        self._places = kept
        return self.prefix_slots, old.flatten(1)

    def _new_slots(self, children: int) -> Tensor:
        """Take the next places for so many blocks: their slots (K + 1, B)."""
        device = self._first.device
        first = self.prefix_slots + self._places * self.tokens_per_block
        slots = first + torch.arange(self.tokens_per_block * children, device=device).view(-1, children)
        self._first = torch.cat((self._first, slots[0]))
        self._stride = torch.cat((self._stride, torch.full((children,), children, device=device)))
        places = self._places + torch.arange(children, device=device)
        self._place = torch.cat((self._place, places.repeat(self.tokens_per_block)))
        return slots

    def _positions(self, depth: Tensor) -> Tensor:
        """Positions (K + 1, N, B) of the tokens of nodes at a depth (N, B)."""
        # The prefix ends one token short of a whole block: the action that is still to be chosen begins the child's.
        first = (self.lengths[:, None] + depth - 1) * self.tokens_per_block - 1
        return first + torch.arange(self.tokens_per_block, device=depth.device)[:, None, None]

    def _bias(self, inherited: Tensor, children: int) -> Tensor:
        """The bias of children that follow their parents' paths (N, B, P), once their own slots are taken."""
        count, device = inherited.shape[0], inherited.device
        old = self._place[: self._places * self.tokens_per_block]
        prefix = self._prefix_open[:, None].expand(-1, children, -1)
        own = torch.eye(children, dtype=torch.bool, device=device).repeat(1, self.tokens_per_block)
        open_slots = torch.cat((prefix, inherited[:, :, old], own.expand(count, -1, -1)), dim=2)
        covered = min(self._room, -(-(self._places + children) // self._step) * self._step)
        open_slots = pad(open_slots, (0, (covered - self._places - children) * self.tokens_per_block))
        slots = open_slots.shape[2]
        bias = torch.zeros(count, children, slots + -slots % ALIGNMENT, dtype=self._dtype, device=device)
        return bias[:, None, :, :slots].masked_fill_(~open_slots[:, None], float("-inf"))


def slots_for(frames: int, room: int, tokens_per_block: int) -> int:
    """Slots that a prefix of so many frames and room for so many blocks take in a cache."""
    return (frames + room) * tokens_per_block - 1
