"""The trunk, compiled once for each shape that decoding has."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.models.transformer import KeyValueCache
from jowa.models.world_action_model import WorldActionModel

MOST_SHAPES = 256
"""Shapes compiled before it is an error: batch buckets times rounds of a search times planners."""


class CompiledTrunk:
    """The model's trunk for a decoder whose positions all have the same shapes (`static`).

    There are no graph breaks, and what was compiled for a shape serves every later call of it.
    """

    def __init__(self, model: WorldActionModel, backend: str = "inductor") -> None:
        self._forward = torch.compile(model.trunk.forward, dynamic=False, fullgraph=True, backend=backend)

    def __call__(self, x: Tensor, cache: KeyValueCache, slots: Tensor, bias: Tensor) -> Tensor:
        # Eight shapes, torch's own limit, are fewer than a batch that shrinks goes through.
        with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
            hidden: Tensor = self._forward(x, cache, slots, bias)
        return hidden
