"""Batches in a few sizes, so that what is recorded or compiled for one size serves many."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.planning.dream import Context, Needs, Nodes
from jowa.planning.tree_dream import TreeDream


def bucket(environments: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, … that is not smaller, so less than half is added."""
    power = 1 << (environments - 1).bit_length()
    return power * 3 // 4 if power >= 4 and environments <= power * 3 // 4 else power


class BucketedDream:
    """A dream of as many environments as fill a bucket: the last one is dreamed again and again to fill it."""

    def __init__(self, dream: TreeDream) -> None:
        self._dream = dream
        self._count = 0
        self._filled = torch.zeros(0, dtype=torch.int64)  # (bucket,), which environment each row is

    @torch.inference_mode()
    def reset(self, context: Context, room: int = 0, depth: int | None = None) -> Nodes:
        """As the dream's own."""
        self._count = len(context.lengths)
        every = torch.arange(bucket(self._count), device=context.lengths.device)
        self._filled = every.clamp(max=self._count - 1)
        nodes = self._dream.reset(context.rows(self._filled), room, depth)
        self._filled = self._filled.to(nodes.ids.device)
        return self._real(nodes)

    @torch.inference_mode()
    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        """As the dream's own."""
        return self._real(self._dream.expand(parent[self._filled], action[self._filled]))

    def keep(self, ids: Tensor) -> None:
        """As the dream's own."""
        self._dream.keep(ids[self._filled])

    def codes(self, ids: Tensor) -> Tensor:
        """As the dream's own."""
        return self._dream.codes(ids[self._filled])[: self._count]

    def environments(self, count: int, frames: int, needs: Needs) -> int:
        """As the dream's own, what fills the bucket included."""
        most = self._dream.environments(bucket(count), frames, needs)
        while bucket(most) > most:
            most -= 1
        return min(count, most)

    def _real(self, nodes: Nodes) -> Nodes:
        return Nodes(*(part[: self._count] for part in (nodes.ids, nodes.reward, nodes.continuation, nodes.q)))
