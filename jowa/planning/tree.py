"""Where the nodes of N imagined trees lie in a key-value cache: slots, positions and who may attend to whom.

Slots: first the prefix (the context's L frames with their actions, the last frame without), then one block of K + 1
slots a node in order of its id: the action that led to it, then its frame's K codes. The root's block is the prefix
itself. A block is written once and never moved or copied; a path is read through an attention mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


class Tree:
    """The shape of N trees that grow by B nodes at a time; ids are the same range in all of them.

    Args:
        codes: (N, K) int64, the roots' codes.
        lengths: (N,) int64, frames in each environment's prefix, at most `frames`.
        frames: L, frames there is room for in the prefix.
        blocks: frames the model sees at most, real and imagined.
    """

    def __init__(self, codes: Tensor, lengths: Tensor, frames: int, blocks: int) -> None:
        self.tokens_per_block = codes.shape[1] + 1
        self.prefix_slots = frames * self.tokens_per_block - 1
        self.lengths = lengths
        self.codes = codes[:, None]  # (N, M, K), M nodes so far
        self._blocks = blocks
        self._frames_bound = frames  # no path has more frames than this
        self._depth = torch.zeros_like(lengths)[:, None]  # (N, M), 0 at the root
        # (N, M, M - 1): whether a node's path from the root runs through a block; the root has none of its own.
        self._lineage = torch.zeros(codes.shape[0], 1, 0, dtype=torch.bool, device=codes.device)
        slots = torch.arange(self.prefix_slots, device=codes.device)
        self._prefix_visible = slots < (lengths * self.tokens_per_block - 1)[:, None]  # (N, prefix slots)

    @property
    def nodes(self) -> int:
        """M, the number of nodes in each tree."""
        return self._depth.shape[1]

    def check_room(self, parent: Tensor) -> None:
        """Refuse children of `parent` (N, B) that would lie beyond the frames the model sees.

        The exact test would wait for the device, so it is only made when the number of growths since the root
        does not already show that there is room: a beam within its horizon never gets there.

        Raises:
            ValueError: if a path would be too long.
        """
        if self._frames_bound < self._blocks:
            return
        frames = self.lengths[:, None] + self._depth.gather(1, parent) + 1
        if bool((frames > self._blocks).any()):
            raise ValueError(
                f"a path may hold {self._blocks} frames, context and imagined steps together: "
                f"give fewer frames of context or look fewer steps ahead"
            )

    def grow(self, parent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add B nodes below `parent` (N, B); their codes follow with `add_codes`.

        Returns:
            slots: (B,) int64, the first slot of each new block, the same in all trees.
            positions: (N, B) int64, each new block's first position in its sequence.
            visible: (N, B, S) bool, the slots of each new node's path, without its own block, among all S slots.
        """
        children = parent.shape[1]
        device = parent.device
        inherited = self._lineage.gather(1, parent[:, :, None].expand(-1, -1, self.nodes - 1))
        own = torch.eye(children, dtype=torch.bool, device=device).expand(parent.shape[0], -1, -1)
        path = pad(inherited, (0, children)).repeat_interleave(self.tokens_per_block, dim=2)
        visible = torch.cat((self._prefix_visible[:, None].expand(-1, children, -1), path), dim=2)
        first = self.prefix_slots + (self.nodes - 1) * self.tokens_per_block
        slots = first + self.tokens_per_block * torch.arange(children, device=device)

        depth = self._depth.gather(1, parent) + 1
        # The prefix ends one token short of a whole block: the action that is still to be chosen begins the child's.
        positions = (self.lengths[:, None] + depth - 1) * self.tokens_per_block - 1
        self._lineage = torch.cat((pad(self._lineage, (0, children)), torch.cat((inherited, own), dim=2)), dim=1)
        self._depth = torch.cat((self._depth, depth), dim=1)
        self._frames_bound += 1
        return slots, positions, visible

    def add_codes(self, codes: Tensor) -> None:
        """Note the codes (N, B, K) of the nodes added last."""
        self.codes = torch.cat((self.codes, codes), dim=1)
