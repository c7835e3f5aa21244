"""The dream whose trunk is compiled, and whether it stays compiled."""

from __future__ import annotations

from itertools import product

import torch
from plan_counts import random_contexts
from torch._dynamo.utils import counters

from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.decoder import BlockDecoder
from jowa.planning.tree_dream import TreeDream


def compiled_dream(model: WorldActionModel, backend: str = "inductor") -> TreeDream:
    """A dream that decodes with a compiled trunk, of static shapes."""
    dream = TreeDream(model)
    # A fallback to eager, once there are too many shapes, would look like a run without recompiles.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 256
    trunk = torch.compile(model.trunk.forward, dynamic=False, backend=backend)
    dream._decode = BlockDecoder(model, dream._choose, trunk, static=True)
    return dream


def recompiles(
    model: WorldActionModel, dream: TreeDream, environments: list[int], contexts: list[int], width: int, horizon: int
) -> dict[str, int]:
    """Graph breaks, and graphs compiled in plans for every batch and context after each was planned for once."""
    planner = BeamSearch(width, horizon)

    def graphs(seed: int) -> int:
        for count, frames in product(environments, contexts):
            planner.plan(dream, *random_contexts(model, count, frames, seed))
        return int(counters["stats"]["unique_graphs"])

    torch._dynamo.reset()
    counters.clear()
    warm = graphs(seed=0)
    return {
        "graphs compiled in warm-up": warm,
        "graphs compiled after warm-up": graphs(seed=1) - warm,
        "graph breaks": sum(counters["graph_break"].values()),
    }
