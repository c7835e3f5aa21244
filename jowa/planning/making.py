"""The planner and the dream that configurations name."""

from __future__ import annotations

import copy

from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.buckets import BucketedDream
from jowa.planning.compiled import CompiledTrunk
from jowa.planning.config import PlannerConfig
from jowa.planning.decoder import BlockDecoder, Decoder, likeliest
from jowa.planning.drafting import DraftingDecoder, FewDrafted
from jowa.planning.execution import DRAFT_ROWS, ExecutionConfig
from jowa.planning.graphs import GraphedDecoder
from jowa.planning.greedy import Greedy
from jowa.planning.mcts import MonteCarloTreeSearch
from jowa.planning.planner import Planner
from jowa.planning.tree_dream import TreeDream


def make_planner(config: PlannerConfig) -> Planner:
    """The planner a checked configuration of one game names."""
    if config.name == "published":
        raise ValueError("published settings belong to a game: take those of for_game()")
    if config.name == "greedy":
        return Greedy()
    if config.name == "mcts":
        return MonteCarloTreeSearch(
            config.simulations,
            config.horizon,
            config.temperature,
            config.gamma,
            config.choice,
            config.use_termination,
        )
    return BeamSearch(config.width, config.horizon, config.gamma, config.use_termination, config.tie_tolerance)


def make_dream(model: WorldActionModel, config: ExecutionConfig) -> TreeDream | BucketedDream:
    """Imagination in a model that is on its device already."""
    if config.precision == "bf16":
        support, model = model.support, copy.deepcopy(model).bfloat16()
        model.support = support
    on_gpu = model.device.type == "cuda"
    decode: Decoder = BlockDecoder(model, likeliest)
    if config.compile:
        decode = BlockDecoder(model, likeliest, CompiledTrunk(model), static=True)
    graphed = on_gpu and config.graphs
    if graphed:
        decode = GraphedDecoder(model, decode)
    rows = config.draft_rows if config.draft_rows is not None else 0 if on_gpu else DRAFT_ROWS
    if rows:
        decode = FewDrafted(DraftingDecoder(model), decode, rows)
    memory = None if config.memory is None else int(config.memory * 2**30)
    dream = TreeDream(model, decode=decode, memory=memory, graphed=graphed, draft_rows=rows)
    return BucketedDream(dream) if graphed or config.compile else dream
