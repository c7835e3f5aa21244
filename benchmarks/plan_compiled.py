"""Dreams that are compiled or replayed, and whether they stay compiled."""

from __future__ import annotations

from itertools import product

import torch
from plan_counts import random_contexts
from torch._dynamo.utils import counters

from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.buckets import BucketedDream
from jowa.planning.compiled import CompiledTrunk
from jowa.planning.decoder import BlockDecoder, Decoder, likeliest
from jowa.planning.execution import ExecutionConfig
from jowa.planning.graphs import GraphedDecoder
from jowa.planning.making import make_dream
from jowa.planning.tree_dream import TreeDream


def compiled_dream(model: WorldActionModel, backend: str = "inductor", graphed: bool = False) -> BucketedDream:
    """What `execution.compile=true` makes, but for the backend and with graphs only where asked for."""
    # A fallback to eager, once there are too many shapes, would look like a run without recompiles.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    decode: Decoder = BlockDecoder(model, likeliest, CompiledTrunk(model, backend), static=True)
    return BucketedDream(TreeDream(model, decode=GraphedDecoder(model, decode) if graphed else decode))


def graphed_dream(model: WorldActionModel) -> TreeDream | BucketedDream:
    """What `execution.graphs=true` makes on a GPU."""
    return make_dream(model, ExecutionConfig())


def recompiles(
    model: WorldActionModel, dream: BucketedDream, environments: list[int], contexts: list[int], width: int,
    horizon: int,
) -> dict[str, int]:  # fmt: skip
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
